"""The Dagster sensor of a product, which delivers lineage that waits."""

# No `from __future__ import annotations` here: Dagster reads the annotations of the function that
# it decorates.
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from floe_orchestrator_dagster.product.outlet import LineageOutlet
from floe_orchestrator_dagster.product.product import Product

if TYPE_CHECKING:
    # It takes a second to import, and only the type is wanted.
    from floe_core.plugins.lineage import LineageBackendPlugin

NAME = "lineage_drain"
INTERVAL_SECONDS = 60
# Well below the 60 s that Dagster gives a sensor.
DRAIN_SECONDS = 30.0


def product_sensors(product: Product) -> list[SensorDefinition]:
    """Return the sensor that delivers lineage that waits, for a product that sends lineage."""
    artifacts = product.compiled.artifacts
    if why_off(artifacts, product.lineage_backend):
        return []

    # Looked up when it ticks: a plugin that is missing is no reason to lose the assets.
    transport = partial(_transport, artifacts, product.lineage_backend)
    directory = spool_directory(product.layout, product.plan.name)
    return [lineage_drain(transport, directory, f"{dagster_name(product.plan.name)}_{NAME}")]


def plugin_sensor(outlet: LineageOutlet) -> SensorDefinition | None:
    """Return the sensor of the product that a plugin is used for; None if it sends no lineage.

    Raises:
        LineageError: the backend is named, but not installed or not usable.
    """
    artifacts = outlet.artifacts()
    backend = outlet.backend(artifacts)
    if lineage_destination(artifacts, backend) is None:
        return None
    return lineage_drain(partial(_transport, artifacts, backend), outlet.spool(artifacts))


def _transport(
    artifacts: Mapping[str, Any], backend: "LineageBackendPlugin | None"
) -> Mapping[str, Any] | None:
    destination = lineage_destination(artifacts, backend)
    return destination.transport if destination else None


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
