"""Where the files of a product are, by name: no other room puts such a path together."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.files import private_dir, writable_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floe_orchestrator_dagster.dbt.project import DbtProject

# Where spools are to be kept, for instance on a volume that outlives a pod.
SPOOL_ENV = "FLOE_LINEAGE_SPOOL"
_OURS = "floe"
_CACHE = "cache"
_TARGET = "target"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of one product's files.

    Attributes:
        project_dir: the dbt project.
        target_path: where dbt writes for this project; read-only in some images.
        own: our folder below `target_path`, or below a private directory of this user where
            `target_path` cannot be written to.
    """

    project_dir: Path
    target_path: Path
    own: Path

    @property
    def prepared(self) -> Layout:
        """The layout of what was built with the image, which need not be writable."""
        return replace(self, own=self.target_path / _OURS)

    @property
    def manifests(self) -> Path:
        """The folder in which each dbt target has a folder of its name, with its manifest."""
        return self.own

    @property
    def variants(self) -> Path:
        """The folder of manifests that launches with vars of their own were parsed for."""
        return self.own / "vars"

    @property
    def cache(self) -> Path:
        """The folder of remembered plans."""
        return self.own / _CACHE

    @property
    def runs(self) -> Path:
        """The folder in which each dbt run has a folder."""
        return self.own / "runs"

    @property
    def spool(self) -> Path:
        """The folder of lineage events that wait; see `spool_directory`."""
        return self.own / "lineage"

    @property
    def packages_lock(self) -> Path:
        """The lock of whoever installs the project's packages."""
        return self.own / "deps.lock"

    def database(self, product: str) -> Path:
        """Return the DuckDB file of a product whose output names none."""
        return self.own.parent / f"{product}.duckdb"

    def profiles(self, content: str) -> Path:
        """Create and return the private directory of a profiles.yml with this content.

        A worker that holds an older profile keeps it through a new compile.
        """
        return private_dir("profiles", f"{self.project_dir}\n{content}")


def layout_of(project: DbtProject) -> Layout:
    """Return the layout of a dbt project; its target path is created."""
    target_path = project.target_path
    return Layout(project.root, target_path, writable_dir(target_path) / _OURS)


def artifacts_places(directory: Path) -> Sequence[Path]:
    """Return where a product's artifacts may be, best first: here, in its target, above it."""
    return (directory, directory / _TARGET, *directory.parents[:2])


def artifacts_cache(artifacts: Path) -> Path:
    """Return where the checked content of an artifacts file is remembered.

    It is asked before the dbt project is known, so that it goes by the file's own place.
    """
    folder = artifacts.parent
    target = folder if folder.name == _TARGET else folder / _TARGET
    return target / _OURS / _CACHE


def spool_directory(layout: Layout | None, product: str) -> Path:
    """Return where a product's lineage waits: under `SPOOL_ENV`, its layout, or the user's own."""
    named = os.environ.get(SPOOL_ENV)
    if named:
        return Path(named) / product
    return layout.spool if layout else private_dir("lineage", product)
