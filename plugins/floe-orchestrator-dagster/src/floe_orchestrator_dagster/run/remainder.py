"""From failure: what of a step is left to do after earlier attempts."""

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
    """What a step is to do: assets to build, and checks of all kinds, by unique id."""

    assets: frozenset[str]
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of a step's work.

    `batches` is what is known of microbatch models that failed in part; `notes` are sentences on
    why more or less is done than failed.
    """

    work: Work
    batches: Mapping[str, PartlyBuilt]
    notes: tuple[str, ...]


def remainder(
    specs: Specs,
    earlier: Earlier,
    asked: Work,
    variables: Mapping[str, Any],
    consumed: frozenset[AssetKey],
) -> Remainder:
    """Return what a re-execution from failure still has to do of what was asked for.

    Left out is what earlier attempts have built from the same code, and checks that passed or
    warned there; kept is what other steps of this run wait for (`consumed`).
    """
    plan = specs.plan
    done = {
        uid
        for uid in asked.assets
        if specs.keys[uid] in earlier.built
        and earlier.built[specs.keys[uid]] == specs.code_version(uid, variables)
        and specs.keys[uid] not in consumed
    }
    # Below what is built again, everything is built again.
    done -= downstream(plan, asked.assets - done)
    again = asked.assets - done
    # Where the parents are built again, the batches that are there were made of other rows.
    stale = downstream(plan, again)
    batches = {
        uid: replace(partly, parents_changed=True) if uid in stale else partly
        for uid, partly in earlier.batches.items()
    }
    left = Work(
        again,
        tuple(
            uid
            for uid in asked.checks
            if specs.checks[uid].key not in earlier.settled
            or not again.isdisjoint(read_by_check(plan, uid))
        ),
    )
    notes: list[str] = []
    for target in sorted(earlier.hooks):
        by_dbt = (*left.assets, *(uid for uid in left.checks if uid in plan.tests))
        if any(plan.target_of(uid) == target for uid in by_dbt):
            continue
        carrier = _carrier(plan, target, asked)
        if carrier is None:
            continue
        left = _with(plan, carrier, asked, left)
        node = plan.nodes[carrier]
        notes.append(
            f"A hook failed on target '{target}'. dbt runs hooks only with a node: {node.kind} "
            f"{node.name} runs again."
        )
    notes.append(
        f"From failure: {len(asked.assets) - len(left.assets)} assets are built already, "
        f"{len(left.assets)} assets and {len(left.checks)} checks are left"
    )
    return Remainder(left, batches, tuple(notes))


def _carrier(plan: ProductPlan, target: str, asked: Work) -> str | None:
    """Return the node on a target that costs least to run: without one, dbt runs no hooks."""
    chosen = {*asked.assets, *asked.checks}
    able = (
        uid
        for uid in (*plan.assets, *plan.tests)
        if uid in chosen and plan.target_of(uid) == target
    )
    return min(
        able,
        key=lambda uid: (_cost(plan, uid), len(downstream(plan, [uid]) & asked.assets)),
        default=None,
    )


def _with(plan: ProductPlan, carrier: str, asked: Work, left: Work) -> Work:
    """Return what is left with one more node, and with what that makes stale."""
    again, checks = left.assets, {*left.checks, carrier}
    if carrier in plan.assets:
        again |= {carrier, *(downstream(plan, [carrier]) & asked.assets)}
    kept = (
        uid
        for uid in asked.checks
        if uid in checks or not again.isdisjoint(read_by_check(plan, uid))
    )
    return Work(again, tuple(kept))


# How much it takes, and changes, to run a node once more, by how it is materialized.
_COST = {"": 0, "view": 1, "table": 2, "seed": 2, "snapshot": 3, "incremental": 4}


def _cost(plan: ProductPlan, uid: str) -> int:
    return _COST.get(plan.nodes[uid].materialized or "", 2) if uid in plan.assets else 0
