"""The results of earlier attempts that a run re-executes, as Dagster recorded them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster import AssetCheckKey, AssetCheckSeverity, AssetKey, DagsterEventType, DagsterRun

from floe_orchestrator_dagster.run.batches import PartlyBuilt

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance

RESUMED_TAG = "dagster/is_resume_retry"
PARENT_TAG = "dagster/parent_run_id"
# Metadata that the failure of a step keeps for a re-execution: the targets of failed hooks, by
# hook; and the code version, missing batches and all batches of microbatch models, by unique id.
FAILED_HOOKS, MISSING_BATCHES = "failed_hooks", "missing_batches"


@dataclass
class Earlier:
    """The results of earlier attempts.

    `built` are code versions by asset key. `settled` are checks that passed or warned. `hooks` are
    the targets on which hooks failed in the last attempt. `batches` are microbatch models with
    failed batches, by unique id.
    """

    built: dict[AssetKey, str | None] = field(default_factory=dict)
    settled: set[AssetCheckKey] = field(default_factory=set)
    hooks: set[str] = field(default_factory=set)
    batches: dict[str, PartlyBuilt] = field(default_factory=dict)


def resumed_from(run: DagsterRun) -> str | None:
    """Return the id of the run that this run re-executes from failure; None for any other run."""
    if run.tags.get(RESUMED_TAG) != "true":
        return None
    return run.parent_run_id or run.tags.get(PARENT_TAG)


def earlier_attempts(instance: DagsterInstance, run: DagsterRun) -> Earlier:
    """Return the results of the attempts that a run re-executes."""
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
        parent_run = instance.get_run_by_id(parent)
        parent = resumed_from(parent_run) if parent_run else None
        last = False
    return earlier


def _read(event: DagsterEvent, earlier: Earlier, *, last: bool) -> None:
    """Add one event to `earlier`. The latest attempt comes first, so existing entries stay."""
    if event.is_step_materialization:
        materialization = event.step_materialization_data.materialization
        version = (materialization.tags or {}).get("dagster/code_version")
        earlier.built.setdefault(materialization.asset_key, version)
    elif event.is_step_failure:
        if last:
            _read_failure(event.step_failure_data.user_failure_data, earlier)
    else:
        evaluation = event.asset_check_evaluation_data
        if evaluation.passed or evaluation.severity == AssetCheckSeverity.WARN:
            earlier.settled.add(evaluation.asset_check_key)


def _read_failure(data: Any, earlier: Earlier) -> None:
    """Add the metadata that the failure of a step kept for a re-execution."""
    metadata = data.metadata if data is not None else {}
    hooks = getattr(metadata.get(FAILED_HOOKS), "value", None)
    batches = getattr(metadata.get(MISSING_BATCHES), "value", None)
    if isinstance(hooks, dict):
        earlier.hooks.update(map(str, hooks.values()))
    if isinstance(batches, dict):
        earlier.batches |= {uid: PartlyBuilt(**fields) for uid, fields in batches.items()}
