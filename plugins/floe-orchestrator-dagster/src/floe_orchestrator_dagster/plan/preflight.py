"""Checks that both sides of an edge between computes name the same relation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import Problem
from floe_orchestrator_dagster.plan.model import ASSET_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floe_orchestrator_dagster.plan.manifest import DbtManifest
    from floe_orchestrator_dagster.plan.model import ProductPlan


def preflight(plan: ProductPlan, manifests: Mapping[str, DbtManifest]) -> tuple[Problem, ...]:
    """Return one problem for each relation that has different names on two targets.

    `manifests` are dbt's manifests by target. `ref` prints the relation of the target that runs the
    consumer, so the consumer can read a model of another target only if both targets use one name.
    """
    targets = {compute.target for compute in plan.computes.values()}
    return tuple(_problems(plan, manifests)) if len(targets) > 1 else ()


def _problems(plan: ProductPlan, manifests: Mapping[str, DbtManifest]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for uid, node in plan.nodes.items():
        consumer = plan.computes.get(node.compute)
        # A unit test has the parents and the compute of its model.
        if consumer is None or (node.kind not in ASSET_KINDS and node.kind != "test"):
            continue
        for parent in plan.folded_parents[uid]:
            producer_node = plan.nodes[parent]
            producer = plan.computes.get(producer_node.compute)
            if (
                producer_node.kind == "source"
                or producer is None
                or producer.target == consumer.target
                or (parent, consumer.target) in seen
                or not {producer.target, consumer.target} <= manifests.keys()
            ):
                continue
            seen.add((parent, consumer.target))
            written = _relation(manifests[producer.target], parent)
            read = _relation(manifests[consumer.target], parent)
            if written and read and same_relation(written) == same_relation(read):
                continue
            yield Problem(
                f"{producer_node.name} -> {node.name}",
                f"'{producer_node.name}' is written as {written or 'no relation'} on compute "
                f"'{producer.name}' (target {producer.target}) but read as "
                f"{read or 'no relation (disabled or ephemeral there)'} on compute "
                f"'{consumer.name}' (target {consumer.target}).",
                "Give it the same database, schema and alias for both targets "
                "(+database and +schema in dbt_project.yml, or `attach` one engine to the "
                "other under that database name), or build both on one compute.",
            )


def _relation(manifest: DbtManifest, uid: str) -> str | None:
    node = manifest.nodes.get(uid)
    return node.relation_name if node else None


def same_relation(relation: str) -> str:
    """Return a relation name without quoting and case, equal for the same table."""
    return relation.translate(_QUOTES).casefold()


_QUOTES = str.maketrans("", "", '"`[]')
