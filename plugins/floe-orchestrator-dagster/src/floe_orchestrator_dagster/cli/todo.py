"""What a run will do: a job with the selected nodes only, or the rest of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
from dagster import DagsterError

from floe_orchestrator_dagster.cli.retry import find_retry
from floe_orchestrator_dagster.cli.selection import Selection, has_default_selector, select_nodes
from floe_orchestrator_dagster.definitions.jobs import JobContent, job_named, narrowed_job
from floe_orchestrator_dagster.errors import did_you_mean, known
from floe_orchestrator_dagster.plan import dagster_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dagster import DagsterInstance, JobDefinition

    from floe_orchestrator_dagster.cli.loaded import LoadedProduct
    from floe_orchestrator_dagster.cli.screen import Screen


@dataclass(frozen=True, slots=True)
class RunOptions:
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

    @property
    def selection(self) -> Selection:
        """The options that select nodes."""
        return Selection(self.select, self.exclude, self.selector, self.state, self.variables)

    def op_config(self) -> dict[str, Any]:
        """Return the run config of each op that runs dbt."""
        config: dict[str, Any] = {
            "full_refresh": self.full_refresh,
            "empty": self.empty,
            "variables": dict(self.variables),
        }
        return config if self.threads is None else config | {"threads": self.threads}

    def refuse_for_a_retry(self) -> None:
        """Refuse options that say what to run, because a retry takes them from the earlier run.

        Raises:
            click.UsageError: such options are set; names each.
        """
        options = {
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
        names = [option for option, value in options.items() if value]
        if names:
            raise click.UsageError(
                "--from-failure runs what is left of the last run, with the options of that run: "
                f"leave out {', '.join(names)}."
            )


@dataclass(frozen=True, slots=True)
class Todo:
    """What a run will do: a job, the nodes of it that will run, and how."""

    job: JobDefinition
    assets: Sequence[str]
    checks: Sequence[str]
    config: Mapping[str, Mapping[str, Any]]
    partition: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def first_run(loaded: LoadedProduct, options: RunOptions, screen: Screen) -> Todo | None:
    """Return what a run with these options will do; None if that is nothing.

    Raises:
        click.UsageError: an option contradicts the product or another option.
    """
    selection = options.selection
    if selection.is_default and has_default_selector(loaded.product):
        screen.progress("Resolving the default selector of selectors.yml with dbt ...")
    assets, checks = select_nodes(
        loaded.product, loaded.specs, loaded.definitions, selection, screen.warn
    )
    if options.no_checks:
        checks = []
    return _narrowed_to(loaded, options, assets, checks) if assets or checks else None


def _narrowed_to(
    loaded: LoadedProduct, options: RunOptions, assets: Sequence[str], checks: Sequence[str]
) -> Todo:
    """Return the job of the options, narrowed to what is selected."""
    specs, plan = loaded.specs, loaded.plan
    name = options.job or dagster_name(plan.name)
    if name not in loaded.jobs:
        raise click.BadParameter(
            f"There is no job '{name}'.{did_you_mean(name, loaded.jobs)} Jobs: "
            f"{known(loaded.jobs)}.",
            param_hint="--job",
        )
    # Resolving a job takes a while, so resolve the whole one only if all of it will run.
    if len(assets) == len(specs.assets) and len(checks) == len(specs.checks):
        job = job_named(loaded.definitions, name)
    else:
        job = _narrowed(loaded, name, JobContent(assets, checks))
    _check_partition(job, options.partition)
    assets, checks = _of_job(loaded, job, assets, checks)
    return Todo(
        job=job,
        assets=assets,
        checks=checks,
        config={node.name: {"config": options.op_config()} for node in job.nodes},
        partition=options.partition,
    )


def rest_of_last_run(loaded: LoadedProduct, instance: DagsterInstance, screen: Screen) -> Todo:
    """Return what a retry will do: the rest of the last run, with that run's job and config.

    Raises:
        click.UsageError: there is nothing to retry.
    """
    retry = find_retry(loaded, instance)
    name = retry.parent.job_name
    if name not in loaded.jobs:
        # Dagster's own job for assets that a user picked.
        name = dagster_name(loaded.plan.name)
    job = _narrowed(loaded, name, JobContent(retry.assets, retry.checks))
    left = retry.left(loaded, job, instance)
    screen.out.print(retry.describe(left))
    retry.adopt(instance)
    return Todo(
        job=job,
        assets=[uid for uid in retry.assets if uid in left],
        checks=[uid for uid in retry.checks if uid in left],
        config={node.name: retry.config_of(node.name) for node in job.nodes},
        partition=retry.partition,
        tags=retry.tags,
    )


def _narrowed(loaded: LoadedProduct, name: str, content: JobContent) -> JobDefinition:
    try:
        return narrowed_job(loaded.definitions, loaded.specs, name, content)
    except DagsterError as error:
        raise click.UsageError(f"Dagster cannot run this selection in one job: {error}") from error


def _of_job(
    loaded: LoadedProduct, job: JobDefinition, assets: Sequence[str], checks: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Leave out nodes of other jobs: a product has one job per partitioning."""
    if len(loaded.jobs) == 1:
        return [*assets], [*checks]
    plan, partitions = loaded.plan, job.partitions_def
    own = [uid for uid in assets if loaded.specs.partitions(uid) == partitions]
    on = {*own, *(plan.sources if partitions is None else ())}
    return own, [uid for uid in checks if plan.nodes[uid].on in on]


def _check_partition(job: JobDefinition, partition: str | None) -> None:
    partitions = job.partitions_def
    if partitions is None:
        if partition is not None:
            raise click.BadParameter(
                "The selected nodes are not partitioned. Leave out this option.",
                param_hint="--partition",
            )
        return
    keys = partitions.get_partition_keys()
    if partition is None:
        latest = f" The latest is {keys[-1]}." if keys else ""
        raise click.UsageError(
            f"Job '{job.name}' is partitioned: choose a partition with --partition KEY.{latest}"
        )
    if partition not in keys:
        span = (
            f" Partitions go from {keys[0]} to {keys[-1]}." if keys else " No partition exists yet."
        )
        raise click.BadParameter(
            f"There is no partition '{partition}'.{did_you_mean(partition, keys)}{span}",
            param_hint="--partition",
        )
