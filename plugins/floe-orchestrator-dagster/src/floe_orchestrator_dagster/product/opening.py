"""Opens a product: artifacts, project and manifests become a plan."""

from __future__ import annotations

import gc
import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.environment import (
    CHECK_TYPES,
    overruled,
    types_left_out,
    value_of,
)
from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_bytes
from floe_orchestrator_dagster.plan import (
    LAYOUT,
    CompiledProduct,
    DbtManifest,
    ProductPlan,
    plan_product,
    resolve_computes,
    unknown_dependencies,
)
from floe_orchestrator_dagster.product.artifacts import (
    COMPILE,
    compiled_product,
    find_artifacts,
    read_compiled,
)
from floe_orchestrator_dagster.product.cache import content_of, digest_of, remembered
from floe_orchestrator_dagster.product.finding import PROJECT_ENV, find_project
from floe_orchestrator_dagster.product.prepare import (
    _MANIFEST_REMEDY,
    MAX_MANIFEST_BYTES,
    _is_prepared,
    _Parsing,
    _variant,
    install_packages,
    outline_product,
    parse_manifest,
)
from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.product.spec import _bears_name, _is_named, own_spec
from floe_orchestrator_dagster.product.surroundings import surroundings_of
from floe_orchestrator_dagster.schedules import schedule_checked_too
from floe_orchestrator_dagster.telemetry import span, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger(__name__)


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold off the garbage collector while much is made that is no garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@uncollected()
def open_product(
    directory: Path,
    *,
    product_name: str | None = None,
    progress: Callable[[str], None] = logger.info,
    force_parse: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Product:
    """Read, prepare and plan the product in `directory` (the one of definitions.py, or above).

    Parses the dbt project once per compute when its manifest is missing or stale, unless the
    environment says that it was prepared (``FLOE_PREPARED=1``). `variables` are dbt vars to parse
    and run with, laid over those of the plugin's config.

    Raises:
        ProductError: a file is missing or cannot be read; says which command makes it.
        PlanError: the product contradicts itself; lists every problem.
    """
    artifacts_path = find_artifacts(directory)
    compiled = read_compiled(artifacts_path, product_name)
    project_dir = find_project(compiled, artifacts_path.parent)
    if project_dir is None:
        raise ProductError(
            f"Cannot load product '{compiled.name}': no {DBT_PROJECT} in {artifacts_path.parent} "
            f"or above it. Compile into the dbt project (`{COMPILE}`), or set {PROJECT_ENV}."
        )
    return load_project(
        compiled,
        project_dir,
        spec=own_spec(compiled, project_dir, artifacts_path.parent),
        progress=progress,
        force_parse=force_parse,
        variables=variables,
    )


@uncollected()
def load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    *,
    spec: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = logger.info,
    force_parse: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Product:
    """Plan a compiled product on its dbt project; see `open_product`."""
    start(compiled.artifacts)
    with (
        span("floe.load", product_name=compiled.name, product_version=compiled.version),
        schedule_checked_too(compiled.name, spec or {}, compiled.config),
    ):
        return _load_project(
            compiled, project_dir, spec, progress, dict(variables or {}), force_parse=force_parse
        )


def _load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    spec: Mapping[str, Any] | None,
    progress: Callable[[str], None],
    variables: Mapping[str, Any],
    *,
    force_parse: bool,
) -> Product:
    outline = outline_product(compiled, project_dir, spec, variables)
    product, project, profile = outline.product, outline.project, outline.profile
    compiled, computes, target_dir = product.compiled, product.plan.computes, outline.target_dir
    target = computes[compiled.default_compute].target
    for warning in (
        *compiled.warnings,
        *overruled(os.environ, product.project_flags),
        *_other_target(target),
    ):
        logger.warning("%s", warning)
    # An image's own files are read-only where it runs: what was prepared is in it all the same.
    prepared = _is_prepared() and not force_parse
    made_dir = project.target_path / "floe" if prepared else target_dir
    manifests_dir = made_dir
    if product.variables != compiled.config.vars:
        # Nobody has prepared these.
        prepared, manifests_dir = False, _variant(target_dir, product.variables)
    if not _is_prepared():
        install_packages(outline, progress)
    parsing = _Parsing(product, project, profile, progress, prepared=prepared, force=force_parse)
    paths: dict[str, Path] = {}
    contents: dict[str, bytes] = {}
    for name in dict.fromkeys(compute.target for compute in computes.values()):
        paths[name] = parsing.manifest(manifests_dir / name)
        contents[name] = read_bytes(paths[name], MAX_MANIFEST_BYTES, _MANIFEST_REMEDY)
    left_out = types_left_out(os.environ) & CHECK_TYPES

    def make() -> ProductPlan:
        manifests = {
            name: without_types(parse_manifest(paths[name], data), left_out)
            for name, data in contents.items()
        }
        around = surroundings_of(project, product.variables)
        return plan_product(compiled, computes, manifests, surroundings=around)

    key = digest_of(
        [
            LAYOUT,
            content_of(compiled),
            content_of(computes),
            *sorted(left_out),
            *(part for name, data in contents.items() for part in (name, data)),
        ]
    )
    with span("floe.plan", product_name=compiled.name, product_version=compiled.version):
        plan = remembered(made_dir / "cache", ProductPlan, key, make)
    for warning in plan.warnings:
        logger.warning("%s", warning)
    return replace(product, plan=plan, manifest_paths=paths)


def _other_target(target: str) -> Iterator[str]:
    wanted = value_of("DBT_TARGET", os.environ)
    if wanted and wanted != target:
        yield (
            f"DBT_TARGET is '{wanted}', but the product's default compute names output "
            f"'{target}': that is built on. Name '{wanted}' under "
            "plugins.orchestrator.config.computes to change it."
        )


def without_types(manifest: DbtManifest, types: frozenset[str]) -> DbtManifest:
    """Return a manifest without the nodes of these resource types."""
    if not types:
        return manifest
    nodes = {uid: node for uid, node in manifest.nodes.items() if node.resource_type not in types}
    unit_tests = {} if "unit_test" in types else manifest.unit_tests
    return msgspec.structs.replace(manifest, nodes=nodes, unit_tests=unit_tests)


def product_of_artifacts(
    artifacts: Mapping[str, Any], project_dir: Path | None = None, *, guessed: bool = False
) -> Product:
    """Plan a product from a dictionary of artifacts, on its dbt project if one is known.

    Without a project the plan has the right names, graph and computes, and no dbt behind it.
    `guessed` tells that nobody has named `project_dir` for this product: it must show that it is
    the product's, by a floe.yaml, its own name, its profile's, or models for all transforms.

    Raises:
        PlanError: with every problem found.
        ProductError: the project is missing, or another product's.
    """
    compiled = compiled_product(artifacts)
    named = compiled.config.project_dir
    project = Path(named).absolute() if named else project_dir
    if project is None:
        return product_of_transforms(compiled)
    if not (project / DBT_PROJECT).is_file():
        raise ProductError(
            f"Cannot load product '{compiled.name}': there is no {DBT_PROJECT} in {project}. "
            "Correct project_dir."
        )
    project = project.resolve()
    spec = own_spec(compiled, project, project, named=not guessed)
    if guessed and not (
        spec or compiled.transforms or _is_named(compiled) or _bears_name(project, compiled.name)
    ):
        logger.warning(
            "Nothing tells that the dbt project in %s is that of product '%s', which names no "
            "model: it is left aside. Set %s to use it.",
            project,
            compiled.name,
            PROJECT_ENV,
        )
        return product_of_transforms(compiled)
    return load_project(compiled, project, spec=spec)


def product_of_transforms(compiled: CompiledProduct) -> Product:
    """Plan a product from its transforms alone."""
    outputs: dict[str, str] = {name: name for name in compiled.computes_named}
    for setting in compiled.config.computes.values():
        if setting.target is not None:
            outputs.setdefault(setting.target, setting.target)
    computes, problems = resolve_computes(compiled, outputs)
    plan = plan_product(compiled, computes, problems=[*problems, *unknown_dependencies(compiled)])
    return Product(plan=plan, compiled=compiled)
