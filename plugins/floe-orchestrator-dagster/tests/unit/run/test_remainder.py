"""What a re-execution from failure does follows from the plan and from what attempts have done."""

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
    """Return what is left of everything, after assets were built and checks passed."""
    specs = Specs(planned)
    earlier = Earlier(
        built={specs.keys[uid(name)]: specs.code_version(uid(name)) for name in built},
        settled={specs.checks[check].key for check in settled},
        **more,
    )
    asked = Work(frozenset(planned.assets), tuple(planned.checks))
    return remainder(specs, earlier, asked, {}, frozenset(AssetKey(name) for name in consumed))


def test_what_was_built_from_the_same_code_is_left_out_with_checks_that_passed() -> None:
    planned = checked_plan("a > b", tests={"t": "a", "u": "b"})
    found = left(planned, built="a", settled=[uid("t", "test"), *planned.quality_checks])
    assert found.work == Work(frozenset({uid("b")}), (uid("u", "test"),))
    assert found.notes == (
        "From failure: 1 assets are built already, 1 assets and 1 checks are left",
    )


def test_a_check_of_what_is_built_again_runs_again() -> None:
    planned = checked_plan("a > b", tests={"t": "a"})
    found = left(planned, settled=planned.checks)
    assert {*found.work.checks} == {*planned.checks}


def test_below_what_is_built_again_everything_is_built_again() -> None:
    planned = plan("a > b > c, x")
    assert left(planned, built="bcx").work.assets == {uid(name) for name in "abc"}


def test_what_another_step_waits_for_is_built_again() -> None:
    assert left(plan("a, b"), built="ab", consumed=["b"]).work.assets == {uid("b")}


def test_a_failed_quality_check_runs_alone() -> None:
    planned = checked_plan()
    assert left(planned, built="a").work == Work(frozenset(), tuple(planned.quality_checks))


def test_a_failed_hook_gets_a_node_that_dbt_runs_and_no_quality_check() -> None:
    # What is left is no node of dbt's, so it carries no hook.
    found = left(checked_plan(), built="a", hooks={"duck"})
    assert found.work.assets == {uid("a")}
    assert found.notes[0] == (
        "A hook failed on target 'duck'. dbt runs hooks only with a node: model a runs again."
    )
    tested = left(checked_plan(tests={"t": "a"}), built="a", settled=[uid("t", "test")])
    assert tested.work.assets == frozenset()
    hooked = left(
        checked_plan(tests={"t": "a"}), built="a", settled=[uid("t", "test")], hooks={"duck"}
    )
    assert hooked.work.assets == frozenset()
    assert uid("t", "test") in hooked.work.checks


def test_missing_batches_alone_are_built_again_unless_what_they_read_is_built_again() -> None:
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
