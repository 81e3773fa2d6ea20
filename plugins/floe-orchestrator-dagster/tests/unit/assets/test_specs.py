"""Specs convert between dbt's unique ids and Dagster's keys."""

from __future__ import annotations

import dagster as dg

from floe_orchestrator_dagster.assets.specs import Specs
from kit.plans import plan, uid


def specs() -> Specs:
    return Specs(plan("raw.t > a > b", tests={"on_a": "a", "on_source": "raw.t"}))


def test_each_key_leads_back_to_its_asset_or_check() -> None:
    own = specs()
    assert {own.unique_ids[spec.key] for spec in own.assets.values()} == {*own.assets}
    assert {own.check_ids[spec.key] for spec in own.checks.values()} == {*own.checks}
    assert own.unique_ids[dg.AssetKey("a")] == uid("a")
    assert own.check_ids[dg.AssetCheckKey(dg.AssetKey("a"), "on_a")] == uid("on_a", "test")


def test_checks_are_listed_by_their_asset_or_source() -> None:
    own = specs()
    assert own.checks_on({uid("a"), uid("b")}) == [uid("on_a", "test")]
    assert own.checks_on({uid("raw.t")}) == [uid("on_source", "test")]
    assert own.checks_on(set()) == []
