"""`floe-dagster run`: materializes a product through Dagster in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
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

from floe_orchestrator_dagster.assets.specs import Specs, quality_check_id
from floe_orchestrator_dagster.cli.exits import DBT_UNUSABLE, FAILED, INTERRUPTED, PRODUCT_WRONG
from floe_orchestrator_dagster.cli.live import LiveView, PlainView, Result, View
from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.report import (
    Failure,
    Recorder,
    document,
    failure_of,
    show_lineage,
    summarize,
    times,
)
from floe_orchestrator_dagster.cli.retry import find_retry
from floe_orchestrator_dagster.cli.screen import collected_warnings, console, progress_to
from floe_orchestrator_dagster.cli.selection import Selection, has_default_selector, select_nodes
from floe_orchestrator_dagster.definitions.build import build_definitions, job_named
from floe_orchestrator_dagster.errors import did_you_mean, known
from floe_orchestrator_dagster.plan import dagster_name, waves
from floe_orchestrator_dagster.product.opening import open_product

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.product.product import Product


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `run`."""

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    selector: str | None = None
    state: Path | None = None
    full_refresh: bool = False
    empty: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    partition: str | None = None
    threads: int | None = None
    job: str | None = None
    no_checks: bool = False
    from_failure: bool = False
    verbose: bool = False
    lineage: bool = False
    as_json: bool = False

    def op_config(self) -> dict[str, Any]:
        """Return the run config of each op that runs dbt."""
        config: dict[str, Any] = {
            "full_refresh": self.full_refresh,
            "empty": self.empty,
            "variables": dict(self.variables),
        }
        return config if self.threads is None else config | {"threads": self.threads}

    @property
    def of_a_first_run(self) -> Sequence[str]:
        """The options given that say what to run, which a retry takes from the run it retries."""
        given = {
            "--select": self.select,
            "--exclude": self.exclude,
            "--selector": self.selector is not None,
            "--state": self.state is not None,
            "--full-refresh": self.full_refresh,
            "--empty": self.empty,
            "--vars": self.variables,
            "--partition": self.partition is not None,
            "--threads": self.threads is not None,
            "--job": self.job is not None,
            "--no-checks": self.no_checks,
        }
        return [option for option, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class Todo:
    """What a run is to do: a job, what of it will be run, and how. Checks include floe.yaml's."""

    job: JobDefinition
    assets: Sequence[str]
    checks: Sequence[str]
    config: Mapping[str, Mapping[str, Any]]
    partition: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def run_product(directory: Path, asked: Asked) -> int:
    """Materialize a product and print what happened; returns the exit code.

    Raises:
        FloeDagsterError: the product is wrong, dbt cannot be started, or there is nothing to retry.
        click.UsageError: an option does not fit the product, or others.
    """
    if asked.from_failure and asked.of_a_first_run:
        raise click.UsageError(
            "--from-failure does what is left of the last run, as that was started: leave out "
            f"{', '.join(asked.of_a_first_run)}."
        )
    out = console(stderr=asked.as_json)
    errors = console(stderr=True)
    with collected_warnings() as said:
        product = open_product(directory, progress=progress_to(errors), variables=asked.variables)
    for line in said:
        errors.print(f"warning: {line}", style="yellow")

    def echo(line: str) -> None:
        if asked.verbose:
            errors.print(line, style="dim")

    recorder = Recorder()
    definitions = build_definitions(product, listener=recorder, echo=echo)
    specs = Specs(product.plan, project_dir=product.project_dir)
    if not asked.from_failure:
        chosen = _chosen(product, specs, definitions, asked, errors)
        if not any(chosen):
            out.print(f"Data product {product.plan.name} has nothing to build.")
            _respond(asked, document(product, recorder, Failure(), 0.0, success=True))
            return 0
        todo = _todo(product, specs, definitions, asked, *chosen)
    with _instance(out, told=not asked.from_failure) as instance:
        if asked.from_failure:
            todo = _rest(product, specs, definitions, instance, out)
        _apply_pool_limits(product, instance, errors)
        return _run(product, specs, todo, instance, recorder, asked, out, errors)


def _run(
    product: Product,
    specs: Specs,
    todo: Todo,
    instance: DagsterInstance,
    recorder: Recorder,
    asked: Asked,
    out: Console,
    errors: Console,
) -> int:
    planned = _planned(product.plan, specs, todo)
    tests = [uid for uid in todo.checks if "#" not in uid]
    runs = waves(product.plan, todo.assets, tests)
    out.print(
        f"{product.plan.name}: {times(len(planned), 'node')} planned ({len(todo.assets)} to build, "
        f"{len(todo.checks)} to test) in {times(len(runs), 'dbt run')}"
    )
    view: View = LiveView(out, planned) if out.is_terminal else PlainView(out, planned)
    recorder.begin(planned, view)
    began = time.monotonic()
    failure = Failure()
    try:
        result = todo.job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={
                "ops": dict(todo.config),
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            partition_key=todo.partition,
            tags=dict(todo.tags),
        )
        failure = failure_of(result)
        # Dagster takes an interrupt during a step for the step's failure, and returns.
        if failure.interrupted:
            raise KeyboardInterrupt  # noqa: TRY301  it is handled as any other one
        _add_quality_checks(recorder, specs, result)
        recorder.skip(failure.skipped)
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        view.close()
        message = (
            f"Interrupted: dbt was stopped; {len(recorder.results)} of "
            f"{times(len(planned), 'node')} done."
        )
        errors.print(message)
        stopped = replace(failure, skipped={}, crashes=(), errors=(message,))
        seconds = time.monotonic() - began
        _respond(asked, document(product, recorder, stopped, seconds, success=False))
        return INTERRUPTED
    finally:
        view.close()
    seconds = time.monotonic() - began
    code = _exit_code(result, recorder, failure)
    if asked.lineage:
        show_lineage(out, recorder, product.plan)
    summarize(out, recorder, failure, seconds, success=not code)
    _respond(asked, document(product, recorder, failure, seconds, result, success=not code))
    return code


def _respond(asked: Asked, content: Mapping[str, Any]) -> None:
    if asked.as_json:
        respond(content)


def _chosen(
    product: Product, specs: Specs, definitions: Definitions, asked: Asked, errors: Console
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the assets and dbt tests that are selected, by unique id."""

    def warn(line: str) -> None:
        errors.print(f"warning: {line}", style="yellow")

    selection = Selection(asked.select, asked.exclude, asked.selector, asked.state, asked.variables)
    if selection.is_default and has_default_selector(product):
        errors.print("dbt is asked for the default selector of selectors.yml.", style="dim")
    assets, checks = select_nodes(product, specs, definitions, selection, warn)
    return assets, [] if asked.no_checks else checks


def _todo(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    asked: Asked,
    assets: Sequence[str],
    checks: Sequence[str],
) -> Todo:
    """Return what a first run does: a job of the product, narrowed to what was chosen."""
    name = asked.job or dagster_name(product.plan.name)
    names = [job.name for job in definitions.jobs or ()]
    if name not in names:
        raise click.BadParameter(
            f"There is no job '{name}'.{did_you_mean(name, names)} Jobs: {known(names)}.",
            param_hint="--job",
        )
    quality = [
        quality_check_id(uid, check)
        for uid in assets
        for check in product.plan.nodes[uid].quality_checks
        if not asked.no_checks
    ]
    everything = len(assets) == len(specs.assets) and len(checks) + len(quality) == len(
        specs.checks
    )
    # To resolve a job takes a while: the whole one only where it is what will run.
    if everything:
        job = job_named(definitions, name)
    else:
        job = _narrowed(specs, definitions, name, assets, [*checks, *quality])
    _check_partition(job, asked.partition)
    assets, checks = _of_job(specs, definitions, job, assets, checks)
    chosen = set(assets)
    return Todo(
        job=job,
        assets=assets,
        checks=[*checks, *(uid for uid in quality if uid.partition("#")[0] in chosen)],
        config={node.name: {"config": asked.op_config()} for node in job.nodes},
        partition=asked.partition,
    )


def _rest(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    instance: DagsterInstance,
    out: Console,
) -> Todo:
    """Return what a retry does: the job of the run that it retries, as that was started."""
    retry = find_retry(product, specs, definitions, instance)
    name = retry.parent.job_name
    if name not in [job.name for job in definitions.jobs or ()]:
        # Dagster's own job for assets that were picked by hand.
        name = dagster_name(product.plan.name)
    job = _narrowed(specs, definitions, name, retry.assets, retry.checks)
    left = retry.left(specs, definitions, job, instance)
    out.print(retry.describe(left))
    retry.adopt(instance)
    return Todo(
        job=job,
        assets=[uid for uid in retry.assets if uid in left],
        checks=[uid for uid in retry.checks if uid in left],
        config={node.name: retry.config_of(node.name) for node in job.nodes},
        partition=retry.partition,
        tags=retry.tags,
    )


def _narrowed(
    specs: Specs,
    definitions: Definitions,
    name: str,
    assets: Sequence[str],
    checks: Sequence[str],
) -> JobDefinition:
    """Return a job of that name with these assets and checks alone."""
    selection = AssetSelection.assets(*(specs.keys[uid] for uid in assets)).without_checks()
    selection |= AssetSelection.checks(*(specs.checks[uid].key for uid in checks))
    tags = {"floe/product": dagster_name(specs.plan.name)}
    try:
        return job_named(
            Definitions(
                assets=definitions.assets,
                jobs=[define_asset_job(name, selection=selection, tags=tags)],
            ),
            name,
        )
    except DagsterError as error:
        raise click.UsageError(f"Dagster cannot run this selection in one job: {error}") from error


def _planned(plan: ProductPlan, specs: Specs, todo: Todo) -> dict[str, Result]:
    planned = {}
    for uid in (*todo.assets, *todo.checks):
        model = uid.partition("#")[0]
        node = plan.nodes[model]
        quality = uid != model
        name = specs.checks[uid].name if quality else node.name
        kind = "quality_check" if quality else node.kind
        planned[uid] = Result(uid, name, kind, node.compute, "not run")
    return planned


def _instance(out: Console, *, told: bool) -> DagsterInstance:
    if not os.environ.get("DAGSTER_HOME"):
        if told:
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


def _of_job(
    specs: Specs,
    definitions: Definitions,
    job: JobDefinition,
    assets: Sequence[str],
    checks: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Leave out what belongs to another job: a product has one for each of its partitionings."""
    if len([*(definitions.jobs or ())]) == 1:
        return [*assets], [*checks]
    own = [uid for uid in assets if specs.partitions(uid) == job.partitions_def]
    on = {*own, *(specs.plan.sources if job.partitions_def is None else ())}
    return own, [uid for uid in checks if specs.plan.nodes[uid].on in on]


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


def _exit_code(result: ExecuteInProcessResult, recorder: Recorder, failure: Failure) -> int:
    if result.success:
        # What dbt reports decides, whatever became of it on its way through Dagster.
        unsettled = any(item.status == "not run" for item in recorder.all())
        return FAILED if recorder.anything_failed or unsettled else 0
    if failure.kinds & {"ProductError", "PlanError", "ConfigError", "ScheduleError"}:
        return PRODUCT_WRONG
    ran = any(item.status not in {"skipped", "not run"} for item in recorder.all())
    if "DbtError" in failure.kinds or (failure.crashes and not ran):
        return DBT_UNUSABLE
    return FAILED
