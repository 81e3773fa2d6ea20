"""Writes the events of a dbt build, so that their handling can be measured without dbt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.projects import Project

TIME = "2026-01-01T00:00:0{}.000000"
INVOCATION = "00000000-0000-0000-0000-000000000000"


def write_events(project: Project) -> Path:
    """Write one build of everything in dbt's own JSON lines, parents first; return the file."""
    path = project.directory / "events.jsonl"
    if not path.is_file():
        nodes = json.loads(project.manifest.read_bytes())["nodes"]
        models = sorted(uid for uid, node in nodes.items() if node["resource_type"] == "model")
        tests: dict[str, list[str]] = {}
        for uid, node in nodes.items():
            if node["resource_type"] == "test":
                tests.setdefault(node["attached_node"], []).append(uid)
        with path.open("w") as file:
            for model in models:
                for uid in (model, *tests.get(model, ())):
                    file.writelines(json.dumps(event) + "\n" for event in _of_node(nodes[uid]))
    return path


def _of_node(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    is_test = node["resource_type"] == "test"
    status = "pass" if is_test else "success"
    info = {
        "materialized": node["config"]["materialized"],
        "meta": {},
        "node_checksum": node["checksum"]["checksum"],
        "node_name": node["name"],
        "node_path": node["path"],
        "node_relation": {
            "alias": node["alias"],
            "database": node["database"],
            "schema": node["schema"],
            "relation_name": node["relation_name"] or "",
        },
        "resource_type": node["resource_type"],
        "unique_id": node["unique_id"],
        "node_started_at": TIME.format(1),
    }
    begun = {**info, "node_status": "started", "node_finished_at": ""}
    ended = {**info, "node_status": status, "node_finished_at": TIME.format(2)}
    shown = f"1 of 9 START {node['name']} {'.' * 60} [RUN]"
    yield _event("NodeStart", "debug", f"Began running node {node['unique_id']}", node_info=begun)
    yield _event("LogStartLine", "info", shown, node_info=begun, index=1, total=9)
    yield _event(
        "LogTestResult" if is_test else "LogModelResult",
        "info",
        shown.replace("RUN", "PASS in 1.00s"),
        node_info=ended,
        status=status if is_test else "OK",
        execution_time=1.0,
        num_failures=0,
    )
    finished = _event(
        "NodeFinished",
        "debug",
        f"Finished running node {node['unique_id']}",
        node_info=ended,
        run_result={
            "adapter_response": {"_message": "OK"},
            "execution_time": 1.0,
            "message": "" if is_test else "OK",
            "num_failures": 0,
            "status": status,
            "thread": "Thread-1 (worker)",
            "timing_info": [
                {"name": name, "started_at": TIME.format(1), "completed_at": TIME.format(2)}
                for name in ("compile", "execute")
            ],
        },
    )
    if not is_test:
        # Our code in the dbt process adds this.
        columns = [[column["name"], column["data_type"]] for column in node["columns"].values()]
        finished["floe"] = {"columns": columns, "rows": 10}
    yield finished


def _event(name: str, level: str, message: str, **data: Any) -> dict[str, Any]:
    return {
        "data": data,
        "info": {
            "category": "",
            "code": "Q025",
            "extra": {},
            "invocation_id": INVOCATION,
            "level": level,
            "msg": message,
            "name": name,
            "pid": 1,
            "thread": "Thread-1 (worker)",
            "ts": TIME.format(2) + "Z",
        },
    }
