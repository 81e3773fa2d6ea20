"""Finds a product's files: its artifacts, and its dbt project by one order of precedence."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.product.artifacts import COMPILE, find_artifacts, read_compiled

if TYPE_CHECKING:
    from floe_orchestrator_dagster.config import PluginConfig
    from floe_orchestrator_dagster.plan import CompiledProduct

PROJECT_ENV = "FLOE_PROJECT_DIR"


@dataclass(frozen=True, slots=True)
class Clues:
    """What says where a dbt project is; the first one that is set decides, in this order.

    Attributes:
        given: named by the code that made the plugin.
        configured: `project_dir` in plugins.orchestrator.config.
        environment: the value of `PROJECT_ENV`.
        start: where the artifacts are, or the working directory for artifacts without a file. It
            is searched, with the folders above it. Relative names start here, too.
        product: whose project it is, for errors.
    """

    start: Path
    given: str | Path | None = None
    configured: str | None = None
    environment: str | None = None
    product: str = ""


@dataclass(frozen=True, slots=True)
class FoundProject:
    """The directory of a dbt project; it is `named` unless it was searched for."""

    directory: Path
    named: bool


def find_project(clues: Clues) -> FoundProject | None:
    """Return the dbt project that the clues lead to; None where a search finds none.

    Raises:
        ProductError: a place that somebody has named holds no dbt project.
    """
    for source, named in (
        ("project_dir of the plugin's constructor", clues.given),
        ("project_dir in plugins.orchestrator.config", clues.configured),
        (PROJECT_ENV, clues.environment),
    ):
        if not named:
            continue
        path = clues.start / named
        if not (path / DBT_PROJECT).is_file():
            whose = f" of product '{clues.product}'" if clues.product else ""
            raise ProductError(
                f"Cannot find the dbt project{whose}: {source} is {path}, where there is no "
                f"{DBT_PROJECT}. Correct it, or remove it to search {clues.start} and above."
            )
        return FoundProject(path.resolve(), named=True)
    for folder in (clues.start, *clues.start.parents):
        if (folder / DBT_PROJECT).is_file():
            return FoundProject(folder, named=False)
    return None


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """What a plugin was made and configured with, for artifacts that come without a file."""

    project_dir: Path | None
    config: PluginConfig

    def find_project(self, config: PluginConfig, product: str = "") -> FoundProject | None:
        """Return the dbt project of artifacts with this config, which goes before the plugin's own.

        Raises:
            ProductError: a place that somebody has named holds no dbt project.
        """
        clues = Clues(
            start=Path.cwd(),
            given=self.project_dir,
            configured=config.project_dir or self.config.project_dir,
            environment=os.environ.get(PROJECT_ENV),
            product=product,
        )
        return find_project(clues)


@dataclass(frozen=True, slots=True)
class FoundProduct:
    """A compiled product, the file that it was read from, and its dbt project if there is one."""

    artifacts: Path
    compiled: CompiledProduct
    project: FoundProject | None

    def required_project(self, doing: str) -> FoundProject:
        """Return the dbt project of a product that cannot do without.

        Raises:
            ProductError: there is none; `doing` is the verb of what cannot be done.
        """
        if self.project is None:
            raise ProductError(
                f"Cannot {doing} product '{self.compiled.name}': no {DBT_PROJECT} in "
                f"{self.artifacts.parent} or above it. Compile into the dbt project "
                f"(`{COMPILE}`), or set {PROJECT_ENV}."
            )
        return self.project


def find_product(directory: Path, product_name: str | None = None) -> FoundProduct:
    """Return the product whose artifacts are in `directory`, its `target` folder or above it.

    Raises:
        ProductError: a file is missing, cannot be read, or is not of `product_name`.
        PlanError: the artifacts are not valid; lists every violation.
    """
    artifacts = find_artifacts(directory)
    compiled = read_compiled(artifacts, product_name)
    clues = Clues(
        start=artifacts.parent,
        configured=compiled.config.project_dir,
        environment=os.environ.get(PROJECT_ENV),
        product=compiled.name,
    )
    return FoundProduct(artifacts, compiled, find_project(clues))
