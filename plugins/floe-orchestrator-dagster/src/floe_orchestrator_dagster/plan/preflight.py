"""Preflight: edges that cross computes must name one and the same relation on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floe_orchestrator_dagster.plan.manifest import DbtManifest
    from floe_orchestrator_dagster.plan.model import ProductPlan


def preflight(plan: ProductPlan, manifests: Mapping[str, DbtManifest]) -> tuple[Problem, ...]:
    """Return one problem for each relation that two targets call by different names.

    `manifests` are dbt's, by target. `ref` prints the relation of the target that runs the
    consumer, so a model built on another target is found there only if both agree on its name.
    """
    return tuple(_problems(plan, manifests))


def _problems(plan: ProductPlan, manifests: Mapping[str, DbtManifest]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for uid, node in plan.nodes.items():
        if node.kind in {"source", "ephemeral", "function", "unit_test"} or not node.compute:
            continue
        consumer = plan.computes[node.compute]
        for parent in plan.folded_parents[uid]:
            producer_node = plan.nodes[parent]
            if producer_node.kind == "source":
                continue
            producer = plan.computes[producer_node.compute]
            if producer.target == consumer.target or (parent, consumer.target) in seen:
                continue
            seen.add((parent, consumer.target))
            written = _relation(manifests, producer.target, parent)
            read = _relation(manifests, consumer.target, parent)
            if written and read and same_relation(written) == same_relation(read):
                continue
            yield Problem(
                f"{producer_node.name} -> {node.name}",
                f"'{producer_node.name}' is written as {written} on compute '{producer.name}' "
                f"(target {producer.target}) but read as {read} on compute '{consumer.name}' "
                f"(target {consumer.target}).",
                "Give it the same database, schema and alias for both targets "
                "(+database and +schema in dbt_project.yml, or `attach` one engine to the "
                "other under that database name), or build both on one compute.",
            )


def _relation(manifests: Mapping[str, DbtManifest], target: str, uid: str) -> str | None:
    manifest = manifests.get(target)
    node = manifest.nodes.get(uid) if manifest else None
    return node.relation_name if node else None


def same_relation(relation: str) -> str:
    """Return a relation name without its quoting and case: equal for the same table."""
    return "".join(ch for ch in relation if ch not in '"`[]').casefold()
