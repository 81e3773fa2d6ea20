"""A launch: what one step of a Dagster run was asked to do, by dbt's unique ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, Config, Failure
from pydantic import Field

from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.run.batches import Batches, in_utc, since
from floe_orchestrator_dagster.run.consumed import Consumed, consumed_by_others
from floe_orchestrator_dagster.run.earlier import earlier_attempts, resumed_from
from floe_orchestrator_dagster.run.remainder import Work, remainder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.run.batches import PartlyBuilt


class DbtRunConfig(Config):
    """What a launch may ask of dbt."""

    full_refresh: bool = Field(default=False, description="Rebuild incremental models and seeds.")
    empty: bool = Field(default=False, description="Build schemas only: read no rows (--empty).")
    variables: dict[str, Any] = Field(default_factory=dict, description="dbt --vars.")
    threads: int | None = Field(default=None, description="dbt --threads, else the profile's.")

    def flags(self, *, building: bool, full_refresh: bool) -> tuple[str, ...]:
        """Return them as flags of `dbt build`, or of `dbt test` where nothing is built."""
        words: list[str] = []
        if building and full_refresh:
            words.append("--full-refresh")
        if building and self.empty:
            words.append("--empty")
        if self.threads is not None:
            words += ["--threads", str(self.threads)]
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Launch:
    """What one step was asked to do.

    `assets`, `checks` (dbt's tests) and `quality_checks` are unique ids in the plan's order.
    `partitions` are the keys of the run. `batches` says how each microbatch model is built.
    """

    assets: Sequence[str]
    checks: Sequence[str]
    quality_checks: Sequence[str] = ()
    config: DbtRunConfig = field(default_factory=DbtRunConfig)
    variables: Mapping[str, Any] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    batches: Mapping[str, Batches] = field(default_factory=dict)


def launch_of(context: AssetExecutionContext, specs: Specs, config: DbtRunConfig) -> Launch:
    """Return what the step's context asks for, less what earlier attempts have done.

    Raises:
        Failure: a partition is missing, or a full refresh of some would lose the others.
    """
    _require_partition(context, specs)
    plan = specs.plan
    ids = specs.check_ids
    work = Work(
        frozenset(specs.unique_ids[key] for key in context.selected_asset_keys),
        tuple(ids[key] for key in context.selected_asset_check_keys if key in ids),
    )
    partly_built = None
    if resumed_from(context.run):
        left = remainder(
            specs,
            earlier_attempts(context.instance, context.run),
            work,
            config.variables,
            consumed_by_step(context).assets,
        )
        for note in left.notes:
            context.log.info(note)
        work, partly_built = left.work, left.batches
    checks = {*work.checks}
    windowed = _window(context)
    return Launch(
        assets=[uid for uid in plan.assets if uid in work.assets],
        checks=[uid for uid in plan.tests if uid in checks],
        quality_checks=[uid for uid in plan.quality_checks if uid in checks],
        config=config,
        variables={**_window_variables(windowed), **config.variables},
        partitions=[*context.partition_keys] if windowed else [],
        batches=_batches(context, specs, work.assets, config, partly_built),
    )


def consumed_by_step(context: AssetExecutionContext) -> Consumed:
    """Return what of this step's another step of the run waits for."""
    step = context.op_execution_context.op_handle.name
    return consumed_by_others(context.job_def, context.assets_def, step)


def _require_partition(context: AssetExecutionContext, specs: Specs) -> None:
    """Refuse to build a partitioned asset without knowing which partition."""
    if _has_partition(context):
        return
    chosen = (specs.unique_ids[key] for key in context.selected_asset_keys)
    names = sorted(specs.plan.nodes[uid].name for uid in chosen if specs.partitions(uid))
    if names:
        raise Failure(
            description=f"Cannot build {known(names)} without a partition: they are partitioned. "
            "Launch a partition or a backfill.",
            allow_retries=False,
        )


def _has_partition(context: AssetExecutionContext) -> bool:
    return bool(context.has_partition_key or context.has_partition_key_range)


def _window(context: AssetExecutionContext) -> tuple[datetime, datetime] | None:
    """Return start and end of the run's partitions, the end excluded; None without any."""
    if not _has_partition(context):
        return None
    window = context.partition_time_window
    return window.start, window.end


def _window_variables(window: tuple[datetime, datetime] | None) -> dict[str, str]:
    """Return the time window of the run's partitions as dbt vars."""
    if window is None:
        return {}
    start, end = window
    return {"partition_start": start.isoformat(), "partition_end": end.isoformat()}


def _batches(
    context: AssetExecutionContext,
    specs: Specs,
    chosen: Collection[str],
    config: DbtRunConfig,
    partly_built: Mapping[str, PartlyBuilt] | None,
) -> dict[str, Batches]:
    """Return how each microbatch model is built; `partly_built` is None in a first attempt.

    A partitioned one builds the window of the run's partitions. One that failed in part in an
    earlier attempt of this run builds from its first to its last missing batch. Any other one
    builds what dbt chooses: from `begin`, or from `lookback` batches ago, to now.
    """
    window = _window(context)
    found: dict[str, Batches] = {}
    for uid in chosen:
        if not specs.plan.nodes[uid].is_microbatch:
            continue
        node, code = specs.plan.nodes[uid], specs.code_version(uid, config.variables)
        if partly_built is not None and uid in partly_built:
            found[uid] = partly_built[uid].again(code, full_refresh=config.full_refresh)
        elif window is not None and specs.partitions(uid) is not None:
            found[uid] = Batches(in_utc(window), config.full_refresh)
        elif partly_built is not None and node.dbt is not None and node.dbt.config.begin:
            # An attempt that was killed may have left the table with some of its batches.
            found[uid] = Batches(since(node.dbt.config.begin), config.full_refresh)
        else:
            found[uid] = Batches(None, config.full_refresh)
    if window is not None and config.full_refresh:
        _refuse_partial_refresh(context, specs, [uid for uid in found if specs.partitions(uid)])
    return found


def _refuse_partial_refresh(
    context: AssetExecutionContext, specs: Specs, uids: Sequence[str]
) -> None:
    """Refuse a full refresh of some partitions: dbt would replace the table by these alone."""
    built = set(context.partition_keys)
    for uid in uids:
        definition = specs.partitions(uid)
        others = (
            [key for key in definition.get_partition_keys() if key not in built]
            if (definition is not None)
            else []
        )
        if others:
            raise Failure(
                description=f"Cannot rebuild {known(built)} of {specs.plan.nodes[uid].name} with "
                f"full_refresh: dbt would replace the whole table, and {len(others)} other "
                "partitions would be lost. Launch without full_refresh, which replaces the rows "
                "of the partition, or launch all partitions in one backfill.",
                allow_retries=False,
            )
