"""Lineage backends that can fail in many ways, over real HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from floe_orchestrator_dagster.testing import RecordingBackend


@dataclass(frozen=True)
class Reply:
    """How a server answers a request; with `status` 0 it closes the connection."""

    status: int = 201
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait: float = 0.0
    drip: float = 0.0
    takes: bool | None = None

    @property
    def accepted(self) -> bool:
        """Whether the backend records the event."""
        return self.status in range(200, 300) if self.takes is None else self.takes


OK = Reply()
Script = Callable[[int, dict[str, Any]], Reply]


def healthy(_number: int, _event: dict[str, Any]) -> Reply:
    return OK


class Backend(RecordingBackend):
    """A recording backend whose answers `script` decides."""

    def __init__(self, script: Script = healthy, port: int = 0) -> None:
        """Answer each request by `script`, which gets the number from 0 and the event."""
        super().__init__(port)
        self.script = script
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.clients: set[tuple[str, int]] = set()
        self.lock = threading.Lock()

    @property
    def transport(self) -> dict[str, Any]:
        """The floe transport config of this server."""
        return {"type": "http", "url": self.url, "timeout": 2.0}

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self.clients)

    @property
    def names(self) -> list[str]:
        """The job names of the recorded events, in order."""
        with self.lock:
            return [event["job"]["name"] for event in self.events]

    @property
    def duplicates(self) -> int:
        """The number of events that arrived again."""
        return sum(count - 1 for count in Counter(self.names).values())

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        """Wait until `count` events are recorded."""
        until = time.monotonic() + seconds
        while len(self.events) < count:
            assert time.monotonic() < until, f"{len(self.events)} of {count} events arrived"
            time.sleep(0.01)

    def answer(self, request: BaseHTTPRequestHandler, event: dict[str, Any]) -> None:
        with self.lock:
            number = len(self.requests)
            self.requests.append(("POST", request.path, dict(request.headers)))
            self.clients.add(request.client_address)
        reply = self.script(number, event)
        time.sleep(reply.wait)
        if reply.accepted:
            with self.lock:
                self.events.append(event)
        if not reply.status:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(reply.status)
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(reply.body)))
        if not reply.drip:
            request.end_headers()
            request.wfile.write(reply.body)
            return
        # One byte at a time, for longer than any timeout.
        for _ in range(600):
            request.wfile.write(b"X")
            request.wfile.flush()
            time.sleep(reply.drip)


def event(number: int, state: str = "START", pad: int = 0) -> dict[str, Any]:
    """Return a run event of a job named by its number."""
    return {
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventType": state,
        "run": {"runId": f"00000000-0000-4000-8000-{number:012d}", "facets": {}},
        "job": {"namespace": "tests", "name": f"{number:05d}", "facets": {}},
        "inputs": [],
        "outputs": [],
        "producer": "https://example.com/" + "x" * pad,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    }
