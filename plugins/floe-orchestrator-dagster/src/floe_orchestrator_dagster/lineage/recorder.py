"""Listens to a step as it runs and sends what its lineage is; never harms the step.

With `lineage: required` an event that cannot be made durable fails the step instead.
"""

from __future__ import annotations

import glob
import logging
import subprocess
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.events import (
    Checked,
    Connected,
    NodeFinished,
    NodeStarted,
    Started,
)
from floe_orchestrator_dagster.errors import LineageError, known
from floe_orchestrator_dagster.lineage.backend import lineage_destination
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, open_delivery
from floe_orchestrator_dagster.lineage.events import SourceCode, StepLineage, StepRun
from floe_orchestrator_dagster.urls import repository_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from floe_core.plugins.lineage import LineageBackendPlugin

    from floe_orchestrator_dagster.dbt.events import Event as DbtEvent
    from floe_orchestrator_dagster.dbt.scrub import Scrubber
    from floe_orchestrator_dagster.lineage.delivery import Delivery
    from floe_orchestrator_dagster.lineage.events import Event
    from floe_orchestrator_dagster.plan import Compute, Node, ProductPlan

logger = logging.getLogger(__name__)

GIT_TIMEOUT_SECONDS = 5.0


def open_lineage(
    backend: LineageBackendPlugin | None,
    artifacts: Mapping[str, Any],
    directory: Path,
    *,
    required: bool,
) -> tuple[Delivery, str] | None:
    """Return the delivery of a product's lineage and its job namespace; None if it sends none.

    `backend` is one that was given in code; else the artifacts name it.

    Raises:
        LineageError: lineage is required, and the backend or the spool cannot be used.
    """
    try:
        destination = lineage_destination(artifacts, backend)
    except LineageError as error:
        if required:
            raise
        logger.warning("%s The run goes on without lineage.", error)
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
        """Begin; `log` takes what people should know of this run's lineage."""
        self._lineage = StepLineage(step, plan)
        self._plan = plan
        self._delivery = delivery
        self._log = log
        self._step = step
        self._warned = False
        self._over = False
        self._held: list[tuple[NodeFinished, Path, Scrubber]] = []
        self._next: tuple[Compute, int, int, int] | None = None

    def started(self) -> None:
        """Note that the step has begun."""
        with self._harmless():
            self._send(self._lineage.start())

    def wave(self, compute: Compute, number: int, waves: int, nodes: int) -> None:
        """Note that a dbt run of `nodes` nodes is about to be started."""
        self._next = (compute, number, waves, nodes)

    def heard(self, event: DbtEvent, run_dir: Path, scrubber: Scrubber) -> None:
        """Take one of dbt's events; what dbt compiled, secrets and all, lies below `run_dir`."""
        with self._harmless():
            if isinstance(event, Started) and self._next is not None:
                compute, wave, waves, nodes = self._next
                self._next = None
                self._send(
                    self._lineage.invocation_started(
                        event.invocation_id,
                        event.at or now(),
                        compute,
                        wave=wave,
                        waves=waves,
                        nodes=nodes,
                        dbt_version=event.dbt_version,
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
                self._send(self._lineage.checked(event.unique_id, now(), 1, event.checks))
            elif isinstance(event, NodeFinished):
                node = self._plan.nodes.get(event.unique_id)
                if node is not None and node.kind == "snapshot":
                    self._held.append((event, run_dir, scrubber))
                    return
                sql = compiled_sql(run_dir, node)
                sql = sql if sql is None else scrubber.text(sql)
                self._send(self._lineage.node_finished(event, sql))

    def wave_ended(self, *, success: bool, message: str = "") -> None:
        """Note that dbt has ended."""
        self._next = None
        self._release()
        with self._harmless():
            self._send(self._lineage.invocation_ended(now(), success=success, message=message))

    def _release(self) -> None:
        """Send the ends of snapshots: only the results that dbt writes last have their SQL."""
        held, self._held = self._held, []
        sql: dict[Path, dict[str, str]] = {}
        for event, run_dir, scrubber in held:
            with self._harmless():
                if run_dir not in sql:
                    sql[run_dir] = compiled_in_results(run_dir)
                compiled = sql[run_dir].get(event.unique_id)
                said = compiled if compiled is None else scrubber.text(compiled)
                self._send(self._lineage.node_finished(event, said))

    def environment(self) -> dict[str, str]:
        """Return what tells a process below dbt, such as a Spark listener, whose child it is."""
        return {
            "OPENLINEAGE_PARENT_ID": f"{self._step.namespace}/{self._step.job}/{self._step.run_id}"
        }

    def ended(self, skipped: Mapping[str, str], message: str = "") -> None:
        """Note that the step has ended, well or with `message`.

        `skipped` says by unique id what it never came to, and why. Only the first ending counts.
        """
        if self._over:
            return
        self._over = True
        self._release()
        with self._harmless():
            at = now()
            self._send(self._lineage.skipped(skipped, at, skipped))
            self._send(self._lineage.finish(at, message))
            self._tell_what_is_missing()

    def aborted(self, reason: str) -> None:
        """Note that the step was cancelled in the middle."""
        if self._over:
            return
        self._over = True
        self._release()
        with self._harmless():
            self._send(self._lineage.abort(now(), reason))

    def close(self) -> DeliveryReport:
        """Wait for the delivery, no longer than its bound; return what became of the events."""
        report = DeliveryReport()
        with self._harmless():
            report = self._delivery.finish()
            logger.debug("lineage: %s", report)
        return report

    def _tell_what_is_missing(self) -> None:
        """Say once which models have no column lineage, which their tables do not show."""
        missing = self._lineage.without_columns
        if missing:
            said = (f"{self._plan.nodes[uid].name} ({why})" for uid, why in missing.items())
            self._log.warning("Column lineage is missing for %s.", known(said))

    def _send(self, events: Iterable[Event]) -> None:
        self._delivery.send_all([*events])

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except LineageError:
            raise
        except Exception:  # noqa: BLE001  lineage never harms the job
            if not self._warned:
                self._log.warning("Lineage of this run is incomplete", exc_info=True)
            self._warned = True


def now() -> str:
    """Return the time as events write it: ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def compiled_sql(run_dir: Path, node: Node | None) -> str | None:
    """Return the SQL that dbt has compiled for a model, of a microbatch model its last batch's.

    None for what is no SQL, and for what dbt writes no file of.
    """
    dbt = node.dbt if node else None
    if node is None or dbt is None or node.kind != "model":
        return None
    path = run_dir / "compiled" / dbt.package_name / dbt.original_file_path
    if path.suffix != ".sql":
        return None
    if not path.is_file():
        batches = path.with_suffix("").glob(f"{glob.escape(path.stem)}_*.sql")
        path = max(batches, default=path)
    return path.read_text(errors="replace") if path.is_file() else None


def compiled_in_results(run_dir: Path) -> dict[str, str]:
    """Return the SQL that dbt's run_results.json has, by unique id; {} where there is no file."""
    try:
        content = (run_dir / "run_results.json").read_bytes()
    except FileNotFoundError:  # dbt was killed
        return {}
    found = msgspec.json.decode(content, type=_Results)
    return {item.unique_id: item.compiled_code for item in found.results if item.compiled_code}


class _Result(msgspec.Struct):
    unique_id: str
    compiled_code: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


def source_code(project_dir: Path) -> SourceCode | None:
    """Return where git keeps a project; None if it does not, or there is no git here."""
    try:
        remote = _git(project_dir, "config", "--get", "remote.origin.url")
        version = _git(project_dir, "rev-parse", "HEAD")
        branch = _git(project_dir, "rev-parse", "--abbrev-ref", "HEAD")
        folder = _git(project_dir, "rev-parse", "--show-prefix").strip("/")
    except (OSError, subprocess.SubprocessError):
        return None
    repository = repository_url(remote)
    if repository is None:
        return None
    return SourceCode(repository, version, "" if branch == "HEAD" else branch, folder)


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(  # noqa: S603  fixed words and a folder
        ["git", "-C", str(folder), *words],  # noqa: S607  the user's own git
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_TIMEOUT_SECONDS,
    ).stdout.strip()
