"""The work that a re-execution from failure still has to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.plan import downstream, read_by_check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import AssetKey

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.run.batches import PartlyBuilt
    from floe_orchestrator_dagster.run.earlier import Earlier


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a step: assets to build, and checks of all kinds to run, by unique id."""

    assets: frozenset[str]
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remainder:
    """The rest of a step's work.

    `batches` are microbatch models with failed batches, by unique id. `notes` are sentences for
    the log that explain the difference between the failed work and this work.
    """

    work: Work
    batches: Mapping[str, PartlyBuilt]
    notes: tuple[str, ...]


def remainder(
    specs: Specs,
    earlier: Earlier,
    requested: Work,
    variables: Mapping[str, Any],
    consumed: frozenset[AssetKey],
) -> Remainder:
    """Return the part of the requested work that a re-execution from failure still has to do.

    Leave out assets that earlier attempts built from the same code, and checks that passed or
    warned there. Keep assets that other steps of this run wait for (`consumed`).
    """
    plan = specs.plan
    done = {
        uid
        for uid in requested.assets
        if specs.keys[uid] in earlier.built
        and earlier.built[specs.keys[uid]] == specs.code_version(uid, variables)
        and specs.keys[uid] not in consumed
    }
    # If an asset is built again, everything downstream is built again too.
    done -= downstream(plan, requested.assets - done)
    again = requested.assets - done
    # If the parents are built again, the existing batches come from old rows.
    stale = downstream(plan, again)
    batches = {
        uid: replace(partly, parents_changed=True) if uid in stale else partly
        for uid, partly in earlier.batches.items()
    }
    left = Work(
        again,
        tuple(
            uid
            for uid in requested.checks
            if specs.checks[uid].key not in earlier.settled
            or not again.isdisjoint(read_by_check(plan, uid))
        ),
    )
    notes: list[str] = []
    for target in sorted(earlier.hooks):
        by_dbt = (*left.assets, *(uid for uid in left.checks if uid in plan.tests))
        if any(plan.target_of(uid) == target for uid in by_dbt):
            continue
        carrier = _carrier(plan, target, requested)
        if carrier is None:
            continue
        left = _with(plan, carrier, requested, left)
        node = plan.nodes[carrier]
        notes.append(
            f"A hook failed on target '{target}'. dbt runs hooks only together with a node, so "
            f"{node.kind} {node.name} runs again."
        )
    notes.append(
        f"From failure: {len(requested.assets) - len(left.assets)} assets are built already, "
        f"{len(left.assets)} assets and {len(left.checks)} checks are left."
    )
    return Remainder(left, batches, tuple(notes))


def _carrier(plan: ProductPlan, target: str, requested: Work) -> str | None:
    """Return the cheapest node to run on a target; None if the request has no node there.

    dbt runs hooks only together with a node.
    """
    chosen = {*requested.assets, *requested.checks}
    candidates = (
        uid
        for uid in (*plan.assets, *plan.tests)
        if uid in chosen and plan.target_of(uid) == target
    )
    return min(
        candidates,
        key=lambda uid: (_cost(plan, uid), len(downstream(plan, [uid]) & requested.assets)),
        default=None,
    )


def _with(plan: ProductPlan, carrier: str, requested: Work, left: Work) -> Work:
    """Return the work that is left plus one more node and everything that it makes stale."""
    again, checks = left.assets, {*left.checks, carrier}
    if carrier in plan.assets:
        again |= {carrier, *(downstream(plan, [carrier]) & requested.assets)}
    kept = (
        uid
        for uid in requested.checks
        if uid in checks or not again.isdisjoint(read_by_check(plan, uid))
    )
    return Work(again, tuple(kept))


# The cost of running a node again, and of the changes that it makes, by materialization.
_COST = {"": 0, "view": 1, "table": 2, "seed": 2, "snapshot": 3, "incremental": 4}


def _cost(plan: ProductPlan, uid: str) -> int:
    return _COST.get(plan.nodes[uid].materialized or "", 2) if uid in plan.assets else 0
