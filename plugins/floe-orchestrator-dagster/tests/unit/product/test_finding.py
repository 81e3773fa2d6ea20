"""The order of precedence for a product's dbt project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.product.finding import Clues, FoundProject, find_project


def project(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "dbt_project.yml").touch()
    return directory


@pytest.fixture
def clues(tmp_path: Path) -> Clues:
    """Clues that each lead to a project."""
    for name in ("constructor", "configured", "environment"):
        project(tmp_path / name)
    start = project(tmp_path / "searched") / "target"
    start.mkdir()
    return Clues(
        start=start,
        constructor=tmp_path / "constructor",
        configured=str(tmp_path / "configured"),
        environment=str(tmp_path / "environment"),
        product="shop",
    )


def test_the_first_named_directory_decides(tmp_path: Path, clues: Clues) -> None:
    named: dict[str, Any]
    for name in ("constructor", "configured", "environment"):
        assert find_project(clues) == FoundProject(tmp_path / name, named=True)
        named = {name: None}
        clues = replace(clues, **named)
    assert find_project(clues) == FoundProject(tmp_path / "searched", named=False)


def test_an_empty_name_counts_as_none(tmp_path: Path, clues: Clues) -> None:
    clues = replace(clues, constructor=None, configured="", environment="")
    assert find_project(clues) == FoundProject(tmp_path / "searched", named=False)


def test_a_search_returns_the_nearest_folder_above(tmp_path: Path) -> None:
    outer = project(tmp_path / "outer")
    deep = outer / "a" / "b"
    deep.mkdir(parents=True)
    assert find_project(Clues(deep)) == FoundProject(outer, named=False)
    inner = project(outer / "a" / "inner")
    assert find_project(Clues(inner)) == FoundProject(inner, named=False)


def test_a_search_without_a_project_returns_none(tmp_path: Path) -> None:
    assert find_project(Clues(tmp_path)) is None


def test_a_relative_path_starts_where_the_search_starts(tmp_path: Path) -> None:
    project(tmp_path / "shop")
    (tmp_path / "artifacts").mkdir()
    located = find_project(Clues(tmp_path / "artifacts", configured="../shop"))
    assert located == FoundProject(tmp_path / "shop", named=True)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("constructor", "project_dir of the plugin's constructor"),
        ("configured", "project_dir in plugins.orchestrator.config"),
        ("environment", "FLOE_PROJECT_DIR"),
    ],
)
def test_a_named_directory_without_a_project_is_refused(
    name: str, source: str, tmp_path: Path
) -> None:
    project(tmp_path / "fallback")
    nothing = Clues(start=tmp_path / "fallback", **{name: "/nowhere"})
    with pytest.raises(ProductError) as caught:
        find_project(replace(nothing, product="shop"))
    assert str(caught.value) == (
        f"Cannot find the dbt project of product 'shop': {source} is /nowhere, which has no "
        f"dbt_project.yml. Correct it, or remove it to search {tmp_path / 'fallback'} and above."
    )
    with pytest.raises(ProductError, match=f"^Cannot find the dbt project: {source} is"):
        find_project(nothing)
