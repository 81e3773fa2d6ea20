"""A planned product as a value, with the dbt commands on its files."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.command import DbtCommand
from floe_orchestrator_dagster.dbt.environment import adjusted
from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import DbtError, ProductError
from floe_orchestrator_dagster.files import is_in_use, mtime
from floe_orchestrator_dagster.product.finding import PROJECT_ENV
from floe_orchestrator_dagster.product.freshness import PARTIAL_PARSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from floe_core.plugins.lineage import LineageBackendPlugin

    from floe_orchestrator_dagster.config import PluginConfig
    from floe_orchestrator_dagster.plan import CompiledProduct, ProductPlan
    from floe_orchestrator_dagster.product.layout import Layout

RUNS_KEPT = 20


@dataclass(frozen=True)
class Product:
    """A planned product and the places of its files.

    `layout` is None for a product that was planned from its artifacts alone: it has the right
    names, graph and computes, but cannot be materialized. `variables` are the dbt vars that it was
    parsed with, and `project_flags` the project's own `flags`.
    """

    plan: ProductPlan
    compiled: CompiledProduct
    layout: Layout | None = None
    profiles_dir: Path | None = None
    profile: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    manifest_paths: Mapping[str, Path] = field(default_factory=dict)
    lineage_backend: LineageBackendPlugin | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    project_flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> PluginConfig:
        """The plugin's configuration for this product."""
        return self.compiled.config

    @property
    def project_dir(self) -> Path | None:
        """The dbt project, if there is one."""
        return self.layout.project_dir if self.layout else None

    def command(  # noqa: PLR0913  they are fields of DbtCommand
        self,
        verb: str,
        target: str,
        run_dir: Path,
        *,
        flags: Sequence[str] = (),
        variables: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> DbtCommand:
        """Return a dbt command on this product that writes its artifacts to `run_dir`.

        `variables` override those that the product was parsed with.

        Raises:
            ProductError: there is no dbt project.
        """
        if self.layout is None or self.profiles_dir is None:
            raise self._without_project()
        executable = self.executable(target)
        dbts = adjusted(
            os.environ,
            self.project_flags,
            selects=options.get("select") is not None,
        )
        return DbtCommand(
            verb=verb,
            project_dir=self.layout.project_dir,
            profiles_dir=self.profiles_dir,
            profile=self.profile,
            target=target,
            target_path=run_dir,
            executable=executable,
            flags=(*flags, *dbts.flags),
            variables={**self.variables, **(variables or {})},
            environment={**dbts.environment, **(environment or {})},
            **options,
        )

    def executable(self, target: str) -> str | None:
        """Return the dbt other than dbt-core that builds a target; None for dbt-core."""
        computes = self.plan.computes.values()
        return next((c.dbt_executable for c in computes if c.target == target), None)

    def new_run_dir(self, name: str, target: str) -> Path:
        """Return a directory for one dbt run, with a partial parse; remove old directories.

        Raises:
            ProductError: there is no dbt project, or the folder of runs is a link.
            DbtError: the directory cannot be written.
        """
        if self.layout is None:
            raise self._without_project()
        runs = self.layout.runs
        path = runs / name
        if runs.is_symlink():
            # Old runs are removed, and a link could lead to directories that are not ours.
            raise ProductError(f"Cannot use {runs}: it is a link. Remove it.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if target in self.manifest_paths:
                seed = self.manifest_paths[target].with_name(PARTIAL_PARSE)
                if seed.is_file():
                    shutil.copyfile(seed, path / seed.name)
            # Age alone does not decide: a long run must keep its directory, and so must a new run
            # after the clock has jumped.
            for old in sorted(runs.iterdir(), key=mtime)[:-RUNS_KEPT]:
                if old != path and not is_in_use(old):
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise DbtError(
                f"Cannot prepare {path} for dbt: {error.strerror}. Make the folder writable, and "
                "free some space if its disk is full."
            ) from error
        return path

    def _without_project(self) -> ProductError:
        return ProductError(
            f"Cannot run dbt for product '{self.plan.name}': it has no dbt project. Set "
            f"{PROJECT_ENV} (or project_dir in plugins.orchestrator.config) to the directory "
            f"of {DBT_PROJECT}, or load the product with load_product_definitions()."
        )


def load_all_manifests(product: Product) -> Sequence[tuple[str, dict[str, Any]]]:
    """Return the raw manifest of each target, for users' own translators."""
    return [
        (target, json.loads(path.read_bytes())) for target, path in product.manifest_paths.items()
    ]
