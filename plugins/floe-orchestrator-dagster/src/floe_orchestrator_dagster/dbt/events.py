"""The events of a dbt process as frozen records, each decoded once.

Each line is one of dbt's structured events (`info` and `data`) with the additions of `dbt.child`.
An `EventReader` turns a line into the records below.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from floe_orchestrator_dagster.dbt.status import PARTIAL, RETRIED
from floe_orchestrator_dagster.errors import DbtError

# A batch in dbt's own form: its start and its end, ISO 8601 with an offset.
Window: TypeAlias = tuple[str, str]
MAX_BATCH_ERRORS = 3


class Relation(msgspec.Struct, frozen=True):
    """The relation of a node, with the names that dbt used in this run."""

    name: str
    database: str | None = None
    schema: str | None = None
    identifier: str | None = None


class QualityResult(msgspec.Struct, frozen=True):
    """The result of one quality check: the count of failing rows, or why it could not run."""

    unique_id: str
    failures: int | None = None
    problem: str | None = None

    @property
    def message(self) -> str:
        """Why the check did not pass; "" if it passed."""
        if self.problem is not None:
            return self.problem
        return f"{self.failures} failing rows" if self.failures else ""


class Observed(msgspec.Struct, frozen=True):
    """Facts that were read from the warehouse, over dbt's own connection, after a node was built.

    `columns` are names and types in order. `inputs` are the columns of the relations that the node
    reads, by relation name. `problem` is why some facts are missing.
    """

    rows: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    inputs: dict[str, tuple[tuple[str, str], ...]] = {}
    checks: tuple[QualityResult, ...] = ()
    problem: str | None = None


NOTHING_OBSERVED = Observed()


class Started(msgspec.Struct, frozen=True):
    """A dbt invocation began."""

    invocation_id: str
    at: str
    dbt_version: str = ""


class Connected(msgspec.Struct, frozen=True):
    """dbt has a connection: `output` is the dbt output as dbt resolved it, with its secrets."""

    output: dict[str, Any]


class Secrets(msgspec.Struct, frozen=True):
    """Values to mask in every text that this process reads from files of the command."""

    values: tuple[str, ...]


class NodeStarted(msgspec.Struct, frozen=True):
    """dbt began to run a node; `at` is ISO 8601 in UTC."""

    unique_id: str
    compute: str = ""
    name: str = ""
    kind: str = ""
    at: str = ""
    attempt: int = 1
    relation: Relation | None = None


class NodeFinished(msgspec.Struct, frozen=True):
    """dbt finished a node, or a hook of kind "operation".

    `status` is dbt's status in lower case. `seconds` is dbt's own measure, never negative. Times
    are ISO 8601 in UTC. `failures` counts the failing rows of a test. `batches_failed` are the
    windows of a microbatch model that are missing, `batches_built` those that exist.
    """

    unique_id: str
    compute: str = ""
    status: str = "error"
    name: str = ""
    kind: str = ""
    seconds: float = 0.0
    message: str = ""
    failures: int | None = None
    started_at: str = ""
    finished_at: str = ""
    attempt: int = 1
    invocation_id: str = ""
    relation: Relation | None = None
    materialized: str = ""
    adapter_response: dict[str, Any] = {}
    observed: Observed = NOTHING_OBSERVED
    batches_failed: tuple[Window, ...] = ()
    batches_built: tuple[Window, ...] = ()

    @property
    def rows(self) -> int | None:
        """The number of rows in the relation; None if they were not counted."""
        return self.observed.rows

    @property
    def duration(self) -> float:
        """Seconds between dbt's start and end of the node, never negative."""
        try:
            started = datetime.fromisoformat(zoned(self.started_at).replace("Z", "+00:00"))
            finished = datetime.fromisoformat(zoned(self.finished_at).replace("Z", "+00:00"))
        except ValueError:
            return self.seconds
        return max(0.0, (finished - started).total_seconds())


class BatchFinished(msgspec.Struct, frozen=True):
    """dbt finished one batch of a microbatch model; the model itself finishes later."""

    unique_id: str
    status: str
    message: str = ""
    seconds: float = 0.0


class Checked(msgspec.Struct, frozen=True):
    """Quality checks were evaluated on a relation that this command did not build."""

    unique_id: str
    checks: tuple[QualityResult, ...] = ()


class Canceled(msgspec.Struct, frozen=True):
    """dbt canceled the query of a node, because another node failed or dbt was interrupted."""

    unique_id: str


class Line(msgspec.Struct, frozen=True):
    """One line of dbt's log."""

    name: str
    level: str
    text: str


Event: TypeAlias = (
    Started | Connected | NodeStarted | NodeFinished | BatchFinished | Checked | Canceled | Line
)


class Done(msgspec.Struct, frozen=True):
    """The last message of the process: whether dbt reports success, and dbt's exception."""

    success: bool
    exception: str | None = None


class Trouble(msgspec.Struct, frozen=True):
    """An event that the process could not report."""

    text: str


Message: TypeAlias = Done | Trouble | Secrets


# The lines as they are on the wire.


class _Info(msgspec.Struct):
    name: str
    msg: str
    level: str
    invocation_id: str = ""
    ts: str = ""


class _RelationInfo(msgspec.Struct):
    database: str | None = None
    schema: str | None = None
    alias: str | None = None
    relation_name: str | None = None


class _NodeInfo(msgspec.Struct):
    unique_id: str
    node_name: str = ""
    resource_type: str = ""
    materialized: str | None = None
    node_status: str | None = None
    node_started_at: str | None = None
    node_finished_at: str | None = None
    node_relation: _RelationInfo | None = None


class _RunResult(msgspec.Struct):
    status: str | None = None
    message: str | None = None
    execution_time: float | None = None
    num_failures: int | None = None
    adapter_response: dict[str, Any] | None = None


class _Data(msgspec.Struct):
    node_info: _NodeInfo | None = None
    run_result: _RunResult | None = None
    version: str | None = None
    unique_id: str | None = None
    exc: str | None = None
    conn_name: str | None = None
    status: str | None = None
    execution_time: float | None = None


class _Wire(msgspec.Struct):
    info: _Info | None = None
    data: msgspec.Raw = msgspec.Raw()
    floe: Observed | None = None
    output: dict[str, Any] | None = None
    secrets: tuple[str, ...] | None = None
    checked: Checked | None = None
    done: Done | None = None
    problem: str | None = None


_NODE_EVENTS = frozenset({"NodeStart", "NodeFinished"})
_DECODED = _NODE_EVENTS | {
    *("LogHookStartLine", "LogHookEndLine"),
    *("GenericExceptionOnRun", "LogCancelLine"),
}
_wire = msgspec.json.Decoder(_Wire)
_data = msgspec.json.Decoder(_Data)


class EventReader:
    """Reads the lines of one dbt process; it remembers which nodes are running."""

    def __init__(self, compute: str = "", attempt: int = 1) -> None:
        self._compute = compute
        self._attempt = attempt
        self._invocation_id = ""
        self._open: defaultdict[str, int] = defaultdict(int)
        self._exceptions: defaultdict[str, list[str]] = defaultdict(list)

    def read(self, line: bytes) -> list[Event | Message]:
        """Return the events and messages of one line, in order.

        Raises:
            DbtError: `dbt.child` did not write the line.
        """
        try:
            wire = _wire.decode(line)
            if wire.done is not None:
                return [wire.done]
            if wire.problem is not None:
                return [Trouble(wire.problem)]
            if wire.checked is not None:
                return [wire.checked]
            if wire.secrets is not None:
                return [Secrets(wire.secrets)]
            if wire.info is None or not bytes(wire.data):
                raise msgspec.ValidationError("neither event nor result")
            events: list[Event | Message] = []
            if wire.info.invocation_id and not self._invocation_id:
                self._invocation_id = wire.info.invocation_id
                events.append(_invocation(wire.info, wire.data))
            if wire.output is not None:
                events.append(Connected(wire.output))
            data = _data.decode(wire.data) if wire.info.name in _DECODED else _Data()
            if wire.info.name in _NODE_EVENTS and data.node_info is None:
                raise msgspec.ValidationError("no node_info")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DbtError(
                f"Cannot decode a line from dbt's process ({error}): {line[:100]!r}. Does an "
                "adapter or another program write to its output? Stop that, then run again."
            ) from error
        events += self._events(wire.info, data, wire.floe or NOTHING_OBSERVED)
        return events

    def _events(self, info: _Info, data: _Data, observed: Observed) -> list[Event]:
        node = data.node_info
        if info.name == "NodeStart" and node is not None:
            self._open[node.unique_id] += 1
            # dbt sends the start of a batch under the name of its model, which is running already.
            return [self._started(node, info)] if self._open[node.unique_id] == 1 else []
        if info.name == "NodeFinished" and node is not None:
            return [self._finished(node, info, data.run_result or _RunResult(), observed)]
        if info.name == "LogHookStartLine" and node is not None:
            return [self._started(node, info), _line(info)]
        if info.name == "LogHookEndLine" and node is not None:
            seconds = data.execution_time
            result = _RunResult(status=data.status, execution_time=seconds)
            return [self._result(node, info, result), _line(info)]
        if info.name == "LogCancelLine" and data.conn_name is not None:
            return [Canceled(data.conn_name), _line(info)]
        if info.name == "GenericExceptionOnRun" and data.unique_id and data.exc:
            self._exceptions[data.unique_id].append(data.exc)
        return [_line(info)]

    def _started(self, node: _NodeInfo, info: _Info) -> NodeStarted:
        return NodeStarted(
            node.unique_id,
            self._compute,
            node.node_name,
            node.resource_type,
            zoned(node.node_started_at) or zoned(info.ts),
            self._attempt,
            _relation(node),
        )

    def _finished(
        self, node: _NodeInfo, info: _Info, result: _RunResult, observed: Observed
    ) -> NodeFinished | BatchFinished:
        uid = node.unique_id
        # dbt may skip a node without reporting its start.
        self._open[uid] = max(0, self._open[uid] - 1)
        finished = self._result(node, info, result, observed)
        if self._open[uid]:
            return BatchFinished(uid, finished.status, finished.message, finished.seconds)
        exceptions = self._exceptions.pop(uid, [])
        if exceptions and finished.status in RETRIED and not _has_reason(finished):
            reasons = [*dict.fromkeys(text.removeprefix(_WORKER) for text in exceptions)]
            message = "\n".join([finished.message, *reasons[:MAX_BATCH_ERRORS]])
            return msgspec.structs.replace(finished, message=message)
        return finished

    def _result(
        self,
        node: _NodeInfo,
        info: _Info,
        result: _RunResult,
        observed: Observed = NOTHING_OBSERVED,
    ) -> NodeFinished:
        return NodeFinished(
            unique_id=node.unique_id,
            compute=self._compute,
            status=str(result.status or node.node_status or "error").lower(),
            name=node.node_name,
            kind=node.resource_type,
            # dbt subtracts two readings of the wall clock, which may be set back in between.
            seconds=max(0.0, result.execution_time or 0.0),
            message=(result.message or "").strip(),
            failures=result.num_failures,
            started_at=zoned(node.node_started_at),
            finished_at=zoned(node.node_finished_at) or zoned(info.ts),
            attempt=self._attempt,
            invocation_id=info.invocation_id,
            relation=_relation(node),
            materialized=node.materialized or "",
            adapter_response=result.adapter_response or {},
            observed=observed,
        )


_WORKER = "Exception on worker thread. "


def _has_reason(result: NodeFinished) -> bool:
    """Return whether the message gives a reason; that of a microbatch model repeats the status."""
    return result.status != PARTIAL and result.message.upper() not in {"", "ERROR"}


def _relation(node: _NodeInfo) -> Relation | None:
    info = node.node_relation
    if info is None or not info.relation_name:
        return None
    return Relation(
        info.relation_name, info.database or None, info.schema or None, info.alias or None
    )


def _invocation(info: _Info, data: msgspec.Raw) -> Started:
    decoded = _data.decode(data) if info.name == "MainReportVersion" else _Data()
    return Started(info.invocation_id, zoned(info.ts), (decoded.version or "").lstrip("="))


def _line(info: _Info) -> Line:
    return Line(info.name, info.level, info.msg)


def zoned(time: str | None) -> str:
    """Return one of dbt's times with its zone, which is UTC; "" without a time."""
    if not time:
        return ""
    # A date has hyphens, too: an offset is only in the time of day.
    of_day = time.partition("T")[2] or time.partition(" ")[2]
    return time if any(sign in of_day for sign in "Z+-") else f"{time}Z"
