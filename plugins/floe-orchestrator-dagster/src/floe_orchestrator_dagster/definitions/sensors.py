"""The Dagster sensor of a product, which delivers waiting lineage events."""

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
    # Only for its type, because floe-core takes a second to import.
    from floe_core.plugins.lineage import LineageBackendPlugin

NAME = "lineage_drain"
INTERVAL_SECONDS = 60
# Well below the 60 s after which Dagster stops a sensor.
DRAIN_SECONDS = 30.0


def product_sensors(product: Product) -> list[SensorDefinition]:
    """Return the sensor that delivers waiting lineage; none for a product that sends none."""
    artifacts = product.compiled.artifacts
    if why_off(artifacts, product.lineage_backend):
        return []

    # The sensor looks up the backend at each tick, so a missing plugin does not cost the assets.
    transport = partial(_transport, artifacts, product.lineage_backend)
    directory = spool_directory(product.layout, product.plan.name)
    return [lineage_drain(transport, directory, f"{dagster_name(product.plan.name)}_{NAME}")]


def plugin_sensor(outlet: LineageOutlet) -> SensorDefinition | None:
    """Return the sensor of a plugin's product; None if the product sends no lineage.

    Raises:
        LineageError: the named backend is not installed or not usable.
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
    """Return a sensor that delivers the lineage that earlier runs left in `directory`.

    It starts no run. It calls `transport` at each tick, so it uses a renewed key.
    """

    @sensor(
        name=name,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Delivers lineage events that wait because their backend was unreachable.",
    )
    def drain_sensor(_context: SensorEvaluationContext) -> SkipReason:
        return SkipReason(summary_of(drain(transport(), directory)))

    return drain_sensor


def drain(transport: Mapping[str, Any] | None, directory: Path) -> DeliveryReport:
    """Deliver the events that wait in `directory`; give up early if the backend is unreachable.

    Raises:
        LineageError: the transport cannot be used.
    """
    if transport is None:
        return DeliveryReport()
    return replay(transport, directory, DRAIN_SECONDS, hurry=True)


def summary_of(report: DeliveryReport) -> str:
    """Return the result of a drain as one sentence."""
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
