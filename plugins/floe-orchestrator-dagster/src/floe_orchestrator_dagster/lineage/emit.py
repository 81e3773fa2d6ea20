"""Sends single OpenLineage events through the spool, like all other events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from floe_orchestrator_dagster.lineage.deliveries import PROCESS
from floe_orchestrator_dagster.lineage.facets import PRODUCER, RUN_EVENT_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from floe_core.lineage import LineageEvent

    from floe_orchestrator_dagster.lineage.deliveries import Deliveries

logger = logging.getLogger(__name__)

# The event types of the specification.
STATES = ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
MAX_SHOWN = 100
MAX_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleEvent:
    """An event as the caller passes it, not validated: each value may have any type.

    Attributes:
        state: a `RunState` of floe-core, or its name.
        job_name: a text that is not empty.
        job_namespace: see `job_name`.
        run_id: a UUID or its text; None means a new one.
        inputs: `LineageDataset`s, or mappings with `namespace`, `name` and `facets`.
        outputs: see `inputs`.
        run_facets: facets by name.
        job_facets: see `run_facets`.
        producer: a URI; any other value means this package's own.
        event_time: in UTC if it has no zone; None means now.
    """

    state: object
    job_name: object
    job_namespace: object
    run_id: object = None
    inputs: object = None
    outputs: object = None
    run_facets: object = None
    job_facets: object = None
    producer: object = None
    event_time: datetime | None = None


def emit(
    transport: Mapping[str, Any] | None,
    spool: Path | None,
    single: SingleEvent,
    deliveries: Deliveries = PROCESS,
) -> UUID:
    """Put one event into the spool directory and return its run id at once.

    An event with an invalid value is not sent, and a log warning lists the problems. Without a
    transport or a spool, do nothing. This never raises.
    """
    problems: list[str] = []
    run = _run_id(single.run_id, problems)
    if spool is None or transport is None or transport.get("type") is None:
        return run
    try:
        event = {
            "eventTime": _zoned(single.event_time).isoformat(),
            "eventType": _state(single.state, problems),
            "run": {
                "runId": str(run),
                "facets": _facets("run_facets", single.run_facets, problems),
            },
            "job": {
                "namespace": _word("job_namespace", single.job_namespace, problems),
                "name": _word("job_name", single.job_name, problems),
                "facets": _facets("job_facets", single.job_facets, problems),
            },
            "inputs": _datasets("inputs", single.inputs, problems),
            "outputs": _datasets("outputs", single.outputs, problems),
            "producer": _producer(single.producer),
            "schemaURL": RUN_EVENT_SCHEMA,
        }
        if not problems:
            deliveries.to(transport, spool).send(_json(event))
    except Exception as error:  # noqa: BLE001  lineage never harms the job
        # The message may quote a whole facet; its beginning is usually enough.
        problems.append(f"{type(error).__name__}: {error}"[:MAX_REASON])
    if problems:
        logger.warning(
            "Lineage event %s of job %s was not sent: %s.",
            _shown(single.state),
            _shown(single.job_name),
            "; ".join(problems),
        )
    return run


def _run_id(value: object, problems: list[str]) -> UUID:
    if value is None:
        return uuid4()
    if isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except (ValueError, TypeError):
        problems.append(f"run_id {_shown(value)} is not a UUID")
        return uuid4()


def _state(value: object, problems: list[str]) -> str:
    """Return OpenLineage's name of a run state, from floe-core's enum or its name."""
    name = str(getattr(value, "value", value)).upper()
    if name not in STATES:
        problems.append(f"event_type {_shown(value)} is not one of {', '.join(STATES)}")
    return name


def _word(name: str, value: object, problems: list[str]) -> str:
    if not isinstance(value, str) or not value.strip():
        problems.append(f"{name} {_shown(value)} is not a name")
        return ""
    return value


def _facets(name: str, value: object, problems: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problems.append(f"{name} {_shown(value)} is not a mapping")
        return {}
    return {str(key): facet for key, facet in value.items()}


def _datasets(name: str, value: object, problems: list[str]) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        problems.append(f"{name} {_shown(value)} is not a list of datasets")
        return []
    datasets = []
    for number, item in enumerate(value):
        where = f"{name}[{number}]"
        fields = item if isinstance(item, Mapping) else vars(item) if _is_dataset(item) else None
        if fields is None:
            problems.append(f"{where} {_shown(item)} is not a dataset")
            continue
        datasets.append(
            {
                "namespace": _word(f"{where}.namespace", fields.get("namespace"), problems),
                "name": _word(f"{where}.name", fields.get("name"), problems),
                "facets": _facets(f"{where}.facets", fields.get("facets"), problems),
            }
        )
    return datasets


def _is_dataset(item: object) -> bool:
    return hasattr(item, "__dict__") and {"namespace", "name"} <= vars(item).keys()


def _producer(value: object) -> str:
    # floe-core's default, "floe", is not a URI.
    return value if isinstance(value, str) and "://" in value else PRODUCER


def _zoned(time: datetime | None) -> datetime:
    """Return a time with a zone; UTC if it has none."""
    if time is None:
        return datetime.now(timezone.utc)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _json(event: Mapping[str, Any]) -> bytes:
    """Return an event as JSON without nulls; facets may be objects of openlineage-python."""
    from openlineage.client.serde import Serde

    plain = Serde.to_dict(dict(event))
    return json.dumps(plain, allow_nan=False, default=_facet_object).encode()


def _facet_object(value: object) -> dict[Any, Any]:
    from openlineage.client.serde import Serde

    if hasattr(value, "__attrs_attrs__"):
        return Serde.to_dict(value)
    raise TypeError(f"a facet holds an object of type {type(value).__name__}")


def _shown(value: object) -> str:
    """Return a value for the log: a short text as it is, any other value as its type."""
    if isinstance(value, Enum):
        value = value.value
    short = isinstance(value, str) and len(value) <= MAX_SHOWN
    return repr(value) if short or value is None else f"(of type {type(value).__name__})"


class SpoolTransport:
    """floe-core's `LineageTransport` over the spool, so that its emitter loses no event."""

    def __init__(
        self,
        transport: Mapping[str, Any],
        spool: Path,
        deliveries: Deliveries = PROCESS,
    ) -> None:
        """Keep the backend's transport config and the spool directory; see `emit`."""
        self._deliveries = deliveries
        self._transport = transport
        self._spool = spool

    async def emit(self, event: LineageEvent) -> None:
        """Put an event of floe-core into the spool, in the form of the specification."""
        emit(
            self._transport,
            self._spool,
            SingleEvent(
                state=event.event_type,
                job_name=event.job.name,
                job_namespace=event.job.namespace,
                run_id=event.run.run_id,
                inputs=event.inputs,
                outputs=event.outputs,
                run_facets=event.run.facets,
                job_facets=event.job.facets,
                producer=event.producer,
                event_time=event.event_time,
            ),
            self._deliveries,
        )

    def close(self) -> None:
        """Wait a few seconds for the events sent so far."""
        self._deliveries.close()

    async def close_async(self) -> None:
        """Wait a few seconds for the events sent so far."""
        self._deliveries.close()

    async def flush(self) -> None:
        """Do nothing: every event is in the spool when `emit` returns."""
