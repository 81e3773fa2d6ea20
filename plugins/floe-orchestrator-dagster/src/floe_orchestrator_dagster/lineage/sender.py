"""Posts the events of a spool in order, from a background thread that retries.

The thread first sends the events that earlier runs left, then those of this process. It backs off
while the backend is away. An event is sent twice only if the process dies between a post and the
next save of the cursor, or if the server accepts an event and drops the connection: at most
`DeliveryTiming.save_every` events, with the same run ids.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from floe_orchestrator_dagster.lineage.spool import SPOOL_BOUNDS, bury, leftovers, trim
from floe_orchestrator_dagster.lineage.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.lineage.channel import Channel
    from floe_orchestrator_dagster.lineage.outbox import Outbox
    from floe_orchestrator_dagster.lineage.spool import Segment, SpoolBounds

logger = logging.getLogger(__name__)

_LARGEST_EXPONENT = 16


@dataclass(frozen=True, slots=True)
class DeliveryTiming:
    """The timing of a delivery, in seconds and numbers of attempts.

    Attributes:
        drain_seconds: how long the end of a run may wait for its events.
        first_pause: the pause after the first failure. It doubles with each failure, and a random
            part of up to a half is left out.
        longest_pause: the limit of the doubled pause.
        longest_wait: the limit of a pause that the backend requests.
        last_tries: the number of failures in a row at the end of a run after which the rest waits
            on disk.
        last_pause: the longest pause between these attempts.
        poison_tries: the number of 500 answers to one event after which the event is at fault, if
            the backend accepts an event of another run.
        save_every: how many events the cursor on disk may lag behind.
        save_seconds: how many seconds the cursor may lag behind.
        sync_seconds: the seconds of events that a crash of the machine, not of the process, may
            lose in best effort.
        abort_seconds: how long the thread may take to end after its connection is aborted.
        gather_seconds: how long an event may wait for others: one wake-up for several events
            halves the cost.
    """

    drain_seconds: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 30.0
    longest_wait: float = 300.0
    last_tries: int = 3
    last_pause: float = 0.2
    poison_tries: int = 3
    save_every: int = 100
    save_seconds: float = 1.0
    sync_seconds: float = 1.0
    abort_seconds: float = 0.5
    gather_seconds: float = 0.1

    def pause(self, failures: int, requested: float | None) -> float:
        """Return the seconds before the next attempt after `failures` in a row.

        `requested` is the pause that the backend requests, or None.
        """
        if requested is not None:
            return min(requested, self.longest_wait)
        doubled = self.first_pause * 2.0 ** min(failures - 1, _LARGEST_EXPONENT)
        return min(doubled, self.longest_pause) * random.uniform(0.5, 1)  # noqa: S311


TIMING = DeliveryTiming()


@dataclass(slots=True)
class Tally:
    """The numbers of events that were delivered, refused (dead letters) or dropped (lost)."""

    delivered: int = 0
    refused: int = 0
    dropped: int = 0


class Sender:
    """Sends the events of a spool directory and counts them.

    `own` counts the events of this process, `earlier` those that other processes left. `problem`
    is why the last attempt failed, "" if none did.
    """

    def __init__(
        self,
        channel: Channel,
        directory: Path,
        outbox: Outbox | None = None,
        *,
        timing: DeliveryTiming = TIMING,
        bounds: SpoolBounds = SPOOL_BOUNDS,
    ) -> None:
        """Prepare to send; `start` begins. The sender closes the channel at the end."""
        self.own, self.earlier = Tally(), Tally()
        self.problem = ""
        self._channel = channel
        self._directory = directory
        self._outbox = outbox
        self._timing = timing
        self._bounds = bounds
        self._tally = self.own
        self._failures = 0
        self._deadline = math.inf
        self._hurry = False
        self._news = threading.Event()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._unsaved, self._save_at = 0, time.monotonic() + timing.save_seconds
        self._threads = [
            threading.Thread(target=self._run, name="lineage-sender", daemon=True),
            threading.Thread(target=self._watch, name="lineage-watch", daemon=True),
        ]

    def start(self) -> None:
        """Start sending.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        for thread in self._threads:
            thread.start()

    def notify(self) -> None:
        """Wake the sender: the outbox has a new event."""
        if not self._news.is_set():
            self._news.set()

    def finish(self, seconds: float, *, hurry: bool = True) -> None:
        """Send the remaining events within `seconds`; with `hurry` stop after a few failures."""
        self._hurry = hurry
        self._deadline = time.monotonic() + seconds
        self._wake.set()
        self._news.set()
        sender = self._threads[0]
        sender.join(seconds)
        self._stop.set()
        if sender.is_alive():
            self._channel.abort()
            sender.join(self._timing.abort_seconds)

    # the two threads

    def _run(self) -> None:
        outbox = self._outbox
        if outbox is not None:
            outbox.enter()
        try:
            if self._carry_leftovers() and outbox is not None:
                self._carry_outbox(outbox)
        except Exception as error:  # lineage must not fail the job
            self.problem = f"the sender stopped ({type(error).__name__})"
            logger.warning("Lineage: the sender stopped; events wait on disk.", exc_info=True)
        finally:
            self._idle.set()
            self._channel.close()
            if outbox is not None:
                outbox.leave()

    def _watch(self) -> None:
        synced = time.monotonic()
        while not self._idle.wait(self._timing.sync_seconds / 2):
            self._channel.watch()
            if self._outbox and time.monotonic() - synced >= self._timing.sync_seconds:
                self._outbox.sync()
                synced = time.monotonic()

    # the order of events

    def _carry_leftovers(self) -> bool:
        """Send the events of earlier runs; return False if the sender gave up."""
        self.earlier.dropped = trim(self._directory, self._bounds)
        self._tally = self.earlier
        for segment in leftovers(self._directory):
            try:
                done = self._carry(segment)
                if done and (torn := segment.torn()):
                    self._bury(torn, "half written when its process was killed")
                    segment.acknowledge(len(torn))
            finally:
                segment.close()
            if not done:
                return False
        return True

    def _carry_outbox(self, outbox: Outbox) -> None:
        self._tally = self.own
        while True:
            self._news.clear()
            is_ending = self._is_ending()
            if (segment := outbox.segment) is not None:
                if not self._carry(segment):
                    return
                outbox.roll()
            while (line := outbox.first_in_memory()) is not None:
                if not self._settle([line], 0, set()):
                    return
                outbox.forget_first()
            if is_ending and not outbox.waits_on_disk:
                return
            if not is_ending and not self._news.wait(self._timing.save_seconds):
                self._save(outbox)
                self._news.wait()
            # Several events at once cost less than one at a time.
            self._wake.wait(self._timing.gather_seconds)

    def _carry(self, segment: Segment) -> bool:
        """Send the events of a segment; return False if the sender gave up."""
        while lines := segment.read():
            early: set[int] = set()
            for number, line in enumerate(lines):
                if number not in early and not self._settle(lines, number, early):
                    return False
                segment.acknowledge(len(line) + 1)
                self._unsaved += 1
                if self._unsaved >= self._timing.save_every or time.monotonic() > self._save_at:
                    self._save(segment)
        return True

    def _save(self, place: Segment | Outbox) -> None:
        self._unsaved, self._save_at = 0, time.monotonic() + self._timing.save_seconds
        try:
            place.save()
        except OSError as error:
            logger.debug("Lineage spool: cursor not saved (%s).", error.strerror)

    # one event

    def _settle(self, lines: Sequence[bytes], number: int, early: set[int]) -> bool:
        """Send one of `lines` until it is delivered or refused; return False if the sender gave up.

        `early` collects the lines that were delivered before their turn.
        """
        line, poisoned = lines[number], 0
        while not self._stop.is_set():
            verdict = self._post(line)
            if not verdict.delivered and not verdict.refused and verdict.poison:
                poisoned += 1
                if poisoned >= self._timing.poison_tries and self._others_pass(
                    lines, number, early
                ):
                    verdict = self._post(line)
                    if verdict.poison:
                        verdict = replace(verdict, refused=True)
            if verdict.delivered:
                self._tally.delivered += 1
                self._failures = 0
                return True
            if verdict.refused:
                self._bury(line, verdict.reason)
                self._failures = 0
                return True
            self._failures += 1
            if not self.problem:
                logger.info("Lineage: %s; events wait in %s.", verdict.reason, self._directory)
            if not self.problem or not self._stop.is_set():  # else `finish` aborted it
                self.problem = verdict.reason
            if not self._pause(verdict):
                return False
        return False

    def _post(self, line: bytes) -> Verdict:
        # Only a damaged disk page causes such a line; the backend could only reject it as no JSON.
        if line[:1] != b"{" or line[-1:] != b"}":
            return Verdict(refused=True, reason="damaged on disk")
        return self._channel.post(line)

    def _others_pass(self, lines: Sequence[bytes], number: int, early: set[int]) -> bool:
        """Return whether the backend accepts an event of another run.

        An event of the same run would arrive out of order.
        """
        run = _run_of(lines[number])
        for other in range(number + 1, len(lines)):
            if other not in early and _run_of(lines[other]) != run:
                if self._post(lines[other]).delivered:
                    self._tally.delivered += 1
                    early.add(other)
                    return True
                return False
        return False

    def _pause(self, verdict: Verdict) -> bool:
        """Wait before the next attempt; return False if there must be none."""
        pause = self._timing.pause(self._failures, verdict.wait)
        now = time.monotonic()
        until = now + pause
        if not self._is_ending():
            self._wake.wait(pause)
            if not self._is_ending():
                return True
            self._failures = 0
            until = now if verdict.wait is None else until
        elif self._hurry and verdict.wait is None:
            until = min(until, now + self._timing.last_pause)
        is_enough = self._hurry and self._failures >= self._timing.last_tries
        if until > self._deadline or is_enough:
            return False
        return not self._stop.wait(max(0.0, until - time.monotonic()))

    def _is_ending(self) -> bool:
        return self._deadline < math.inf

    def _bury(self, event: bytes, reason: str) -> None:
        try:
            bury(self._directory, event, reason, self._bounds)
            self._tally.refused += 1
        except OSError as error:
            logger.warning(
                "Lineage: an event was refused (%s) and could not be kept (%s).", reason, error
            )
            self._tally.dropped += 1
        self.problem = reason


def _run_of(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)["run"]["runId"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
