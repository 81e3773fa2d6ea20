"""Planning: a compiled product and dbt's manifests become a `ProductPlan`, or one full error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import PlanError, Problem
from floe_orchestrator_dagster.plan.compiled import transform_problems
from floe_orchestrator_dagster.plan.manifest import SUPPORTED_SCHEMAS
from floe_orchestrator_dagster.plan.model import Node, ProductPlan
from floe_orchestrator_dagster.plan.names import distinct_checks
from floe_orchestrator_dagster.plan.place import Placer
from floe_orchestrator_dagster.plan.preflight import preflight
from floe_orchestrator_dagster.plan.quality import quality_nodes
from floe_orchestrator_dagster.plan.versions import Surroundings, with_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from floe_orchestrator_dagster.plan.compiled import CompiledProduct
    from floe_orchestrator_dagster.plan.manifest import DbtManifest
    from floe_orchestrator_dagster.plan.model import Compute


def plan_product(
    product: CompiledProduct,
    computes: Mapping[str, Compute],
    manifests: Mapping[str, DbtManifest] | None = None,
    problems: Iterable[Problem] = (),
    surroundings: Surroundings | None = None,
) -> ProductPlan:
    """Return the plan of a product.

    Args:
        product: the compiled product.
        computes: its computes, resolved (see `resolve_computes`).
        manifests: dbt's manifests by target. Without any, the plan is made of the transforms alone.
        problems: what was already found wrong, to be reported together with what is found here.
        surroundings: what decides results and is in no manifest.

    Raises:
        PlanError: with every problem found.
    """
    own = [*transform_problems(product)]
    found = [*problems, *own]
    manifests = manifests or {}
    warnings: list[str] = []
    if manifests:
        found += _manifest_problems(computes, manifests)
        placer = Placer(product, computes, manifests)
        nodes = placer.place()
        found += placer.problems
        warnings += placer.warnings
        if not found:
            nodes = with_versions(nodes, computes, manifests, surroundings or Surroundings())
    else:
        nodes = _nodes_of_transforms(product, computes, linked=not own)
    root = next((found.metadata.project_name for found in manifests.values()), None)
    renamed, told = distinct_checks(nodes, root)
    if renamed:
        nodes = {**nodes, **renamed}
    warnings += told
    plan = ProductPlan(
        name=product.name,
        nodes=nodes,
        computes=dict(computes),
        default_compute=product.default_compute,
        version=product.version,
        owner=product.owner,
        owners_of_group=_owners_of_group(manifests, root),
        exposures=_exposures(manifests),
        project_name=root,
        warnings=tuple(warnings),
    )
    found += preflight(plan, manifests)
    if found:
        raise PlanError(f"Cannot plan product '{product.name}'", found)
    return plan


def _nodes_of_transforms(
    product: CompiledProduct, computes: Mapping[str, Compute], *, linked: bool
) -> dict[str, Node]:
    names = {transform.name for transform in product.transforms} if linked else set()
    nodes = {
        transform.name: Node(
            unique_id=transform.name,
            compute=transform.compute,
            parents=tuple(parent for parent in transform.depends_on if parent in names),
            key=(transform.name,),
            name=transform.name,
            tags=transform.tags,
            tier=transform.tier,
        )
        for transform in product.transforms
        if transform.compute in computes
    }
    return nodes | quality_nodes(
        (product.name, nodes[transform.name], check)
        for transform in product.transforms
        if transform.name in nodes
        for check in transform.quality_checks
    )


def _manifest_problems(
    computes: Mapping[str, Compute], manifests: Mapping[str, DbtManifest]
) -> Iterator[Problem]:
    adapters = {compute.target: compute.adapter for compute in computes.values()}
    for target, manifest in manifests.items():
        metadata = manifest.metadata
        where = f"manifest.json (target {target})"
        if metadata.dbt_schema_version not in SUPPORTED_SCHEMAS:
            yield Problem(
                where,
                f"Written by dbt {metadata.dbt_version or 'of unknown version'} in schema "
                f"{metadata.dbt_schema_version or '(none)'}.",
                "The plugin supports manifest v12: install dbt-core 1.8 to 1.11 and run "
                "`floe-dagster prepare`.",
            )
        adapter = adapters.get(target)
        if metadata.adapter_type and adapter and metadata.adapter_type != adapter:
            yield Problem(
                where,
                f"Written for adapter {metadata.adapter_type}, but the dbt profile's output "
                f"'{target}' is of type {adapter}.",
                "Run `floe-dagster prepare`.",
            )


def _owners_of_group(
    manifests: Mapping[str, DbtManifest], root: str | None
) -> dict[str, tuple[str, ...]]:
    """Return owners by the name of their group; a package's group gives way to the project's."""
    groups = [item for manifest in manifests.values() for item in manifest.groups.items()]
    groups.sort(key=lambda item: item[0].startswith(f"group.{root}."))
    return {group.name: emails for _, group in groups if (emails := _emails(group.owner.email))}


def _exposures(manifests: Mapping[str, DbtManifest]) -> dict[str, tuple[str, ...]]:
    """Return what each exposure uses, by name; packages may have exposures of one name."""
    used: dict[str, dict[str, None]] = {}
    for manifest in manifests.values():
        for exposure in manifest.exposures.values():
            used.setdefault(exposure.name, {}).update(dict.fromkeys(exposure.depends_on.nodes))
    return {name: tuple(nodes) for name, nodes in used.items()}


def _emails(email: str | list[str] | None) -> tuple[str, ...]:
    return (email,) if isinstance(email, str) else tuple(email or ())
