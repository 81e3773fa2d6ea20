"""Finds the fewest dbt builds, in a valid order, that build a selection of a plan."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, compress
from operator import or_
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.plan.model import INLINED_KINDS, QUALITY_CHECK, TEST_KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from floe_orchestrator_dagster.plan.model import Compute, ProductPlan

    _Placed: TypeAlias = tuple[int, "_Task"]

# After this many tasks, the search stops looking for a better order. The order that it has by then
# is valid, and at most a few builds longer than the best.
SEARCH_BUDGET = 1_000_000
# Separates the target and the lane in the key of a lane. No name of a target contains it.
_LANE = "\0"


@dataclass(frozen=True, slots=True)
class Wave:
    """One dbt build on one compute: the unique ids of its nodes and checks.

    The dbt process evaluates `quality_checks` as soon as it has built their model.
    `lane` distinguishes builds of one target that need a dbt command with different settings.
    """

    compute: Compute
    nodes: tuple[str, ...]
    checks: tuple[str, ...] = ()
    quality_checks: tuple[str, ...] = ()
    lane: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """One task of a wave: build a selected asset, or run a check.

    Builds have numbers in dependency order. `within` and `before` are sets of these numbers, as
    bits of an integer.
    """

    targets: frozenset[str]  # the task can run on any of them
    within: int  # must be built in the same wave or an earlier one
    before: int  # must be built in an earlier wave


def waves(
    plan: ProductPlan,
    selected: Collection[str],
    checks: Collection[str] = (),
    lanes_of: Mapping[str, str] | None = None,
) -> tuple[Wave, ...]:
    """Return the waves that build `selected` assets and run `checks`, all by unique id.

    The order respects all ancestors, also through nodes that are not selected. A check runs once,
    in the first wave in which all its selected ancestors exist. A quality check is in the wave that
    builds its model, and in no wave if no wave builds the model. `lanes_of` contains the lane of
    each asset that needs a dbt command with separate settings; all other assets share the lane "".
    """
    quality = _by_model(plan, checks)
    tests = [uid for uid in checks if plan.nodes[uid].kind in TEST_KINDS]
    early = {uid: model for uid in tests if (model := _tested_inlined(plan, uid))}
    inliners = _inliners(plan, early.values())
    later = [uid for uid in tests if uid not in early]
    builds, left = _tasks(plan, frozenset(selected), later, lanes_of or {}, inliners)
    tasks = [*builds.values()]
    lanes = _lanes([*tasks, *_demanding(tasks, [test for test, _ in left])])
    computes = _computes_by_target(plan)
    functions_built: set[tuple[str, str]] = set()
    result: list[Wave] = []
    done = 0
    for key in _best_order(lanes):
        target, _, lane = key.partition(_LANE)
        reached = _closure(lanes[key], done)
        ready = [_is_ready(test, key, reached, done) for test, _ in left]
        tested = [uid for _, uids in compress(left, ready) for uid in uids]
        left = [test for test, now in zip(left, ready, strict=True) if not now]
        nodes = _members(builds, reached & ~done)
        functions = [
            uid
            for uid in plan.functions_of([*nodes, *tested])
            if (target, uid) not in functions_built
        ]
        functions_built.update((target, uid) for uid in functions)
        evaluated = tuple(uid for model in nodes for uid in quality.get(model, ()))
        result.append(Wave(computes[target], (*functions, *nodes), tuple(tested), evaluated, lane))
        done = reached
    return tuple(_with_early(plan, result, early, inliners) if early else result)


def _by_model(plan: ProductPlan, checks: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Return the quality checks among `checks` by their model."""
    by_model: defaultdict[str, list[str]] = defaultdict(list)
    for uid in checks:
        if plan.nodes[uid].kind == QUALITY_CHECK:
            by_model[plan.nodes[uid].on].append(uid)
    return by_model


def segments(plan: ProductPlan) -> tuple[Wave, ...]:
    """Return the waves of the whole plan, one per Dagster step.

    Unit tests of ephemeral models are in the step that they can stop.
    """
    steps: list[Wave] = []
    early: list[Wave] = []
    for wave in waves(plan, [*plan.assets], [*plan.checks]):
        if not wave.nodes and all(_tested_inlined(plan, uid) for uid in wave.checks):
            early.append(wave)
        else:
            checks = (uid for tests in early for uid in tests.checks)
            steps.append(replace(wave, checks=(*checks, *wave.checks)))
            early = []
    return (*steps, *early)


def _tested_inlined(plan: ProductPlan, check: str) -> str | None:
    """Return the ephemeral model that a unit test tests; None for any other check.

    dbt runs such a test before it builds the nodes that inline the model. The model is not an asset
    of a dbt command, so the test needs a separate command before those nodes.
    """
    node = plan.nodes[check]
    if node.kind != "unit_test" or node.parents[0] in plan.assets:
        return None
    return node.parents[0]


def _inliners(plan: ProductPlan, inlined: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Return, for each asset that inlines one of these ephemeral models, which ones it inlines."""
    reach = {uid: frozenset({uid}) for uid in inlined}
    inliners = {}
    for uid in plan.order if reach else ():
        node = plan.nodes[uid]
        models = frozenset[str]().union(*(reach.get(parent, ()) for parent in node.parents))
        if models and uid in plan.assets:
            inliners[uid] = models
        elif models and node.kind in INLINED_KINDS:
            reach[uid] = models | reach.get(uid, frozenset())
    return inliners


def _with_early(
    plan: ProductPlan,
    regular: Sequence[Wave],
    early: Mapping[str, str],
    inliners: Mapping[str, frozenset[str]],
) -> Iterator[Wave]:
    """Yield the waves, with unit tests of ephemeral models before the first that inlines them."""
    tests: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for uid, model in early.items():
        users = (any(model in inliners.get(node, ()) for node in wave.nodes) for wave in regular)
        first = next((number for number, used in enumerate(users) if used), len(regular))
        tests[first, plan.nodes[uid].compute].append(uid)
    for number in range(len(regular) + 1):
        for at, compute in sorted(tests):
            if at == number:
                yield Wave(plan.computes[compute], (), tuple(tests[at, compute]))
        yield from regular[number : number + 1]


def downstream(plan: ProductPlan, unique_ids: Iterable[str]) -> set[str]:
    """Return every asset below one of the nodes."""
    return plan.below_any(unique_ids)


def read_by_check(plan: ProductPlan, check: str) -> tuple[str, ...]:
    """Return the assets and sources that a check reads; none for a check that reads no node."""
    node = plan.nodes[check]
    return (node.on,) if node.kind == "unit_test" else plan.folded_parents[check]


def blocked_by_check(plan: ProductPlan, check: str) -> set[str]:
    """Return the assets that a failed check stops, with any planned severity.

    As in `dbt build`, a check stops an asset if everything that the check reads is above the asset.
    A check with a warning has not failed, but `warn_error` can make a check with severity `warn`
    fail. A quality check stops nothing; it makes the run fail.
    """
    node = plan.nodes[check]
    if node.kind == QUALITY_CHECK:
        return set()
    if node.kind == "unit_test":
        # A unit test runs before its model is built, so it also stops the model.
        return plan.below_any(node.parents) | {*node.parents} & plan.assets.keys()
    return plan.below_all(node.parents)


def _computes_by_target(plan: ProductPlan) -> Mapping[str, Compute]:
    """Return one compute for each target: the default compute if possible, else the first."""
    computes = [*plan.computes.values()]
    if plan.default_compute in plan.computes:
        computes.insert(0, plan.computes[plan.default_compute])
    return {compute.target: compute for compute in reversed(computes)}


def _tasks(
    plan: ProductPlan,
    selected: frozenset[str],
    checks: Iterable[str],
    lanes_of: Mapping[str, str],
    inliners: Mapping[str, frozenset[str]],
) -> tuple[dict[str, _Task], list[tuple[_Task, list[str]]]]:
    """Return a task for each selected asset, in dependency order, and for each group of checks."""
    # The builds that a reader of each node needs: for a selected node the node itself, for another
    # node its nearest selected ancestors.
    within: dict[str, int] = {}
    before: dict[str, int] = {}

    def task(targets: Iterable[str], reads: Iterable[str], after: Iterable[str]) -> _Task:
        needs = [(within.get(uid, 0), before.get(uid, 0)) for uid in reads]
        early = [within.get(uid, 0) | before.get(uid, 0) for uid in after]
        return _Task(
            frozenset(targets),
            reduce(or_, (bits for bits, _ in needs), 0),
            reduce(or_, (bits for _, bits in needs), reduce(or_, early, 0)),
        )

    builds: dict[str, _Task] = {}
    for uid, node in plan.assets.items():
        target, lane = plan.target_of(uid), lanes_of.get(uid)
        own = f"{target}{_LANE}{lane}" if lane else target
        # The unit tests of inlined models run earlier, so their inputs must exist by then.
        tested = (plan.folded_parents[model] for model in inliners.get(uid, ()))
        build = task([own], plan.folded_parents[uid], (*node.after, *chain(*tested)))
        if uid in selected:
            within[uid] = 1 << len(builds)
            builds[uid] = build
        else:
            within[uid], before[uid] = build.within, build.before
    # Checks with the same inputs share a task. A task would be a slow key, because Python hashes
    # integers with one bit to only 61 values.
    alike: defaultdict[tuple[Sequence[str], ...], list[str]] = defaultdict(list)
    everything = tuple(builds)
    for uid in checks:
        check = plan.nodes[uid]
        able = tuple(plan.computes[name].target for name in (check.compute, *check.also_on))
        if lanes_of:
            # A test builds nothing, so it can run in every lane of its target.
            more = (f"{name}{_LANE}{lane}" for name in able for lane in {*lanes_of.values()})
            able = (*able, *sorted(more))
        reads: Sequence[str]
        if check.kind == "unit_test":
            reads = (check.on,)
        else:
            # The inputs of a test without parents are unknown, so it runs after all builds.
            reads = plan.folded_parents[uid] if check.parents else everything
        alike[able, reads, check.after].append(uid)
    return builds, [(task(*reading), uids) for reading, uids in alike.items()]


def _demanding(tasks: Sequence[_Task], tests: Iterable[_Task]) -> Iterator[_Task]:
    """Yield the tests that affect the order. Any other test can run with its last parent."""
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


def _lanes(tasks: Sequence[_Task]) -> Mapping[str, Sequence[_Placed]]:
    """Return, for each target, the tasks that it can run, each with its bit, in order."""
    lanes: defaultdict[str, list[_Placed]] = defaultdict(list)
    for number, task in enumerate(tasks):
        for target in task.targets:
            lanes[target].append((1 << number, task))
    return {target: lanes[target] for target in sorted(lanes)}


def _closure(lane: Iterable[_Placed], done: int) -> int:
    """Return `done` and everything that one more build on the target of this lane can add."""
    reached = done
    for bit, task in lane:
        if not (reached & bit or task.within & ~reached or task.before & ~done):
            reached |= bit
    return reached


def _best_order(lanes: Mapping[str, Sequence[_Placed]]) -> Sequence[str]:
    """Return the shortest sequence of targets whose closures contain every task (A* search).

    The whole closure of a target is never worse than a part of it, so only the sequence of targets
    can vary.
    """
    every = reduce(or_, (bit for lane in lanes.values() for bit, _ in lane), 0)
    levels = _levels(lanes)
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
            # From here, follow only the best branch: valid, but not always the shortest.
            queue, seen = [], set()
        for target, lane in lanes.items():
            budget -= len(lane)
            reached = _closure(lane, done)
            if reached != done:
                pushed += 1
                cost = len(order) + 1 + _builds_left(levels, every & ~reached)
                heapq.heappush(
                    queue, (cost, -reached.bit_count(), pushed, reached, (*order, target))
                )
    raise AssertionError("no order contains every task; the plan has a cycle")


def _builds_left(levels: Iterable[Sequence[int]], left: int) -> int:
    """Return a lower bound of the number of builds for the remaining tasks."""
    least = sum(_highest(masks, left) for masks in levels)
    return max(least, left != 0)


def _levels(lanes: Mapping[str, Sequence[_Placed]]) -> Sequence[Sequence[int]]:
    """Return for each target, at index n - 1, the tasks with a path down that needs n builds on it.

    Only a build on that target can finish all tasks of the highest n, so the sum of the highest n
    of each target is a lower bound.
    """
    # Bit masks, because a selection with gaps can have many times the edges of the plan.
    on = {target: reduce(or_, (bit for bit, _ in lane)) for target, lane in lanes.items()}
    levels: dict[str, list[int]] = {target: [] for target in lanes}
    placed = {bit.bit_length(): (bit, task) for lane in lanes.values() for bit, task in lane}
    for number in sorted(placed, reverse=True):
        bit, task = placed[number]
        for target, masks in levels.items():
            alone = task.targets == {target}
            height = max(_highest(masks, bit), alone)
            _mark(masks, height, (bit if alone else 0) | task.within | task.before)
            _mark(masks, height + 1, on[target] & (task.before | (0 if alone else task.within)))
    return list(levels.values())


def _highest(masks: Sequence[int], bits: int) -> int:
    return next((n for n in range(len(masks), 0, -1) if masks[n - 1] & bits), 0)


def _mark(masks: list[int], n: int, bits: int) -> None:
    if n and bits:
        masks.extend([0] * (n - len(masks)))
        masks[n - 1] |= bits


def _members(names: Iterable[str], bits: int) -> list[str]:
    return list(compress(names, map(int, reversed(f"{bits:b}"))))
