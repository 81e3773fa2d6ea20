"""Measures the cost of lineage: the same run with a backend and without."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT, Row, Sample, in_pairs, row
from benchmarks.runs import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.projects import Project

TARGET = 1.03


def lineage(project: Project, rounds: int) -> list[Row]:
    """Measure a run that sends its lineage to a server in another process."""
    artifacts = project.ours / "target" / "compiled_artifacts.json"
    without = artifacts.read_text()
    with_backend = json.loads(without)
    work = f"lineage of {project.models:,} models + {project.tests:,} tests"
    with _backend() as url:
        with_backend["plugins"]["lineage_backend"] = {
            "type": "marquez",
            "version": "0.1.0",
            "config": {"url": url, "environment": "bench"},
        }

        def with_lineage() -> Sample:
            artifacts.write_text(json.dumps(with_backend))
            return ours(project)

        def without_lineage() -> Sample:
            artifacts.write_text(without)
            return ours(project)

        try:
            pairs = in_pairs(with_lineage, without_lineage, rounds)
        finally:
            artifacts.write_text(without)
    return [
        row(pairs, work, "the same without", "cpu", TARGET),
        row(pairs, work, "the same without", "wall"),
    ]


@contextmanager
def _backend() -> Iterator[str]:
    """Run a server that accepts every event."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lineage"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


class _Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    taker = ThreadingHTTPServer(("127.0.0.1", 0), _Taker)
    print(f"http://127.0.0.1:{taker.server_port}", flush=True)
    taker.serve_forever()
