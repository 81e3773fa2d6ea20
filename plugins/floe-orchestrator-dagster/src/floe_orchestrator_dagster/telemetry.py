"""Sends traces and metrics of this package to the collector that the artifacts name.

If no collector listens, every function here does nothing and costs almost nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, Status, StatusCode

from floe_orchestrator_dagster.urls import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floe_core.schemas.telemetry import TelemetryConfig
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

TRACER = "floe.orchestrator.dagster"
# A collector on the same host or in the same cluster answers in milliseconds.
PROBE_SECONDS = 1.0
FLUSH_MILLISECONDS = 5000
DISABLED_ENV = "OTEL_SDK_DISABLED"
_DEFAULT_PORTS = {"grpc": 4317, "http": 4318}
# The loggers of the exporters: when a collector goes away, one message is enough.
_NOISY = ("opentelemetry.exporter", "opentelemetry.sdk")


class Exports:
    """The exports of this process: none before `start`, then to one collector.

    OpenTelemetry accepts one provider per process and closes it when the process ends, so
    `PROCESS` is the only such object outside of tests.
    """

    def __init__(self) -> None:
        """Begin without an endpoint."""
        self._endpoints: set[str] = set()
        self._lock = threading.Lock()

    def start(self, artifacts: Mapping[str, Any]) -> None:
        """Begin to export as `observability.telemetry` of the artifacts configures it.

        Each endpoint is tried once. Nothing happens if telemetry is disabled or if the program has
        its own OpenTelemetry provider. If the collector does not listen, one warning is logged.
        """
        section = artifacts.get("observability")
        config = section.get("telemetry") if isinstance(section, dict) else None
        if not isinstance(config, dict) or not config.get("enabled", True) or _is_disabled():
            return
        endpoint = str(config.get("otlp_endpoint") or "http://localhost:4317")
        with self._lock:
            if endpoint in self._endpoints:
                return
            self._endpoints.add(endpoint)
            if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return
            # Probe first: the import of floe-core below takes a second.
            if not listens(endpoint, str(config.get("otlp_protocol") or "grpc")):
                logger.warning(
                    "Telemetry is off in this process: no collector listens at %s. Start one "
                    "there, name another as observability.tracing.endpoint in manifest.yaml and "
                    "compile again, or set %s=true.",
                    shown(_with_scheme(endpoint)) or "the otlp_endpoint of the artifacts",
                    DISABLED_ENV,
                )
                return
            from floe_core.schemas.telemetry import TelemetryConfig

            _export(TelemetryConfig.model_validate(config))


PROCESS = Exports()


def start(artifacts: Mapping[str, Any]) -> None:
    """Begin to export what this process does; see `Exports.start`."""
    PROCESS.start(artifacts)


def _is_disabled() -> bool:
    # The compiler enables telemetry even if manifest.yaml disables it, so OpenTelemetry's own
    # variable is the switch.
    return os.environ.get(DISABLED_ENV, "").strip().lower() == "true"


def _export(config: TelemetryConfig) -> None:
    """Create the providers of this process from a configuration that floe-core has read.

    floe-core's own `TelemetryProvider` refuses to start without a plugin for `backend`, and no
    plugin has the name that the compiler writes by default, "console".
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    attributes = config.resource_attributes
    resource = Resource.create(attributes.to_otel_dict())
    ratio = config.get_sampling_ratio(attributes.deployment_environment)
    spans, numbers = _exporters(config)
    traces = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
    batch = config.batch_processor
    traces.add_span_processor(
        BatchSpanProcessor(
            spans,
            max_queue_size=batch.max_queue_size,
            schedule_delay_millis=batch.schedule_delay_millis,
            max_export_batch_size=batch.max_export_batch_size,
            export_timeout_millis=batch.export_timeout_millis,
        )
    )
    once = _Once()
    # The filter goes on every logger: a logger's filter does not see what its children log.
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith(_NOISY):
            logging.getLogger(name).addFilter(once)
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(numbers)
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))


def _exporters(config: TelemetryConfig) -> tuple[SpanExporter, MetricExporter]:
    endpoint, headers = config.otlp_endpoint, _headers(config)
    if config.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter, trace_exporter

        return (
            trace_exporter.OTLPSpanExporter(endpoint=endpoint, headers=headers),
            metric_exporter.OTLPMetricExporter(endpoint=endpoint, headers=headers),
        )
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces

    base = endpoint.rstrip("/").removesuffix("/v1/traces")
    return (
        http_traces.OTLPSpanExporter(endpoint=f"{base}/v1/traces", headers=headers),
        http_metrics.OTLPMetricExporter(endpoint=f"{base}/v1/metrics", headers=headers),
    )


def _headers(config: TelemetryConfig) -> dict[str, str] | None:
    login = config.authentication
    if login is None:
        return None
    if login.bearer_token is not None:
        return {login.header_name: f"Bearer {login.bearer_token.get_secret_value()}"}
    return {login.header_name: login.api_key.get_secret_value()} if login.api_key else None


class _Once(logging.Filter):
    """Passes the first record and drops the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._passed = False

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  logging calls it so
        passed, self._passed = self._passed, True
        return not passed


def listens(endpoint: str, protocol: str) -> bool:
    """Return whether an OTLP endpoint accepts connections; wait at most `PROBE_SECONDS`.

    `protocol` is "grpc" or "http"; it gives the port of an endpoint that names none.
    """
    try:
        address = urlsplit(_with_scheme(endpoint))
        default = 443 if address.scheme == "https" else _DEFAULT_PORTS.get(protocol, 443)
        target = (address.hostname or "localhost", address.port or default)
        socket.create_connection(target, PROBE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _with_scheme(endpoint: str) -> str:
    """Return an endpoint as a URL: gRPC also accepts `collector:4317`."""
    return endpoint if "://" in endpoint else f"http://{endpoint}"


@contextmanager
def span(name: str, **attributes: str | float | None) -> Iterator[Span]:
    """Record the block as the current span; record an error without its stack.

    Attribute names get the prefix ``floe.`` and a ``.`` for each ``_``; None is left out.
    """
    tracer = trace.get_tracer(TRACER)
    with tracer.start_as_current_span(
        name, attributes=_named(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            failed(current, f"{type(error).__name__}: {error}")
            raise


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"floe.{name.replace('_', '.')}": value
        for name, value in attributes.items()
        if value is not None
    }


def failed(current: Span, message: str) -> None:
    """Mark a span as failed with `message`, without anything that looks like a secret."""
    if not current.is_recording():
        return
    from floe_core.telemetry import sanitize_error_message

    reason = sanitize_error_message(message)
    current.set_status(Status(StatusCode.ERROR, reason))
    current.add_event("exception", {"exception.message": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRun:
    """A node that dbt has finished.

    Attributes:
        unique_id: dbt's name of the node.
        compute: the compute that it ran on.
        status: dbt's status.
        seconds: its duration as dbt measures it.
        started_at: ISO 8601 in UTC, as dbt writes it; "" if dbt has no time.
        finished_at: see `started_at`.
        failure: dbt's message; "" if the node did not fail.
        attempt: the number of the attempt, from 1.
    """

    unique_id: str
    compute: str
    status: str
    seconds: float
    started_at: str = ""
    finished_at: str = ""
    failure: str = ""
    attempt: int = 1


def node_done(run: NodeRun) -> None:
    """Record a finished node: a span with dbt's times, a count and a duration."""
    kind = run.unique_id.partition(".")[0]
    labels = {"floe.compute": run.compute, "floe.dbt.status": run.status, "floe.dbt.kind": kind}
    meter = metrics.get_meter(TRACER)
    meter.create_counter("floe.dbt.nodes", "1", "dbt nodes finished").add(1, labels)
    meter.create_histogram("floe.dbt.node.duration", "s", "dbt's time for a node").record(
        run.seconds, labels
    )
    begin, end = _nanoseconds(run.started_at), _nanoseconds(run.finished_at)
    done = trace.get_tracer(TRACER).start_span(
        "floe.dbt.node",
        attributes={**labels, "floe.dbt.model": run.unique_id, "floe.attempt": run.attempt},
        start_time=begin,
    )
    if run.failure:
        failed(done, run.failure)
    done.end(end if begin is not None else None)


def _nanoseconds(moment: str) -> int | None:
    try:
        time = datetime.fromisoformat(moment.rstrip("Z")).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(time.timestamp() * 1_000_000) * 1000


def spool_depth(events: int) -> None:
    """Record how many lineage events wait on disk."""
    metrics.get_meter(TRACER).create_gauge(
        "floe.lineage.spool.depth", "1", "lineage events that wait"
    ).set(events)


def current_trace_ids() -> tuple[str, str] | None:
    """Return trace id and span id of the current span as hex; None if nothing is recorded."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def child_environment() -> dict[str, str]:
    """Return the current trace as environment variables for a child process (``TRACEPARENT``)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name.upper(): value for name, value in carrier.items() if name.startswith("trace")}


@contextmanager
def flushed() -> Iterator[None]:
    """Send what is left when the block ends: Dagster may end a process without exit handlers."""
    try:
        yield
    finally:
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
            send = getattr(provider, "force_flush", None)
            if send is not None:
                send(FLUSH_MILLISECONDS)
