"""Traces and metrics of what this package does, sent where the artifacts say.

Without a collector that listens, every function here does nothing, cheaply.
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
# What exporters log by when a collector goes away; once is enough.
_NOISY = ("opentelemetry.exporter", "opentelemetry.sdk")


class Exports:
    """What this process exports: nothing before `start`, then to one collector.

    OpenTelemetry takes one provider for a process and closes it at the end of that, so `PROCESS`
    is the only such object outside of tests.
    """

    def __init__(self) -> None:
        """Begin without any endpoint asked."""
        self._endpoints: set[str] = set()
        self._lock = threading.Lock()

    def start(self, artifacts: Mapping[str, Any]) -> None:
        """Begin to export, as `observability.telemetry` of the artifacts says; once an endpoint.

        Nothing happens where it is disabled, or where the program has its own OpenTelemetry
        provider. A collector that does not listen is told in one warning.
        """
        section = artifacts.get("observability")
        found = section.get("telemetry") if isinstance(section, dict) else None
        if not isinstance(found, dict) or not found.get("enabled", True) or _is_disabled():
            return
        endpoint = str(found.get("otlp_endpoint") or "http://localhost:4317")
        with self._lock:
            if endpoint in self._endpoints:
                return
            self._endpoints.add(endpoint)
            if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return
            # Before anything of floe-core is imported, which takes a second.
            if not listens(endpoint, str(found.get("otlp_protocol") or "grpc")):
                logger.warning(
                    "Telemetry is off in this process: no collector listens at %s. Start one "
                    "there, name another as observability.tracing.endpoint in manifest.yaml and "
                    "compile again, or set %s=true.",
                    shown(_with_scheme(endpoint)) or "the otlp_endpoint of the artifacts",
                    DISABLED_ENV,
                )
                return
            from floe_core.schemas.telemetry import TelemetryConfig

            _export(TelemetryConfig.model_validate(found))


PROCESS = Exports()


def start(artifacts: Mapping[str, Any]) -> None:
    """Begin to export what this process does; see `Exports.start`."""
    PROCESS.start(artifacts)


def _is_disabled() -> bool:
    # The compiler enables telemetry whatever manifest.yaml says; this is OpenTelemetry's own word.
    return os.environ.get(DISABLED_ENV, "").strip().lower() == "true"


def _export(config: TelemetryConfig) -> None:
    """Make the providers of this process.

    floe-core's own `TelemetryProvider` refuses to start without a plugin for `backend`, and the
    compiler's default, "console", names none that exists; the configuration is read by floe-core.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    about = config.resource_attributes
    resource = Resource.create(about.to_otel_dict())
    ratio = config.get_sampling_ratio(about.deployment_environment)
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
    # Each logger by its name: a logger's filter does not see what its children log.
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
    found = config.authentication
    if found is None:
        return None
    if found.bearer_token is not None:
        return {found.header_name: f"Bearer {found.bearer_token.get_secret_value()}"}
    return {found.header_name: found.api_key.get_secret_value()} if found.api_key else None


class _Once(logging.Filter):
    """Lets the first complaint through."""

    def __init__(self) -> None:
        super().__init__()
        self._passed = False

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  logging calls it so
        passed, self._passed = self._passed, True
        return not passed


def listens(endpoint: str, protocol: str) -> bool:
    """Tell whether somebody takes connections at an OTLP endpoint; waits `PROBE_SECONDS` at most.

    `protocol` is "grpc" or "http"; it says which port is meant where the endpoint names none.
    """
    try:
        address = urlsplit(_with_scheme(endpoint))
        default = 443 if address.scheme == "https" else _DEFAULT_PORTS.get(protocol, 443)
        where = (address.hostname or "localhost", address.port or default)
        socket.create_connection(where, PROBE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _with_scheme(endpoint: str) -> str:
    """Return an endpoint as a URL: gRPC takes `collector:4317` as well."""
    return endpoint if "://" in endpoint else f"http://{endpoint}"


@contextmanager
def span(name: str, **attributes: str | float | None) -> Iterator[Span]:
    """Record what the block does as the current span; an error is recorded without its stack.

    Attributes get the prefix ``floe.``, ``_`` in their names becomes ``.``; None is left out.
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
    """Mark a span as failed, saying why without what looks like a secret."""
    if not current.is_recording():
        return
    from floe_core.telemetry import sanitize_error_message

    said = sanitize_error_message(message)
    current.set_status(Status(StatusCode.ERROR, said))
    current.add_event("exception", {"exception.message": said})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRun:
    """A node that dbt has finished.

    Attributes:
        unique_id: dbt's name of the node.
        compute: where it ran.
        status: dbt's word.
        seconds: dbt's measure.
        started_at: ISO 8601 in UTC, as dbt writes it; "" where dbt has no time.
        finished_at: likewise.
        failure: dbt's message, where the node failed.
        attempt: 1 for the first.
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
    """Record a finished node: a span with dbt's own times, a count, its seconds."""
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
        found = datetime.fromisoformat(moment.rstrip("Z")).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(found.timestamp() * 1_000_000) * 1000


def spool_depth(events: int) -> None:
    """Record how many lineage events wait on disk."""
    metrics.get_meter(TRACER).create_gauge(
        "floe.lineage.spool.depth", "1", "lineage events that wait"
    ).set(events)


def current_trace_ids() -> tuple[str, str] | None:
    """Return trace id and span id of the current span as hex; None where nothing is recorded."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return None
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)


def child_environment() -> dict[str, str]:
    """Return the current trace as variables for a child process: ``TRACEPARENT`` and the like."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name.upper(): value for name, value in carrier.items() if name.startswith("trace")}


@contextmanager
def flushed() -> Iterator[None]:
    """Send what is waiting at the end: a process of Dagster's may end without asking anybody."""
    try:
        yield
    finally:
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
            send = getattr(provider, "force_flush", None)
            if send is not None:
                send(FLUSH_MILLISECONDS)
