"""Makes a `ProductPlan` of a compiled product and dbt's manifests, or raises one full error."""

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
        manifests: dbt's manifests by target. Without any, the plan contains only the transforms.
        problems: problems so far; the error reports them together with those of the plan.
        surroundings: inputs of code versions that are not in a manifest.

    Raises:
        PlanError: lists every problem.
    """
    own = [*transform_problems(product)]
    all_problems = [*problems, *own]
    manifests = manifests or {}
    warnings: list[str] = []
    if manifests:
        all_problems += _manifest_problems(computes, manifests)
        placer = Placer(product, computes, manifests)
        nodes = placer.place()
        all_problems += placer.problems
        warnings += placer.warnings
        if not all_problems:
            nodes = with_versions(nodes, computes, manifests, surroundings or Surroundings())
    else:
        nodes = _nodes_of_transforms(product, computes, linked=not own)
    root = next((manifest.metadata.project_name for manifest in manifests.values()), None)
    renamed, rename_warnings = distinct_checks(nodes, root)
    if renamed:
        nodes = {**nodes, **renamed}
    warnings += rename_warnings
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
    all_problems += preflight(plan, manifests)
    if all_problems:
        raise PlanError(f"Cannot plan product '{product.name}'", all_problems)
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
    """Return owners by the name of their group; a group of the project wins over a package's."""
    groups = [item for manifest in manifests.values() for item in manifest.groups.items()]
    groups.sort(key=lambda item: item[0].startswith(f"group.{root}."))
    return {group.name: emails for _, group in groups if (emails := _emails(group.owner.email))}


def _exposures(manifests: Mapping[str, DbtManifest]) -> dict[str, tuple[str, ...]]:
    """Return the nodes that exposures use, by name; two packages may use the same name."""
    used: dict[str, dict[str, None]] = {}
    for manifest in manifests.values():
        for exposure in manifest.exposures.values():
            used.setdefault(exposure.name, {}).update(dict.fromkeys(exposure.depends_on.nodes))
    return {name: tuple(nodes) for name, nodes in used.items()}


def _emails(email: str | list[str] | None) -> tuple[str, ...]:
    return (email,) if isinstance(email, str) else tuple(email or ())
