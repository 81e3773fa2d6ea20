"""`floe-dagster run`: materializes a product through Dagster in this process."""

from __future__ import annotations

import json
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

from floe_orchestrator_dagster.cli.exits import DBT_UNUSABLE, FAILED, INTERRUPTED, PRODUCT_WRONG
from floe_orchestrator_dagster.cli.live import LiveView, PlainView, Result, View
from floe_orchestrator_dagster.cli.report import (
    Failure,
    Recorder,
    document,
    failure_of,
    show_lineage,
    summarize,
    times,
)
from floe_orchestrator_dagster.cli.screen import collected_warnings, console, progress_to
from floe_orchestrator_dagster.cli.selection import select_nodes
from floe_orchestrator_dagster.definitions import build_definitions, job_named
from floe_orchestrator_dagster.errors import did_you_mean, known
from floe_orchestrator_dagster.plan import dagster_name, waves
from floe_orchestrator_dagster.product import Product, open_product
from floe_orchestrator_dagster.specs import Specs, quality_check_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console


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


def run_product(directory: Path, asked: Asked) -> int:
    """Materialize a product and print what happened; returns the exit code.

    Raises:
        FloeDagsterError: the product is wrong, or dbt cannot be started.
        click.UsageError: an option does not fit the product.
    """
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
    assets, checks = _chosen(product, specs, definitions, asked, errors)
    if not assets and not checks:
        out.print(f"Data product {product.plan.name} has nothing to build.")
        _print_document(asked, document(product, recorder, Failure(), 0.0))
        return 0
    job = _job(product, specs, definitions, asked, assets, checks)
    assets, checks = _of_job(specs, definitions, job, assets, checks)
    planned = _planned(product, specs, assets, checks, with_quality=not asked.no_checks)
    runs = waves(product.plan, assets, checks)
    with _instance(out) as instance:
        _apply_pool_limits(product, instance, errors)
        out.print(
            f"{product.plan.name}: {times(len(planned), 'node')} planned ({len(assets)} to build, "
            f"{len(planned) - len(assets)} to test) in {times(len(runs), 'dbt run')}"
        )
        view: View = LiveView(out, planned) if out.is_terminal else PlainView(out, planned)
        recorder.begin(planned, view)
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
            failure = failure_of(result)
            # Dagster takes an interrupt during a step for the step's failure, and returns.
            if failure.interrupted:
                raise KeyboardInterrupt  # noqa: TRY301  it is handled as any other one
            _add_quality_checks(recorder, specs, result)
            recorder.skip(failure.skipped)
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            view.close()
            done = times(len(planned), "node")
            errors.print(f"Interrupted: dbt was stopped; {len(recorder.results)} of {done} done.")
            return INTERRUPTED
        finally:
            view.close()
        seconds = time.monotonic() - began
    if asked.lineage:
        show_lineage(out, recorder, product.plan)
    summarize(out, recorder, failure, seconds, success=result.success)
    _print_document(asked, document(product, recorder, failure, seconds, result))
    return _exit_code(result, recorder, failure)


def _print_document(asked: Asked, content: Mapping[str, Any]) -> None:
    if asked.as_json:
        click.echo(json.dumps(content, indent=2))


def _chosen(
    product: Product, specs: Specs, definitions: Definitions, asked: Asked, errors: Console
) -> tuple[list[str], list[str]]:
    if not asked.select and not asked.exclude:
        assets, checks = [*specs.plan.assets], [*specs.plan.checks]
    else:

        def warn(line: str) -> None:
            errors.print(f"warning: {line}", style="yellow")

        assets, checks = select_nodes(
            product, specs, definitions, asked.select, asked.exclude, warn
        )
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
        # To resolve a job takes a while: the whole one only where it is what will run.
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
            job = job_named(narrowed, name)
        else:
            job = job_named(definitions, name)
    except DagsterError as error:
        raise click.UsageError(f"Dagster cannot run this selection in one job: {error}") from error
    _check_partition(job, asked.partition)
    return job


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
        return 0
    if failure.kinds & {"ProductError", "PlanError", "ConfigError", "ScheduleError"}:
        return PRODUCT_WRONG
    ran = any(item.status not in {"skipped", "not run"} for item in recorder.all())
    if "DbtError" in failure.kinds or (failure.crashes and not ran):
        return DBT_UNUSABLE
    return FAILED
