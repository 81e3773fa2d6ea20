"""Waves: the fewest dbt builds, in the right order, that build a selection of a plan."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from itertools import compress
from operator import or_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from floe_orchestrator_dagster.plan.model import ProductPlan

# The search stops looking for a better order after touching this many tasks; what it has by
# then is right, and at most a few builds longer than the best.
SEARCH_BUDGET = 1_000_000


@dataclass(frozen=True, slots=True)
class Wave:
    """One dbt build: unique ids of what it builds and what it tests, on one compute."""

    compute: str
    target: str
    nodes: tuple[str, ...]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Task:
    """Something that one wave does: build a selected asset, or run a check.

    Builds are numbered in dependency order; `within` and `before` are sets of their numbers, as
    bits of an integer.
    """

    targets: frozenset[str]  # any one of them will do
    within: int  # must be built in the same wave or an earlier one
    before: int  # must be built in an earlier wave


def waves(
    plan: ProductPlan, selected: Collection[str], checks: Collection[str] = ()
) -> tuple[Wave, ...]:
    """Return the waves that build `selected` assets and run `checks`, all by unique id.

    Order comes from all ancestors, also through nodes that are not selected. A check runs once,
    in the first wave in which all its selected ancestors exist.
    """
    builds, tests = _tasks(plan, frozenset(selected), checks)
    tasks = [*builds.values()]
    waiting: defaultdict[_Task, list[str]] = defaultdict(list)
    for uid, test in tests.items():
        waiting[test].append(uid)
    functions_built: set[tuple[str, str]] = set()
    result = []
    done = 0
    for target in _best_order([*tasks, *_demanding(tasks, waiting)]):
        reached = _closure(tasks, done, target)
        nodes = _members(builds, reached & ~done)
        ready = [test for test in waiting if _is_ready(test, target, reached, done)]
        tested = [uid for test in ready for uid in waiting.pop(test)]
        functions = [
            uid
            for uid in plan.functions_of([*nodes, *tested])
            if (target, uid) not in functions_built
        ]
        functions_built.update((target, uid) for uid in functions)
        result.append(Wave(_compute_of(plan, target), target, (*functions, *nodes), tuple(tested)))
        done = reached
    return tuple(result)


def downstream(plan: ProductPlan, unique_ids: Iterable[str]) -> set[str]:
    """Return every asset that is below one of the given nodes."""
    return plan.below_any(unique_ids)


def blocked_by_check(plan: ProductPlan, check: str) -> set[str]:
    """Return the assets that a failed check of error severity stops.

    As in `dbt build`: an asset is stopped when everything that the check reads is above it.
    """
    node = plan.nodes[check]
    if not node.blocking:
        return set()
    if node.kind == "unit_test":
        # A unit test reads its model's code, so it stops the model itself too.
        return {node.on} | plan.below_any([node.on])
    return plan.below_all(node.parents)


def _compute_of(plan: ProductPlan, target: str) -> str:
    default = plan.computes.get(plan.default_compute)
    if default is not None and default.target == target:
        return plan.default_compute
    return next(name for name, compute in plan.computes.items() if compute.target == target)


def _tasks(
    plan: ProductPlan, selected: frozenset[str], checks: Iterable[str]
) -> tuple[dict[str, _Task], dict[str, _Task]]:
    """Return a task for each selected asset, in dependency order, and for each check."""
    # What must be there for whoever reads a node: of a selected node, the node itself; of another
    # one, the selected ancestors met first on the way up.
    within: dict[str, int] = {}
    before: dict[str, int] = {}

    def task(targets: Iterable[str], reads: Iterable[str], after: Iterable[str]) -> _Task:
        seen = [(within.get(uid, 0), before.get(uid, 0)) for uid in reads]
        early = [within.get(uid, 0) | before.get(uid, 0) for uid in after]
        return _Task(
            frozenset(targets),
            reduce(or_, (bits for bits, _ in seen), 0),
            reduce(or_, (bits for _, bits in seen), reduce(or_, early, 0)),
        )

    builds: dict[str, _Task] = {}
    for uid, node in plan.assets.items():
        found = task([plan.target_of(uid)], plan.folded_parents[uid], node.after)
        if uid in selected:
            within[uid] = 1 << len(builds)
            builds[uid] = found
        else:
            within[uid], before[uid] = found.within, found.before
    tests: dict[str, _Task] = {}
    for uid in checks:
        check = plan.nodes[uid]
        able = [plan.computes[name].target for name in (check.compute, *check.also_on)]
        reads = [check.on] if check.kind == "unit_test" else plan.folded_parents[uid]
        tests[uid] = task(able, reads, check.after)
    return builds, tests


def _demanding(tasks: Sequence[_Task], tests: Iterable[_Task]) -> Iterator[_Task]:
    """Yield the tests that bear on the order; any other fits where the last it reads is built."""
    of_target: defaultdict[str, int] = defaultdict(int)
    for number, task in enumerate(tasks):
        for target in task.targets:
            of_target[target] |= 1 << number
    for test in tests:
        able = reduce(or_, (of_target[target] for target in test.targets))
        if test.before or test.within & ~able or not able:
            yield test


def _is_ready(task: _Task, target: str, reached: int, done: int) -> bool:
    return target in task.targets and not (task.within & ~reached or task.before & ~done)


def _closure(tasks: Iterable[_Task], done: int, target: str) -> int:
    """Return `done` and all that one build on `target` can add (`tasks` are in order)."""
    reached, bit = done, 1
    for task in tasks:
        if not reached & bit and _is_ready(task, target, reached, done):
            reached |= bit
        bit <<= 1
    return reached


def _best_order(tasks: Sequence[_Task]) -> Sequence[str]:
    """Return the shortest sequence of targets whose closures do every task (A* search).

    Taking the whole closure of a target is never worse than a part of it, so the sequence of
    targets is all there is to choose.
    """
    targets = sorted(frozenset[str]().union(*(task.targets for task in tasks)))
    levels = _levels(tasks, targets)
    every = (1 << len(tasks)) - 1
    queue: list[tuple[int, int, int, int, tuple[str, ...]]] = [(0, 0, 0, 0, ())]
    seen: set[int] = set()
    pushed = 0
    budget = SEARCH_BUDGET
    while queue:
        _, _, _, done, order = heapq.heappop(queue)
        if done == every:
            return order
        if done in seen:
            continue
        seen.add(done)
        if budget <= 0:
            # Follow the most promising branch alone from here: right, if not always the shortest.
            queue, seen = [], set()
        for target in targets:
            budget -= len(tasks)
            reached = _closure(tasks, done, target)
            if reached != done:
                pushed += 1
                cost = len(order) + 1 + _builds_left(levels, every & ~reached)
                heapq.heappush(
                    queue, (cost, -reached.bit_count(), pushed, reached, (*order, target))
                )
    raise AssertionError(f"no order for {len(tasks)} tasks; the plan has a cycle")


def _builds_left(levels: Iterable[Sequence[tuple[int, int]]], left: int) -> int:
    """Return how many builds the tasks that are left need at least."""
    least = sum(next((n for n, bits in ranked if bits & left), 0) for ranked in levels)
    return max(least, left != 0)


def _levels(tasks: Sequence[_Task], targets: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return for each target (n, the tasks with a path down that takes n builds on it), n falling.

    Some tasks of the highest n stay to be done until there was a build on that target, whatever
    the others do; so the highest n of each target, added up, is a lower bound.
    """
    height = {target: [0] * len(tasks) for target in targets}
    for number in range(len(tasks) - 1, -1, -1):
        task = tasks[number]
        own = next(iter(task.targets)) if len(task.targets) == 1 else None
        if own is not None:
            height[own][number] = max(height[own][number], 1)
        for bits, same_build in ((task.within, True), (task.before, False)):
            for parent in _numbers(bits):
                for target, of in height.items():
                    again = target in tasks[parent].targets and not (same_build and target == own)
                    of[parent] = max(of[parent], of[number] + again)
    return [
        [(n, _bits(h >= n for h in of)) for n in range(max(of, default=0), 0, -1)]
        for of in height.values()
    ]


def _numbers(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _bits(flags: Iterable[bool]) -> int:
    return int("".join("01"[flag] for flag in flags)[::-1] or "0", 2)


def _members(names: Iterable[str], bits: int) -> list[str]:
    return list(compress(names, map(int, reversed(f"{bits:b}"))))
