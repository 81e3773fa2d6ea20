"""Reads inputs of a build that no manifest contains: vars, and seeds too large for dbt to hash."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.plan import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from floe_orchestrator_dagster.dbt.project import DbtProject
    from floe_orchestrator_dagster.plan import DbtNode

_CHUNK_BYTES = 2**20


def surroundings_of(project: DbtProject, variables: Mapping[str, Any]) -> Surroundings:
    """Return the surroundings of a dbt project; it reads files only on request.

    `variables` are those that every dbt command gets; they override all others.
    """

    @cache
    def packages() -> Mapping[str, DbtProject]:
        """Return the project and its packages by name."""
        return {item.name: item for item in reversed((project, *project.packages))}

    @cache
    def visible(package: str) -> Mapping[str, Any]:
        """Return the vars that nodes of a package see, as dbt merges them."""
        merged: dict[str, Any] = {}
        for item in (packages().get(package, project), project):
            values = item.settings.get("vars") or {}
            scoped = values.get(package)
            merged |= values
            merged |= scoped if isinstance(scoped, dict) else {}
        return {**merged, **variables}

    def seed_content(seed: DbtNode) -> str:
        root = packages().get(seed.package_name, project).root
        return _digest_of_file(root / seed.original_file_path)

    return Surroundings(visible, seed_content)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ProductError(f"Cannot read {path}: {error.strerror}. Restore the seed.") from error
    return digest.hexdigest()
