"""A launch: what one step of a Dagster run was asked to do, by dbt's unique ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckKey,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    Config,
    DagsterEventType,
    DagsterRun,
    Failure,
)
from pydantic import Field

from floe_orchestrator_dagster.assets.specs import Specs, quality_check_id
from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.plan import QualityCheck, downstream, read_by_check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster import DagsterInstance

    from floe_orchestrator_dagster.dbt.events import Window
    from floe_orchestrator_dagster.plan import ProductPlan

RESUMED_TAG = "dagster/is_resume_retry"
PARENT_TAG = "dagster/parent_run_id"
# What the failure of a step keeps for a re-execution: targets on which hooks failed, by hook; and
# of microbatch models their code version, missing batches and all batches, by unique id.
FAILED_HOOKS, MISSING_BATCHES = "failed_hooks", "missing_batches"


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
class Batches:
    """How a microbatch model is to be built: a window (None: dbt's own choice), afresh or not."""

    window: tuple[str, str] | None = None
    full_refresh: bool = False

    @property
    def lane(self) -> str:
        """The name of the dbt commands that build so."""
        return f"{'/'.join(self.window or ())} {'full' if self.full_refresh else ''}".strip()


@dataclass(frozen=True, slots=True)
class Launch:
    """What one step was asked to do.

    `assets` and `checks` (dbt's tests) are unique ids in the plan's order. `quality_checks` are
    evaluated with their asset, which is built; `quality_checks_alone` on an asset that is not.
    `partitions` are the keys of the run. `batches` says how each microbatch model is built.
    """

    assets: Sequence[str]
    checks: Sequence[str]
    quality_checks: Mapping[str, tuple[QualityCheck, ...]] = field(default_factory=dict)
    quality_checks_alone: Mapping[str, tuple[QualityCheck, ...]] = field(default_factory=dict)
    config: DbtRunConfig = field(default_factory=DbtRunConfig)
    variables: Mapping[str, Any] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    batches: Mapping[str, Batches] = field(default_factory=dict)

    def lanes(self) -> Mapping[str, str]:
        """Return the lane of what must not be built by one dbt command with the rest."""
        usual = Batches(full_refresh=self.config.full_refresh)
        kinds = {*self.batches.values()}
        # All in one way, and in no other way than the rest: one command will do.
        if len(kinds) <= 1 and all(one.full_refresh == usual.full_refresh for one in kinds):
            return {}
        return {uid: one.lane for uid, one in self.batches.items() if one != usual}


def launch_of(context: AssetExecutionContext, specs: Specs, config: DbtRunConfig) -> Launch:
    """Return what the step's context asks for, less what earlier attempts have done.

    Raises:
        Failure: a partition is missing, or a full refresh of some would lose the others.
    """
    _require_partition(context, specs)
    plan = specs.plan
    chosen = {specs.unique_ids[key] for key in context.selected_asset_keys}
    ids = specs.check_ids
    wanted = [ids[key] for key in context.selected_asset_check_keys if key in ids]
    earlier = Earlier()
    if _resumed_from(context.run):
        earlier = earlier_attempts(context.instance, context.run)
        chosen, wanted = left_of(context, specs, earlier, config.variables, (chosen, wanted))
    asked = set(wanted)
    quality = {
        uid: checks
        for uid, node in plan.assets.items()
        if (
            checks := tuple(
                check for check in node.quality_checks if quality_check_id(uid, check) in asked
            )
        )
    }
    windowed = _window(context)
    return Launch(
        assets=[uid for uid in plan.assets if uid in chosen],
        checks=[uid for uid in wanted if uid in plan.checks],
        quality_checks={uid: found for uid, found in quality.items() if uid in chosen},
        quality_checks_alone={uid: found for uid, found in quality.items() if uid not in chosen},
        config=config,
        variables={**_window_variables(windowed), **config.variables},
        partitions=[*context.partition_keys] if windowed else [],
        batches=_batches(context, specs, chosen, config, earlier),
    )


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
    chosen: set[str],
    config: DbtRunConfig,
    earlier: Earlier,
) -> dict[str, Batches]:
    """Return how each microbatch model is built.

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
        if uid in earlier.batches:
            found[uid] = earlier.batches[uid].again(config, code)
        elif window is not None and specs.partitions(uid) is not None:
            found[uid] = Batches(_as_utc(window), config.full_refresh)
        elif earlier.is_any and node.dbt is not None and node.dbt.config.begin:
            # An attempt that was killed may have left the table with some of its batches.
            found[uid] = Batches(_since(node.dbt.config.begin), config.full_refresh)
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


def _as_utc(window: tuple[datetime, datetime]) -> tuple[str, str]:
    """Return a window as dbt takes it: in UTC, for dbt leaves offsets aside."""
    start, end = (
        moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")
        for moment in window
    )
    return start, end


def _since(begin: Any) -> tuple[str, str]:
    """Return the window from a model's `begin` to now."""
    moment = begin if isinstance(begin, datetime) else datetime.fromisoformat(str(begin))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return _as_utc((moment, datetime.now(timezone.utc)))


def covering(windows: Sequence[Window]) -> tuple[str, str]:
    """Return the window from the first to the last of some batches, as dbt takes it."""
    moments = [
        datetime.fromisoformat(part.replace("Z", "+00:00")) for one in windows for part in one
    ]
    return _as_utc((min(moments), max(moments)))


# re-execution from failure


@dataclass(frozen=True, slots=True)
class PartlyBuilt:
    """A microbatch model of which some batches failed: from which code, which ones of which."""

    code: str | None
    missing: Sequence[Window]
    every: Sequence[Window]
    parents_changed: bool = False

    def again(self, config: DbtRunConfig, code: str | None) -> Batches:
        """Return how it is built again: the missing batches, or all where the others are stale."""
        if self.parents_changed or code != self.code or len(self.missing) == len(self.every):
            return Batches(covering(self.every), config.full_refresh)
        # A full refresh would drop the batches that are there.
        return Batches(covering(self.missing))


@dataclass
class Earlier:
    """What the attempts before this run have done and left.

    `built` are code versions by asset key, `settled` checks that passed or warned, `hooks` the
    targets on which hooks failed in the last attempt, `batches` what is known of microbatch
    models that failed in part, by unique id.
    """

    is_any: bool = False
    built: dict[AssetKey, str | None] = field(default_factory=dict)
    settled: set[AssetCheckKey] = field(default_factory=set)
    hooks: set[str] = field(default_factory=set)
    batches: dict[str, PartlyBuilt] = field(default_factory=dict)


def earlier_attempts(instance: DagsterInstance, run: DagsterRun) -> Earlier:
    """Return what the attempts before a run that re-executes them have done and left."""
    earlier = Earlier(is_any=True)
    parent = _resumed_from(run)
    last = True
    while parent:
        for entry in instance.all_logs(
            parent,
            of_type={
                DagsterEventType.ASSET_MATERIALIZATION,
                DagsterEventType.ASSET_CHECK_EVALUATION,
                DagsterEventType.STEP_FAILURE,
            },
        ):
            event = entry.dagster_event
            if event is None:
                continue
            if event.is_step_materialization:
                made = event.step_materialization_data.materialization
                version = (made.tags or {}).get("dagster/code_version")
                earlier.built.setdefault(made.asset_key, version)
            elif event.is_step_failure:
                if last:
                    _read_failure(event.step_failure_data.user_failure_data, earlier)
            else:
                seen = event.asset_check_evaluation_data
                if seen.passed or seen.severity == AssetCheckSeverity.WARN:
                    earlier.settled.add(seen.asset_check_key)
        found = instance.get_run_by_id(parent)
        parent = _resumed_from(found) if found else None
        last = False
    return earlier


def _read_failure(data: Any, earlier: Earlier) -> None:
    """Take from the failure of a step what it has kept for us."""
    metadata = data.metadata if data is not None else {}
    hooks = getattr(metadata.get(FAILED_HOOKS), "value", None)
    batches = getattr(metadata.get(MISSING_BATCHES), "value", None)
    if isinstance(hooks, dict):
        earlier.hooks.update(map(str, hooks.values()))
    if isinstance(batches, dict):
        earlier.batches |= {uid: PartlyBuilt(**found) for uid, found in batches.items()}


def left_of(
    context: AssetExecutionContext,
    specs: Specs,
    earlier: Earlier,
    variables: Mapping[str, Any],
    asked: tuple[set[str], list[str]],
) -> tuple[set[str], list[str]]:
    """Return what a re-execution from failure still has to do: assets, and checks of all kinds.

    Left out is what earlier attempts have built from the same code, and checks that passed or
    warned there; kept is what other steps of this run wait for.
    """
    plan, (chosen, wanted) = specs.plan, asked
    consumed = consumed_by_others(context).assets
    done = {
        uid
        for uid in chosen
        if specs.keys[uid] in earlier.built
        and earlier.built[specs.keys[uid]] == specs.code_version(uid, variables)
        and specs.keys[uid] not in consumed
    }
    # Below what is built again, everything is built again.
    done -= downstream(plan, chosen - done)
    again = chosen - done
    # Where the parents are built again, the batches that are there were made of other rows.
    for uid in downstream(plan, again) & earlier.batches.keys():
        earlier.batches[uid] = replace(earlier.batches[uid], parents_changed=True)
    kept = [
        uid
        for uid in wanted
        if specs.checks[uid].key not in earlier.settled or again & {*_read_by(plan, uid)}
    ]
    for target in sorted(earlier.hooks):
        left = (*again, *(uid for uid in kept if uid in plan.checks))
        if not any(plan.target_of(uid) == target for uid in left):
            again, kept = _with_carrier(context, plan, target, (chosen, wanted), (again, kept))
    built = len(chosen) - len(again)
    context.log.info(
        f"From failure: {built} assets are built already, {len(again)} assets and {len(kept)} "
        "checks are left"
    )
    return again, kept


def _with_carrier(
    context: AssetExecutionContext,
    plan: ProductPlan,
    target: str,
    asked: tuple[set[str], list[str]],
    left: tuple[set[str], list[str]],
) -> tuple[set[str], list[str]]:
    """Add to what is left on a target the node that costs least: dbt runs no hooks without one."""
    (chosen, wanted), (again, kept) = asked, left
    able = [
        uid
        for uid in (*plan.assets, *plan.checks)
        if uid in {*chosen, *wanted} and plan.target_of(uid) == target
    ]
    if not able:
        return left
    carrier = min(able, key=lambda uid: (_cost(plan, uid), len(downstream(plan, [uid]) & chosen)))
    if carrier in plan.assets:
        again = {*again, carrier, *(downstream(plan, [carrier]) & chosen)}
    kept = [uid for uid in wanted if uid in {*kept, carrier} or again & {*_read_by(plan, uid)}]
    node = plan.nodes[carrier]
    context.log.info(
        f"A hook failed on target '{target}'. dbt runs hooks only with a node: {node.kind} "
        f"{node.name} runs again."
    )
    return again, kept


# How much it takes, and changes, to run a node once more, by how it is materialized.
_COST = {"": 0, "view": 1, "table": 2, "seed": 2, "snapshot": 3, "incremental": 4}


def _cost(plan: ProductPlan, uid: str) -> int:
    return _COST.get(plan.nodes[uid].materialized or "", 2) if uid in plan.assets else 0


def _read_by(plan: ProductPlan, check: str) -> Iterator[str]:
    """Yield what a check of any kind looks at; a test that reads nothing looks at nothing."""
    if check not in plan.checks:
        yield check.rpartition("#")[0]
    else:
        yield from read_by_check(plan, check)


@dataclass(frozen=True, slots=True)
class Consumed:
    """What another step of the run waits for: assets, and the checks on them that block."""

    assets: frozenset[AssetKey]
    checks: frozenset[AssetCheckKey]


def consumed_by_others(context: AssetExecutionContext) -> Consumed:
    """Return what of this step's another step of the run waits for."""
    own = context.op_execution_context.op_handle.name
    outputs = {
        dependency.output
        for invocation, inputs in context.job_def.graph.dependencies.items()
        if (invocation.alias or invocation.name) != own
        for definition in inputs.values()
        for dependency in definition.get_node_dependencies()
        if dependency.node == own
    }
    if not outputs:
        return Consumed(frozenset(), frozenset())
    made = context.assets_def
    return Consumed(
        frozenset(key for name, key in made.keys_by_output_name.items() if name in outputs),
        frozenset(
            spec.key for name, spec in made.check_specs_by_output_name.items() if name in outputs
        ),
    )


def _resumed_from(run: DagsterRun) -> str | None:
    """Return the run that this one re-executes from failure, if it is such a run."""
    if run.tags.get(RESUMED_TAG) != "true":
        return None
    return run.parent_run_id or run.tags.get(PARENT_TAG)
