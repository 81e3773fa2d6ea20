"""Makes Dagster's time-window partitions from the meta of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)

from floe_orchestrator_dagster.errors import PlanError, Problem
from floe_orchestrator_dagster.plan import PARTITIONS_EXPECTED, PartitionSettings, has_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_orchestrator_dagster.plan import ProductPlan


def plan_partitions(plan: ProductPlan) -> Mapping[str, TimeWindowPartitionsDefinition]:
    """Return the partitions of a plan's assets by unique id; most assets have none.

    Raises:
        PlanError: lists every node whose partitions Dagster cannot define.
    """
    partitions: dict[str, TimeWindowPartitionsDefinition] = {}
    problems = []
    for uid, node in plan.assets.items():
        meta = node.dbt.dagster_meta.get("partitions") if node.dbt else None
        if not meta:
            continue
        try:
            partitions[uid] = partitions_definition(PartitionSettings.model_validate(meta))
        except Exception as error:  # noqa: BLE001  Dagster raises errors of many types
            path = f"dbt model '{node.name}' meta.dagster.partitions"
            problems.append(Problem(path, f"{error}.", PARTITIONS_EXPECTED))
    if problems:
        raise PlanError(f"Cannot plan product '{plan.name}'", problems)
    return partitions


def partitions_definition(settings: PartitionSettings) -> TimeWindowPartitionsDefinition:
    """Return Dagster's definition of the partitions of a model."""
    kinds: dict[str, type[TimeWindowPartitionsDefinition]] = {
        "hourly": HourlyPartitionsDefinition,
        "daily": DailyPartitionsDefinition,
        "weekly": WeeklyPartitionsDefinition,
        "monthly": MonthlyPartitionsDefinition,
    }
    start, end = settings.start, settings.end
    if settings.type == "hourly":
        start, end = _with_hour(start), end and _with_hour(end)
    # The four classes share these arguments, but their base class does not declare them.
    make: Any = kinds[settings.type]
    definition: TimeWindowPartitionsDefinition = make(
        start_date=start, end_date=end, timezone=settings.timezone
    )
    return definition


def _with_hour(day: str) -> str:
    """Return a day with its hour, which Dagster requires for hourly partitions."""
    return day if has_time(day) else f"{day}-00:00"
