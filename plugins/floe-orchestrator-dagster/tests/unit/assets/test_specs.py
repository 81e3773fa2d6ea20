"""Specs are the border between dbt's unique ids and Dagster's keys, in both directions."""

from __future__ import annotations

import dagster as dg

from floe_orchestrator_dagster.assets.specs import Specs
from kit.plans import plan, uid


def specs() -> Specs:
    return Specs(plan("raw.t > a > b", tests={"on_a": "a", "on_source": "raw.t"}))


def test_each_asset_and_check_is_found_again_by_its_key() -> None:
    made = specs()
    assert {made.unique_ids[spec.key] for spec in made.assets.values()} == {*made.assets}
    assert {made.check_ids[spec.key] for spec in made.checks.values()} == {*made.checks}
    assert made.unique_ids[dg.AssetKey("a")] == uid("a")
    assert made.check_ids[dg.AssetCheckKey(dg.AssetKey("a"), "on_a")] == uid("on_a", "test")


def test_the_checks_on_assets_and_sources_are_told_apart() -> None:
    made = specs()
    assert made.checks_on({uid("a"), uid("b")}) == [uid("on_a", "test")]
    assert made.checks_on({uid("raw.t")}) == [uid("on_source", "test")]
    assert made.checks_on(set()) == []
