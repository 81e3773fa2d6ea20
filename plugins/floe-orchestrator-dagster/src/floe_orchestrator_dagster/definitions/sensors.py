"""The Dagster sensor of a product, which delivers lineage that waits."""

# No `from __future__ import annotations` here: Dagster reads the annotations of the function that
# it decorates.
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dagster import (
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from floe_orchestrator_dagster.lineage.backend import lineage_destination, why_off
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, replay
from floe_orchestrator_dagster.plan import dagster_name
from floe_orchestrator_dagster.product.layout import spool_directory
from floe_orchestrator_dagster.product.product import Product

NAME = "lineage_drain"
INTERVAL_SECONDS = 60
# Well below the 60 s that Dagster gives a sensor.
DRAIN_SECONDS = 30.0


def product_sensors(product: Product) -> list[SensorDefinition]:
    """Return the sensor that delivers lineage that waits, for a product that sends lineage."""
    artifacts = product.compiled.artifacts
    if why_off(artifacts, product.lineage_backend):
        return []

    def transport() -> Mapping[str, Any] | None:
        # Looked up when it ticks: a plugin that is missing is no reason to lose the assets.
        destination = lineage_destination(artifacts, product.lineage_backend)
        return destination.transport if destination else None

    directory = spool_directory(product.layout, product.plan.name)
    return [lineage_drain(transport, directory, f"{dagster_name(product.plan.name)}_{NAME}")]


def lineage_drain(
    transport: Callable[[], Mapping[str, Any] | None], directory: Path, name: str = NAME
) -> SensorDefinition:
    """Return a sensor that delivers lineage which earlier runs left in `directory`.

    It starts no run. `transport` is asked at each tick, so that a renewed key is seen.
    """

    @sensor(
        name=name,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Delivers lineage events that wait since the backend was away.",
    )
    def drain_sensor(_context: SensorEvaluationContext) -> SkipReason:
        return SkipReason(summary_of(drain(transport(), directory)))

    return drain_sensor


def drain(transport: Mapping[str, Any] | None, directory: Path) -> DeliveryReport:
    """Deliver what waits in `directory`, giving up early on a backend that is still away.

    Raises:
        LineageError: the transport cannot be used.
    """
    if transport is None:
        return DeliveryReport()
    return replay(transport, directory, DRAIN_SECONDS, hurry=True)


def summary_of(report: DeliveryReport) -> str:
    """Return what a drain did, as one sentence or two."""
    if not report.made:
        return "No lineage events wait."
    parts = [f"Delivered {report.delivered} of {report.made} lineage events"]
    if report.refused:
        parts.append(f"{report.refused} refused (see dead_letters.jsonl)")
    if report.dropped:
        parts.append(f"{report.dropped} dropped, too old or too many")
    if report.waiting:
        parts.append(f"{report.waiting} still wait ({report.problem or 'no time left'})")
    return "; ".join(parts) + "."
