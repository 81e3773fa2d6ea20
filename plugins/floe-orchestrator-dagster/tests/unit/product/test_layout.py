"""The paths of a product's files."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from floe_orchestrator_dagster.dbt.project import DbtProject
from floe_orchestrator_dagster.product.layout import (
    Layout,
    artifacts_cache,
    artifacts_places,
    layout_of,
    spool_directory,
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_of(DbtProject(tmp_path, {"target-path": "built"}))


def test_everything_of_a_product_is_below_dbts_target_path(tmp_path: Path, layout: Layout) -> None:
    assert layout == Layout(tmp_path, tmp_path / "built", tmp_path / "built" / "floe")
    assert layout.manifests == layout.own
    assert layout.database("shop") == tmp_path / "built" / "shop.duckdb"
    places = [
        layout.variants,
        layout.cache,
        layout.runs,
        layout.spool,
        layout.packages_lock,
    ]
    assert {place.parent for place in places} == {layout.own}
    assert len({*places}) == len(places)


def test_reading_a_path_creates_nothing(tmp_path: Path, layout: Layout) -> None:
    assert not layout.own.exists()
    assert [*tmp_path.iterdir()] == [layout.target_path]


def test_a_target_path_that_cannot_be_created_has_a_private_substitute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "built").write_text("a file, where a directory should be")
    layout = layout_of(DbtProject(tmp_path, {"target-path": "built"}))
    assert layout.own.is_relative_to(tmp_path / "temporary")
    assert stat.S_IMODE(layout.own.parent.stat().st_mode) == 0o700
    # Files of an image are still where dbt would have written them.
    assert layout.prepared == replace(layout, own=tmp_path / "built" / "floe")


def test_each_content_of_profiles_has_its_own_folder(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert layout.profiles("a") == layout.profiles("a")
    assert layout.profiles("a") != layout.profiles("b")
    assert layout.profiles("a") != replace(layout, project_dir=tmp_path / "x").profiles("a")
    assert stat.S_IMODE(layout.profiles("a").stat().st_mode) == 0o700


def test_artifacts_may_be_here_in_the_target_folder_or_in_two_folders_above() -> None:
    assert [str(path) for path in artifacts_places(Path("/a/b/c"))] == [
        "/a/b/c",
        "/a/b/c/target",
        "/a/b",
        "/a",
    ]


def test_checked_artifacts_are_remembered_in_the_target_folder(tmp_path: Path) -> None:
    kept = tmp_path / "target" / "floe" / "cache"
    assert artifacts_cache(tmp_path / "target" / "compiled_artifacts.json") == kept
    assert artifacts_cache(tmp_path / "compiled_artifacts.json") == kept


def test_the_path_of_the_spool(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOE_LINEAGE_SPOOL", raising=False)
    assert spool_directory(layout, "shop") == layout.own / "lineage"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = spool_directory(None, "shop")
    assert own.is_relative_to(tmp_path)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    monkeypatch.setenv("FLOE_LINEAGE_SPOOL", str(tmp_path / "volume"))
    assert spool_directory(layout, "shop") == tmp_path / "volume" / "shop"
