"""A server that keeps the lineage events it is sent, and what must hold for them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
from floe_core.plugins.lineage import LineageBackendPlugin

from floe_orchestrator_dagster.product.product import Product
from kit.openlineage_checks import Event, problems, spec_problems
from kit.support import run

TEST_PARTS = 4
Recorded = list[Event]


class Backend(LineageBackendPlugin):
    """A lineage backend as a platform team would write one."""

    name = "recorder"
    version = "1.0.0"
    floe_api_version = "1.0"

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def get_transport_config(self) -> dict[str, Any]:
        return {"type": "http", "url": self.url, "timeout": 5.0}

    def get_namespace_strategy(self) -> dict[str, Any]:
        return {"strategy": "centralized", "environment": "test", "platform": "floe"}

    def get_helm_values(self) -> dict[str, Any]:
        return {}

    def validate_connection(self) -> bool:
        return True


@contextmanager
def recording() -> Iterator[tuple[Recorded, Backend]]:
    """Events as a server has got them, and the backend that leads there."""
    events: Recorded = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield events, Backend(f"http://127.0.0.1:{server.server_port}/api/v1/lineage")
    server.shutdown()
    thread.join()
    server.server_close()


def sound(events: Recorded) -> dict[str, list[Event]]:
    """Return the events by the end of their job's name, when nothing is wrong with any."""
    assert events
    wrong = problems(events)
    assert not wrong, wrong
    folder = os.environ.get("OPENLINEAGE_SPEC")
    if folder:
        wrong = spec_problems(events, Path(folder))
        assert not wrong, wrong
    found: dict[str, list[Event]] = {}
    for event in events:
        parts = event["job"]["name"].split(".")
        # dbt ends the unique id of a generic test with a hash.
        name = parts[-2] if parts[1:2] == ["test"] and len(parts) > TEST_PARTS else parts[-1]
        found.setdefault(name, []).append(event)
    return found


def kinds(events: list[Event]) -> list[str]:
    return [event["eventType"] for event in events]


def build(
    product: Product,
    backend: Backend,
    instance: dg.DagsterInstance,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    return run(replace(product, lineage_backend=backend), instance, **options)
