"""dbt's results alone decide which nodes failed, which are skipped and which are left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from floe_orchestrator_dagster.dbt.events import NodeFinished, QualityResult
from floe_orchestrator_dagster.dbt.results import Result, RunResults
from floe_orchestrator_dagster.dbt.scrub import Scrubber
from floe_orchestrator_dagster.plan import ProductPlan, QualityCheck, Transform, Wave, waves
from floe_orchestrator_dagster.run.outcome import FAIL_FAST, Attempt, Outcome
from kit.plans import plan, uid

SEVERITIES: Sequence[tuple[str, Literal["error", "warn"]]] = (
    ("few", "error"),
    ("new", "warn"),
    ("known", "error"),
)
HOOK = "operation.shop.shop-on-run-end-0"


def result(of: str, status: str = "success", message: str = "", **more: Any) -> NodeFinished:
    known = of if "." in of else uid(of, "test" if of.startswith("t") else "model")
    return NodeFinished(known, "duck", status, message=message, **more)


def attempt(planned: ProductPlan, *results: NodeFinished, **more: Any) -> Attempt:
    [wave] = waves(planned, [*planned.assets], [*planned.checks])
    attempted = Attempt(wave, wave.nodes, wave.checks, **more)
    attempted.results = {result.unique_id: result for result in results}
    return attempted


def settled(planned: ProductPlan, *results: NodeFinished, **more: Any) -> Outcome:
    outcome = Outcome(planned)
    outcome.settle(attempt(planned, *results, **more))
    return outcome


def test_a_step_is_good_if_dbt_reports_success() -> None:
    assert settled(plan("a > b"), result("a"), result("b"), success=True).is_good


def test_a_failure_without_a_failed_node_is_a_failure() -> None:
    outcome = settled(plan("a"), result("a"), success=False)
    assert outcome.crashes == ["dbt on target 'duck': it reported a failure, but no failed node."]


def test_dbts_log_explains_a_failure_without_a_failed_node() -> None:
    outcome = settled(plan("a"), result("a"), success=False, errors=["Compilation Error in x"])
    assert outcome.crashes == ["dbt on target 'duck': Compilation Error in x"]


def test_a_failed_hook_fails_the_step_and_keeps_its_target() -> None:
    hook = result(HOOK, "error", "no such table", name="shop-on-run-end-0")
    outcome = settled(plan("a"), result("a"), hook, success=False)
    assert outcome.failed == {HOOK: "no such table"}
    assert outcome.failed_hooks == {HOOK: "duck"}
    assert "failed: hook shop-on-run-end-0: no such table" in outcome.message
    assert outcome.crashes == []


def test_a_node_that_dbt_never_ran_fails_the_step() -> None:
    present = {uid("a"), uid("b")}
    outcome = settled(plan("a, b"), result("a"), success=True, present=present)
    assert outcome.skipped == {uid("b"): "dbt ended before it ran"}
    assert outcome.crashes == ["dbt on target 'duck': it did not run model b and gave no reason."]


def test_a_node_that_the_project_no_longer_has_is_named() -> None:
    outcome = settled(plan("a, b"), result("a"), success=True, present={uid("a")})
    assert outcome.crashes == [
        (
            "dbt on target 'duck': the project on disk no longer has model b: it was changed after "
            "this code location was loaded. Reload the code location, then launch again."
        )
    ]


def test_nodes_are_skipped_if_dbt_could_not_start() -> None:
    outcome = settled(plan("a > b"), success=False, exception="no connection")
    assert outcome.skipped == dict.fromkeys([uid("a"), uid("b")], "dbt could not start")
    assert outcome.crashes == ["dbt on target 'duck': no connection"]


def test_a_failure_blocks_its_descendants_in_later_waves() -> None:
    planned = plan("a > b > c, x", on={"a": "duck", "b": "pg", "c": "pg", "x": "pg"})
    first, second = waves(planned, [*planned.assets])
    outcome = Outcome(planned)
    outcome.settle(Attempt(first, first.nodes, (), results={uid("a"): result("a", "error", "x")}))
    assert outcome.ready(second) == ([uid("x")], [])
    assert outcome.skipped == dict.fromkeys([uid("b"), uid("c")], "model a failed")


def test_a_check_of_a_model_that_was_not_built_is_skipped() -> None:
    planned = plan("a, b", on={"a": "duck", "b": "pg"}, tests={"t": "a b"})
    first, second = waves(planned, [*planned.assets], [*planned.checks])
    outcome = Outcome(planned)
    outcome.settle(Attempt(first, first.nodes, (), results={uid("a"): result("a", "error", "x")}))
    assert outcome.ready(second) == ([uid("b")], [])
    assert outcome.skipped == {uid("t", "test"): "model a failed"}


def test_a_test_with_planned_severity_warn_blocks_if_dbt_reports_it_as_failed() -> None:
    planned = plan(
        "a > b",
        on={"a": "duck", "b": "pg"},
        tests={"t": {"reads": "a", "config": {"severity": "WARN"}}},
    )
    first, second = waves(planned, [*planned.assets], [*planned.checks])
    outcome = Outcome(planned)
    results = {uid("a"): result("a"), uid("t", "test"): result("t", "fail", "1 row")}
    outcome.settle(Attempt(first, first.nodes, first.checks, results=results))
    assert outcome.ready(second) == ([], [])
    assert outcome.skipped == {uid("b"): "test t failed"}


def test_errors_are_retried_with_the_nodes_that_they_blocked() -> None:
    planned = plan("a > b, x", tests={"t": "x"})
    outcome = Outcome(planned)
    results = (result("a", "error"), result("b", "skipped"), result("x"), result("t", "fail", "1"))
    assert outcome.settle(attempt(planned, *results), retries_left=1) == [uid("a"), uid("b")]
    assert outcome.failed == {uid("t", "test"): "1"}


def test_a_hook_counts_in_the_last_attempt() -> None:
    planned = plan("a")
    outcome = Outcome(planned)
    failed = attempt(planned, result("a", "error"), result(HOOK, "error", "x"))
    assert outcome.settle(failed, retries_left=1) == [uid("a")]
    outcome.settle(attempt(planned, result("a"), result(HOOK), success=True))
    assert outcome.is_good


def test_nodes_that_fail_fast_canceled_are_skipped_and_not_failed() -> None:
    planned = plan("a, b, c > d")
    outcome = Outcome(planned)
    attempted = attempt(
        planned,
        result("a", "error", "division by zero", finished_at="1"),
        result("b", "error", "CANCEL query b", finished_at="2"),
        canceled={uid("b"), uid("a")},
    )
    record = RunResults(
        {
            uid(name): Result(uid(name), "skipped", "Skipping due to fail_fast")
            for name in ("c", "d")
        },
        fail_fast=True,
    )
    outcome.reconcile(attempted, record, Scrubber())
    outcome.settle(attempted)
    assert outcome.failed == {uid("a"): "division by zero"}
    assert outcome.skipped == dict.fromkeys([uid(name) for name in "bcd"], FAIL_FAST)
    assert FAIL_FAST in outcome.message
    later = Wave(planned.computes["duck"], (uid("a"),))
    assert outcome.ready(later) == ([], [])


def test_of_failures_under_fail_fast_one_without_a_time_is_not_the_first() -> None:
    planned = plan("a, b")
    outcome = Outcome(planned, fail_fast=True)
    results = [
        result("a", "error", "division by zero", finished_at="1"),
        result("b", "error", "CANCEL query b"),
    ]
    outcome.settle(attempt(planned, *results, canceled={uid("a"), uid("b")}))
    assert outcome.failed == {uid("a"): "division by zero"}


def test_a_node_that_dbt_finished_after_fail_fast_stays_built() -> None:
    planned = plan("a, b")
    attempted = attempt(planned, result("a", "error", "x"), result("b", "success"))
    record = RunResults(
        {uid("b"): Result(uid("b"), "skipped", "Skipping due to fail_fast")}, fail_fast=True
    )
    outcome = Outcome(planned)
    outcome.reconcile(attempted, record, Scrubber())
    outcome.settle(attempted)
    assert (outcome.failed, outcome.skipped, outcome.crashes) == ({uid("a"): "x"}, {}, [])


def test_a_result_that_dbt_recorded_but_did_not_report_is_added() -> None:
    planned = plan("a", tests={"t": "a"})
    attempted = attempt(planned, result("a"), success=True)
    test = uid("t", "test")
    record = RunResults({test: Result(test, "warn", "Got 3 results: hunter22", failures=3)})
    outcome = Outcome(planned)
    [added] = outcome.reconcile(attempted, record, Scrubber(["hunter22"]))
    assert (added.status, added.failures, added.message) == ("warn", 3, "Got 3 results: *****")
    outcome.settle(attempted)
    assert outcome.is_good


def test_a_contradiction_is_a_failure() -> None:
    planned = plan("a")
    attempted = attempt(planned, result("a", "success"), success=True)
    outcome = Outcome(planned)
    record = RunResults({uid("a"): Result(uid("a"), "error", "x")})
    outcome.reconcile(attempted, record, Scrubber())
    outcome.settle(attempted)
    assert outcome.crashes == [
        (
            "dbt's results for model a disagree: its event has the status 'success', its "
            "run_results.json has 'error'."
        )
    ]
    assert outcome.failed == {uid("a"): "x"}


def test_a_partly_built_model_fails_and_its_batches_are_kept() -> None:
    planned = plan("a > b")
    batch = ("2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00")
    partial = result("a", "partial success", "PARTIAL SUCCESS (1/2)", batches_failed=(batch,))
    outcome = settled(planned, partial, result("b", "skipped"))
    assert outcome.failed == {uid("a"): "PARTIAL SUCCESS (1/2)"}
    assert outcome.partly_built[uid("a")].batches_failed == (batch,)
    assert outcome.skipped == {uid("b"): "model a failed"}


def test_a_failed_function_fails_and_blocks_the_models_that_call_it() -> None:
    planned = plan("f > a", kinds={"f": "function"})
    [wave] = waves(planned, [*planned.assets])
    attempted = Attempt(wave, wave.nodes, ())
    function = uid("f", "function")
    attempted.results = {
        function: NodeFinished(function, "duck", "error", message="no such type"),
        uid("a"): result("a", "skipped"),
    }
    outcome = Outcome(planned)
    outcome.settle(attempted)
    assert outcome.failed == {function: "no such type"}
    assert outcome.skipped == {uid("a"): "function f failed"}


def test_a_critical_quality_check_fails_the_step_but_blocks_nothing() -> None:
    checks = tuple(QualityCheck(name, "x", {}, severity=severity) for name, severity in SEVERITIES)
    transforms = [Transform("a", "duck", quality_checks=checks), Transform("b", "pg")]
    planned = plan("a > b", transforms=transforms, macros=["test_x"])
    few, new, known = planned.quality_checks
    first, second = waves(planned, [*planned.assets], [*planned.checks])
    outcome = Outcome(planned)
    attempted = Attempt(first, first.nodes, first.checks, success=True)
    attempted.results = {uid("a"): result("a")}
    assert attempted.requested == (uid("a"),)
    outcome.evaluated(QualityResult(few, failures=2))
    outcome.evaluated(QualityResult(new, problem="no such column"))
    outcome.evaluated(QualityResult(known, failures=0))
    outcome.settle(attempted)
    assert outcome.failed == {few: "2 failing rows"}
    assert "failed: quality check few: 2 failing rows" in outcome.message
    assert outcome.ready(second) == ([uid("b")], [])


def test_an_ephemeral_model_that_does_not_compile_fails_instead_of_its_readers() -> None:
    planned = plan("a > e > b", change={"e": {"config": {"materialized": "ephemeral"}}})
    assert planned.ephemerals_of([uid("b")]) == [uid("e")]
    attempted = attempt(
        planned, result("a"), result("e", "error", "cannot compile"), result("b", "skipped")
    )
    outcome = Outcome(planned)
    assert outcome.settle(attempted, retries_left=1) == [uid("b")]
    assert not outcome.failed
    outcome.settle(attempted)
    assert outcome.failed == {uid("e"): "cannot compile"}
    assert outcome.skipped == {uid("b"): "ephemeral e failed or was skipped"}
