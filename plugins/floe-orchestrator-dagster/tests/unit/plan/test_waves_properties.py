"""Plans and waves agree with simple reference implementations, on random products."""

from __future__ import annotations

import random
import sys
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from floe_orchestrator_dagster.plan import (
    ProductPlan,
    Wave,
    waves,
)
from kit.plans import Json
from kit.random_products import TARGETS, Case, cases, reading

many = settings(max_examples=400, derandomize=True, deadline=None, database=None)


def part_of(case: Case, names: list[str], salt: int) -> list[str]:
    """Return all names for one product in three, else a random part of them."""
    chance = random.Random(case.seed * 7 + salt)
    if case.seed % 3 == 0:
        return names
    return [name for name in names if chance.random() < 0.6]


@given(cases())
@many
def test_the_graph_is_that_of_dbt_with_ephemerals_folded(case: Case) -> None:
    planned = case.plan()
    assert set(planned.assets) == {uid for uid in case.nodes if case.is_asset(uid)}
    for uid in (*planned.assets, *planned.checks):
        assert set(planned.folded_parents[uid]) == case.reads(uid)
    for uid, node in planned.assets.items():
        assert set(node.after) == {above for above, early in case.direct(uid) if early}
        assert node.compute == case.computes.get(uid, "duck")
    order = [*planned.assets]
    for uid in order:
        assert all(order.index(parent) < order.index(uid) for parent in case.above[uid])


@given(cases())
@many
def test_every_check_is_planned_or_has_a_warning(case: Case) -> None:
    planned = case.plan()
    for uid, node in case.nodes.items():
        if node["resource_type"] in {"test", "unit_test"}:
            has_warning = any(f"'{node['name']}'" in warning for warning in planned.warnings)
            assert (uid in planned.checks) != has_warning
    for uid, check in planned.checks.items():
        if check.kind == "test":
            assert check.on in (case.reads(uid) or planned.nodes)
            assert not {check.compute, *check.also_on} & case.disabled[uid]


@given(cases())
@many
def test_planning_does_not_depend_on_the_order_of_anything(case: Case) -> None:
    one, again, other = case.plan(), case.plan(), case.plan(shuffled=True)
    assert one == again == other
    assert [*one.assets] == [*other.assets]
    assets = part_of(case, [*one.assets], 1)
    checks = part_of(case, [*one.checks], 2)
    in_order = waves(one, assets, checks)
    assert in_order == waves(one, assets, checks)
    backwards = waves(other, set(assets), checks[::-1])
    assert [(w.compute.target, w.nodes, set(w.checks)) for w in in_order] == [
        (w.compute.target, w.nodes, set(w.checks)) for w in backwards
    ]


@given(cases())
@many
def test_waves_respect_every_ancestor_and_run_everything_once(case: Case) -> None:
    planned = case.plan()
    assets = part_of(case, [*planned.assets], 1)
    checks = part_of(case, [*planned.checks], 2)
    in_order = waves(planned, assets, checks)
    built = [uid for wave in in_order for uid in wave.nodes]
    tested = [uid for wave in in_order for uid in wave.checks]
    assert sorted(built) == sorted(assets)
    assert sorted(tested) == sorted(checks)
    assert all(wave.nodes or wave.checks for wave in in_order)
    at = {uid: n for n, wave in enumerate(in_order) for uid in (*wave.nodes, *wave.checks)}
    for number, wave in enumerate(in_order):
        assert planned.computes[wave.compute.name] is wave.compute
        for uid in wave.nodes:
            assert planned.target_of(uid) == wave.compute.target
        for uid in wave.checks:
            check = planned.nodes[uid]
            assert wave.compute.target in {check.compute, *check.also_on}
        for uid in (*wave.nodes, *wave.checks):
            for above, early in case.above[uid].items():
                if above in at:
                    assert at[above] < number if early else at[above] <= number
        # A check is never later than necessary.
        for uid in wave.checks:
            check = planned.nodes[uid]
            if not check.parents:
                # Its inputs are unknown, so it runs after all builds.
                assert not any(later.nodes for later in in_order[number + 1 :])
                continue
            for sooner in range(number):
                assert in_order[sooner].compute.target not in {
                    check.compute,
                    *check.also_on,
                } or any(
                    at[above] >= sooner if early else at[above] > sooner
                    for above, early in case.above[uid].items()
                    if above in at
                )


@given(cases(most=8))
@many
def test_there_are_as_few_waves_as_in_an_exhaustive_search(case: Case) -> None:
    planned = case.plan()
    for salt in (1, 3):
        assets = part_of(case, [*planned.assets], salt)
        checks = part_of(case, [*planned.checks], salt + 1)
        assert len(waves(planned, assets, checks)) == fewest_builds(case, planned, assets, checks)


@st.composite
def mazes(draw: st.DrawFn) -> Case:
    """Draw two to four chains of models that change computes at each step, with many orders."""
    targets = TARGETS[: draw(st.integers(3, 4))]
    nodes: dict[str, Json] = {}
    computes: dict[str, str] = {}
    left = 9
    for chain in "abcd"[: draw(st.integers(2, 4))]:
        above: list[str] = []
        for step in range(draw(st.integers(1, min(left, 4)))):
            name = f"{chain}{step}"
            uid = f"model.shop.{name}"
            last = computes[above[0]] if above else None
            computes[uid] = draw(st.sampled_from([one for one in targets if one != last]))
            nodes[uid] = {
                **reading(uid, "model", above),
                "config": {"materialized": "table"},
                "relation_name": f"db.main.{name}",
            }
            above = [uid]
            left -= 1
        if left < 1:
            break
    return Case(nodes, computes, {}, targets, 0)


@given(mazes())
@many
def test_interleaved_chains_need_the_fewest_builds(case: Case) -> None:
    planned = case.plan()
    in_order = waves(planned, [*planned.assets])
    assert len(in_order) == fewest_builds(case, planned, [*planned.assets], [])


@given(cases())
@many
def test_below_is_every_asset_with_that_ancestor(case: Case) -> None:
    planned = case.plan()
    for uid in case.nodes:
        if case.is_asset(uid):
            below = {other for other in planned.assets if uid in case.above[other]}
            assert planned.below_any([uid]) == below


def fewest_builds(case: Case, planned: ProductPlan, assets: list[str], checks: list[str]) -> int:
    """Return the smallest number of builds, from every sequence of targets and of their nodes.

    A build may contain only a part of its possible nodes. A state is the finished nodes, those that
    were finished when the current build began, and the target. A further node costs nothing, a
    further build costs one.
    """
    tasks = [*assets, *checks]
    able = {uid: {node.compute, *node.also_on} for uid in tasks for node in (planned.nodes[uid],)}
    needs = {
        uid: [(above, early) for above, early in case.above[uid].items() if above in set(assets)]
        for uid in tasks
    }
    strict = any(early for need in needs.values() for _, early in need)
    nothing: frozenset[str] = frozenset()
    start: tuple[frozenset[str], frozenset[str], str] = (nothing, nothing, "")
    best: dict[Any, int] = {start: 0}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        done, begun, target = state
        cost = best[state]
        if len(done) == len(tasks):
            return cost
        steps: list[tuple[Any, int]] = [
            ((done | {uid}, begun, target), 0)
            for uid in tasks
            if uid not in done
            and target in able[uid]
            and all(above in (begun if early else done) for above, early in needs[uid])
        ]
        steps += [((done, done if strict else nothing, other), 1) for other in case.targets]
        for reached, price in steps:
            if cost + price < best.get(reached, 1_000):
                best[reached] = cost + price
                (queue.append if price else queue.appendleft)(reached)
    raise AssertionError("there is no order")


def test_the_result_of_a_search_without_budget_is_valid(monkeypatch: Any) -> None:
    room = sys.modules["floe_orchestrator_dagster.plan.waves"]
    monkeypatch.setattr(room, "SEARCH_BUDGET", 0)

    @given(cases())
    @many
    def ordered(case: Case) -> None:
        planned = case.plan()
        in_order: tuple[Wave, ...] = waves(planned, [*planned.assets], [*planned.checks])
        at = {uid: n for n, wave in enumerate(in_order) for uid in (*wave.nodes, *wave.checks)}
        assert set(at) == {*planned.assets, *planned.checks}
        for uid, number in at.items():
            for above, early in case.above[uid].items():
                assert at[above] < number if early else at[above] <= number

    ordered()
