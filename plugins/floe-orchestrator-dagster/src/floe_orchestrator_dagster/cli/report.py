"""The report of a run: collected during the run, printed at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.cli.live import NodeResult
from floe_orchestrator_dagster.dbt.events import NodeFinished, NodeStarted
from floe_orchestrator_dagster.dbt.status import (
    BUILT,
    FAILED_TEST,
    PASSED,
    SKIPPED,
    WARNED,
    is_good,
)
from floe_orchestrator_dagster.plan import ASSET_KINDS, CHECK_KINDS

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation, ExecuteInProcessResult
    from rich.console import Console

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.cli.live import View
    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.run.step import Progress

# The status of a planned node that dbt has reported nothing about.
NOT_RUN = "not run"


class RunReport:
    """Keeps the last result of each planned node, and passes each result to the view.

    dbt runs more than Dagster plans: functions that nodes call, and hooks in each dbt run.
    `others` are those that failed or were skipped, by unique id and dbt run.
    """

    def __init__(self) -> None:
        self.planned: Mapping[str, NodeResult] = {}
        self.view: View | None = None
        self.results: dict[str, NodeResult] = {}
        self.others: dict[tuple[str, str], NodeResult] = {}
        self.invocations: set[str] = set()

    def begin(self, planned: Mapping[str, NodeResult], view: View) -> None:
        """Set the planned nodes, which are known only once the Definitions exist."""
        self.planned, self.view = planned, view

    def __call__(self, progress: Progress) -> None:
        """Handle one event of dbt."""
        planned = self.planned.get(progress.unique_id)
        if planned is None:
            if isinstance(progress, NodeFinished):
                self._take_other(progress)
            return
        if isinstance(progress, NodeStarted):
            if self.view is not None:
                self.view.started(replace(planned, compute=progress.compute))
        else:
            self.invocations.add(progress.invocation_id)
            self.finish(_result(planned, progress))

    def _take_other(self, finished: NodeFinished) -> None:
        uid = finished.unique_id
        if finished.attempt > 1:
            # Only the last attempt at a dbt run counts.
            earlier = [key for key in self.others if key[0] == uid]
            for key in earlier[-1:]:
                del self.others[key]
        if finished.status in BUILT:
            return
        kind = finished.kind or uid.partition(".")[0]
        name = finished.name or uid.rpartition(".")[2]
        result = _result(NodeResult(uid, name, kind, finished.compute, ""), finished)
        self.others[uid, finished.invocation_id] = result
        if self.view is not None:
            self.view.finished(result)

    def finish(self, result: NodeResult) -> None:
        """Record and show one result."""
        self.results[result.unique_id] = result
        if self.view is not None:
            self.view.finished(result)

    def add_quality_checks(self, specs: Specs, result: ExecuteInProcessResult) -> None:
        """Record the checks of floe.yaml, which run in the dbt process but are not dbt nodes."""
        for evaluation in result.get_asset_check_evaluations():
            uid = specs.check_ids.get(evaluation.asset_check_key, "")
            if uid in specs.plan.quality_checks and uid in self.planned:
                message = evaluation.description or ""
                status = _check_status(evaluation)
                self.finish(replace(self.planned[uid], status=status, message=message))

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Record nodes that dbt did not run; `reasons` are by unique id."""
        for uid, reason in reasons.items():
            if uid not in self.planned:
                continue
            result = self.results.get(uid)
            if result is None:
                self.finish(replace(self.planned[uid], status=SKIPPED, message=reason))
            elif result.status == SKIPPED and not result.message:
                self.results[uid] = replace(result, message=reason)

    def all(self) -> list[NodeResult]:
        """Return the result of each planned node, and of others that failed or were skipped."""
        planned = [self.results.get(uid, planned) for uid, planned in self.planned.items()]
        return [*planned, *self.others.values()]

    @property
    def anything_failed(self) -> bool:
        """Whether dbt or a quality check reported a failure."""
        return any(_failed(result) for result in self.all())


def _check_status(evaluation: AssetCheckEvaluation) -> str:
    if evaluation.passed:
        return "pass"
    return WARNED if evaluation.severity.value == "WARN" else FAILED_TEST


def _result(planned: NodeResult, finished: NodeFinished) -> NodeResult:
    return replace(
        planned,
        compute=finished.compute,
        status=finished.status,
        rows=finished.rows,
        seconds=finished.seconds,
        message=finished.message,
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why steps failed: skipped nodes, crashes of dbt, and errors that belong to no node.

    `skipped` maps unique ids to reasons.
    """

    skipped: Mapping[str, str] = field(default_factory=dict)
    crashes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run."""
        return "DagsterExecutionInterruptedError" in self.kinds


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a run; `run_id` is Dagster's, None if Dagster recorded no run."""

    success: bool
    seconds: float = 0.0
    failure: Failure = field(default_factory=Failure)
    run_id: str | None = None


def failure_of(result: ExecuteInProcessResult) -> Failure:
    """Return why a run failed; empty if it did not."""
    skipped: dict[str, str] = {}
    crashes: list[str] = []
    others: list[str] = []
    kinds: set[str] = set()
    for event in result.all_events:
        if not event.is_step_failure:
            if event.is_run_failure and not kinds and event.message:
                others.append(event.message)
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None:
            metadata = data.user_failure_data.metadata
            skipped.update(_skipped(metadata))
            crashes += _listed(metadata, "crashes")
            kinds.add("Failure")
            continue
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        kinds.add((error.cls_name if error else None) or "")
        others.append(error.message.strip() if error else data.error_display_string)
    return Failure(skipped, tuple(crashes), tuple(others), frozenset(kinds))


def _skipped(metadata: Mapping[str, Any]) -> dict[str, str]:
    value = getattr(metadata.get("skipped"), "value", None)
    if isinstance(value, Mapping):
        return {str(uid): str(reason) for uid, reason in value.items()}
    return dict.fromkeys(_listed(metadata, "skipped"), "")


def _listed(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = getattr(metadata.get(key), "value", None)
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def times(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _failed(result: NodeResult) -> bool:
    good = is_good(result.status, check=result.kind in CHECK_KINDS)
    return not good and result.status not in {SKIPPED, NOT_RUN}


def _counts(report: RunReport) -> dict[str, int]:
    results = report.all()
    tests = [result.status for result in results if result.kind in CHECK_KINDS]
    nodes = [result for result in results if result.kind not in CHECK_KINDS]
    return {
        "built": sum(result.status in BUILT for result in nodes),
        "failed": sum(_failed(result) for result in nodes),
        "skipped": sum(result.status in {SKIPPED, NOT_RUN} for result in results),
        "tests_passed": sum(status in PASSED for status in tests),
        "tests_warned": tests.count(WARNED),
        "tests_failed": sum(_failed(result) for result in results if result.kind in CHECK_KINDS),
    }


def show_lineage(out: Console, report: RunReport, plan: ProductPlan) -> None:
    """Print the parents of each built node."""
    for result in report.all():
        if result.kind not in ASSET_KINDS or result.status not in BUILT:
            continue
        parents = plan.folded_parents.get(result.unique_id, ())
        names = (".".join(plan.nodes[parent].key) for parent in parents)
        out.print(f"{result.name} <- {', '.join(names) or '(nothing)'}")


def summarize(out: Console, report: RunReport, ending: Ending) -> None:
    """Print each failure with its message, then one line of counts."""
    counts = _counts(report)
    for result in report.all():
        if _failed(result) or (result.status == WARNED and result.message):
            style = "red" if _failed(result) else "yellow"
            what = f"{result.shown_kind} {result.name}"
            out.print(f"{result.status}: {what}: {result.message}", style=style)
    for line in (*ending.failure.crashes, *ending.failure.errors):
        out.print(line, style="red")
    out.print(
        f"{counts['built']} built, {counts['failed']} failed, {counts['skipped']} skipped; tests: "
        f"{counts['tests_passed']} passed, {counts['tests_warned']} warned, "
        f"{counts['tests_failed']} failed; {ending.seconds:.1f} s in "
        f"{times(len(report.invocations), 'dbt run')}",
        style="green" if ending.success else "red",
        # One line, for programs that read it.
        soft_wrap=True,
    )


def document(product: str, report: RunReport, ending: Ending) -> dict[str, Any]:
    """Return the run of a product as one JSON document."""
    return {
        "product": product,
        "success": ending.success,
        "run_id": ending.run_id,
        "seconds": round(ending.seconds, 3),
        "dbt_runs": len(report.invocations),
        "counts": _counts(report),
        "errors": [*ending.failure.crashes, *ending.failure.errors],
        "nodes": [asdict(item) for item in report.all()],
    }
