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
from floe_orchestrator_dagster.lineage.spool import spool_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from floe_core.lineage import LineageDataset

    from floe_orchestrator_dagster.lineage.delivery import Delivery

logger = logging.getLogger(__name__)

PRODUCER = "https://github.com/Obsidian-Owl/floe/tree/main/plugins/floe-orchestrator-dagster"
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
            eventTime=datetime.now(timezone.utc).isoformat(),
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
