"""The spool keeps every event in order through crashes, full disks and lost cursors."""

import json
import os
import resource
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from floe_orchestrator_dagster.lineage import spool
from floe_orchestrator_dagster.lineage.spool import (
    Segment,
    SpoolBounds,
    SpoolStatus,
    bury,
    drop,
    leftovers,
    spool_status,
    trim,
)


def line(number: int) -> bytes:
    return b'{"n":%d}' % number


def lines(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


def deliver(segment: Segment, limit: int = 10**9) -> list[int]:
    """Take up to `limit` events out of a segment."""
    taken: list[int] = []
    while len(taken) < limit and (events := segment.read()):
        for item in events[: limit - len(taken)]:
            taken.append(json.loads(item)["n"])
            segment.acknowledge(len(item) + 1)
    return taken


def die(segment: Segment) -> None:
    """Leave a segment as a killed process does: the cursor not saved, the lock free."""
    os.close(segment._handle)
    segment._lock.release()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_events_come_out_in_the_order_they_went_in(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1, 2))
    segment.append(lines(3))
    assert deliver(segment) == [1, 2, 3]
    assert deliver(segment) == []
    segment.append(lines(4))
    assert deliver(segment) == [4]


def test_a_delivered_segment_leaves_no_file(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1))
    deliver(segment)
    segment.save()
    segment.close()
    assert list(directory.iterdir()) == []


def test_delivery_of_a_leftover_resumes_at_its_cursor(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1, 2, 3))
    deliver(segment, 1)
    segment.close()
    [left] = leftovers(directory)
    assert deliver(left) == [2, 3]
    left.close()
    assert list(leftovers(directory)) == []


def test_the_segment_of_a_running_writer_is_not_claimed(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1))
    assert list(leftovers(directory)) == []
    assert spool_status(directory).held == 1
    segment.close()
    [left] = leftovers(directory)
    left.close()


def test_leftovers_come_oldest_first(directory: Path) -> None:
    for number in (1, 2, 3):
        segment = Segment.create(directory)
        segment.append(lines(number))
        segment.close()
    taken = []
    for left in leftovers(directory):
        taken += deliver(left)
        left.close()
    assert taken == [1, 2, 3]


@pytest.mark.parametrize("cursor", [b"", b"nonsense", b"-4", b"999999", b"3", b"8\x00"])
def test_an_invalid_cursor_means_that_all_events_are_sent_again(
    directory: Path, cursor: bytes
) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1, 2))
    die(segment)
    segment.path.with_suffix(".cursor").write_bytes(cursor)
    [left] = leftovers(directory)
    assert deliver(left) == [1, 2]
    left.close()


def test_an_incomplete_line_is_returned_and_does_not_stop_the_others(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1))
    os.write(segment._handle, b'{"n":')
    die(segment)
    [left] = leftovers(directory)
    assert left.torn() == b""
    assert deliver(left) == [1]
    assert left.torn() == b'{"n":'
    left.close()


def test_a_line_longer_than_one_read_is_read_whole(directory: Path) -> None:
    segment = Segment.create(directory)
    long = b'{"n":1,"pad":"' + b"x" * (3 * spool.READ_BYTES) + b'"}'
    segment.append(long + b"\n" + lines(2))
    assert segment.read()[0] == long
    assert deliver(segment) == [1, 2]
    segment.close()


def test_a_read_ends_while_the_writer_keeps_writing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment.create(directory)
    real, reads = os.pread, []

    def pread(handle: int, size: int, offset: int) -> bytes:
        reads.append(size)
        assert len(reads) < 10, "the read never ends"
        data = real(handle, size, offset)
        segment.append(lines(len(reads)))
        return data

    monkeypatch.setattr(os, "pread", pread)
    assert segment.read() == []
    assert segment.read() == [line(1)]
    segment.close()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Limit the size of files to `size` bytes, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_incomplete_line(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1))
    with files_up_to(12), pytest.raises(OSError, match="too large"):
        segment.append(lines(2, 3))
    segment.append(lines(4))
    assert deliver(segment) == [1, 4]
    segment.close()


def test_the_cursor_is_saved_on_a_full_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1, 2))
    deliver(segment, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    segment.save()
    die(segment)
    [left] = leftovers(directory)
    assert deliver(left) == [2]
    left.close()
    assert list(directory.iterdir()) == []


def test_only_the_owner_can_read_the_spool(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(lines(1, 2))
    deliver(segment, 1)
    segment.save()
    bury(directory, line(3), "because")
    drop(directory, 1, "because")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 6
    segment.close()


def test_a_directory_that_others_can_read_is_closed_to_them(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    Segment.create(directory).close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_dead_letters_have_event_and_reason(directory: Path) -> None:
    Segment.create(directory).close()
    bury(directory, line(7), "the backend answered 400")
    bury(directory, b'{"n":', "half written")
    first, second = map(json.loads, (directory / "dead_letters.jsonl").read_text().splitlines())
    assert first["event"] == {"n": 7}
    assert first["reason"] == "the backend answered 400"
    assert second["event"] == '{"n":'
    assert spool_status(directory).refused == 2


def test_dead_letters_are_limited_and_removed_ones_are_counted(directory: Path) -> None:
    Segment.create(directory).close()
    for number in range(30):
        bury(directory, line(number), "refused", SpoolBounds(letter_bytes=300))
    status = spool_status(directory)
    assert 0 < status.refused < 30
    assert status.refused + status.dropped == 30
    assert sum(path.stat().st_size for path in directory.glob("dead*")) < 1000


def test_old_events_are_dropped_with_a_warning(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        segment = Segment.create(directory)
        segment.append(lines(number, number))
        segment.close()
        if number == 1:
            past = time.time() - SpoolBounds().age_seconds - 10
            os.utime(segment.path, (past, past))
    assert trim(directory) == 2
    assert "2 events dropped (older than the bound)" in caplog.text
    status = spool_status(directory)
    assert (status.waiting, status.dropped) == (2, 2)


def test_above_the_size_limit_the_oldest_are_dropped(directory: Path) -> None:
    for number in range(1, 5):
        segment = Segment.create(directory)
        segment.append(lines(number, number))
        segment.close()
    assert trim(directory, SpoolBounds(spool_bytes=40)) == 4
    taken = []
    for left in leftovers(directory):
        taken += deliver(left)
        left.close()
    assert taken == [3, 3, 4, 4]


def test_a_directory_that_does_not_exist_has_an_empty_status(directory: Path) -> None:
    assert spool_status(directory) == SpoolStatus()
    assert list(leftovers(directory)) == []
    assert not directory.exists()


class AnySpool(RuleBasedStateMachine):
    """Appends, deliveries, crashes and lost cursors in any order; then everything is delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name)
        self.own: Any = None  # a Segment, if there is one
        self.written: list[int] = []  # in the own segment
        self.taken: list[int] = []
        self.gone: set[int] = set()
        self.made = self.unsaved = self.may_repeat = 0

    @rule(count=st.integers(1, 5))
    def put(self, count: int) -> None:
        self.own = self.own or Segment.create(self.directory)
        numbers = range(self.made, self.made + count)
        self.own.append(lines(*numbers))
        self.written += numbers
        self.made += count

    @rule(limit=st.integers(1, 7))
    def deliver(self, limit: int) -> None:
        for left in leftovers(self.directory):
            numbers = deliver(left, limit)
            limit -= len(numbers)
            self.taken += numbers
            left.acknowledge(len(left.torn()))
            left.close()
        if self.own is not None:
            numbers = deliver(self.own, limit)
            self.taken += numbers
            self.unsaved += len(numbers)

    @precondition(lambda self: self.own)
    @rule()
    def sync(self) -> None:
        self.own.sync()

    @precondition(lambda self: self.own)
    @rule()
    def save(self) -> None:
        self.own.save()
        self.unsaved = 0

    @precondition(lambda self: self.own)
    @rule(kept=st.floats(0, 1))
    def crash(self, kept: float) -> None:
        """Lose a part of the unsynced lines.

        With `kept` 1 the process is killed, with less the machine loses power.
        """
        size = self.own.synced + int((self.own.size - self.own.synced) * kept)
        die(self.own)
        os.truncate(self.own.path, size)
        self.gone |= set(self.written[self.own.path.read_bytes().count(b"\n") :])
        # A cursor beyond the end of the file is invalid, so all events are sent again.
        self.may_repeat += len(self.written) if size < self.own.delivered else self.unsaved
        self.own, self.written, self.unsaved = None, [], 0

    @precondition(lambda self: self.own)
    @rule()
    def lose_the_cursor(self) -> None:
        self.own.path.with_suffix(".cursor").unlink(missing_ok=True)
        self.may_repeat += self.made

    @precondition(lambda self: self.own)
    @rule(text=st.sampled_from([b"", b"\0\0", b"7f", b"-1", b"99999999"]))
    def garble_the_cursor(self, text: bytes) -> None:
        self.own.path.with_suffix(".cursor").write_bytes(text)
        self.may_repeat += self.made

    def teardown(self) -> None:
        with self.temporary:
            if self.own is not None:
                self.own.close()
                self.own = None
            self.deliver(10**9)
            first = list(dict.fromkeys(self.taken))
            assert first == sorted(first)
            assert set(range(self.made)) - self.gone <= set(first) <= set(range(self.made))
            assert len(self.taken) - len(first) <= self.may_repeat
            assert not list(self.directory.glob("0*"))


TestNothingIsLostAndTheOrderStays = AnySpool.TestCase
TestNothingIsLostAndTheOrderStays.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
