"""A delivery keeps the order of events, retries, and keeps refused events."""

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.delivery import (
    Delivery,
    DeliveryReport,
    SpooledDelivery,
    open_delivery,
)
from floe_orchestrator_dagster.lineage.sender import DeliveryTiming
from floe_orchestrator_dagster.lineage.spool import Segment, SpoolBounds, spool_status
from floe_orchestrator_dagster.lineage.verdict import DELIVERED, Verdict
from kit.backends import event
from kit.ports import free_port

# Short pauses: these tests do not check their length.
QUICK = DeliveryTiming(first_pause=0.001, longest_pause=0.002, last_pause=0.001)
AWAY = Verdict(reason="away")
REFUSED = Verdict(refused=True, reason="bad event")
POISON = Verdict(reason="the backend answered 500", poison=True)


class Fake:
    """A channel whose answer is a function of the event's number."""

    def __init__(self, answer: Callable[[int], Verdict] = lambda _: DELIVERED) -> None:
        self.answer = answer
        self.taken: list[int] = []
        self.tried: list[int] = []

    def post(self, line: bytes) -> Verdict:
        number = int(json.loads(line)["job"]["name"])
        self.tried.append(number)
        answer = self.answer(number)
        if answer.delivered:
            self.taken.append(number)
        return answer

    def watch(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(
    fake: Fake, directory: Path, *, required: bool = False, **bounds: Any
) -> SpooledDelivery:
    return SpooledDelivery(
        fake, directory, required=required, timing=QUICK, bounds=SpoolBounds(**bounds)
    )


def run(fake: Fake, directory: Path, count: int = 5, **bounds: Any) -> DeliveryReport:
    with opened(fake, directory, **bounds) as sending:
        for number in range(count):
            sending.send(event(number))
        return sending.finish()


def test_without_a_backend_nothing_happens(directory: Path) -> None:
    before = threading.active_count()
    with open_delivery(None, directory, required=True) as sending:
        sending.send(event(1))
        assert sending.finish() == DeliveryReport()
    assert type(sending) is Delivery
    assert threading.active_count() == before
    assert not directory.exists()


def test_without_events_there_is_no_thread_and_no_file(directory: Path) -> None:
    before = threading.active_count()
    with open_delivery({"type": "http", "url": "http://localhost:1"}, directory) as sending:
        assert threading.active_count() == before
    assert sending.finish() == DeliveryReport()
    assert not directory.exists()


def test_all_events_arrive_in_order_and_leave_no_file(directory: Path) -> None:
    fake = Fake()
    assert run(fake, directory, 1000) == DeliveryReport(made=1000, delivered=1000)
    assert fake.taken == list(range(1000))
    assert list(directory.iterdir()) == []


def test_mappings_and_json_in_any_layout_are_accepted(directory: Path) -> None:
    fake = Fake()
    with opened(fake, directory) as sending:
        sending.send(event(1))
        sending.send(json.dumps(event(2), indent=2).encode())
        sending.send_all([event(3), json.dumps(event(4)).encode()])
    assert fake.taken == [1, 2, 3, 4]


def test_events_wait_while_the_backend_is_away(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake(lambda _: AWAY)
    with caplog.at_level(logging.WARNING):
        report = run(fake, directory)
    assert report == DeliveryReport(made=5, waiting=5, problem="away")
    assert set(fake.tried) == {0}
    assert spool_status(directory).waiting == 5
    [warning] = caplog.messages
    assert warning.startswith("Lineage: 0 of 5 events were delivered, 5 wait in ")
    assert warning.endswith(
        "(away). The next run, the lineage_drain sensor or `floe-dagster lineage replay` sends "
        "those that wait."
    )


def test_the_next_run_sends_waiting_events_first(directory: Path) -> None:
    run(Fake(lambda _: AWAY), directory, 3)
    fake = Fake()
    with opened(fake, directory) as sending:
        sending.send(event(10))
    assert sending.finish() == DeliveryReport(made=1, delivered=1, earlier=3)
    assert fake.taken == [0, 1, 2, 10]
    assert list(directory.iterdir()) == []


def test_delivery_continues_when_the_backend_comes_back(directory: Path) -> None:
    failures = iter(range(6))
    fake = Fake(lambda _: AWAY if next(failures, None) is not None else DELIVERED)
    with opened(fake, directory) as sending:
        for number in range(4):
            sending.send(event(number))
        while len(fake.taken) < 4:
            threading.Event().wait(0.001)
    assert fake.taken == [0, 1, 2, 3]
    assert sending.finish().delivered == 4


def test_refused_events_become_dead_letters_and_the_others_arrive(directory: Path) -> None:
    fake = Fake(lambda number: REFUSED if number == 2 else DELIVERED)
    report = run(fake, directory)
    assert report == DeliveryReport(made=5, delivered=4, refused=1, problem="bad event")
    assert fake.taken == [0, 1, 3, 4]
    letter = json.loads((directory / "dead_letters.jsonl").read_text())
    assert letter["event"] == event(2)
    assert letter["reason"] == "bad event"


def test_an_event_that_always_fails_does_not_block_the_others(directory: Path) -> None:
    fake = Fake(lambda number: POISON if number == 1 else DELIVERED)
    with opened(fake, directory) as sending:
        sending.send_all([event(number) for number in range(5)])
        while len(fake.taken) < 4:
            threading.Event().wait(0.001)
    assert fake.taken == [0, 2, 3, 4]
    assert fake.tried.count(1) == QUICK.poison_tries + 1
    assert sending.finish().refused == 1
    assert spool_status(directory).refused == 1


def test_no_event_is_refused_while_all_fail(directory: Path) -> None:
    tries = iter(range(30))
    fake = Fake(lambda _: POISON if next(tries, None) is not None else DELIVERED)
    with opened(fake, directory) as sending:
        sending.send_all([event(number) for number in range(5)])
        while len(fake.taken) < 5:
            threading.Event().wait(0.001)
    assert sending.finish().refused == 0
    assert sorted(fake.taken) == [0, 1, 2, 3, 4]


def test_a_retry_after_beyond_the_drain_ends_the_delivery_at_once(directory: Path) -> None:
    fake = Fake(lambda _: Verdict(reason="busy", wait=60.0))
    assert run(fake, directory).waiting == 5
    assert fake.tried == [0]


def test_a_retry_after_within_the_drain_is_respected(directory: Path) -> None:
    answers = iter([Verdict(reason="busy", wait=0.05)])
    fake = Fake(lambda _: next(answers, DELIVERED))
    assert run(fake, directory).delivered == 5
    assert fake.tried == [0, 0, 1, 2, 3, 4]


def test_a_damaged_line_becomes_a_dead_letter(directory: Path) -> None:
    segment = Segment.create(directory)
    segment.append(b"\0\0\0\n" + json.dumps(event(1)).encode() + b'\n{"half')
    segment.close()
    fake = Fake()
    with opened(fake, directory) as sending:
        sending.send(event(2))
    report = sending.finish()
    assert (report.delivered, report.earlier, report.refused) == (1, 1, 0)
    assert fake.taken == [1, 2]
    letters = (directory / "dead_letters.jsonl").read_text().splitlines()
    assert [json.loads(letter)["reason"] for letter in letters] == [
        "damaged on disk",
        "half written when its process was killed",
    ]


def test_without_room_on_disk_events_are_sent_from_memory_in_order(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake()
    report = run(fake, directory, 50, spool_bytes=1000)
    assert report == DeliveryReport(made=50, delivered=50)
    assert fake.taken == list(range(50))
    assert len(caplog.messages) == 1
    assert "the spool is full" in caplog.text


def test_without_room_anywhere_events_are_dropped_and_counted(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = run(Fake(lambda _: AWAY), directory, 50, spool_bytes=1000, memory_bytes=1000)
    assert report.made == 50
    assert report.waiting + report.dropped == 50
    assert report.waiting == spool_status(directory).waiting > 0
    assert report.dropped == spool_status(directory).dropped > 0
    assert f"{report.dropped} events dropped" in caplog.text


def test_required_lineage_is_on_disk_when_send_returns(directory: Path) -> None:
    with opened(Fake(lambda _: AWAY), directory, required=True) as sending:
        for number in range(3):
            sending.send(event(number))
            assert spool_status(directory).waiting == number + 1
    assert sending.finish().waiting == 3


def test_required_lineage_that_has_no_room_is_an_error(directory: Path) -> None:
    with opened(Fake(), directory, required=True, spool_bytes=700) as sending:
        sending.send(event(1))
        with pytest.raises(LineageError, match=r"the spool is full .* requires lineage, so the"):
            sending.send(event(2, pad=1000))
    assert sending.finish() == DeliveryReport(made=1, delivered=1)


def test_required_lineage_without_a_directory_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    transport = {"type": "http", "url": f"http://localhost:{free_port()}"}
    with pytest.raises(LineageError, match="Not a directory"):
        open_delivery(transport, tmp_path / "file" / "spool", required=True)
    with open_delivery(transport, tmp_path / "file" / "spool") as sending:
        sending.send(event(1))
    assert sending.finish().dropped == 1


def test_an_unusable_transport_fails_only_where_lineage_is_required(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LineageError, match="has no `url`"):
        open_delivery({"type": "http"}, directory, required=True)
    assert type(open_delivery({"type": "http"}, directory)) is Delivery
    assert "The run continues without lineage." in caplog.text


def test_an_event_that_is_not_json_is_dropped_or_an_error(directory: Path) -> None:
    with opened(Fake(), directory) as sending:
        sending.send({"x": object()})
        sending.send(event(1))
    assert sending.finish() == DeliveryReport(made=2, delivered=1, dropped=1)
    with (
        opened(Fake(), directory, required=True) as strict,
        pytest.raises(LineageError, match=r"Cannot keep a lineage event: not JSON.* requires"),
    ):
        strict.send({"x": object()})


def test_an_event_sent_after_the_end_is_reported_as_lost(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(Fake(), directory) as sending:
        sending.send(event(1))
    sending.send(event(2))
    assert caplog.messages == ["Lineage: events are dropped (sent after the delivery ended)."]
    assert spool_status(directory).waiting == 0


def test_a_long_run_frees_disk_space(directory: Path) -> None:
    fake = Fake()
    with opened(fake, directory, segment_bytes=1000) as sending:
        for number in range(20):
            sending.send(event(number))
            while len(fake.taken) <= number:
                threading.Event().wait(0.001)
        assert sum(path.stat().st_size for path in directory.glob("*.jsonl")) < 3000
    assert fake.taken == list(range(20))
    assert list(directory.iterdir()) == []


def test_a_sender_that_crashes_leaves_the_events_on_disk(directory: Path) -> None:
    def broken(_: int) -> Verdict:
        raise RuntimeError("a bug")

    report = run(Fake(broken), directory)
    assert report.waiting == spool_status(directory).waiting == 5
    assert report.problem == "the sender stopped (RuntimeError)"
