"""Finds the product's own floe.yaml among the specs around its dbt project."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_yaml
from floe_orchestrator_dagster.product.finding import PROJECT_ENV

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.plan import CompiledProduct
    from floe_orchestrator_dagster.product.finding import FoundProject

logger = logging.getLogger(__name__)

SPEC = "floe.yaml"


def read_spec(path: Path) -> Mapping[str, Any]:
    """Return `schedule` and `metadata` of the floe.yaml at `path`.

    floe-core drops `schedule` and `metadata.owner` at compile time, so the plugin reads them here.
    """
    content = read_yaml(path, "Correct it and compile again.")
    return {key: content[key] for key in ("schedule", "metadata") if key in content}


def own_spec(compiled: CompiledProduct, project: FoundProject, *folders: Path) -> Mapping[str, Any]:
    """Return the content of a product's own spec in `folders` and the project; see `read_spec`.

    It is {} if there is no such spec.

    Several products may share a dbt project, each with its own spec (`floe*.yaml`), and the spec of
    a product may be elsewhere. So the product's spec is the one with its name. If there are only
    specs of other products, their schedule and owner do not apply. The project then belongs to
    this product only if a user named it, or if the project or its profile has the product's name.

    Raises:
        ProductError: the project belongs to another product; names that product.
    """
    others: dict[Path, str] = {}
    for path in _specs_around((*folders, project.directory)):
        try:
            spec = read_spec(path)
        except ProductError:
            if path.name == SPEC:
                raise
            # Only its name resembles a spec's.
            continue
        metadata = spec.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if name == compiled.name or (name is None and path.name == SPEC):
            return spec
        if isinstance(name, str):
            others[path] = name
    if not others:
        return {}
    path, other = next(iter(others.items()))
    if not (project.named or bears_name(project.directory, compiled.name)):
        raise ProductError(
            f"Cannot load product '{compiled.name}' on the dbt project in {project.directory}: "
            f"that project belongs to product '{other}' ({path}). Compile '{compiled.name}' again "
            f"with its own floe.yaml. If both share this project, set {PROJECT_ENV} (or "
            "project_dir in plugins.orchestrator.config) to it, or add the spec of "
            f"'{compiled.name}' there as floe-{compiled.name}.yaml."
        )
    logger.warning(
        "%s belongs to product '%s': its schedule and owner are not used for '%s'. To set those of "
        "'%s', add its spec in the same folder as floe-%s.yaml.",
        path,
        other,
        *[compiled.name] * 3,
    )
    return {}


def bears_name(project_dir: Path, name: str) -> bool:
    """Return whether a dbt project, or the profile that it names, has a product's name."""
    project = read_project(project_dir)
    names = (project.name, project.settings.get("profile"))
    return name.replace("-", "_") in {str(each).replace("-", "_") for each in names}


def _around(folders: Sequence[Path]) -> Iterable[Path]:
    """Return the folders that may contain a spec: the first one, the one above it, the others."""
    return dict.fromkeys((folders[0], *folders[0].parents[:1], *folders[1:]))


def _specs_around(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in _around(folders):
        if (folder / SPEC).is_file():
            yield folder / SPEC
    for folder in _around(folders):
        yield from (path for path in sorted(folder.glob("floe*.y*ml")) if path.name != SPEC)
