"""Waves: the fewest dbt builds, in the right order, that build a selection of a plan."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from floe_orchestrator_dagster.plan.model import ProductPlan

# The search stops looking for a better order after touching this many nodes; what it has by
# then is right, and at most a few builds longer than the best.
SEARCH_BUDGET = 2_000_000


@dataclass(frozen=True, slots=True)
class Wave:
    """One dbt build: unique ids of what it builds and what it tests, on one compute."""

    compute: str
    target: str
    nodes: tuple[str, ...]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Task:
    """A selected asset with the selected ancestors that must come before it."""

    target: str
    within: tuple[str, ...]  # same wave or earlier
    before: tuple[str, ...]  # an earlier wave


def waves(
    plan: ProductPlan, selected: Collection[str], checks: Collection[str] = ()
) -> tuple[Wave, ...]:
    """Return the waves that build `selected` assets and run `checks`, all by unique id.

    Order comes from all ancestors, also through nodes that are not selected. A check runs once,
    in the first wave in which all its selected parents exist.
    """
    tasks = _tasks(plan, frozenset(selected))
    done: set[str] = set()
    wave_of: dict[str, int] = {}
    builds: list[tuple[str, list[str]]] = []
    for target in _best_order(tasks):
        nodes = _closure(tasks, done, target)
        for uid in nodes:
            wave_of[uid] = len(builds)
        builds.append((target, nodes))
        done.update(nodes)
    tests: list[list[str]] = [[] for _ in builds]
    for uid in checks:
        _place_check(plan, uid, wave_of, builds, tests)
    built_functions: set[tuple[str, str]] = set()
    result = []
    for (target, nodes), tested in zip(builds, tests, strict=True):
        functions = [
            uid
            for uid in plan.functions_of([*nodes, *tested])
            if (target, uid) not in built_functions
        ]
        built_functions.update((target, uid) for uid in functions)
        result.append(Wave(_compute_of(plan, target), target, (*functions, *nodes), tuple(tested)))
    return tuple(result)


def downstream(plan: ProductPlan, unique_ids: Iterable[str]) -> set[str]:
    """Return every asset below the given nodes, the nodes themselves excluded."""
    found: set[str] = set()
    queue = list(unique_ids)
    while queue:
        for child in plan.children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def blocked_by_check(plan: ProductPlan, check: str) -> set[str]:
    """Return the assets that a failed check of error severity stops.

    As in `dbt build`: an asset is stopped when everything that the check reads is above it.
    """
    node = plan.nodes[check]
    if not node.blocking:
        return set()
    if node.kind == "unit_test":
        # A unit test reads its model's code, so it stops the model itself too.
        return {node.on, *downstream(plan, [node.on])}
    below = [downstream(plan, [parent]) for parent in plan.folded_parents[check]]
    return set.intersection(*below) if below else set()


def _compute_of(plan: ProductPlan, target: str) -> str:
    default = plan.computes.get(plan.default_compute)
    if default is not None and default.target == target:
        return plan.default_compute
    return next(name for name, compute in plan.computes.items() if compute.target == target)


def _tasks(plan: ProductPlan, selected: frozenset[str]) -> dict[str, _Task]:
    nearest: dict[str, frozenset[str]] = {}  # selected ancestors met first on the way up
    boundary: dict[str, frozenset[str]] = {}  # of those, the ones behind a boundary edge
    tasks: dict[str, _Task] = {}
    for uid, node in plan.assets.items():
        for parent in plan.folded_parents[uid]:
            if parent in plan.sources and parent not in nearest:
                nearest[parent] = boundary[parent] = frozenset()
        above: set[str] = set()
        early: set[str] = set()
        for parent in plan.folded_parents[uid]:
            if parent in selected:
                above.add(parent)
            else:
                above |= nearest[parent]
                early |= boundary[parent]
        for parent in node.after:
            if parent in selected:
                early.add(parent)
            else:
                early |= nearest.get(parent, frozenset()) | boundary.get(parent, frozenset())
        nearest[uid], boundary[uid] = frozenset(above), frozenset(early)
        if uid in selected:
            tasks[uid] = _Task(plan.target_of(uid), tuple(above), tuple(early))
    return tasks


def _closure(tasks: Mapping[str, _Task], done: Collection[str], target: str) -> list[str]:
    """Return what one build on `target` can reach, in dependency order (`tasks` is ordered)."""
    reached: dict[str, None] = {}
    for uid, task in tasks.items():
        if (
            task.target == target
            and uid not in done
            and all(parent in done or parent in reached for parent in task.within)
            and all(parent in done for parent in task.before)
        ):
            reached[uid] = None
    return list(reached)


def _remaining_switches(tasks: Mapping[str, _Task], done: Collection[str]) -> int:
    """Return how many builds are needed at least: the most builds along any one path."""
    depth: dict[str, int] = {}
    for uid, task in tasks.items():
        if uid in done:
            continue
        own = 1
        for parent in task.within:
            if parent in depth:
                own = max(own, depth[parent] + (tasks[parent].target != task.target))
        for parent in task.before:
            if parent in depth:
                own = max(own, depth[parent] + 1)
        depth[uid] = own
    per_target = {task.target for uid, task in tasks.items() if uid in depth}
    return max(max(depth.values(), default=0), len(per_target))


def _best_order(tasks: Mapping[str, _Task]) -> Sequence[str]:
    """Return the shortest sequence of targets whose closures build every task (A* search).

    Taking the whole closure of a target is never worse than a part of it, so the sequence of
    targets is all there is to choose.
    """
    targets = sorted({task.target for task in tasks.values()})
    if len(targets) <= 1 and not any(task.before for task in tasks.values()):
        return targets
    tie = 0
    start: frozenset[str] = frozenset()
    queue = [(_remaining_switches(tasks, start), 0, tie, start, ())]
    seen: set[frozenset[str]] = set()
    budget = SEARCH_BUDGET
    while queue:
        bound, _, _, done, order = heapq.heappop(queue)
        if len(done) == len(tasks):
            return order
        if done in seen:
            continue
        seen.add(done)
        if budget <= 0:
            # Follow the most promising branch alone from here: right, if not always the shortest.
            queue, seen = [], set()
        for target in targets:
            reached = _closure(tasks, done, target)
            budget -= len(tasks)
            if reached:
                tie += 1
                after = done | frozenset(reached)
                cost = len(order) + 1 + _remaining_switches(tasks, after)
                heapq.heappush(queue, (cost, -len(after), tie, after, (*order, target)))
    raise AssertionError(f"no order for {len(tasks)} tasks; the plan has a cycle")


def _place_check(
    plan: ProductPlan,
    uid: str,
    wave_of: Mapping[str, int],
    builds: list[tuple[str, list[str]]],
    tests: list[list[str]],
) -> None:
    """Put a check into the first wave that sees everything it reads, or into a new one."""
    check = plan.nodes[uid]
    parents = [check.on] if check.kind == "unit_test" else plan.folded_parents[uid]
    built = [wave_of[parent] for parent in parents if parent in wave_of]
    fed = [wave_of[feeder] + 1 for feeder in check.after if feeder in wave_of]
    able = [plan.computes[name].target for name in (check.compute, *check.also_on)]
    for position in range(max([*built, *fed], default=0), len(builds)):
        if builds[position][0] in able:
            tests[position].append(uid)
            return
    builds.append((able[0], []))
    tests.append([uid])
