"""`floe-dagster run`: materializes a product through Dagster in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster import DagsterExecutionInterruptedError

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.cli.exits import DBT_UNUSABLE, FAILED, INTERRUPTED, PRODUCT_WRONG
from floe_orchestrator_dagster.cli.instance import apply_pool_limits, is_home_set, open_instance
from floe_orchestrator_dagster.cli.live import LiveView, NodeResult, PlainView, View
from floe_orchestrator_dagster.cli.loaded import LoadedProduct
from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.report import (
    NOT_RUN,
    Ending,
    Failure,
    RunReport,
    document,
    failure_of,
    show_lineage,
    summarize,
    times,
)
from floe_orchestrator_dagster.cli.screen import Screen, collected_warnings
from floe_orchestrator_dagster.cli.todo import RunOptions, Todo, first_run, rest_of_last_run
from floe_orchestrator_dagster.dbt.status import SKIPPED
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.plan import waves
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.run.step import Host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dagster import DagsterInstance, ExecuteInProcessResult

    from floe_orchestrator_dagster.dbt.process import DbtProcesses
    from floe_orchestrator_dagster.plan import ProductPlan


def run_product(directory: Path, options: RunOptions, processes: DbtProcesses) -> int:
    """Materialize a product, print the results and return the exit code.

    `processes` may already have started dbt for the first command of the run.

    Raises:
        FloeDagsterError: the product is wrong, or dbt cannot start.
        click.UsageError: an option contradicts the product or another option, or there is nothing
            to retry.
    """
    if options.from_failure:
        options.refuse_for_a_retry()
    screen = Screen.opened(as_json=options.as_json)
    with collected_warnings() as warnings:
        product = open_product(directory, progress=screen.progress, variables=options.variables)
    screen.warn(*warnings)
    report = RunReport()
    echo = screen.progress if options.verbose else lambda _line: None
    definitions = build_definitions(product, host=Host(report, echo, processes))
    specs = Specs(product.plan, project_dir=product.project_dir)
    run = _Run(LoadedProduct(product, specs, definitions), options, screen, report)
    todo = None
    if not options.from_failure:
        todo = first_run(run.loaded, options, screen)
        if todo is None:
            screen.out.print(f"Data product {product.plan.name} has nothing to build.")
            run.respond(Ending(success=True))
            return 0
    with open_instance() as instance:
        if todo is None:
            todo = rest_of_last_run(run.loaded, instance, screen)
        elif not is_home_set():
            screen.out.print(
                "DAGSTER_HOME is not set: Dagster keeps no record of this run.", style="dim"
            )
        apply_pool_limits(product, instance, screen)
        return run.execute(todo, instance)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of a loaded product, with the screen and the report."""

    loaded: LoadedProduct
    options: RunOptions
    screen: Screen
    report: RunReport

    def execute(self, todo: Todo, instance: DagsterInstance) -> int:
        """Run the job, show its progress, print its results and return the exit code."""
        report, out, plan = self.report, self.screen.out, self.loaded.plan
        planned = _planned(plan, todo)
        runs = waves(plan, todo.assets, todo.checks)
        out.print(
            f"{plan.name}: {times(len(planned), 'node')} planned ({len(todo.assets)} to build, "
            f"{len(todo.checks)} to test) in {times(len(runs), 'dbt run')}"
        )
        view: View = LiveView(out, planned) if out.is_terminal else PlainView(out, planned)
        report.begin(planned, view)
        began = time.monotonic()
        failure = Failure()
        try:
            result = _execute_in_process(todo, instance)
            failure = failure_of(result)
            # Dagster treats an interrupt during a step as a failure of the step, and returns.
            if failure.interrupted:
                raise KeyboardInterrupt  # noqa: TRY301  handled like any other interrupt
            report.add_quality_checks(self.loaded.specs, result)
            report.skip(failure.skipped)
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            view.close()
            message = (
                f"Interrupted: dbt was stopped; {len(report.results)} of "
                f"{times(len(planned), 'node')} done."
            )
            self.screen.errors.print(message)
            stopped = replace(failure, skipped={}, crashes=(), errors=(message,))
            self.respond(Ending(success=False, seconds=time.monotonic() - began, failure=stopped))
            return INTERRUPTED
        finally:
            view.close()
        code = _exit_code(result, report, failure)
        ending = Ending(
            success=not code,
            seconds=time.monotonic() - began,
            failure=failure,
            run_id=result.run_id,
        )
        if self.options.lineage:
            show_lineage(out, report, plan)
        summarize(out, report, ending)
        self.respond(ending)
        return code

    def respond(self, ending: Ending) -> None:
        """Respond with the run as a document, if `--json` requests one."""
        if self.options.as_json:
            respond(document(self.loaded.plan.name, self.report, ending))


def _execute_in_process(todo: Todo, instance: DagsterInstance) -> ExecuteInProcessResult:
    return todo.job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={
            "ops": dict(todo.config),
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        partition_key=todo.partition,
        tags=dict(todo.tags),
    )


def _planned(plan: ProductPlan, todo: Todo) -> Mapping[str, NodeResult]:
    nodes = (plan.nodes[uid] for uid in (*todo.assets, *todo.checks))
    return {
        node.unique_id: NodeResult(node.unique_id, node.name, node.kind, node.compute, NOT_RUN)
        for node in nodes
    }


def _exit_code(result: ExecuteInProcessResult, report: RunReport, failure: Failure) -> int:
    if result.success:
        # dbt's reports decide, even if Dagster's run succeeded.
        unsettled = any(item.status == NOT_RUN for item in report.all())
        return FAILED if report.anything_failed or unsettled else 0
    if failure.kinds & {"ProductError", "PlanError", "ConfigError", "ScheduleError"}:
        return PRODUCT_WRONG
    ran = any(item.status not in {SKIPPED, NOT_RUN} for item in report.all())
    if "DbtError" in failure.kinds or (failure.crashes and not ran):
        return DBT_UNUSABLE
    return FAILED
