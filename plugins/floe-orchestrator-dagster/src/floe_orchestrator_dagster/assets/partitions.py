"""Partitions: the time windows that the meta of models asks for, as Dagster defines them."""

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
from floe_orchestrator_dagster.plan import PARTITIONS_EXPECTED, PartitionSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_orchestrator_dagster.plan import ProductPlan


def plan_partitions(plan: ProductPlan) -> Mapping[str, TimeWindowPartitionsDefinition]:
    """Return the partitions of a plan's assets by unique id; most have none.

    Raises:
        PlanError: lists all partitions that Dagster cannot define.
    """
    partitions: dict[str, TimeWindowPartitionsDefinition] = {}
    problems = []
    for uid, node in plan.assets.items():
        meta = node.dbt.dagster_meta.get("partitions") if node.dbt else None
        if not meta:
            continue
        try:
            partitions[uid] = partitions_definition(PartitionSettings.model_validate(meta))
        except Exception as error:  # noqa: BLE001  Dagster raises many kinds for a bad date
            path = f"dbt model '{node.name}' meta.dagster.partitions.start"
            problems.append(Problem(path, f"{error}.", PARTITIONS_EXPECTED))
    if problems:
        raise PlanError(f"Cannot plan product '{plan.name}'", problems)
    return partitions


def partitions_definition(settings: PartitionSettings) -> TimeWindowPartitionsDefinition:
    """Return Dagster's definition of the partitions that a model's meta asks for."""
    kinds: dict[str, type[TimeWindowPartitionsDefinition]] = {
        "hourly": HourlyPartitionsDefinition,
        "daily": DailyPartitionsDefinition,
        "weekly": WeeklyPartitionsDefinition,
        "monthly": MonthlyPartitionsDefinition,
    }
    start = settings.start
    if settings.type == "hourly" and "-" not in start[10:]:
        start += "-00:00"
    # The four share these arguments, which their common base does not declare.
    make: Any = kinds[settings.type]
    definition: TimeWindowPartitionsDefinition = make(
        start_date=start, end_date=settings.end, timezone=settings.timezone
    )
    return definition
