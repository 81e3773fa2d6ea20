"""Each line of a dbt process is decoded once, into typed records."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from floe_orchestrator_dagster.dbt.events import (
    BatchFinished,
    Canceled,
    Connected,
    Done,
    EventReader,
    Line,
    NodeFinished,
    NodeStarted,
    Relation,
    Started,
    Trouble,
    zoned,
)
from floe_orchestrator_dagster.errors import DbtError

AT = "2026-01-01T00:00:0{}.000000"


def line(name: str, level: str = "debug", msg: str = "", **data: Any) -> bytes:
    info = {"name": name, "level": level, "msg": msg, "ts": AT.format(9), "invocation_id": "i"}
    return json.dumps({"info": info, "data": data}).encode()


def node(uid: str = "model.shop.a", **more: Any) -> dict[str, Any]:
    return {
        "unique_id": uid,
        "node_name": uid.rpartition(".")[2],
        "resource_type": uid.partition(".")[0],
        "node_started_at": AT.format(1),
        **more,
    }


def start(**more: Any) -> bytes:
    return line("NodeStart", node_info=node(**more))


def finish(status: str = "success", message: str = "OK", **more: Any) -> bytes:
    result = {"status": status, "message": message, "execution_time": 0.5}
    return line(
        "NodeFinished", node_info=node(node_finished_at=AT.format(2), **more), run_result=result
    )


def read(*lines: bytes) -> list[Any]:
    reader = EventReader("duckdb", attempt=2)
    events = [event for wire in lines for event in reader.read(wire)]
    return [event for event in events if not isinstance(event, Started)]


def test_a_node_starts_and_finishes() -> None:
    relation = {
        "database": "db",
        "schema": "main",
        "alias": "a",
        "relation_name": '"db"."main"."a"',
    }
    started, finished = read(start(), finish(node_relation=relation))
    assert started == NodeStarted("model.shop.a", "duckdb", "a", "model", f"{AT.format(1)}Z", 2)
    assert finished == NodeFinished(
        unique_id="model.shop.a",
        compute="duckdb",
        status="success",
        name="a",
        kind="model",
        seconds=0.5,
        message="OK",
        started_at=f"{AT.format(1)}Z",
        finished_at=f"{AT.format(2)}Z",
        attempt=2,
        invocation_id="i",
        relation=Relation('"db"."main"."a"', "db", "main", "a"),
    )
    assert finished.duration == 1.0


def test_batches_are_not_nodes_and_explain_why_their_model_failed() -> None:
    failure = line("GenericExceptionOnRun", "error", unique_id="model.shop.a", exc="1/0")
    events = read(
        *(start(), start(), finish(), start(), failure, finish("error", "ERROR")),
        finish("partial success", "PARTIAL SUCCESS (1/2)"),
    )
    assert [type(event) for event in events] == [
        *(NodeStarted, BatchFinished, Line, BatchFinished, NodeFinished),
    ]
    assert [event.status for event in events if isinstance(event, BatchFinished)] == [
        "success",
        "error",
    ]
    assert events[-1].message == "PARTIAL SUCCESS (1/2)\n1/0"


def test_a_node_without_a_start_was_skipped() -> None:
    [skipped] = read(finish("skipped", "SKIPPED"))
    assert (skipped.status, skipped.unique_id) == ("skipped", "model.shop.a")


def test_a_hook_finishes_like_a_node() -> None:
    uid = "operation.shop.shop-on-run-end-0"
    events = read(
        line("LogHookStartLine", "info", "1 of 1 START hook", node_info=node(uid)),
        line(
            "LogHookEndLine",
            "info",
            "1 of 1 ERROR hook",
            node_info=node(uid),
            status="error",
            execution_time=0.1,
        ),
    )
    [finished] = [event for event in events if isinstance(event, NodeFinished)]
    assert (finished.unique_id, finished.kind, finished.status) == (uid, "operation", "error")


def test_the_invocation_is_reported_first_and_once() -> None:
    reader = EventReader()
    events = reader.read(line("MainReportVersion", "info", version="=1.11.0"))
    assert events[0] == Started("i", f"{AT.format(9)}Z", "1.11.0")
    assert not any(isinstance(event, Started) for event in reader.read(start()))


def test_a_canceled_query_names_its_node() -> None:
    assert read(line("LogCancelLine", "info", "CANCEL", conn_name="model.shop.a"))[0] == Canceled(
        "model.shop.a"
    )


def test_no_duration_is_negative_after_the_clock_was_set_back() -> None:
    result = {"status": "success", "execution_time": -3.0}
    late = node(node_started_at=AT.format(5), node_finished_at=AT.format(2))
    [finished] = read(line("NodeFinished", node_info=late, run_result=result))
    assert (finished.seconds, finished.duration) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ({"done": {"success": True, "exception": None}}, Done(success=True)),
        ({"problem": "x"}, Trouble("x")),
    ],
)
def test_messages_between_the_processes_are_read_too(wire: Any, event: object) -> None:
    assert EventReader().read(json.dumps(wire).encode()) == [event]


def test_a_connection_contains_its_output() -> None:
    wire = json.loads(start()) | {"output": {"type": "duckdb"}}
    assert read(json.dumps(wire).encode())[0] == Connected({"type": "duckdb"})


@pytest.mark.parametrize(
    "wire", [b"Hello", b"{}", b"[]", b"\xff", line("NodeStart"), line("NodeFinished", node_info=3)]
)
def test_any_other_line_is_refused_and_quoted(wire: bytes) -> None:
    with pytest.raises(
        DbtError, match=r"Cannot decode a line from dbt's process .* Does an adapter"
    ):
        EventReader().read(wire)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00+02:00"),
        ("2026-01-01T00:00:00-05:00", "2026-01-01T00:00:00-05:00"),
        (None, ""),
    ],
)
def test_a_time_without_an_offset_is_in_utc(time: str | None, expected: str) -> None:
    assert zoned(time) == expected


def test_a_duration_needs_no_offsets() -> None:
    finished = NodeFinished("model.a.b", "duck", "success", started_at="2026-01-01T00:00:00")
    finished = msgspec.structs.replace(finished, finished_at="2026-01-01T01:00:03+01:00")
    assert finished.duration == 3.0
