"""`floe-dagster run`: materializes a product through Dagster in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click
from dagster import (
    AssetCheckEvaluation,
    AssetSelection,
    DagsterError,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    JobDefinition,
    define_asset_job,
)

from floe_orchestrator_dagster.cli.exits import DBT_UNUSABLE, FAILED, INTERRUPTED, PRODUCT_WRONG
from floe_orchestrator_dagster.cli.live import LiveView, PlainView, Result, View
from floe_orchestrator_dagster.cli.screen import collected_warnings, console, progress_to
from floe_orchestrator_dagster.cli.selection import select_nodes
from floe_orchestrator_dagster.definitions import build_definitions
from floe_orchestrator_dagster.errors import did_you_mean, known
from floe_orchestrator_dagster.execution import BUILT, NodeFinished, NodeStarted
from floe_orchestrator_dagster.plan import dagster_name, waves
from floe_orchestrator_dagster.product import Product, open_product
from floe_orchestrator_dagster.specs import Specs, quality_check_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from floe_orchestrator_dagster.execution import Progress

PASSED = frozenset({"pass", "success"})
CHECKS = frozenset({"test", "unit_test", "quality_check"})


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `run`."""

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    full_refresh: bool = False
    empty: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    partition: str | None = None
    threads: int | None = None
    job: str | None = None
    no_checks: bool = False
    verbose: bool = False
    as_json: bool = False

    def op_config(self) -> dict[str, Any]:
        """Return the run config of each op that runs dbt."""
        config: dict[str, Any] = {
            "full_refresh": self.full_refresh,
            "empty": self.empty,
            "variables": dict(self.variables),
        }
        return config if self.threads is None else config | {"threads": self.threads}


class Recorder:
    """Keeps the last result of every planned node and passes each on to the view."""

    def __init__(self, planned: Mapping[str, Result], view: View) -> None:
        self.planned = planned
        self.view = view
        self.results: dict[str, Result] = {}
        self.invocations: set[str] = set()

    def __call__(self, progress: Progress) -> None:
        """Take what dbt told."""
        planned = self.planned.get(progress.unique_id)
        if planned is None:
            # dbt builds functions for the nodes that call them; Dagster knows nothing of those.
            return
        if isinstance(progress, NodeStarted):
            self.view.started(replace(planned, compute=progress.compute))
        else:
            self.invocations.add(progress.invocation_id)
            self.finish(_result(planned, progress))

    def finish(self, result: Result) -> None:
        """Note and show one result."""
        self.results[result.unique_id] = result
        self.view.finished(result)

    def all(self) -> list[Result]:
        """Return a result for every planned node."""
        return [self.results.get(uid, planned) for uid, planned in self.planned.items()]


def _result(planned: Result, finished: NodeFinished) -> Result:
    return replace(
        planned,
        compute=finished.compute,
        status=finished.status,
        rows=finished.rows,
        seconds=finished.seconds,
        message=finished.message,
    )


def run_product(directory: Path, asked: Asked) -> int:
    """Materialize a product and print what happened; returns the exit code.

    Raises:
        FloeDagsterError: the product is wrong, or dbt cannot be started.
        click.UsageError: an option does not fit the product.
    """
    out = console(stderr=asked.as_json)
    errors = console(stderr=True)
    with collected_warnings() as said:
        product = open_product(directory, progress=progress_to(errors))
    for line in said:
        errors.print(f"warning: {line}", style="yellow")
    specs = Specs(product.plan, project_dir=product.project_dir)
    assets, checks = _chosen(product, specs, asked, errors)
    planned = _planned(product, specs, assets, checks, with_quality=not asked.no_checks)
    runs = waves(product.plan, assets, checks)
    if not planned:
        out.print(f"Data product {product.plan.name} has nothing to build.")
        return 0
    with _instance(out) as instance:
        _apply_pool_limits(product, instance, errors)
        out.print(
            f"{product.plan.name}: {len(planned)} nodes planned ({len(assets)} to build, "
            f"{len(planned) - len(assets)} tests) in {_times(len(runs), 'dbt run')}"
        )
        view: View = LiveView(out, planned) if out.is_terminal else PlainView(out, planned)
        recorder = Recorder(planned, view)

        def echo(line: str) -> None:
            if asked.verbose:
                errors.print(line, style="dim")

        definitions = build_definitions(product, listener=recorder, echo=echo)
        job = _job(product, specs, definitions, asked, assets, checks)
        began = time.monotonic()
        try:
            result = job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config={
                    "ops": {node.name: {"config": asked.op_config()} for node in job.nodes},
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                },
                partition_key=asked.partition,
            )
            _add_quality_checks(recorder, specs, result)
            failure = _failure(result)
            for uid in failure.skipped:
                if uid not in recorder.results and uid in planned:
                    recorder.finish(replace(planned[uid], status="skipped"))
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            view.close()
            done = len(recorder.results)
            errors.print(f"Interrupted: dbt was stopped; {done} of {len(planned)} nodes were done.")
            return INTERRUPTED
        finally:
            view.close()
        seconds = time.monotonic() - began
    _summarize(out, recorder, failure, seconds, success=result.success)
    if asked.as_json:
        click.echo(json.dumps(_document(product, recorder, failure, seconds, result), indent=2))
    return _exit_code(result, recorder, failure)


def _chosen(
    product: Product, specs: Specs, asked: Asked, errors: Console
) -> tuple[list[str], list[str]]:
    if not asked.select and not asked.exclude:
        assets, checks = [*specs.plan.assets], [*specs.plan.checks]
    else:

        def warn(line: str) -> None:
            errors.print(f"warning: {line}", style="yellow")

        assets, checks = select_nodes(product, specs, asked.select, asked.exclude, warn)
    return assets, [] if asked.no_checks else checks


def _planned(
    product: Product,
    specs: Specs,
    assets: Sequence[str],
    checks: Sequence[str],
    *,
    with_quality: bool,
) -> dict[str, Result]:
    plan = product.plan
    planned = {
        uid: Result(uid, plan.nodes[uid].name, plan.nodes[uid].kind, plan.nodes[uid].compute, "")
        for uid in (*assets, *checks)
    }
    for uid in assets if with_quality else ():
        node = plan.nodes[uid]
        for check in node.quality_checks:
            name = quality_check_id(uid, check)
            shown = specs.checks[name].name
            planned[name] = Result(name, shown, "quality_check", node.compute, "")
    return {uid: replace(result, status="not run") for uid, result in planned.items()}


def _instance(out: Console) -> DagsterInstance:
    if not os.environ.get("DAGSTER_HOME"):
        out.print("DAGSTER_HOME is not set: Dagster keeps no record of this run.", style="dim")
        return DagsterInstance.ephemeral()
    try:
        return DagsterInstance.get()
    except DagsterError as error:
        raise click.UsageError(f"Cannot use DAGSTER_HOME: {error}") from error


def _apply_pool_limits(product: Product, instance: DagsterInstance, errors: Console) -> None:
    """Set the configured limits of pools, through Dagster's own command line."""
    if product.config.isolation != "compute" or instance.is_ephemeral:
        return
    for compute in product.plan.computes.values():
        if compute.pool is None or compute.pool_limit is None:
            continue
        # dagster has no public function for it.
        words = ["instance", "concurrency", "set", compute.pool, str(compute.pool_limit)]
        done = subprocess.run(  # noqa: S603  Dagster's own command
            [sys.executable, "-m", "dagster", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            errors.print(
                f"warning: pool '{compute.pool}' keeps its limit: {' '.join(reason)}",
                style="yellow",
            )


def _job(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    asked: Asked,
    assets: Sequence[str],
    checks: Sequence[str],
) -> JobDefinition:
    """Return the product's job, narrowed to what was chosen."""
    names = [job.name for job in definitions.jobs or ()]
    own = dagster_name(product.plan.name)
    name = asked.job or own
    if name not in names:
        raise click.BadParameter(
            f"There is no job '{name}'.{did_you_mean(name, names)} Jobs: {known(names)}.",
            param_hint="--job",
        )
    try:
        job = resolve_job(definitions, name)
        if asked.select or asked.exclude or asked.no_checks:
            keys = [specs.checks[uid].key for uid in checks]
            if not asked.no_checks:
                keys += [
                    specs.checks[quality_check_id(uid, check)].key
                    for uid in assets
                    for check in product.plan.nodes[uid].quality_checks
                ]
            selection = AssetSelection.assets(*(specs.keys[uid] for uid in assets))
            narrowed = Definitions(
                assets=definitions.assets,
                jobs=[
                    define_asset_job(
                        name,
                        selection=selection.without_checks() | AssetSelection.checks(*keys),
                        tags={"floe/product": own},
                    )
                ],
            )
            job = resolve_job(narrowed, name)
    except DagsterError as error:
        raise click.UsageError(f"Dagster cannot run this selection in one job: {error}") from error
    _check_partition(job, asked.partition)
    return job


def resolve_job(definitions: Definitions, name: str) -> JobDefinition:
    """Return a job of Definitions, by whatever name this Dagster has for that."""
    resolve = getattr(definitions, "resolve_job_def", None) or definitions.get_job_def
    job: JobDefinition = resolve(name)
    return job


def _check_partition(job: JobDefinition, partition: str | None) -> None:
    partitions = job.partitions_def
    if partitions is None:
        if partition is not None:
            raise click.BadParameter("Nothing selected is partitioned.", param_hint="--partition")
        return
    keys = partitions.get_partition_keys()
    if partition is None:
        latest = f" The latest is {keys[-1]}." if keys else ""
        raise click.UsageError(
            f"Job '{job.name}' is partitioned: choose one with --partition KEY.{latest}"
        )
    if partition not in keys:
        span = f" They go from {keys[0]} to {keys[-1]}." if keys else " There is none yet."
        raise click.BadParameter(
            f"There is no partition '{partition}'.{did_you_mean(partition, keys)}{span}",
            param_hint="--partition",
        )


def _add_quality_checks(recorder: Recorder, specs: Specs, result: ExecuteInProcessResult) -> None:
    """Report floe.yaml's own checks, which run inside the dbt process and not as dbt nodes."""
    by_key = {spec.key: uid for uid, spec in specs.checks.items() if "#" in uid}
    for evaluation in result.get_asset_check_evaluations():
        uid = by_key.get(evaluation.asset_check_key)
        if uid is not None and uid in recorder.planned:
            planned = recorder.planned[uid]
            recorder.finish(
                replace(
                    planned,
                    status=_check_status(evaluation),
                    message=evaluation.description or "",
                )
            )


def _check_status(evaluation: AssetCheckEvaluation) -> str:
    if evaluation.passed:
        return "pass"
    return "warn" if evaluation.severity.value == "WARN" else "fail"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why steps failed: what they skipped, how dbt crashed, errors that are no node's."""

    skipped: tuple[str, ...] = ()
    crashes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()


def _failure(result: ExecuteInProcessResult) -> Failure:
    skipped: dict[str, None] = {}
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
            skipped.update(dict.fromkeys(_listed(metadata, "skipped")))
            crashes += _listed(metadata, "crashes")
            kinds.add("Failure")
            continue
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        kinds.add((error.cls_name if error else None) or "")
        others.append(error.message.strip() if error else data.error_display_string)
    return Failure(tuple(skipped), tuple(crashes), tuple(others), frozenset(kinds))


def _listed(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = getattr(metadata.get(key), "value", None)
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _failed(result: Result) -> bool:
    good = PASSED | {"warn"} if result.kind in CHECKS else BUILT
    return result.status not in good | {"skipped", "not run"}


def _counts(recorder: Recorder) -> dict[str, int]:
    results = recorder.all()
    tests = [result.status for result in results if result.kind in CHECKS]
    nodes = [result for result in results if result.kind not in CHECKS]
    return {
        "built": sum(result.status in BUILT for result in nodes),
        "failed": sum(_failed(result) for result in nodes),
        "skipped": sum(result.status in {"skipped", "not run"} for result in results),
        "tests_passed": sum(status in PASSED for status in tests),
        "tests_warned": tests.count("warn"),
        "tests_failed": sum(_failed(result) for result in results if result.kind in CHECKS),
    }


def _summarize(
    out: Console, recorder: Recorder, failure: Failure, seconds: float, *, success: bool
) -> None:
    counts = _counts(recorder)
    for result in recorder.all():
        if _failed(result) or (result.status == "warn" and result.message):
            style = "red" if _failed(result) else "yellow"
            out.print(
                f"{result.status}: {result.kind} {result.name}: {result.message}", style=style
            )
    for line in (*failure.crashes, *failure.errors):
        out.print(line, style="red")
    out.print(
        f"{counts['built']} built, {counts['failed']} failed, {counts['skipped']} skipped; tests: "
        f"{counts['tests_passed']} passed, {counts['tests_warned']} warned, "
        f"{counts['tests_failed']} failed; {seconds:.1f} s in "
        f"{_times(len(recorder.invocations), 'dbt run')}",
        style="green" if success else "red",
    )


def _document(
    product: Product,
    recorder: Recorder,
    failure: Failure,
    seconds: float,
    result: ExecuteInProcessResult,
) -> dict[str, Any]:
    return {
        "product": product.plan.name,
        "success": result.success,
        "run_id": result.run_id,
        "seconds": round(seconds, 3),
        "dbt_runs": len(recorder.invocations),
        "counts": _counts(recorder),
        "errors": [*failure.crashes, *failure.errors],
        "nodes": [asdict(item) for item in recorder.all()],
    }


def _exit_code(result: ExecuteInProcessResult, recorder: Recorder, failure: Failure) -> int:
    if result.success:
        return 0
    if failure.kinds & {"ProductError", "PlanError", "ConfigError", "ScheduleError"}:
        return PRODUCT_WRONG
    ran = any(item.status not in {"skipped", "not run"} for item in recorder.all())
    if "DbtError" in failure.kinds or (failure.crashes and not ran):
        return DBT_UNUSABLE
    return FAILED
