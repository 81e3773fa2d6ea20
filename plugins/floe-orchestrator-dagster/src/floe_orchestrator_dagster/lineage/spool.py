"""Keeps events on disk until they are delivered: append-only segments of JSON lines.

A spool directory has mode 0700, its files 0600. It holds three files for each writer that is alive
or has left events:

    <time>-<pid>-<random>.jsonl    one event per line, in the order of writing
    <time>-<pid>-<random>.cursor   how many of its bytes are delivered (replaced atomically)
    <time>-<pid>-<random>.lock     held by the process that writes or delivers the segment

`dead_letters.jsonl` holds the events that the backend refused, each with the reason, and
`dropped.jsonl` one line for each loss that the bounds below caused. One process at a time delivers
a segment, in its own order. The oldest segment is delivered first.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

# How much of a segment is read at once.
READ_BYTES = 256 * 2**10
LOCK_TIMEOUT_SECONDS = 10.0

_SEGMENT = ".jsonl"
_DEAD, _DROPPED = "dead_letters.jsonl", "dropped.jsonl"


@dataclass(frozen=True, slots=True)
class SpoolBounds:
    """The limits of a spool, on disk and in memory.

    Attributes:
        spool_bytes: the size of all segments together: the events of about thirty runs of 1,000
            models, at 3 KB per event.
        age_seconds: the age of a segment; the backend may be away for a week.
        letter_bytes: the size of one file of dead letters; there are two, the current one and the
            previous one.
        segment_bytes: the size above which a delivered segment is replaced by a new one.
        memory_bytes: the size of the events held in memory while the disk accepts none.
    """

    spool_bytes: int = 256 * 2**20
    age_seconds: float = 7 * 24 * 3600.0
    letter_bytes: int = 16 * 2**20
    segment_bytes: int = 4 * 2**20
    memory_bytes: int = 32 * 2**20


SPOOL_BOUNDS = SpoolBounds()


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """The content of a spool directory, in numbers.

    Attributes:
        waiting: events not yet delivered.
        waiting_bytes: the size of the waiting events.
        held: the waiting events that a running process holds.
        segments: the segment files.
        oldest: the age in seconds of the oldest segment with waiting events, or None.
        refused: dead letters.
        dropped: events that the limits of size and age removed.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    held: int = 0
    segments: int = 0
    oldest: float | None = None
    refused: int = 0
    dropped: int = 0


class Segment:
    """The events of one writer, locked by this process.

    One thread may write (`append`, `sync`) while another delivers (`read`, `acknowledge`).
    """

    def __init__(self, path: Path, lock: FileLock, handle: int) -> None:
        self.path = path
        self._lock = lock
        self._handle = handle
        self.size = os.fstat(handle).st_size
        self.synced = self.size
        self.delivered = self._saved = _cursor(path, handle, self.size)

    @classmethod
    def create(cls, directory: Path) -> Segment:
        """Start an empty segment.

        Raises:
            OSError: the directory or the files cannot be created.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        path = directory / f"{name}{_SEGMENT}"
        lock = _lock(path)
        try:
            lock.acquire(timeout=0)
            write_cursor(path, 0)  # reserves the space for later
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            for suffix in (".cursor", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            lock.release()
            raise
        return cls(path, lock, handle)

    @classmethod
    def claim(cls, path: Path) -> Segment | None:
        """Take over a segment; return None if another process holds it or it no longer exists."""
        lock = _lock(path)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return None
        try:
            return cls(path, lock, os.open(path, os.O_RDWR))
        except FileNotFoundError:  # delivered and removed between listing and locking
            path.with_suffix(".lock").unlink(missing_ok=True)
        except OSError as error:
            logger.warning("Lineage spool: cannot open %s (%s).", path.name, error.strerror)
        lock.release()
        return None

    @property
    def waiting_bytes(self) -> int:
        """The bytes that are written and not delivered."""
        return self.size - self.delivered

    def append(self, lines: bytes) -> None:
        """Write whole lines, which survive a crash of this process.

        After `sync` they also survive a crash of the machine.

        Raises:
            OSError: the lines cannot be written; none of them is kept.
        """
        try:
            written = os.write(self._handle, lines)
            while written < len(lines):  # the next write gives the reason, or succeeds
                written += os.write(self._handle, lines[written:])
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(lines)

    def sync(self) -> None:
        """Wait until the written lines are on the disk."""
        size = self.size
        if self.synced < size:
            _datasync(self._handle)
            self.synced = size

    def read(self) -> list[bytes]:
        """Return the next undelivered lines, without line ends; [] if there are none."""
        amount = READ_BYTES
        while True:
            waiting = self.waiting_bytes  # read once: the writer may append at any time
            data = os.pread(self._handle, min(amount, waiting), self.delivered)
            end = data.rfind(b"\n")
            if end >= 0:
                return data[:end].split(b"\n")
            if len(data) < amount:
                return []
            amount *= 2

    def torn(self) -> bytes:
        """Return the incomplete line that a killed writer left; usually b""."""
        return b"" if self.read() else os.pread(self._handle, self.waiting_bytes, self.delivered)

    def acknowledge(self, size: int) -> None:
        """Count `size` more bytes as delivered, in memory; `save` writes the cursor."""
        self.delivered += size

    def save(self) -> None:
        """Write the cursor; without it, events are sent again after a crash."""
        if self._saved != self.delivered:
            write_cursor(self.path, self.delivered)
            self._saved = self.delivered

    def close(self) -> None:
        """Release the segment; remove its files if all events are delivered."""
        try:
            if self.waiting_bytes == 0:
                for suffix in (_SEGMENT, ".cursor", ".lock"):
                    self.path.with_suffix(suffix).unlink(missing_ok=True)
            else:
                self.save()
        except OSError as error:
            logger.warning("Lineage spool: %s will be sent again (%s).", self.path.name, error)
        finally:
            with suppress(OSError):
                os.close(self._handle)
            self._lock.release()


def leftovers(directory: Path) -> Iterator[Segment]:
    """Yield and lock the segments that no process holds, oldest first; the caller closes them."""
    for path in _segments(directory):
        segment = Segment.claim(path)
        if segment is not None:
            yield segment


def write_cursor(path: Path, delivered: int) -> None:
    """Replace the cursor of a segment; on a full disk overwrite it, which needs no space."""
    cursor, content = path.with_suffix(".cursor"), b"%020d\n" % delivered
    temporary = path.with_suffix(".cursor.new")
    try:
        _overwrite(temporary, content, os.O_CREAT)
        temporary.replace(cursor)
    except OSError:
        temporary.unlink(missing_ok=True)
        _overwrite(cursor, content)


def _overwrite(path: Path, content: bytes, flags: int = 0) -> None:
    handle = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def bury(directory: Path, event: bytes, reason: str, bounds: SpoolBounds = SPOOL_BOUNDS) -> None:
    """Keep an event that must not be sent again in `dead_letters.jsonl`, synced to disk.

    Raises:
        OSError: the event cannot be written.
    """
    try:
        content: object = json.loads(event)
    except ValueError:
        content = event.decode(errors="backslashreplace")
    letter = {"at": _now(), "reason": reason, "event": content}
    with _locked(directory):
        path = directory / _DEAD
        if _size(path) > bounds.letter_bytes:
            old = directory / f"{_DEAD}.old"
            if _count(old):
                _append(directory / _DROPPED, _drop(_count(old), "dead letters over the bound"))
            path.replace(old)
        _append(path, letter)


def drop(directory: Path, events: int, reason: str) -> None:
    """Record lost events in `dropped.jsonl` and in the log."""
    logger.warning("Lineage spool: %d events dropped (%s).", events, reason)
    with suppress(OSError, Timeout), _locked(directory):
        _append(directory / _DROPPED, _drop(events, reason))


def trim(directory: Path, bounds: SpoolBounds = SPOOL_BOUNDS) -> int:
    """Drop segments that are too old or exceed the size limit; return the number of events.

    Segments that a process holds stay. The oldest are dropped first, because the newest lineage
    matters most.
    """
    sizes = {path: _size(path) for path in _segments(directory)}
    total, now, dropped = sum(sizes.values()), time.time(), 0
    for path, size in sizes.items():
        too_old = now - _written(path) > bounds.age_seconds
        if not too_old and total <= bounds.spool_bytes:
            continue
        segment = Segment.claim(path)
        if segment is not None:
            lost = sum(1 for _ in _lines(segment))
            segment.acknowledge(segment.waiting_bytes)
            segment.close()
            total -= size
            if lost:
                drop(directory, lost, "older than the bound" if too_old else "spool full")
            dropped += lost
    return dropped


def occupied(directory: Path) -> int:
    """Return the size of all segments in bytes."""
    return sum(map(_size, _segments(directory)))


def spool_status(directory: Path) -> SpoolStatus:
    """Return the numbers of waiting, refused and dropped events; this changes nothing."""
    waiting = size = held = 0
    oldest: float | None = None
    paths = _segments(directory)
    for path in paths:
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # delivered and removed in the meantime
            continue
        try:
            total = os.fstat(handle).st_size
            start = _cursor(path, handle, total)
            count = _newlines(handle, start)
        finally:
            os.close(handle)
        waiting += count
        size += total - start
        held += count if _is_held(path) else 0
        if count:
            age = max(0.0, time.time() - int(path.name[:20]) / 1e9)
            oldest = age if oldest is None else max(oldest, age)
    return SpoolStatus(
        waiting=waiting,
        waiting_bytes=size,
        segments=len(paths),
        held=held,
        oldest=oldest,
        refused=_count(directory / _DEAD) + _count(directory / f"{_DEAD}.old"),
        dropped=sum(_dropped(directory / _DROPPED)),
    )


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"[0-9]*{_SEGMENT}"))


def _lock(path: Path) -> FileLock:
    # One thread acquires the lock and another may release it.
    return FileLock(path.with_suffix(".lock"), mode=0o600, thread_local=False)


def _is_held(path: Path) -> bool:
    lock = _lock(path)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with FileLock(directory / "letters.lock", timeout=LOCK_TIMEOUT_SECONDS, mode=0o600):
        yield


def _cursor(path: Path, handle: int, size: int) -> int:
    """Return how many bytes of a segment are delivered; 0 if the cursor is missing or invalid."""
    try:
        offset = int(path.with_suffix(".cursor").read_bytes())
    except (OSError, ValueError):
        return 0
    if not 0 < offset <= size or os.pread(handle, 1, offset - 1) != b"\n":
        return 0
    return offset


def _lines(segment: Segment) -> Iterator[bytes]:
    start = segment.delivered
    while lines := segment.read():
        yield from lines
        segment.acknowledge(sum(map(len, lines)) + len(lines))
    segment.delivered = start


def _newlines(handle: int, start: int) -> int:
    count = 0
    while data := os.pread(handle, READ_BYTES, start):
        count += data.count(b"\n")
        start += len(data)
    return count


def _append(path: Path, entry: Mapping[str, object]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        _datasync(handle)
    finally:
        os.close(handle)


def _drop(events: int, reason: str) -> dict[str, object]:
    return {"at": _now(), "events": events, "reason": reason}


def _dropped(path: Path) -> Iterator[int]:
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                yield int(json.loads(line)["events"])


def _count(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


# macOS has no fdatasync.
_datasync = getattr(os, "fdatasync", os.fsync)
