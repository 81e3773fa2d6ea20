"""Sends single OpenLineage events to the configured backend, never in the caller's way."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_core.lineage import LineageDataset

logger = logging.getLogger(__name__)

PRODUCER = "https://github.com/Obsidian-Owl/floe/tree/main/plugins/floe-orchestrator-dagster"


def client_transport(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `LineageBackendPlugin` transport config as openlineage-python wants it.

    floe's http config names the whole endpoint in `url`; given to the client as it is, the path
    would be doubled and the key dropped.
    """
    if config.get("type") != "http":
        return dict(config)
    transport: dict[str, Any] = {
        "type": "http",
        "url": config["url"],
        "endpoint": "",
        "timeout": config.get("timeout", 5.0),
        "verify": config.get("verify_ssl", True),
    }
    if config.get("api_key"):
        transport["auth"] = {"type": "api_key", "apiKey": config["api_key"]}
    return transport


def emit(
    transport: Mapping[str, Any] | None,
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
    """Send one event and return its run id; without a transport do nothing.

    A delivery failure is logged, never raised.
    """
    run_id = run_id or uuid4()
    if transport is None or transport.get("type") is None:
        return run_id
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import (
        InputDataset,
        Job,
        OutputDataset,
        Run,
        RunEvent,
        RunState,
    )

    event = RunEvent(
        eventTime=datetime.now(timezone.utc).isoformat(),
        eventType=RunState[state.upper()],
        run=Run(runId=str(run_id), facets=dict(run_facets or {})),
        job=Job(namespace=job_namespace, name=job_name, facets=dict(job_facets or {})),
        inputs=[InputDataset(item.namespace, item.name, dict(item.facets)) for item in inputs],
        outputs=[OutputDataset(item.namespace, item.name, dict(item.facets)) for item in outputs],
        producer=producer or PRODUCER,
    )
    try:
        client = OpenLineageClient(config={"transport": client_transport(transport)})
        client.emit(event)
        client.close(timeout=5.0)
    except Exception as error:  # noqa: BLE001  lineage never harms the job
        logger.warning(
            "Lineage event %s of job '%s' was not delivered: %s",
            state,
            job_name,
            type(error).__name__,
        )
    return run_id
