"""Fixtures of tests that run products for real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support import EXAMPLES, TinyProject, floe_compile, floe_product


@pytest.fixture(scope="session")
def compiled_template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Artifacts of a one-model product from the real compiler; tests put their models into it."""
    directory = tmp_path_factory.mktemp("template")
    compiled = floe_product(directory, "tiny", ["a"])
    artifacts: dict[str, Any] = json.loads(compiled.read_text())
    return artifacts


@pytest.fixture
def tiny(tmp_path: Path, compiled_template: dict[str, Any]) -> TinyProject:
    """An empty product named `tiny` on DuckDB."""
    return TinyProject(tmp_path, compiled_template)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an example product, compiled by the real floe CLI."""

    def copied(name: str) -> Path:
        directory = tmp_path / name
        shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("target", "logs"))
        floe_compile(directory, definitions=True)
        return directory

    return copied
