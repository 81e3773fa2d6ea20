"""Reads what decides results and is in no manifest: vars, and seeds too large for dbt to digest."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_yaml
from floe_orchestrator_dagster.plan import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from floe_orchestrator_dagster.plan import DbtNode

_CHUNK_BYTES = 2**20


def surroundings_of(
    project_dir: Path,
    dbt_project: Mapping[str, Any],
    packages_dir: Path,
    variables: Mapping[str, Any],
) -> Surroundings:
    """Return the surroundings of a dbt project; files are read when they are asked for.

    Args:
        project_dir: where the project is.
        dbt_project: its dbt_project.yml.
        packages_dir: where its packages are installed.
        variables: vars that every dbt command gets, which go before all others.
    """

    @cache
    def packages() -> Mapping[str, tuple[Path, Mapping[str, Any]]]:
        """Return where each package is, and its dbt_project.yml."""
        found = {str(dbt_project.get("name")): (project_dir, dbt_project)}
        for path in sorted(packages_dir.glob("*/dbt_project.yml")):
            project = read_yaml(path, "Run `dbt deps`.")
            found.setdefault(str(project.get("name")), (path.parent, project))
        return found

    @cache
    def visible(package: str) -> Mapping[str, Any]:
        """Return the vars that nodes of a package see, as dbt merges them."""
        merged: dict[str, Any] = {}
        own = packages().get(package, (project_dir, dbt_project))[1]
        for project in (own, dbt_project):
            said = project.get("vars") or {}
            scoped = said.get(package)
            merged |= said
            merged |= scoped if isinstance(scoped, dict) else {}
        return {**merged, **variables}

    def seed_content(seed: DbtNode) -> str:
        folder = packages().get(seed.package_name, (project_dir, dbt_project))[0]
        return _digest_of_file(folder / seed.original_file_path)

    return Surroundings(visible, seed_content)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ProductError(f"Cannot read {path}: {error.strerror}. Put the seed back.") from error
    return digest.hexdigest()
