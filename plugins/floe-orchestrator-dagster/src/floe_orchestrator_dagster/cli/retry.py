"""Re-execution from failure: which Dagster run to retry, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetsDefinition,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
)

from floe_orchestrator_dagster.cli.report import times
from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.plan import dagster_name
from floe_orchestrator_dagster.run.consumed import consumed_by_others
from floe_orchestrator_dagster.run.earlier import PARENT_TAG, RESUMED_TAG, earlier_attempts
from floe_orchestrator_dagster.run.remainder import Work, remainder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from dagster import DagsterEvent, DagsterInstance, Definitions, JobDefinition

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.cli.loaded import LoadedProduct
    from floe_orchestrator_dagster.product.product import Product

RETRYABLE = frozenset({DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED})
ROOT_TAG = "dagster/root_run_id"
PARTITION = "dagster/partition"
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
RUNS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Retry:
    """A run to retry, with the unique ids that it requested in steps that did not succeed."""

    parent: DagsterRun
    assets: Sequence[str]
    checks: Sequence[str]
    began: datetime

    @property
    def partition(self) -> str | None:
        """The partition of the run."""
        return self.parent.tags.get(PARTITION)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that make a new run a re-execution from failure of this one."""
        kept = {
            name: value
            for name, value in self.parent.tags.items()
            if name in RANGE or not name.lstrip(".").startswith("dagster/")
        }
        root = self.parent.root_run_id or self.parent.run_id
        return {**kept, PARENT_TAG: self.parent.run_id, ROOT_TAG: root, RESUMED_TAG: "true"}

    def config_of(self, op: str) -> dict[str, Any]:
        """Return the run config of an op in this run."""
        ops = self.parent.run_config.get("ops")
        config = ops.get(op) if isinstance(ops, Mapping) else None
        return dict(config) if isinstance(config, Mapping) else {}

    def adopt(self, instance: DagsterInstance) -> None:
        """Make the next run of an instance a child of this run.

        `execute_in_process` takes no parent, but the instance method that creates the run's record
        does. Dagster's public way, `execute_job` with `ReexecutionOptions`, only takes a job that
        Dagster itself can load again, and so without our report.
        """
        parent = self.parent
        make = partial(
            instance.create_run_for_job,
            parent_run_id=parent.run_id,
            root_run_id=parent.root_run_id or parent.run_id,
        )
        setattr(instance, "create_run_for_job", make)  # noqa: B010  it is a method

    def left(
        self,
        loaded: LoadedProduct,
        job: JobDefinition,
        instance: DagsterInstance,
    ) -> frozenset[str]:
        """Return the unique ids that the steps of `job` will run as a re-execution of this run.

        Raises:
            click.UsageError: nothing is left to run.
        """
        child = DagsterRun(
            self.parent.job_name,
            tags=self.tags,
            parent_run_id=self.parent.run_id,
            root_run_id=self.tags[ROOT_TAG],
        )
        specs = loaded.specs
        left: set[str] = set()
        steps = {step.op.name: step for step in _steps(loaded.definitions)}
        for node in job.nodes:
            step = steps[node.name]
            requested = Work(
                frozenset(uid for uid in self.assets if specs.keys[uid] in step.keys),
                tuple(uid for uid in self.checks if specs.checks[uid].key in step.check_keys),
            )
            variables = self.config_of(node.name).get("variables") or {}
            earlier = earlier_attempts(instance, child)
            consumed = consumed_by_others(job, step, node.name).assets
            # The step itself decides by the same function.
            work = remainder(specs, earlier, requested, variables, consumed).work
            left.update(work.assets, work.checks)
        if not left:
            raise _nothing_left(self.parent)
        return frozenset(left)

    def describe(self, left: Collection[str]) -> str:
        """Return one line about the run and what is left of it."""
        assets = sum(uid in left for uid in self.assets)
        part = f", partition {self.partition}" if self.partition else ""
        return (
            f"Retrying run {self.parent.run_id} of job '{self.parent.job_name}' "
            f"({self.parent.status.value}, started {self.began:%Y-%m-%d %H:%M:%S} UTC{part}): "
            f"{times(assets, 'asset')} of {len(self.assets)} and "
            f"{times(len(left) - assets, 'check')} of {len(self.checks)} are left."
        )


def find_retry(loaded: LoadedProduct, instance: DagsterInstance) -> Retry:
    """Return what is left of the last run of the product on an instance.

    Raises:
        click.UsageError: there is no run, or it cannot be retried.
    """
    product, specs, definitions = loaded.product, loaded.specs, loaded.definitions
    if instance.is_ephemeral:
        raise click.UsageError(
            f"Cannot retry product '{product.plan.name}': DAGSTER_HOME is not set, so Dagster has "
            "kept no record of its runs. Set it for `floe-dagster run` and for the retry."
        )
    parent = _last_run(product, specs, instance)
    _require_retryable(loaded, parent)
    planned = _planned_keys(instance, parent)
    by_key: dict[AssetKey | AssetCheckKey, str] = dict(specs.unique_ids.items())
    by_key |= specs.check_ids
    done = _keys_of_finished_steps(instance, parent, _steps(definitions))
    requested = {by_key[key] for key in planned if key in by_key and key not in done}
    if not requested:
        raise _nothing_left(parent)
    [record] = instance.get_run_records(RunsFilter(run_ids=[parent.run_id]))
    began = record.start_time or record.create_timestamp.timestamp()
    return Retry(
        parent,
        assets=[uid for uid in specs.plan.assets if uid in requested],
        checks=[uid for uid in specs.checks if uid in requested],
        began=datetime.fromtimestamp(began, timezone.utc),
    )


def _nothing_left(run: DagsterRun) -> click.UsageError:
    return click.UsageError(
        f"Cannot retry run {run.run_id}: everything that it requested is built and tested, or no "
        "longer in the product. Start a new run with `floe-dagster run`."
    )


def _steps(definitions: Definitions) -> list[AssetsDefinition]:
    return [
        item
        for item in definitions.assets or ()
        if isinstance(item, AssetsDefinition) and item.is_executable
    ]


def _last_run(product: Product, specs: Specs, instance: DagsterInstance) -> DagsterRun:
    own, keys = dagster_name(product.plan.name), set(specs.unique_ids)
    cursor = None
    while runs := [*instance.get_runs(limit=RUNS_AT_ONCE, cursor=cursor)]:
        for run in runs:
            # Dagster's own job for assets that a user picked does not have our tag.
            if run.tags.get("floe/product") == own or keys & {*(run.asset_selection or ())}:
                return run
        cursor = runs[-1].run_id
    raise click.UsageError(
        f"Cannot retry product '{product.plan.name}': the Dagster instance at "
        f"{instance.root_directory} has no run of it. Start one with `floe-dagster run`."
    )


def _require_retryable(loaded: LoadedProduct, run: DagsterRun) -> None:
    doing = f"Cannot retry run {run.run_id}, the last run of product '{loaded.plan.name}'"
    if run.status is DagsterRunStatus.SUCCESS:
        raise click.UsageError(f"{doing}: it succeeded. Start a new run with `floe-dagster run`.")
    if run.status not in RETRYABLE:
        raise click.UsageError(
            f"{doing}: it has not ended ({run.status.value}). Wait until it ends. If its process "
            "no longer exists, terminate the run in Dagster's UI, then retry."
        )
    jobs = loaded.jobs
    if run.job_name not in jobs and not run.job_name.startswith("__"):
        raise click.UsageError(
            f"{doing}: its job '{run.job_name}' no longer exists. Jobs: {known(jobs)}. Start a new "
            "run with `floe-dagster run`."
        )


def _events(
    instance: DagsterInstance, run_id: str, *kinds: DagsterEventType
) -> Iterator[DagsterEvent]:
    for entry in instance.all_logs(run_id, of_type={*kinds}):
        if entry.dagster_event is not None:
            yield entry.dagster_event


def _planned_keys(instance: DagsterInstance, run: DagsterRun) -> set[AssetKey | AssetCheckKey]:
    """Return the keys that a run requested, from the events that Dagster logs at its start."""
    keys: set[AssetKey | AssetCheckKey] = set()
    for event in _events(
        instance,
        run.run_id,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    ):
        if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            keys.add(event.asset_check_planned_data.asset_check_key)
        elif event.asset_key is not None:
            keys.add(event.asset_key)
    return keys


def _keys_of_finished_steps(
    instance: DagsterInstance, run: DagsterRun, steps: Iterable[AssetsDefinition]
) -> set[AssetKey | AssetCheckKey]:
    """Return the keys of steps that succeeded, because Dagster does not run those again."""
    finished = {
        event.step_key
        for event in _events(instance, run.run_id, DagsterEventType.STEP_SUCCESS)
        if event.step_key
    }
    keys: set[AssetKey | AssetCheckKey] = set()
    for step in steps:
        if step.op.name in finished:
            keys.update(step.keys, step.check_keys)
    return keys
