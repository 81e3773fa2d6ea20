"""A real OTLP receiver gets spans and metrics, over gRPC and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metric_messages
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metric_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_service

from kit.ports import free_port
from kit.support import BIN, TinyProject

MODEL = "select '{{ env_var('TRACEPARENT', 'none') }}' as parent"


@dataclass
class Received:
    """The spans, resources and metrics that a collector receives."""

    port: int = 0
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)

    def traces(self, request: Any) -> None:
        for group in request.resource_spans:
            self.resources.append(_values(group.resource.attributes))
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    def numbers(self, request: Any) -> None:
        for group in request.resource_metrics:
            self.metrics |= {m.name for scope in group.scope_metrics for m in scope.metrics}

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def _values(attributes: Any) -> dict[str, str]:
    return {item.key: item.value.string_value for item in attributes}


@contextmanager
def grpc_collector() -> Iterator[Received]:
    received = Received()

    class Traces(trace_service.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            received.traces(request)
            return trace_messages.ExportTraceServiceResponse()

    class Metrics(metric_service.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            received.numbers(request)
            return metric_messages.ExportMetricsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service.add_TraceServiceServicer_to_server(Traces(), server)
    metric_service.add_MetricsServiceServicer_to_server(Metrics(), server)
    received.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def http_collector() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                received.traces(trace_messages.ExportTraceServiceRequest.FromString(body))
            elif self.path == "/v1/metrics":
                received.numbers(metric_messages.ExportMetricsServiceRequest.FromString(body))
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


def product(tiny: TinyProject, port: int, protocol: str = "grpc") -> Path:
    tiny.write({"a": MODEL, "b": "select nothing from {{ ref('a') }}"})
    tiny.compile([{"name": "a"}, {"name": "b", "depends_on": ["a"]}])
    path = tiny.directory / "target" / "compiled_artifacts.json"
    artifacts = json.loads(path.read_text())
    telemetry = artifacts["observability"]["telemetry"]
    telemetry |= {
        "enabled": True,
        "otlp_endpoint": f"http://127.0.0.1:{port}",
        "otlp_protocol": protocol,
        "sampling": {"dev": 1.0, "staging": 1.0, "prod": 1.0},
    }
    path.write_text(json.dumps(artifacts))
    return tiny.directory


def build(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "floe-dagster"), "run", str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        | environment,
    )


COLLECTORS = {"grpc": grpc_collector, "http": http_collector}


@pytest.mark.parametrize("protocol", ["grpc", pytest.param("http", marks=pytest.mark.heavy)])
def test_a_run_is_one_trace_down_to_the_nodes_of_dbt(tiny: TinyProject, protocol: str) -> None:
    with COLLECTORS[protocol]() as received:
        done = build(product(tiny, received.port, protocol))
    assert done.returncode == 1, done.stderr
    [run], [wave] = received.named("floe.run"), received.named("floe.wave")
    a, b = sorted(received.named("floe.dbt.node"), key=lambda span: span.start_time_unix_nano)
    assert wave.parent_span_id == run.span_id
    assert {span.parent_span_id for span in (a, b)} == {wave.span_id}
    assert {span.trace_id for span in (run, wave, a, b)} == {run.trace_id}
    assert _values(a.attributes)["floe.dbt.model"] == "model.tiny.a"
    assert _values(run.attributes)["floe.product.name"] == "tiny"
    assert (a.status.code, b.status.code) == (0, 2)
    assert "nothing" in b.status.message
    assert a.start_time_unix_nano < a.end_time_unix_nano <= b.start_time_unix_nano
    for name in ("floe.load", "floe.plan", "floe.definitions"):
        assert received.named(name), name
    assert {"floe.dbt.nodes", "floe.dbt.node.duration"} <= received.metrics
    assert received.resources[0]["floe.product.name"] == "tiny"
    # The model writes the variable TRACEPARENT of dbt's process into its table.
    with duckdb.connect(str(tiny.database), read_only=True) as database:
        [[parent]] = database.execute("select parent from a").fetchall()
    assert parent.startswith(f"00-{wave.trace_id.hex()}-{wave.span_id.hex()}-")


def test_without_a_collector_there_is_one_warning_and_no_noise(tiny: TinyProject) -> None:
    port = free_port()
    done = build(product(tiny, port))
    # Messages are wrapped to the width of the terminal.
    output = " ".join((done.stdout + done.stderr).split())
    assert output.count(f"no collector listens at http://127.0.0.1:{port}") == 1
    assert "Traceback" not in output
    assert "opentelemetry" not in output.lower()
    assert "or set OTEL_SDK_DISABLED=true" in output
    assert "collector" not in build(tiny.directory, OTEL_SDK_DISABLED="true").stderr


def test_the_environment_of_the_process_does_not_change(tiny: TinyProject) -> None:
    with grpc_collector() as received:
        directory = product(tiny, received.port)
        code = (
            "import os, sys; before = dict(os.environ)\n"
            "from floe_orchestrator_dagster.loader import load_product_definitions\n"
            "from floe_orchestrator_dagster.telemetry import current_trace_ids, span\n"
            "load_product_definitions('tiny', sys.argv[1])\n"
            "assert current_trace_ids() is None\n"
            "with span('x') as current:\n"
            "    trace, own = current_trace_ids()\n"
            "assert len(trace), len(own) == (32, 16)\n"
            "changed = {k for k in os.environ.keys() | before if os.environ.get(k) !="
            " before.get(k)}\n"
            "print(sorted(changed))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
