"""The paths of a product's files, by name; no other room composes them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.files import private_dir, writable_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floe_orchestrator_dagster.dbt.project import DbtProject

# The directory for spools, for instance on a volume that outlives a pod.
SPOOL_ENV = "FLOE_LINEAGE_SPOOL"
_OURS = "floe"
_CACHE = "cache"
_TARGET = "target"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one product's files.

    Attributes:
        project_dir: the dbt project.
        target_path: the directory that dbt writes to; it is read-only in some images.
        own: our folder below `target_path`, or below a private directory of this user if
            `target_path` is not writable.
    """

    project_dir: Path
    target_path: Path
    own: Path

    @property
    def prepared(self) -> Layout:
        """The layout of the files that the image contains, which may be read-only."""
        return replace(self, own=self.target_path / _OURS)

    @property
    def manifests(self) -> Path:
        """The folder that contains one folder per dbt target, with its manifest."""
        return self.own

    @property
    def variants(self) -> Path:
        """The folder of manifests for launches with their own vars."""
        return self.own / "vars"

    @property
    def cache(self) -> Path:
        """The folder of remembered plans."""
        return self.own / _CACHE

    @property
    def runs(self) -> Path:
        """The folder that contains one folder per dbt run."""
        return self.own / "runs"

    @property
    def spool(self) -> Path:
        """The folder of waiting lineage events; see `spool_directory`."""
        return self.own / "lineage"

    @property
    def packages_lock(self) -> Path:
        """The lock for installing the project's packages."""
        return self.own / "deps.lock"

    def database(self, product: str) -> Path:
        """Return the path of the DuckDB file of a product whose output names no file."""
        return self.own.parent / f"{product}.duckdb"

    def profiles(self, content: str) -> Path:
        """Create and return the private directory of a profiles.yml with this content.

        After a new compile, a running worker still finds its older profile.
        """
        return private_dir("profiles", f"{self.project_dir}\n{content}")


def layout_of(project: DbtProject) -> Layout:
    """Return the layout of a dbt project; create its target path."""
    target_path = project.target_path
    return Layout(project.root, target_path, writable_dir(target_path) / _OURS)


def artifacts_places(directory: Path) -> Sequence[Path]:
    """Return the folders that may contain a product's artifacts, best first."""
    return (directory, directory / _TARGET, *directory.parents[:2])


def artifacts_cache(artifacts: Path) -> Path:
    """Return the folder that remembers the checked content of an artifacts file.

    It depends only on the path of the file, because the dbt project is not known yet.
    """
    folder = artifacts.parent
    target = folder if folder.name == _TARGET else folder / _TARGET
    return target / _OURS / _CACHE


def spool_directory(layout: Layout | None, product: str) -> Path:
    """Return the spool of a product: under `SPOOL_ENV`, in its layout, or in a private folder."""
    named = os.environ.get(SPOOL_ENV)
    if named:
        return Path(named) / product
    return layout.spool if layout else private_dir("lineage", product)
