"""Real HTTP servers that take lineage events: one that records, and every way to be unwell."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a server does with a request; `status` 0 closes the connection instead."""

    status: int = 201
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait: float = 0.0
    drip: float = 0.0
    takes: bool | None = None

    @property
    def accepted(self) -> bool:
        """Whether the event counts as taken by the backend."""
        return self.status in range(200, 300) if self.takes is None else self.takes


OK = Reply()
Script = Callable[[int, dict[str, Any]], Reply]


def healthy(_number: int, _event: dict[str, Any]) -> Reply:
    return OK


@dataclass
class Backend:
    """A running server; `script` decides on each request, by its number from 0 and its event."""

    server: ThreadingHTTPServer
    script: Script
    taken: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where events are posted."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/api/v1/lineage"

    @property
    def transport(self) -> dict[str, Any]:
        """A floe transport config of this server."""
        return {"type": "http", "url": self.url, "timeout": 2.0}

    @property
    def names(self) -> list[str]:
        """Job names of the taken events, in order."""
        with self.lock:
            return [event["job"]["name"] for event in self.taken]

    @property
    def duplicates(self) -> int:
        """How many events were taken again."""
        return sum(count - 1 for count in Counter(self.names).values())

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        """Wait until so many events were taken."""
        until = time.monotonic() + seconds
        while len(self.taken) < count:
            assert time.monotonic() < until, f"{len(self.taken)} of {count} events came"
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend
    # The answer goes out as one packet; two would wait for each other's acknowledgement.
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        with self.backend.lock:
            self.backend.connections += 1

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.backend.lock:
            number = len(self.backend.requests)
            self.backend.requests.append(("POST", self.path, dict(self.headers)))
        reply = self.backend.script(number, event)
        time.sleep(reply.wait)
        if reply.accepted:
            with self.backend.lock:
                self.backend.taken.append(event)
        if not reply.status:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        if not reply.drip:
            self.end_headers()
            self.wfile.write(reply.body)
            return
        # One byte at a time, for ever as far as any patience goes.
        for _ in range(600):
            self.wfile.write(b"X")
            self.wfile.flush()
            time.sleep(reply.drip)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are what these tests are about


@contextmanager
def backend(script: Script = healthy, port: int = 0) -> Iterator[Backend]:
    """Run a server on localhost."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    running = Backend(server, script)
    handler.backend = running
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
