"""Opens a product: makes a plan from artifacts, dbt project and manifests."""

from __future__ import annotations

import gc
import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.environment import (
    CHECK_TYPES,
    overruled,
    types_left_out,
    value_of,
)
from floe_orchestrator_dagster.plan import (
    LAYOUT,
    CompiledProduct,
    DbtManifest,
    ProductPlan,
    plan_product,
    resolve_computes,
    unknown_dependencies,
)
from floe_orchestrator_dagster.product.cache import content_of, digest_of, remembered
from floe_orchestrator_dagster.product.finding import PROJECT_ENV, FoundProject, find_product
from floe_orchestrator_dagster.product.prepare import (
    Outline,
    Preparation,
    Prepared,
    outline_product,
    parse_manifest,
    prepare,
    read_manifest,
)
from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.product.spec import bears_name, own_spec
from floe_orchestrator_dagster.product.surroundings import surroundings_of
from floe_orchestrator_dagster.schedules import adding_schedule_problems
from floe_orchestrator_dagster.telemetry import span, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the garbage collector while code creates many objects that stay."""
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
    """Read, prepare and plan the product in `directory`, the folder of definitions.py or above it.

    dbt parses the project once per target if its manifest is missing or stale, unless the product
    is already prepared (``FLOE_PREPARED=1``). `variables` are dbt vars to parse and run with; they
    override those of the plugin's config.

    Raises:
        ProductError: a file is missing or cannot be read; names the command that creates it.
        PlanError: the product contradicts itself; lists every problem.
    """
    located = find_product(directory, product_name)
    project = located.required_project("load")
    return load_project(
        located.compiled,
        project.directory,
        spec=own_spec(located.compiled, project, located.artifacts.parent),
        how=Preparation(progress, force_parse, variables or {}),
    )


@uncollected()
def load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    *,
    spec: Mapping[str, Any] | None = None,
    how: Preparation | None = None,
) -> Product:
    """Plan a compiled product on its dbt project; see `open_product`."""
    how = how or Preparation()
    start(compiled.artifacts)
    with (
        span("floe.load", product_name=compiled.name, product_version=compiled.version),
        adding_schedule_problems(compiled.name, spec or {}, compiled.config),
    ):
        outline = outline_product(compiled, project_dir, spec, how.variables)
        for warning in (
            *compiled.warnings,
            *overruled(os.environ, outline.product.project_flags),
            *_other_target(outline.target),
        ):
            logger.warning("%s", warning)
        prepared = prepare(outline, how)
        with span("floe.plan", product_name=compiled.name, product_version=compiled.version):
            plan = _planned(outline, prepared)
        for warning in plan.warnings:
            logger.warning("%s", warning)
        return replace(outline.product, plan=plan, manifest_paths=prepared.manifests)


def _planned(outline: Outline, prepared: Prepared) -> ProductPlan:
    """Return the plan of a prepared product, from the cache if the content is the same."""
    product = outline.product
    compiled, computes = product.compiled, product.plan.computes
    contents = {target: read_manifest(path) for target, path in prepared.manifests.items()}
    left_out = types_left_out(os.environ) & CHECK_TYPES

    def make() -> ProductPlan:
        manifests = {
            target: without_types(parse_manifest(prepared.manifests[target], data), left_out)
            for target, data in contents.items()
        }
        around = surroundings_of(outline.project, product.variables)
        return plan_product(compiled, computes, manifests, surroundings=around)

    key = digest_of(
        [
            LAYOUT,
            content_of(compiled),
            content_of(computes),
            *sorted(left_out),
            *(part for target, data in contents.items() for part in (target, data)),
        ]
    )
    return remembered(prepared.cache, ProductPlan, key, make)


def _other_target(target: str) -> Iterator[str]:
    wanted = value_of("DBT_TARGET", os.environ)
    if wanted and wanted != target:
        yield (
            f"DBT_TARGET is '{wanted}', but the product's default compute names output "
            f"'{target}', and dbt builds there. To build on '{wanted}', name it under "
            "plugins.orchestrator.config.computes."
        )


def without_types(manifest: DbtManifest, types: frozenset[str]) -> DbtManifest:
    """Return a manifest without the nodes of these resource types."""
    if not types:
        return manifest
    nodes = {uid: node for uid, node in manifest.nodes.items() if node.resource_type not in types}
    unit_tests = {} if "unit_test" in types else manifest.unit_tests
    return msgspec.structs.replace(manifest, nodes=nodes, unit_tests=unit_tests)


def product_of_artifacts(compiled: CompiledProduct, project: FoundProject | None) -> Product:
    """Plan a compiled product on its dbt project, or without one.

    Without a project, the plan has the right names, graph and computes, but dbt cannot build it. A
    project that only a search led to must show that it belongs to the product: by a floe.yaml, by
    its own name or its profile's, or by models for all transforms.

    Raises:
        PlanError: the product contradicts itself; lists every problem.
        ProductError: the project belongs to another product.
    """
    if project is None:
        return product_of_transforms(compiled)
    spec = own_spec(compiled, project, project.directory)
    belongs = spec or compiled.transforms or project.named
    if not (belongs or bears_name(project.directory, compiled.name)):
        logger.warning(
            "The dbt project in %s is not used: nothing shows that it belongs to product '%s', "
            "which names no model. Set %s to use it.",
            project.directory,
            compiled.name,
            PROJECT_ENV,
        )
        return product_of_transforms(compiled)
    return load_project(compiled, project.directory, spec=spec)


def product_of_transforms(compiled: CompiledProduct) -> Product:
    """Plan a product from its transforms alone."""
    outputs: dict[str, str] = {name: name for name in compiled.computes_named}
    for setting in compiled.config.computes.values():
        if setting.target is not None:
            outputs.setdefault(setting.target, setting.target)
    computes, problems = resolve_computes(compiled, outputs)
    plan = plan_product(compiled, computes, problems=[*problems, *unknown_dependencies(compiled)])
    return Product(plan=plan, compiled=compiled)
