"""Dagster schedules, each for an existing job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)

from floe_orchestrator_dagster.errors import PlanError, Problem
from floe_orchestrator_dagster.plan import dagster_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster import TimeWindowPartitionsDefinition

    from floe_orchestrator_dagster.schedules import Schedule


def require_jobs(schedules: Iterable[Schedule], jobs: Iterable[str]) -> None:
    """Check that the job of each schedule exists.

    Raises:
        PlanError: a job does not exist; lists each such schedule.
    """
    names = sorted(jobs)
    unknown = [one for one in schedules if dagster_name(one.job_name) not in names]
    if unknown:
        raise PlanError(
            f"Cannot schedule job '{unknown[0].job_name}'"
            if len(unknown) == 1
            else f"Cannot schedule {len(unknown)} jobs",
            [
                Problem(
                    schedule.origin,
                    f"There is no job '{schedule.job_name}'.",
                    f"Jobs of this product: {', '.join(names)}.",
                )
                for schedule in unknown
            ],
        )


def dagster_schedule(
    schedule: Schedule, job: Any, partitions: TimeWindowPartitionsDefinition | None = None
) -> ScheduleDefinition:
    """Return the Dagster schedule of a job.

    For a partitioned job, each tick runs the last partition that has ended. `job` is resolved, or
    Dagster resolves it together with the schedule.
    """
    status = DefaultScheduleStatus.RUNNING if schedule.enabled else DefaultScheduleStatus.STOPPED
    common: dict[str, Any] = {
        "name": schedule.name,
        "job": job,
        "cron_schedule": schedule.cron,
        "execution_timezone": schedule.timezone,
        "default_status": status,
    }
    if partitions is None:
        return ScheduleDefinition(**common)

    def last_partition(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        keys = partitions.get_partition_keys(current_time=context.scheduled_execution_time)
        if not keys:
            return SkipReason("No partition has ended yet.")
        return RunRequest(partition_key=keys[-1])

    return ScheduleDefinition(**common, execution_fn=last_partition)
