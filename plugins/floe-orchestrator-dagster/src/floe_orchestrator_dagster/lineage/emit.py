"""Sends single OpenLineage events the way all others go: spool first, then the sender."""

from __future__ import annotations

import atexit
import json
import logging
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from floe_orchestrator_dagster.lineage.delivery import open_delivery
from floe_orchestrator_dagster.lineage.facets import PRODUCER
from floe_orchestrator_dagster.lineage.spool import spool_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from floe_core.lineage import LineageDataset, LineageEvent

    from floe_orchestrator_dagster.lineage.delivery import Delivery

logger = logging.getLogger(__name__)

# What the end of the process may wait for single events.
EXIT_SECONDS = 3.0

# One per backend and spool, open while the process lives: a START and its COMPLETE stay in order.
_deliveries: dict[tuple[str, Path], Delivery] = {}
_lock = threading.Lock()


def emit(
    transport: Mapping[str, Any] | None,
    target_dir: Path | None = None,
    *,
    state: str,
    job_name: str,
    job_namespace: str,
    run_id: UUID | None = None,
    inputs: Sequence[LineageDataset] = (),
    outputs: Sequence[LineageDataset] = (),
    run_facets: Mapping[str, Any] | None = None,
    job_facets: Mapping[str, Any] | None = None,
    producer: str | None = None,
    event_time: datetime | None = None,
) -> UUID:
    """Put one event on the spool of `target_dir`, None the user's own; return its run id at once.

    Without a transport it does nothing. Trouble is logged, never raised.
    """
    run_id = run_id or uuid4()
    if transport is None or transport.get("type") is None:
        return run_id
    try:
        from openlineage.client.event_v2 import (
            InputDataset,
            Job,
            OutputDataset,
            Run,
            RunEvent,
            RunState,
        )
        from openlineage.client.serde import Serde

        event = RunEvent(
            eventTime=(event_time or datetime.now(timezone.utc)).isoformat(),
            eventType=RunState[state.upper()],
            run=Run(runId=str(run_id), facets=dict(run_facets or {})),
            job=Job(namespace=job_namespace, name=job_name, facets=dict(job_facets or {})),
            inputs=[
                InputDataset(item.namespace, item.name, facets=dict(item.facets)) for item in inputs
            ],
            outputs=[
                OutputDataset(item.namespace, item.name, facets=dict(item.facets))
                for item in outputs
            ],
            producer=producer or PRODUCER,
        )
        directory = spool_directory(target_dir, "events")
        _delivery(transport, directory).send(Serde.to_json(event).encode())
    except Exception as error:  # noqa: BLE001  lineage never harms the job
        logger.warning(
            "Lineage event %s of job '%s' was not sent: %s", state, job_name, type(error).__name__
        )
    return run_id


class SpoolTransport:
    """floe-core's `LineageTransport` over the spool: what its emitter makes is not lost either."""

    def __init__(self, transport: Mapping[str, Any], target_dir: Path | None) -> None:
        """Remember the backend's transport config and the spool's place; see `emit`."""
        self._transport = transport
        self._target_dir = target_dir

    async def emit(self, event: LineageEvent) -> None:
        """Put an event of floe-core's on the spool, as the specification wants it written."""
        emit(
            self._transport,
            self._target_dir,
            state=event.event_type.value,
            job_name=event.job.name,
            job_namespace=event.job.namespace,
            run_id=event.run.run_id,
            inputs=event.inputs,
            outputs=event.outputs,
            run_facets=event.run.facets,
            job_facets=event.job.facets,
            # "floe" is floe-core's default, and no URI.
            producer=event.producer if "://" in event.producer else None,
            event_time=event.event_time,
        )

    def close(self) -> None:
        """Wait a little for the events sent so far."""
        finish()

    async def close_async(self) -> None:
        """Wait a little for the events sent so far."""
        finish()

    async def flush(self) -> None:
        """Do nothing: every event is on the spool when `emit` returns."""


def finish() -> None:
    """Wait a little for the events sent so far; the rest goes with a later run."""
    with _lock:
        ended = list(_deliveries.values())
        _deliveries.clear()
    for delivery in ended:
        delivery.finish()


def _delivery(transport: Mapping[str, Any], directory: Path) -> Delivery:
    key = (json.dumps(transport, sort_keys=True, default=repr), directory)
    with _lock:
        if not _deliveries:
            atexit.unregister(finish)
            atexit.register(finish)
        if key not in _deliveries:
            _deliveries[key] = open_delivery(transport, directory, drain_seconds=EXIT_SECONDS)
        return _deliveries[key]
