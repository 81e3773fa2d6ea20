"""Holds the events of this process until they are delivered: on disk, else in memory.

Two sides use an outbox at the same time. The producer calls `open`, `put` and `end`. The sender
calls `enter`, reads first from `segment` and then from `first_in_memory`, and calls `leave`. The
side that ends last closes the files.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.lineage.spool import SPOOL_BOUNDS, Segment, occupied, trim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.lineage.spool import SpoolBounds

logger = logging.getLogger(__name__)


class Outbox:
    """The events of this process, in the order of `put`.

    A lock guards everything except the lines that the sender reads from the segment: they are
    written before and never change.
    """

    def __init__(self, directory: Path, bounds: SpoolBounds = SPOOL_BOUNDS) -> None:
        """Keep the spool directory; `open` or `put` creates the files."""
        self.directory = directory
        self.problem = ""
        """Why the disk accepts no events; "" while it accepts them."""
        self._bounds = bounds
        self._lock = threading.RLock()
        self._segment: Segment | None = None
        self._room = 0
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._is_entered = self._is_ended = False

    # the producer

    def open(self) -> None:
        """Create the files now, if there are none.

        Raises:
            OSError: the files cannot be created.
        """
        with self._lock:
            self._opened()

    def put(self, lines: Sequence[bytes], *, durable: bool) -> int:
        """Accept events, each JSON on one line; return how many of them fit.

        Events that do not fit on the disk are held in memory. So are all later ones, to keep the
        order. With `durable` only the disk counts.

        Raises:
            OSError: with `durable`, the events may not be on the disk.
        """
        with self._lock:
            if durable or not self._memory:
                try:
                    self._write(b"\n".join(lines) + b"\n", durable=durable)
                except OSError as error:
                    if durable:
                        raise
                    self._complain(error)
                else:
                    return len(lines)
            return sum(self._remember(line) for line in lines)

    def end(self) -> int:
        """Accept no more events, write those in memory to disk, and return the number lost."""
        with self._lock:
            while self._memory:
                try:
                    self._write(self._memory[0] + b"\n", durable=False)
                except OSError:
                    break
                self.forget_first()
            lost = len(self._memory)
            self._is_ended = True
            if not self._is_entered:
                self._close()
            return lost

    # the sender

    def enter(self) -> None:
        """Begin to send; keep the segment open until `leave`."""
        self._is_entered = True

    def leave(self) -> None:
        """End sending."""
        with self._lock:
            self._is_entered = False
            if self._is_ended:
                self._close()

    @property
    def segment(self) -> Segment | None:
        """The events on disk; None if there are none."""
        return self._segment

    @property
    def waits_on_disk(self) -> bool:
        """Whether undelivered events are on disk; they must be sent before those in memory."""
        segment = self._segment
        return segment is not None and segment.waiting_bytes > 0

    def first_in_memory(self) -> bytes | None:
        """Return the next event in memory; None if there is none or the disk has some first."""
        return self._memory[0] if self._memory and not self.waits_on_disk else None

    def forget_first(self) -> None:
        """Drop the first event in memory: it is delivered, or on disk."""
        with self._lock:
            self._memory_bytes -= len(self._memory.popleft())

    def save(self) -> None:
        """Write the cursor of the segment.

        Raises:
            OSError: the cursor cannot be written.
        """
        with self._lock:
            if self._segment is not None:
                self._segment.save()

    def sync(self) -> None:
        """Wait until the events so far are on the disk; this does not block `put`."""
        segment = self._segment
        if segment is not None:
            try:
                segment.sync()
            except OSError as error:  # it may be closed by now
                logger.debug("Lineage spool: not synced (%s).", error.strerror)

    def roll(self) -> None:
        """Free disk space: close a large segment that is delivered."""
        segment = self._segment
        if segment is not None and segment.size > self._bounds.segment_bytes:
            with self._lock:
                if segment.waiting_bytes == 0:
                    self._close()

    # internals

    def _opened(self) -> Segment:
        if self._segment is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            used = occupied(self.directory)
            if used > self._bounds.spool_bytes:
                trim(self.directory, self._bounds)
                used = occupied(self.directory)
            self._room = self._bounds.spool_bytes - used
            self._segment = Segment.create(self.directory)
        return self._segment

    def _write(self, lines: bytes, *, durable: bool) -> None:
        segment = self._opened()
        if segment.size + len(lines) > self._room:
            raise OSError(0, f"the spool is full ({self._bounds.spool_bytes // 2**20} MiB)")
        segment.append(lines)
        if durable:
            segment.sync()

    def _remember(self, line: bytes) -> bool:
        if self._memory_bytes + len(line) > self._bounds.memory_bytes:
            return False
        self._memory.append(line)
        self._memory_bytes += len(line)
        return True

    def _complain(self, error: OSError) -> None:
        if not self.problem:
            self.problem = words_of(error)
            logger.warning(
                "Lineage: events cannot be written to %s (%s); they are sent from memory.",
                self.directory,
                self.problem,
            )

    def _close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def words_of(error: OSError) -> str:
    """Return the system's message of an error, without the path."""
    return error.strerror or type(error).__name__
