"""Finds the dbt project of a product: one order of precedence for every door."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import ProductError

if TYPE_CHECKING:
    from floe_orchestrator_dagster.plan import CompiledProduct

PROJECT_ENV = "FLOE_PROJECT_DIR"


def find_project(compiled: CompiledProduct, start: Path) -> Path | None:
    """Return the dbt project directory: configured, from the environment, `start` or above it."""
    named = compiled.config.project_dir or os.environ.get(PROJECT_ENV)
    if named:
        path = Path(named) if Path(named).is_absolute() else start / named
        if not (path / DBT_PROJECT).is_file():
            source = "project_dir" if compiled.config.project_dir else PROJECT_ENV
            raise ProductError(
                f"Cannot load product '{compiled.name}': {source} is {path}, where there is no "
                f"{DBT_PROJECT}. Correct it, or remove it to search beside the artifacts."
            )
        return path.resolve()
    for folder in (start, *start.parents):
        if (folder / DBT_PROJECT).is_file():
            return folder
    return None
