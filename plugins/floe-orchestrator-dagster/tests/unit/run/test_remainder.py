"""The plan and the earlier attempts decide what a re-execution from failure builds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dagster import AssetKey

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.plan import ProductPlan, QualityCheck, Transform
from floe_orchestrator_dagster.run.batches import Batches, PartlyBuilt
from floe_orchestrator_dagster.run.earlier import Earlier
from floe_orchestrator_dagster.run.remainder import Remainder, Work, remainder
from kit.plans import plan, uid

FIRST = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
SECOND = ("2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00")


def checked_plan(graph: str = "a", **fields: Any) -> ProductPlan:
    """Return a plan whose "a" has the quality check "few"."""
    transforms = [Transform("a", "duck", quality_checks=(QualityCheck("few", "x", {}),))]
    return plan(graph, transforms=transforms, macros=["test_x"], **fields)


def left(
    planned: ProductPlan,
    built: Iterable[str] = (),
    settled: Iterable[str] = (),
    consumed: Iterable[str] = (),
    **more: Any,
) -> Remainder:
    """Return the rest of all work, after assets were built and checks passed."""
    specs = Specs(planned)
    earlier = Earlier(
        built={specs.keys[uid(name)]: specs.code_version(uid(name)) for name in built},
        settled={specs.checks[check].key for check in settled},
        **more,
    )
    requested = Work(frozenset(planned.assets), tuple(planned.checks))
    return remainder(specs, earlier, requested, {}, frozenset(AssetKey(name) for name in consumed))


def test_assets_of_the_same_code_and_checks_that_passed_are_left_out() -> None:
    planned = checked_plan("a > b", tests={"t": "a", "u": "b"})
    rest = left(planned, built="a", settled=[uid("t", "test"), *planned.quality_checks])
    assert rest.work == Work(frozenset({uid("b")}), (uid("u", "test"),))
    assert rest.notes == (
        "From failure: 1 assets are built already, 1 assets and 1 checks are left.",
    )


def test_a_check_of_an_asset_that_is_built_again_runs_again() -> None:
    planned = checked_plan("a > b", tests={"t": "a"})
    rest = left(planned, settled=planned.checks)
    assert {*rest.work.checks} == {*planned.checks}


def test_everything_downstream_of_a_rebuilt_asset_is_built_again() -> None:
    planned = plan("a > b > c, x")
    assert left(planned, built="bcx").work.assets == {uid(name) for name in "abc"}


def test_an_asset_that_another_step_waits_for_is_built_again() -> None:
    assert left(plan("a, b"), built="ab", consumed=["b"]).work.assets == {uid("b")}


def test_a_failed_quality_check_runs_alone() -> None:
    planned = checked_plan()
    assert left(planned, built="a").work == Work(frozenset(), tuple(planned.quality_checks))


def test_a_failed_hook_gets_a_dbt_node_and_not_a_quality_check() -> None:
    # Only a quality check is left. It is not a dbt node, so dbt would not run the hook with it.
    rest = left(checked_plan(), built="a", hooks={"duck"})
    assert rest.work.assets == {uid("a")}
    assert rest.notes[0] == (
        "A hook failed on target 'duck'. dbt runs hooks only together with a node, so model a runs "
        "again."
    )
    tested = left(checked_plan(tests={"t": "a"}), built="a", settled=[uid("t", "test")])
    assert tested.work.assets == frozenset()
    hooked = left(
        checked_plan(tests={"t": "a"}), built="a", settled=[uid("t", "test")], hooks={"duck"}
    )
    assert hooked.work.assets == frozenset()
    assert uid("t", "test") in hooked.work.checks


def test_only_missing_batches_are_built_again_unless_their_parents_are() -> None:
    planned = plan("a > b")
    specs = Specs(planned)
    code = specs.code_version(uid("b"))
    partly = {uid("b"): PartlyBuilt(code, [SECOND], [FIRST, SECOND])}
    kept = left(planned, built="a", batches=partly).batches[uid("b")]
    assert kept.again(code, full_refresh=True) == Batches(
        ("2026-01-02T00:00:00", "2026-01-03T00:00:00")
    )
    stale = left(planned, batches=partly).batches[uid("b")]
    assert stale.again(code, full_refresh=True) == Batches(
        ("2026-01-01T00:00:00", "2026-01-03T00:00:00"), full_refresh=True
    )
