"""Delivers events in the background: first to disk, then to the backend.

`Delivery.send` puts an event into the outbox and returns; the thread of the sender posts it. Events
that are left at the end of a run are sent by the next run, the drain sensor or `floe-dagster
lineage replay`.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.channel import open_channel
from floe_orchestrator_dagster.lineage.outbox import Outbox, words_of
from floe_orchestrator_dagster.lineage.sender import TIMING, DeliveryTiming, Sender
from floe_orchestrator_dagster.lineage.spool import SPOOL_BOUNDS, drop, spool_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from floe_orchestrator_dagster.lineage.channel import Channel
    from floe_orchestrator_dagster.lineage.spool import SpoolBounds

logger = logging.getLogger(__name__)

_REPLAY = (
    "The next run, the lineage_drain sensor or `floe-dagster lineage replay` sends those that wait."
)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """The result of a delivery; `made` is the sum of the four fields that follow it.

    Attributes:
        made: events passed to this delivery, or events that waited when a replay began.
        delivered: events that the backend accepted.
        waiting: events on disk that will be sent later.
        refused: events kept as dead letters.
        dropped: events lost, because disk, memory and backend all failed to take them.
        earlier: events of earlier runs that this delivery sent.
        problem: why the last attempt failed; "" if it did not.
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0
    earlier: int = 0
    problem: str = ""


class Delivery:
    """Delivers events; this base class, for products without a backend, does nothing."""

    def send(self, event: Mapping[str, Any] | bytes) -> None:
        """Accept one event, as a mapping or as JSON."""

    def send_all(self, events: Sequence[Mapping[str, Any] | bytes]) -> None:
        """Accept several events; if lineage is required, one disk sync covers them all."""

    def finish(self) -> DeliveryReport:
        """Wait at most `drain_seconds` for the remaining events; report on all of them."""
        return DeliveryReport()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()


def open_delivery(
    transport: Mapping[str, Any] | None,
    directory: Path,
    *,
    required: bool = False,
    timing: DeliveryTiming = TIMING,
) -> Delivery:
    """Return the delivery to a backend through a spool directory.

    Args:
        transport: the result of `LineageBackendPlugin.get_transport_config()`; with None the
            delivery does nothing.
        directory: the spool, which several processes may share.
        required: raise if an event cannot be made durable, instead of counting it.
        timing: pauses and limits; `drain_seconds` limits the time of `finish`.

    Raises:
        LineageError: lineage is required, and the transport or the directory cannot be used.
    """
    if transport is None or transport.get("type") in {None, "noop"}:
        return Delivery()
    try:
        channel = open_channel(transport)
    except LineageError as error:
        if required:
            raise
        logger.warning("%s The run continues without lineage.", error)
        return Delivery()
    delivery = SpooledDelivery(channel, directory, required=required, timing=timing)
    if required:
        delivery.open()
    return delivery


def replay(
    transport: Mapping[str, Any], directory: Path, deadline: float, *, hurry: bool = False
) -> DeliveryReport:
    """Send the events that earlier runs left in a spool, for at most `deadline` seconds.

    With `hurry`, stop after a few failures in a row.

    Raises:
        LineageError: the transport cannot be used.
    """
    before = spool_status(directory)
    if before.waiting == before.held and not before.waiting_bytes:
        return DeliveryReport()
    sender = Sender(open_channel(transport), directory)
    sender.start()
    sender.finish(deadline, hurry=hurry)
    after = spool_status(directory)
    waiting = after.waiting - after.held
    sent = sender.earlier
    return DeliveryReport(
        made=sent.delivered + sent.refused + sent.dropped + waiting,
        delivered=sent.delivered,
        waiting=waiting,
        refused=sent.refused,
        dropped=sent.dropped,
        problem=sender.problem,
    )


class SpooledDelivery(Delivery):
    """Delivers events to a backend; several threads may call `send`."""

    def __init__(
        self,
        channel: Channel,
        directory: Path,
        *,
        required: bool = False,
        timing: DeliveryTiming = TIMING,
        bounds: SpoolBounds = SPOOL_BOUNDS,
    ) -> None:
        """See `open_delivery`; `bounds` limit how many events may wait."""
        self._outbox = Outbox(directory, bounds)
        self._sender = Sender(channel, directory, self._outbox, timing=timing, bounds=bounds)
        self._directory = directory
        self._required = required
        self._drain_seconds = timing.drain_seconds
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._made = self._lost = 0
        self._is_started = False
        self._report: DeliveryReport | None = None

    def open(self) -> None:
        """Create the files now.

        Raises:
            LineageError: the files cannot be created.
        """
        try:
            self._outbox.open()
        except OSError as error:
            raise self._undurable(error) from error

    def send(self, event: Mapping[str, Any] | bytes) -> None:
        """Write one event to the spool; the sender's thread posts it.

        Raises:
            LineageError: lineage is required, and the event may not be on disk.
        """
        self.send_all((event,))

    def send_all(self, events: Sequence[Mapping[str, Any] | bytes]) -> None:
        """Write several events to the spool at once; see `send`."""
        lines: list[bytes] = []
        problem = ""
        for event in events:
            try:
                lines.append(_line(event))
            except (TypeError, ValueError, msgspec.MsgspecError) as error:  # noqa: PERF203
                problem = f"not JSON ({error})"
        with self._lock:
            if self._report is not None:
                lines, problem = [], "sent after the delivery ended"
            if problem:
                self._lose(len(events) - len(lines), problem)
            if lines:
                self._keep(lines)
                self._start()
        self._sender.notify()

    def _keep(self, lines: list[bytes]) -> None:
        try:
            kept = self._outbox.put(lines, durable=self._required)
        except OSError as error:
            raise self._undurable(error) from error
        self._made += kept
        if kept < len(lines):
            self._lose(len(lines) - kept, self._outbox.problem)

    def _lose(self, events: int, reason: str) -> None:
        if self._required:
            count = "a lineage event" if events == 1 else f"{events} lineage events"
            raise LineageError(
                f"Cannot keep {count}: {reason}. The product requires lineage, so the run stops "
                "here. Correct that, or set `lineage: best_effort` in plugins.orchestrator.config."
            )
        if not self._lost:
            logger.warning("Lineage: events are dropped (%s).", reason)
        self._made += events
        self._lost += events

    def _start(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        try:
            self._sender.start()
        except RuntimeError as error:  # the interpreter is shutting down
            logger.debug("Lineage: no thread (%s); events wait on disk.", error)

    def _undurable(self, error: OSError) -> LineageError:
        return LineageError(
            f"Cannot write lineage to {self._directory}: {words_of(error)}. The product requires "
            "lineage, so the run stops here. Correct that, name another directory in "
            "FLOE_LINEAGE_SPOOL, or set `lineage: best_effort` in plugins.orchestrator.config."
        )

    def finish(self) -> DeliveryReport:
        """Wait at most `drain_seconds` for the remaining events; report on all of them.

        Raises:
            LineageError: lineage is required, and an event may not be on disk.
        """
        if self._report is not None:
            return self._report
        sent = self._sender.own
        if self._is_started:
            self._sender.finish(self._drain_seconds)
        with self._lock:
            lost = self._lost + sent.dropped + self._outbox.end()
            self._report = DeliveryReport(
                made=self._made,
                delivered=sent.delivered,
                waiting=max(0, self._made - sent.delivered - sent.refused - lost),
                refused=sent.refused,
                dropped=lost,
                earlier=self._sender.earlier.delivered,
                problem=self._sender.problem,
            )
        self._log(self._report)
        return self._report

    def _log(self, report: DeliveryReport) -> None:
        if report.dropped:
            drop(self._directory, report.dropped, self._outbox.problem or "not written to disk")
        refused = report.refused + self._sender.earlier.refused
        if report.waiting or refused:
            logger.warning(
                "Lineage: %d of %d events were delivered, %d wait in %s, %d were refused (%s). %s",
                report.delivered,
                report.made,
                report.waiting,
                self._directory,
                refused,
                report.problem or "no time left",
                _REPLAY if report.waiting else "dead_letters.jsonl there has the refused ones.",
            )


def _line(event: Mapping[str, Any] | bytes) -> bytes:
    """Return an event as JSON on one line."""
    data = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return msgspec.json.format(data, indent=-1) if b"\n" in data else data
