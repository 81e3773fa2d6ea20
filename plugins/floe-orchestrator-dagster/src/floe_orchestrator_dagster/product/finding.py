"""Finds the artifacts and the dbt project of a product, in one order of precedence."""

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
    """Where the dbt project of a product may be; the first of these that is set decides.

    Attributes:
        constructor: `project_dir` of the plugin's constructor.
        configured: `project_dir` in plugins.orchestrator.config.
        environment: the value of `PROJECT_ENV`.
        start: the folder of the artifacts, or the working directory for artifacts without a file.
            Without any of the above, the project is in this folder or above it. Relative paths
            start here too.
        product: the name of the product, for errors.
    """

    start: Path
    constructor: str | Path | None = None
    configured: str | None = None
    environment: str | None = None
    product: str = ""


@dataclass(frozen=True, slots=True)
class FoundProject:
    """The directory of a dbt project; `named` is False if only a search led to it."""

    directory: Path
    named: bool


def find_project(clues: Clues) -> FoundProject | None:
    """Return the dbt project that the clues lead to; None if a search finds none.

    Raises:
        ProductError: a named directory has no dbt project.
    """
    for source, named in (
        ("project_dir of the plugin's constructor", clues.constructor),
        ("project_dir in plugins.orchestrator.config", clues.configured),
        (PROJECT_ENV, clues.environment),
    ):
        if not named:
            continue
        path = clues.start / named
        if not (path / DBT_PROJECT).is_file():
            whose = f" of product '{clues.product}'" if clues.product else ""
            raise ProductError(
                f"Cannot find the dbt project{whose}: {source} is {path}, which has no "
                f"{DBT_PROJECT}. Correct it, or remove it to search {clues.start} and above."
            )
        return FoundProject(path.resolve(), named=True)
    for folder in (clues.start, *clues.start.parents):
        if (folder / DBT_PROJECT).is_file():
            return FoundProject(folder, named=False)
    return None


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """The settings of a plugin, for artifacts without a file."""

    project_dir: Path | None
    config: PluginConfig

    def find_project(self, config: PluginConfig, product: str = "") -> FoundProject | None:
        """Return the dbt project of artifacts with this config; it overrides the plugin's own.

        Raises:
            ProductError: a named directory has no dbt project.
        """
        clues = Clues(
            start=Path.cwd(),
            constructor=self.project_dir,
            configured=config.project_dir or self.config.project_dir,
            environment=os.environ.get(PROJECT_ENV),
            product=product,
        )
        return find_project(clues)


@dataclass(frozen=True, slots=True)
class FoundProduct:
    """A compiled product, the path of its artifacts, and its dbt project if there is one."""

    artifacts: Path
    compiled: CompiledProduct
    project: FoundProject | None

    def required_project(self, doing: str) -> FoundProject:
        """Return the dbt project; `doing` is the verb that needs it, such as "load".

        Raises:
            ProductError: there is no project.
        """
        if self.project is None:
            raise ProductError(
                f"Cannot {doing} product '{self.compiled.name}': there is no {DBT_PROJECT} in "
                f"{self.artifacts.parent} or above it. Compile into the dbt project "
                f"(`{COMPILE}`), or set {PROJECT_ENV}."
            )
        return self.project


def find_product(directory: Path, product_name: str | None = None) -> FoundProduct:
    """Return the product whose artifacts are in `directory`, its `target` folder or above it.

    Raises:
        ProductError: a file is missing, cannot be read, or belongs to another product.
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
