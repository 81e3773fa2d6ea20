"""Sends single OpenLineage events the way all others go: spool first, then the sender."""

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
    """What a caller wants to be sent, unchecked: each value may be of any type.

    Attributes:
        state: a `RunState` of floe-core, or its name.
        job_name: a text, not empty; likewise `job_namespace`.
        job_namespace: see `job_name`.
        run_id: a UUID or its text; None for a new one.
        inputs: `LineageDataset`s, or mappings with `namespace`, `name` and `facets`.
        outputs: see `inputs`.
        run_facets: facets by name; likewise `job_facets`.
        job_facets: see `run_facets`.
        producer: a URI; any other value stands for this package's own.
        event_time: in UTC if it has no zone; None for now.
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
    given: SingleEvent,
    deliveries: Deliveries = PROCESS,
) -> UUID:
    """Put one event on the spool in that directory; return its run id at once.

    An event of which a value is wrong is not sent; the log says what is wrong. Without a transport
    or a spool nothing is done. Nothing is raised.
    """
    problems: list[str] = []
    run = _run_id(given.run_id, problems)
    if spool is None or transport is None or transport.get("type") is None:
        return run
    try:
        event = {
            "eventTime": _zoned(given.event_time).isoformat(),
            "eventType": _state(given.state, problems),
            "run": {"runId": str(run), "facets": _facets("run_facets", given.run_facets, problems)},
            "job": {
                "namespace": _word("job_namespace", given.job_namespace, problems),
                "name": _word("job_name", given.job_name, problems),
                "facets": _facets("job_facets", given.job_facets, problems),
            },
            "inputs": _datasets("inputs", given.inputs, problems),
            "outputs": _datasets("outputs", given.outputs, problems),
            "producer": _producer(given.producer),
            "schemaURL": RUN_EVENT_SCHEMA,
        }
        if not problems:
            deliveries.to(transport, spool).send(_json(event))
    except Exception as error:  # noqa: BLE001  lineage never harms the job
        # Its text may quote a facet; what it is about is in most cases its first words.
        problems.append(f"{type(error).__name__}: {error}"[:MAX_REASON])
    if problems:
        logger.warning(
            "Lineage event %s of job %s was not sent: %s.",
            _shown(given.state),
            _shown(given.job_name),
            "; ".join(problems),
        )
    return run


def _run_id(given: object, problems: list[str]) -> UUID:
    if given is None:
        return uuid4()
    if isinstance(given, UUID):
        return given
    try:
        return UUID(str(given))
    except (ValueError, TypeError):
        problems.append(f"run_id {_shown(given)} is not a UUID")
        return uuid4()


def _state(given: object, problems: list[str]) -> str:
    """Return OpenLineage's word for a run state, given as floe-core's enum or as its name."""
    name = str(getattr(given, "value", given)).upper()
    if name not in STATES:
        problems.append(f"event_type {_shown(given)} is none of {', '.join(STATES)}")
    return name


def _word(name: str, given: object, problems: list[str]) -> str:
    if not isinstance(given, str) or not given.strip():
        problems.append(f"{name} {_shown(given)} is not a name")
        return ""
    return given


def _facets(name: str, given: object, problems: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"{name} {_shown(given)} is not a mapping")
        return {}
    return {str(key): value for key, value in given.items()}


def _datasets(name: str, given: object, problems: list[str]) -> list[dict[str, Any]]:
    if given is None:
        return []
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        problems.append(f"{name} {_shown(given)} is not a list of datasets")
        return []
    found = []
    for number, item in enumerate(given):
        where = f"{name}[{number}]"
        fields = item if isinstance(item, Mapping) else vars(item) if _is_dataset(item) else None
        if fields is None:
            problems.append(f"{where} {_shown(item)} is not a dataset")
            continue
        found.append(
            {
                "namespace": _word(f"{where}.namespace", fields.get("namespace"), problems),
                "name": _word(f"{where}.name", fields.get("name"), problems),
                "facets": _facets(f"{where}.facets", fields.get("facets"), problems),
            }
        )
    return found


def _is_dataset(item: object) -> bool:
    return hasattr(item, "__dict__") and {"namespace", "name"} <= vars(item).keys()


def _producer(given: object) -> str:
    # "floe", floe-core's default, is no URI.
    return given if isinstance(given, str) and "://" in given else PRODUCER


def _zoned(time: datetime | None) -> datetime:
    """Return a time with its zone; one without is meant in UTC."""
    if time is None:
        return datetime.now(timezone.utc)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _json(event: Mapping[str, Any]) -> bytes:
    """Return an event as JSON, without nulls; facets may be openlineage-python's own objects."""
    from openlineage.client.serde import Serde

    plain = Serde.to_dict(dict(event))
    return json.dumps(plain, allow_nan=False, default=_facet_object).encode()


def _facet_object(value: object) -> dict[Any, Any]:
    from openlineage.client.serde import Serde

    if hasattr(value, "__attrs_attrs__"):
        return Serde.to_dict(value)
    raise TypeError(f"a facet holds an object of type {type(value).__name__}")


def _shown(value: object) -> str:
    """Return a value for the log: a short text as it is, of others only the type."""
    if isinstance(value, Enum):
        value = value.value
    short = isinstance(value, str) and len(value) <= MAX_SHOWN
    return repr(value) if short or value is None else f"(of type {type(value).__name__})"


class SpoolTransport:
    """floe-core's `LineageTransport` over the spool: what its emitter makes is not lost either."""

    def __init__(
        self,
        transport: Mapping[str, Any],
        spool: Path,
        deliveries: Deliveries = PROCESS,
    ) -> None:
        """Remember the backend's transport config and the spool's place; see `emit`."""
        self._deliveries = deliveries
        self._transport = transport
        self._spool = spool

    async def emit(self, event: LineageEvent) -> None:
        """Put an event of floe-core's on the spool, as the specification wants it written."""
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
        """Wait a little for the events sent so far."""
        self._deliveries.close()

    async def close_async(self) -> None:
        """Wait a little for the events sent so far."""
        self._deliveries.close()

    async def flush(self) -> None:
        """Do nothing: every event is on the spool when `emit` returns."""
