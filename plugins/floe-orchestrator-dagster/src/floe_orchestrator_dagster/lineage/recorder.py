"""Records the lineage of a running step and sends it.

A problem with lineage does not fail the step. With `lineage: required`, an event that cannot be
made durable does.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.events import (
    Checked,
    Connected,
    NodeFinished,
    NodeStarted,
    Started,
)
from floe_orchestrator_dagster.errors import LineageError, known
from floe_orchestrator_dagster.lineage.backend import lineage_destination
from floe_orchestrator_dagster.lineage.compiled_sql import compiled_in_results, compiled_sql
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, open_delivery
from floe_orchestrator_dagster.lineage.events import StepLineage, StepRun, WaveRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from floe_core.plugins.lineage import LineageBackendPlugin

    from floe_orchestrator_dagster.dbt.events import Event as DbtEvent
    from floe_orchestrator_dagster.dbt.scrub import Scrubber
    from floe_orchestrator_dagster.lineage.delivery import Delivery
    from floe_orchestrator_dagster.lineage.events import Event
    from floe_orchestrator_dagster.plan import Compute, ProductPlan

logger = logging.getLogger(__name__)


def open_lineage(
    backend: LineageBackendPlugin | None,
    artifacts: Mapping[str, Any],
    directory: Path,
    *,
    required: bool,
) -> tuple[Delivery, str] | None:
    """Return the delivery of a product's lineage and its job namespace; None if it sends none.

    `backend` is one that is passed in code; otherwise the artifacts name it.

    Raises:
        LineageError: lineage is required and the backend or the spool cannot be used.
    """
    try:
        destination = lineage_destination(artifacts, backend)
    except LineageError as error:
        if required:
            raise
        logger.warning("%s The run continues without lineage.", error)
        return None
    if destination is None:
        return None
    delivery = open_delivery(destination.transport, directory, required=required)
    return delivery, destination.namespace


class LineageRecorder:
    """The lineage of one running step."""

    def __init__(
        self,
        step: StepRun,
        plan: ProductPlan,
        delivery: Delivery,
        log: logging.Logger = logger,
    ) -> None:
        """Begin; `log` receives warnings about the lineage of this run."""
        self._lineage = StepLineage(step, plan)
        self._plan = plan
        self._delivery = delivery
        self._log = log
        self._step = step
        self._warned = False
        self._over = False
        self._held: list[tuple[NodeFinished, Path, Scrubber]] = []
        self._next: WaveRun | None = None

    def started(self) -> None:
        """Record that the step has begun."""
        with self._harmless():
            self._send(self._lineage.start())

    def wave(self, compute: Compute, number: int, waves: int, nodes: int) -> None:
        """Record that a dbt run of `nodes` nodes is about to start."""
        self._next = WaveRun(compute, number, waves, nodes)

    def handle(self, event: DbtEvent, run_dir: Path, scrubber: Scrubber) -> None:
        """Handle one of dbt's events; the compiled SQL in `run_dir` may contain secrets."""
        with self._harmless():
            if isinstance(event, Started) and self._next is not None:
                wave, self._next = self._next, None
                self._send(
                    self._lineage.invocation_started(
                        event.invocation_id, event.at or now(), wave, event.dbt_version
                    )
                )
            elif isinstance(event, Connected):
                self._lineage.connected(event.output)
            elif isinstance(event, NodeStarted):
                at = event.at or now()
                self._send(
                    self._lineage.node_started(event.unique_id, at, event.attempt, event.relation)
                )
            elif isinstance(event, Checked):
                self._send(self._lineage.quality_checked(event.unique_id, now(), 1, event.checks))
            elif isinstance(event, NodeFinished):
                node = self._plan.nodes.get(event.unique_id)
                if node is not None and node.kind == "snapshot":
                    self._held.append((event, run_dir, scrubber))
                    return
                sql = compiled_sql(run_dir, node)
                sql = sql if sql is None else scrubber.text(sql)
                self._send(self._lineage.node_finished(event, sql))

    def wave_ended(self, *, success: bool, message: str = "") -> None:
        """Record that dbt has ended."""
        self._next = None
        self._release()
        with self._harmless():
            self._send(self._lineage.invocation_ended(now(), success=success, message=message))

    def _release(self) -> None:
        """Send the ends of snapshots: their SQL is only in run_results.json, which comes last."""
        held, self._held = self._held, []
        sql: dict[Path, dict[str, str]] = {}
        for event, run_dir, scrubber in held:
            with self._harmless():
                if run_dir not in sql:
                    sql[run_dir] = compiled_in_results(run_dir)
                compiled = sql[run_dir].get(event.unique_id)
                compiled = compiled if compiled is None else scrubber.text(compiled)
                self._send(self._lineage.node_finished(event, compiled))

    def environment(self) -> dict[str, str]:
        """Return the variables that name the parent run to a process below dbt, such as Spark."""
        return {
            "OPENLINEAGE_PARENT_ID": f"{self._step.namespace}/{self._step.job}/{self._step.run_id}"
        }

    def ended(self, skipped: Mapping[str, str], message: str = "") -> None:
        """Record that the step has ended: successfully, or failed with `message`.

        `skipped` has the nodes that did not run, by unique id, each with the reason. Only the first
        ending counts.
        """
        if self._over:
            return
        self._over = True
        self._release()
        with self._harmless():
            at = now()
            self._send(self._lineage.skipped(skipped, at, skipped))
            self._send(self._lineage.finish(at, message))
            self._warn_of_missing_columns()

    def aborted(self, reason: str) -> None:
        """Record that the step was canceled."""
        if self._over:
            return
        self._over = True
        self._release()
        with self._harmless():
            self._send(self._lineage.abort(now(), reason))

    def close(self) -> DeliveryReport:
        """Wait for the delivery, at most its `drain_seconds`; return its report."""
        report = DeliveryReport()
        with self._harmless():
            report = self._delivery.finish()
            logger.debug("lineage: %s", report)
        return report

    def _warn_of_missing_columns(self) -> None:
        """Log one warning that names the models without column lineage."""
        missing = self._lineage.without_columns
        if missing:
            models = (f"{self._plan.nodes[uid].name} ({why})" for uid, why in missing.items())
            self._log.warning("Column lineage is missing for %s.", known(models))

    def _send(self, events: Iterable[Event]) -> None:
        self._delivery.send_all([*events])

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except LineageError:
            raise
        except Exception:  # noqa: BLE001  lineage must not fail the job
            if not self._warned:
                self._log.warning("Lineage of this run is incomplete", exc_info=True)
            self._warned = True


def now() -> str:
    """Return the current time in the form of events: ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
