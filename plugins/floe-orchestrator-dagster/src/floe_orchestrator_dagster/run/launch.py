"""A launch: the work that one step of a Dagster run was launched for, by dbt's unique ids."""

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
    """dbt options of a launch."""

    full_refresh: bool = Field(default=False, description="Rebuild incremental models and seeds.")
    empty: bool = Field(default=False, description="Build only schemas, without rows (--empty).")
    variables: dict[str, Any] = Field(default_factory=dict, description="dbt --vars.")
    threads: int | None = Field(
        default=None, description="dbt --threads; without a value, the threads of the profile."
    )

    def flags(self, *, building: bool, full_refresh: bool) -> tuple[str, ...]:
        """Return the options as flags of `dbt build`, or of `dbt test` if nothing is built."""
        flags: list[str] = []
        if building and full_refresh:
            flags.append("--full-refresh")
        if building and self.empty:
            flags.append("--empty")
        if self.threads is not None:
            flags += ["--threads", str(self.threads)]
        return tuple(flags)


@dataclass(frozen=True, slots=True)
class Launch:
    """The work of one step.

    `assets`, `checks` (dbt's tests) and `quality_checks` are unique ids in the plan's order.
    `partitions` are the keys of the run. `batches` is how to build each microbatch model.
    """

    assets: Sequence[str]
    checks: Sequence[str]
    quality_checks: Sequence[str] = ()
    config: DbtRunConfig = field(default_factory=DbtRunConfig)
    variables: Mapping[str, Any] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    batches: Mapping[str, Batches] = field(default_factory=dict)


def launch_of(context: AssetExecutionContext, specs: Specs, config: DbtRunConfig) -> Launch:
    """Return the work that the step's context selects, without the work of earlier attempts.

    Raises:
        Failure: a partition is missing, or a full refresh of some partitions would lose others.
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
    """Return the outputs of this step that another step of the run waits for."""
    step = context.op_execution_context.op_handle.name
    return consumed_by_others(context.job_def, context.assets_def, step)


def _require_partition(context: AssetExecutionContext, specs: Specs) -> None:
    """Refuse to build a partitioned asset if the run has no partition."""
    if _has_partition(context):
        return
    chosen = (specs.unique_ids[key] for key in context.selected_asset_keys)
    names = sorted(specs.plan.nodes[uid].name for uid in chosen if specs.partitions(uid))
    if names:
        raise Failure(
            description=f"Cannot build {known(names)}: partitioned assets need a partition, and "
            "this run has none. Launch a partition or a backfill.",
            allow_retries=False,
        )


def _has_partition(context: AssetExecutionContext) -> bool:
    return bool(context.has_partition_key or context.has_partition_key_range)


def _window(context: AssetExecutionContext) -> tuple[datetime, datetime] | None:
    """Return start and end of the run's partitions, the end excluded; None without partitions."""
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
    """Return how to build each microbatch model; `partly_built` is None in a first attempt.

    A partitioned model builds the window of the run's partitions. A model whose batches failed in
    part in an earlier attempt builds from its first to its last missing batch. For any other model
    dbt chooses: from `begin`, or from `lookback` batches ago, to now.
    """
    window = _window(context)
    batches: dict[str, Batches] = {}
    for uid in chosen:
        if not specs.plan.nodes[uid].is_microbatch:
            continue
        node, code = specs.plan.nodes[uid], specs.code_version(uid, config.variables)
        if partly_built is not None and uid in partly_built:
            batches[uid] = partly_built[uid].again(code, full_refresh=config.full_refresh)
        elif window is not None and specs.partitions(uid) is not None:
            batches[uid] = Batches(in_utc(window), config.full_refresh)
        elif partly_built is not None and node.dbt is not None and node.dbt.config.begin:
            # If the earlier attempt was killed, the table may have only some of its batches.
            batches[uid] = Batches(since(node.dbt.config.begin), config.full_refresh)
        else:
            batches[uid] = Batches(None, config.full_refresh)
    if window is not None and config.full_refresh:
        _refuse_partial_refresh(context, specs, [uid for uid in batches if specs.partitions(uid)])
    return batches


def _refuse_partial_refresh(
    context: AssetExecutionContext, specs: Specs, uids: Sequence[str]
) -> None:
    """Refuse a full refresh of only some partitions: dbt would drop the others with the table."""
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
