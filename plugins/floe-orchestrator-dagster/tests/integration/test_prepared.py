"""Cached files of a product are reused for the same content, even if its directory is read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe_orchestrator_dagster.plan import LAYOUT
from floe_orchestrator_dagster.product import layout, opening
from kit.support import TinyProject


def test_a_prepared_product_writes_nothing_into_its_directory(
    tiny: TinyProject, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write({"a": "select 1 as id", "b": "select * from {{ ref('a') }}"})
    tiny.compile([{"name": "a"}, {"name": "b"}]).open()
    elsewhere = tmp_path_factory.mktemp("writable")
    before = set(tiny.directory.rglob("*"))
    monkeypatch.setenv("FLOE_PREPARED", "1")

    def not_here(_: Path) -> Path:
        return elsewhere

    # root may write anywhere, so simulate a directory that is read-only.
    monkeypatch.setattr(layout, "writable_dir", not_here)
    product = tiny.open()
    [manifest] = product.manifest_paths.values()
    assert manifest.is_relative_to(tiny.directory)
    run_dir = product.new_run_dir("run", "dev")
    assert run_dir.is_relative_to(elsewhere)
    assert (run_dir / "partial_parse.msgpack").is_file()
    assert set(tiny.directory.rglob("*")) == before


def test_a_plan_is_made_again_when_its_nodes_have_other_fields(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    first = tiny.open()
    again = tiny.open()
    kept = tiny.directory / "target" / "floe" / "cache"
    assert len([*kept.glob("ProductPlan-*")]) == 1
    assert again.plan == first.plan
    # Nodes are stored by position, so the plan of an earlier release would be misread.
    monkeypatch.setattr(opening, "LAYOUT", f"{LAYOUT} more")
    assert tiny.open().plan == first.plan
    assert len([*kept.glob("ProductPlan-*")]) == 2
