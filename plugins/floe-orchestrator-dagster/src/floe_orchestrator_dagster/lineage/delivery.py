"""Delivers events in the background: on disk first, then to the backend, in order, patiently.

`Delivery.send` writes an event to this process's segment of the spool and returns; a thread posts
it. When the backend is away the thread backs off, and what is left at the end of a run goes with
the next run, with the drain sensor or with `floe-dagster lineage replay`. An event is sent twice
only if a process dies between a post and the next save of the cursor, or a server takes an event
and drops the connection: at most `SAVE_EVERY` events, and their run ids are the same.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from filelock import Timeout

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.channel import Answer, open_channel
from floe_orchestrator_dagster.lineage.spool import (
    MAX_SPOOL_BYTES,
    Segment,
    bury,
    drop,
    leftovers,
    occupied,
    spool_status,
    trim,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from floe_orchestrator_dagster.lineage.channel import Channel

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
# The first pause, doubled with each failure up to the longest; a random half of it is left out.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
# A backend may ask for more patience than that, but not for a day.
MAX_RETRY_AFTER_SECONDS = 300.0
# At the end of a run: so many failures in a row, with short pauses, and the rest waits.
LAST_TRIES = 3
LAST_PAUSE_SECONDS = 0.2
# 500 so often for one event, while another run's event goes through, is that event's fault.
POISON_TRIES = 3
# How far the cursor may be behind: events, seconds.
SAVE_EVERY = 100
SAVE_SECONDS = 1.0
# What a crash of the machine, not of the process, may cost in best effort.
SYNC_SECONDS = 1.0
# How long a thread may take to let go of a broken connection.
ABORT_SECONDS = 0.5
# How long an event may wait for others to go with it: one wake-up for all halves the cost.
GATHER_SECONDS = 0.1
# A segment that is delivered and larger than this is replaced by a new one.
ROLL_BYTES = 4 * 2**20
# Events held in memory while the disk is full.
MAX_MEMORY_BYTES = 32 * 2**20

_REPLAY = "They go with the next run, the lineage_drain sensor or `floe-dagster lineage replay`."


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of events; `made` is the sum of the four that follow.

    Attributes:
        made: events handed to this delivery, or found waiting by a replay.
        delivered: taken by the backend.
        waiting: on disk, to be sent later.
        refused: kept as dead letters.
        dropped: lost, because neither the disk nor memory nor the backend took them.
        earlier: events of earlier runs that went with this one.
        problem: why the last try failed, empty if it did not.
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0
    earlier: int = 0
    problem: str = ""


class Delivery:
    """Takes events and loses none; this one, for products without a backend, does nothing."""

    def send(self, event: Mapping[str, Any] | bytes) -> None:
        """Take one event, as a mapping or as JSON."""

    def send_all(self, events: Sequence[Mapping[str, Any] | bytes]) -> None:
        """Take several events; where lineage is required they wait for the disk together."""

    def finish(self) -> DeliveryReport:
        """Wait for the rest, at most the seconds of the drain, and tell what became of all."""
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
    drain_seconds: float = DRAIN_SECONDS,
) -> Delivery:
    """Return the delivery to a backend, over a spool directory; None: one that does nothing.

    Args:
        transport: what `LineageBackendPlugin.get_transport_config()` returns.
        directory: the spool, which several processes may share.
        required: raise when an event cannot be made durable, instead of counting it.
        drain_seconds: how long `finish` may take.

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
        logger.warning("%s The run goes on without lineage.", error)
        return Delivery()
    delivery = SpooledDelivery(channel, directory, required=required, drain_seconds=drain_seconds)
    if required:
        delivery.open()
    return delivery


def replay(
    transport: Mapping[str, Any], directory: Path, deadline: float, *, hurry: bool = False
) -> DeliveryReport:
    """Send what earlier runs left in a spool, for at most `deadline` seconds.

    With `hurry` a backend that fails some times in a row is left alone.

    Raises:
        LineageError: the transport cannot be used.
    """
    before = spool_status(directory)
    if before.waiting == before.held and not before.waiting_bytes:
        return DeliveryReport()
    sender = _Sender(open_channel(transport), directory)
    sender.start()
    sender.finish(deadline, hurry=hurry)
    after = spool_status(directory)
    waiting = after.waiting - after.held
    counts = sender.earlier
    return DeliveryReport(
        made=counts.delivered + counts.refused + counts.dropped + waiting,
        delivered=counts.delivered,
        waiting=waiting,
        refused=counts.refused,
        dropped=counts.dropped,
        problem=sender.problem,
    )


class _Own:
    """The events of this process: its segment, and memory while the disk is full.

    All is guarded by `lock`, except that the sender reads what was written before.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.segment: Segment | None = None
        self.memory: deque[bytes] = deque()
        self.memory_bytes = 0
        self.problem = ""
        self._room = 0
        self._in_use = self._over = False

    def open(self) -> Segment:
        """Return the segment, a new one if there is none.

        Raises:
            OSError: it cannot be made.
        """
        if self.segment is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            used = occupied(self.directory)
            if used > MAX_SPOOL_BYTES:
                trim(self.directory)
                used = occupied(self.directory)
            self._room = MAX_SPOOL_BYTES - used
            self.segment = Segment.create(self.directory)
        return self.segment

    def write(self, lines: bytes, *, durable: bool) -> None:
        """Write lines to the segment; with `durable` wait for the disk.

        Raises:
            OSError: they are not written, or not surely on the disk.
        """
        segment = self.open()
        if segment.size + len(lines) > self._room:
            raise OSError(0, f"the spool is full ({MAX_SPOOL_BYTES // 2**20} MiB)")
        segment.append(lines)
        if durable:
            segment.sync()

    def remember(self, line: bytes) -> bool:
        """Hold an event in memory, if there is room."""
        if self.memory_bytes + len(line) > MAX_MEMORY_BYTES:
            return False
        self.memory.append(line)
        self.memory_bytes += len(line)
        return True

    def unsent(self) -> int:
        """Return the bytes on disk that are not delivered; they go before what is remembered."""
        segment = self.segment
        return segment.waiting_bytes if segment else 0

    def forget(self) -> None:
        """Let go of the event that was remembered first."""
        with self.lock:
            self.memory_bytes -= len(self.memory.popleft())

    def enter(self) -> None:
        """Begin to deliver; the segment stays open until `leave`."""
        self._in_use = True

    def leave(self) -> None:
        """End to deliver; whoever comes last of the two sides closes the segment."""
        with self.lock:
            self._in_use = False
            if self._over:
                self._close()

    def end(self) -> int:
        """End to write: save what is remembered, and return how many events are lost."""
        with self.lock:
            while self.memory:
                try:
                    self.write(self.memory[0] + b"\n", durable=False)
                except (OSError, Timeout):
                    break
                self.forget()
            lost = len(self.memory)
            self._over = True
            if not self._in_use:
                self._close()
            return lost

    def _close(self) -> None:
        if self.segment is not None:
            self.segment.close()
            self.segment = None


@dataclass(slots=True)
class _Counts:
    """What became of the events of earlier runs."""

    delivered: int = 0
    refused: int = 0
    dropped: int = 0


class _Sender:
    """Posts what lies in a spool: what earlier runs left, then the events of this process."""

    def __init__(self, channel: Channel, directory: Path, own: _Own | None = None) -> None:
        self.delivered = self.refused = self.lost = 0
        self.earlier = _Counts()
        self.problem = ""
        self.news = threading.Event()
        self._channel = channel
        self._directory = directory
        self._own = own
        self._failures = 0
        self._deadline = math.inf
        self._hurry = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._unsaved, self._save_at = 0, time.monotonic() + SAVE_SECONDS
        self._threads = [
            threading.Thread(target=self._run, name="lineage-sender", daemon=True),
            threading.Thread(target=self._watch, name="lineage-watch", daemon=True),
        ]

    def start(self) -> None:
        """Start sending.

        Raises:
            RuntimeError: the interpreter is going down.
        """
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float, *, hurry: bool = True) -> None:
        """Send the rest within `seconds`; with `hurry` stop after a few failures in a row."""
        self._hurry = hurry
        self._deadline = time.monotonic() + seconds
        self._wake.set()
        self.news.set()
        sender = self._threads[0]
        sender.join(seconds)
        self._stop.set()
        if sender.is_alive():
            self._channel.abort()
            sender.join(ABORT_SECONDS)

    def _run(self) -> None:
        if self._own is not None:
            self._own.enter()
        try:
            if self._carry_leftovers() and self._own is not None:
                self._carry_own(self._own)
        except Exception as error:  # lineage never harms the job
            self.problem = f"the sender stopped ({type(error).__name__})"
            logger.warning("Lineage: the sender stopped; events wait on disk.", exc_info=True)
        finally:
            self._idle.set()
            self._channel.close()
            if self._own is not None:
                self._own.leave()

    def _watch(self) -> None:
        synced = time.monotonic()
        while not self._idle.wait(SYNC_SECONDS / 2):
            self._channel.watch()
            segment = self._own.segment if self._own else None
            if segment is not None and time.monotonic() - synced >= SYNC_SECONDS:
                try:
                    segment.sync()
                except OSError as error:  # it may be closed by now
                    logger.debug("Lineage spool: not synced (%s).", error.strerror)
                synced = time.monotonic()

    def _carry_leftovers(self) -> bool:
        self.earlier.dropped = trim(self._directory)
        for segment in leftovers(self._directory):
            try:
                done = self._carry(segment)
                if done and (torn := segment.torn()):
                    self._bury(torn, "half written when its process was killed")
                    segment.acknowledge(len(torn))
            finally:
                segment.close()
                self.earlier.delivered += self.delivered
                self.earlier.refused += self.refused
                self.earlier.dropped += self.lost
                self.delivered = self.refused = self.lost = 0
            if not done:
                return False
        return True

    def _carry_own(self, own: _Own) -> None:
        while True:
            self.news.clear()
            ending = self._ending()
            segment = own.segment
            if segment is not None:
                if not self._carry(segment):
                    return
                self._roll(own, segment)
            while own.memory and not own.unsent():
                if not self._settle([own.memory[0]], 0, set()):
                    return
                own.forget()
            if ending and not own.unsent():
                return
            if not ending and not self.news.wait(SAVE_SECONDS):
                with own.lock:
                    if own.segment is not None:
                        self._save(own.segment)
                self.news.wait()
            # Some at once cost less than each by itself.
            self._wake.wait(GATHER_SECONDS)

    def _roll(self, own: _Own, segment: Segment) -> None:
        if segment.size > ROLL_BYTES:
            with own.lock:
                if segment.waiting_bytes == 0:
                    own.segment = None
                    segment.close()

    def _carry(self, segment: Segment) -> bool:
        """Send what a segment holds; False if it was given up before the end."""
        while lines := segment.read():
            ahead: set[int] = set()
            for number, line in enumerate(lines):
                if number not in ahead and not self._settle(lines, number, ahead):
                    return False
                segment.acknowledge(len(line) + 1)
                self._unsaved += 1
                if self._unsaved >= SAVE_EVERY or time.monotonic() > self._save_at:
                    self._save(segment)
        return True

    def _save(self, segment: Segment) -> None:
        self._unsaved, self._save_at = 0, time.monotonic() + SAVE_SECONDS
        try:
            segment.save()
        except OSError as error:
            logger.debug("Lineage spool: cursor not saved (%s).", error.strerror)

    def _settle(self, lines: Sequence[bytes], number: int, ahead: set[int]) -> bool:
        """Send one of `lines` until it is delivered or refused; False if it was given up.

        `ahead` collects the lines that were delivered before their turn.
        """
        line, poisoned = lines[number], 0
        while not self._stop.is_set():
            answer = self._post(line)
            if not answer.delivered and not answer.refused and answer.poison:
                poisoned += 1
                if poisoned >= POISON_TRIES and self._others_pass(lines, number, ahead):
                    answer = self._post(line)
                    if answer.poison:
                        answer = replace(answer, refused=True)
            if answer.delivered:
                self.delivered += 1
                self._failures = 0
                return True
            if answer.refused:
                self._bury(line, answer.reason)
                self._failures = 0
                return True
            self._failures += 1
            if not self.problem:
                logger.info("Lineage: %s; events wait in %s.", answer.reason, self._directory)
            if not self.problem or not self._stop.is_set():  # else it was broken off by ourselves
                self.problem = answer.reason
            if not self._pause(answer):
                return False
        return False

    def _post(self, line: bytes) -> Answer:
        # Only a torn disk page makes such a line; a backend would call it no JSON.
        if line[:1] != b"{" or line[-1:] != b"}":
            return Answer(refused=True, reason="damaged on disk")
        return self._channel.post(line)

    def _others_pass(self, lines: Sequence[bytes], number: int, ahead: set[int]) -> bool:
        """Whether an event of another run is taken; of the same run it would be out of order."""
        run = _run_of(lines[number])
        for other in range(number + 1, len(lines)):
            if other not in ahead and _run_of(lines[other]) != run:
                if self._post(lines[other]).delivered:
                    self.delivered += 1
                    ahead.add(other)
                    return True
                return False
        return False

    def _pause(self, answer: Answer) -> bool:
        """Wait before the next try; False if there is to be none."""
        if answer.wait is not None:
            pause = min(answer.wait, MAX_RETRY_AFTER_SECONDS)
        else:
            longest = FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 16)
            pause = min(longest, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311
        now = time.monotonic()
        until = now + pause
        if not self._ending():
            self._wake.wait(pause)
            if not self._ending():
                return True
            self._failures = 0
            until = now if answer.wait is None else until
        elif self._hurry and answer.wait is None:
            until = min(until, now + LAST_PAUSE_SECONDS)
        if until > self._deadline or (self._hurry and self._failures >= LAST_TRIES):
            return False
        return not self._stop.wait(max(0.0, until - time.monotonic()))

    def _ending(self) -> bool:
        return self._deadline < math.inf

    def _bury(self, event: bytes, reason: str) -> None:
        try:
            bury(self._directory, event, reason)
            self.refused += 1
        except (OSError, Timeout) as error:
            logger.warning("Lineage: an event was refused (%s) and not kept (%s).", reason, error)
            self.lost += 1
        self.problem = reason


class SpooledDelivery(Delivery):
    """Takes events for a backend; `send` is for one thread or several."""

    def __init__(
        self,
        channel: Channel,
        directory: Path,
        *,
        required: bool = False,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._own = _Own(directory)
        self._sender = _Sender(channel, directory, self._own)
        self._directory = directory
        self._required = required
        self._drain_seconds = drain_seconds
        self._made = self._lost = 0
        self._started = False
        self._report: DeliveryReport | None = None

    def open(self) -> None:
        """Make the files now.

        Raises:
            LineageError: they cannot be made.
        """
        try:
            with self._own.lock:
                self._own.open()
        except (OSError, Timeout) as error:
            raise self._undurable(error) from error

    def send(self, event: Mapping[str, Any] | bytes) -> None:
        """Write one event to the spool; the thread posts it.

        Raises:
            LineageError: lineage is required and the event is not surely on disk.
        """
        self.send_all((event,))

    def send_all(self, events: Sequence[Mapping[str, Any] | bytes]) -> None:
        """Write several events to the spool at once; see `send`."""
        lines: list[bytes] = []
        wrong = ""
        for event in events:
            try:
                lines.append(_line(event))
            except (TypeError, ValueError, msgspec.MsgspecError) as error:  # noqa: PERF203
                wrong = f"no JSON ({error})"
        with self._own.lock:
            if self._report is not None:
                lines, wrong = [], "sent after the end"
            if wrong:
                self._lose(len(events) - len(lines), wrong)
            if lines:
                self._keep(lines)
        if not self._started:
            self._start()
        if not self._sender.news.is_set():
            self._sender.news.set()

    def _keep(self, lines: list[bytes]) -> None:
        own = self._own
        # What is in memory goes first, so that the order stays.
        if not own.memory or self._required:
            try:
                own.write(b"\n".join(lines) + b"\n", durable=self._required)
            except (OSError, Timeout) as error:
                if self._required:
                    raise self._undurable(error) from error
                if not own.problem:
                    own.problem = _words(error)
                    logger.warning(
                        "Lineage: events cannot be written to %s (%s); they are sent from memory.",
                        self._directory,
                        own.problem,
                    )
            else:
                self._made += len(lines)
                return
        kept = sum(own.remember(line) for line in lines)
        self._made += kept
        if kept < len(lines):
            self._lose(len(lines) - kept, own.problem)

    def _lose(self, events: int, reason: str) -> None:
        if self._required:
            raise LineageError(f"Cannot keep {events} lineage events: {reason}.")
        if not self._lost:
            logger.warning("Lineage: events are dropped (%s).", reason)
        self._made += events
        self._lost += events

    def _start(self) -> None:
        with self._own.lock:
            if not self._started:
                self._started = True
                try:
                    self._sender.start()
                except RuntimeError as error:  # the interpreter is going down
                    logger.debug("Lineage: no thread (%s); events wait on disk.", error)

    def _undurable(self, error: Exception) -> LineageError:
        return LineageError(
            f"Cannot write lineage to {self._directory}: {_words(error)}. The product requires "
            "lineage, so the run stops here. Make room or give it another place with "
            "FLOE_LINEAGE_SPOOL, or set `lineage: best_effort` in plugins.orchestrator.config."
        )

    def finish(self) -> DeliveryReport:
        """Wait for the rest, at most the seconds of the drain, and tell what became of all.

        Raises:
            LineageError: lineage is required and an event is not surely on disk.
        """
        if self._report is not None:
            return self._report
        own, sender = self._own, self._sender
        if self._started:
            sender.finish(self._drain_seconds)
        with own.lock:
            lost = self._lost + sender.lost + own.end()
            done = sender.delivered + sender.refused
            self._report = DeliveryReport(
                made=self._made,
                delivered=sender.delivered,
                waiting=max(0, self._made - done - lost),
                refused=sender.refused,
                dropped=lost,
                earlier=sender.earlier.delivered,
                problem=sender.problem,
            )
        self._tell(self._report)
        return self._report

    def _tell(self, report: DeliveryReport) -> None:
        if report.dropped:
            drop(self._directory, report.dropped, self._own.problem or "not to be written")
        refused = report.refused + self._sender.earlier.refused
        if report.waiting or refused:
            logger.warning(
                "Lineage: of %d events %d were delivered, %d wait in %s, %d were refused (%s). %s",
                report.made,
                report.delivered,
                report.waiting,
                self._directory,
                refused,
                report.problem or "no time left",
                _REPLAY if report.waiting else "See dead_letters.jsonl there.",
            )


def _line(event: Mapping[str, Any] | bytes) -> bytes:
    """Return an event as JSON on one line."""
    data = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return msgspec.json.format(data, indent=-1) if b"\n" in data else data


def _run_of(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)["run"]["runId"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
