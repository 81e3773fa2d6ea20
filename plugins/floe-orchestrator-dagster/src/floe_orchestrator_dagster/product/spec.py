"""The product's own floe.yaml, among the specs around its dbt project."""

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
    """Return what is needed of the floe.yaml at `path`.

    floe-core drops `schedule` and `metadata.owner` at compile time, so they are read here.
    """
    content = read_yaml(path, "Correct it and compile again.")
    return {key: content[key] for key in ("schedule", "metadata") if key in content}


def own_spec(compiled: CompiledProduct, project: FoundProject, *folders: Path) -> Mapping[str, Any]:
    """Return what is needed of a product's own floe.yaml in `folders` and the project.

    {} where there is none; see `read_spec`.

    A dbt project may have several products, each with a spec of its own (`floe*.yaml`), and the
    spec of a product may lie elsewhere. So the product's spec is the one of its name. Where there
    are only other products' specs, their schedule and owner are left aside; and the project is not
    this product's, unless it is named for it, or bears its name, or has a profile of its name.

    Raises:
        ProductError: the project is another product's; says whose.
    """
    others: dict[Path, str] = {}
    for path in _specs_around((*folders, project.directory)):
        try:
            spec = read_spec(path)
        except ProductError:
            if path.name == SPEC:
                raise
            # It need not be a spec, but for its name.
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
            f"that is of product '{other}' ({path}). Compile '{compiled.name}' again with its own "
            f"floe.yaml; if it shares this project, set {PROJECT_ENV} (or project_dir in "
            "plugins.orchestrator.config) to it, or keep its spec there as floe-"
            f"{compiled.name}.yaml."
        )
    logger.warning(
        "%s is of product '%s': its schedule and owner are not used for '%s'. Keep the spec of "
        "'%s' beside it, as floe-%s.yaml, to use its own.",
        path,
        other,
        *[compiled.name] * 3,
    )
    return {}


def bears_name(project_dir: Path, name: str) -> bool:
    """Tell whether a dbt project, or the profile that it names, has a product's name."""
    project = read_project(project_dir)
    return name.replace("-", "_") in {
        str(found).replace("-", "_") for found in (project.name, project.settings.get("profile"))
    }


def _around(folders: Sequence[Path]) -> Iterable[Path]:
    """Return where a spec may be: beside the artifacts, above them, beside the project."""
    return dict.fromkeys((folders[0], *folders[0].parents[:1], *folders[1:]))


def _specs_around(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in _around(folders):
        if (folder / SPEC).is_file():
            yield folder / SPEC
    for folder in _around(folders):
        yield from (path for path in sorted(folder.glob("floe*.y*ml")) if path.name != SPEC)
