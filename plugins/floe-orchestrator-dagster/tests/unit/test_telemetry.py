"""The endpoint of telemetry is checked before anything is exported."""

from __future__ import annotations

import logging
import socket

import pytest

from floe_orchestrator_dagster.telemetry import Exports, listens
from kit.ports import free_port


def observed(endpoint: str) -> dict[str, object]:
    return {"observability": {"telemetry": {"otlp_endpoint": endpoint}}}


def test_the_endpoint_gives_the_address_of_the_collector() -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        port = collector.getsockname()[1]
        # gRPC also accepts an endpoint without a scheme.
        for endpoint in (f"http://127.0.0.1:{port}/v1", f"127.0.0.1:{port}"):
            assert listens(endpoint, "grpc")
    assert not listens(f"127.0.0.1:{port}", "grpc")
    assert not listens("collector.invalid:4317", "grpc")
    assert not listens("http://[", "http")


def test_a_missing_collector_is_reported_once_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    port = free_port()
    exports = Exports()
    for _ in range(2):
        exports.start(observed(f"http://me:canary-pass@127.0.0.1:{port}"))
    exports.start({})
    [message] = caplog.messages
    assert message == (
        f"Telemetry is off in this process: no collector listens at http://127.0.0.1:{port}. "
        "Start one there, name another as observability.tracing.endpoint in manifest.yaml and "
        "compile again, or set OTEL_SDK_DISABLED=true."
    )


def test_opentelemetrys_own_switch_disables_the_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    with caplog.at_level(logging.DEBUG):
        Exports().start(observed("http://127.0.0.1:1"))
    assert caplog.messages == []
