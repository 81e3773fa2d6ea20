"""What the attempts before a run that re-executes them have done, as Dagster recorded it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster import AssetCheckKey, AssetCheckSeverity, AssetKey, DagsterEventType, DagsterRun

from floe_orchestrator_dagster.run.batches import PartlyBuilt

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance

RESUMED_TAG = "dagster/is_resume_retry"
PARENT_TAG = "dagster/parent_run_id"
# What the failure of a step keeps for a re-execution: targets on which hooks failed, by hook; and
# of microbatch models their code version, missing batches and all batches, by unique id.
FAILED_HOOKS, MISSING_BATCHES = "failed_hooks", "missing_batches"


@dataclass
class Earlier:
    """What earlier attempts have done and left.

    `built` are code versions by asset key, `settled` checks that passed or warned, `hooks` the
    targets on which hooks failed in the last attempt, `batches` what is known of microbatch
    models that failed in part, by unique id.
    """

    built: dict[AssetKey, str | None] = field(default_factory=dict)
    settled: set[AssetCheckKey] = field(default_factory=set)
    hooks: set[str] = field(default_factory=set)
    batches: dict[str, PartlyBuilt] = field(default_factory=dict)


def resumed_from(run: DagsterRun) -> str | None:
    """Return the run that this one re-executes from failure, if it is such a run."""
    if run.tags.get(RESUMED_TAG) != "true":
        return None
    return run.parent_run_id or run.tags.get(PARENT_TAG)


def earlier_attempts(instance: DagsterInstance, run: DagsterRun) -> Earlier:
    """Return what the attempts before a run that re-executes them have done and left."""
    earlier = Earlier()
    parent = resumed_from(run)
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
            if entry.dagster_event is not None:
                _read(entry.dagster_event, earlier, last=last)
        found = instance.get_run_by_id(parent)
        parent = resumed_from(found) if found else None
        last = False
    return earlier


def _read(event: DagsterEvent, earlier: Earlier, *, last: bool) -> None:
    """Take what one event tells; attempts come in reverse order, so what is there stays."""
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


def _read_failure(data: Any, earlier: Earlier) -> None:
    """Take from the failure of a step what it has kept for us."""
    metadata = data.metadata if data is not None else {}
    hooks = getattr(metadata.get(FAILED_HOOKS), "value", None)
    batches = getattr(metadata.get(MISSING_BATCHES), "value", None)
    if isinstance(hooks, dict):
        earlier.hooks.update(map(str, hooks.values()))
    if isinstance(batches, dict):
        earlier.batches |= {uid: PartlyBuilt(**found) for uid, found in batches.items()}
