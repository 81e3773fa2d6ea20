"""The events of a process wait on disk, else in memory, and keep their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe_orchestrator_dagster.lineage.outbox import Outbox
from floe_orchestrator_dagster.lineage.spool import Segment, SpoolBounds, spool_status


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_durable_event_is_synced_when_it_is_put(directory: Path) -> None:
    outbox = Outbox(directory)
    for durable in (False, True):
        assert outbox.put([b"{}"], durable=durable) == 1
        assert outbox.segment is not None
        assert (outbox.segment.synced == outbox.segment.size) is durable
    assert outbox.end() == 0


def test_the_side_that_ends_last_closes_the_outbox(directory: Path) -> None:
    outbox = Outbox(directory)
    outbox.enter()
    outbox.put([b"{}"], durable=False)
    assert outbox.end() == 0
    assert outbox.segment is not None
    outbox.leave()
    closed: Segment | None = outbox.segment
    assert closed is None
    assert spool_status(directory).waiting == 1


def test_events_after_one_in_memory_wait_in_memory_too(directory: Path) -> None:
    outbox = Outbox(directory, SpoolBounds(spool_bytes=10, memory_bytes=40))
    assert outbox.put([b'{"a":1}'], durable=False) == 1
    assert outbox.put([b'{"long":"event"}'], durable=False) == 1
    assert outbox.put([b"{}"], durable=False) == 1
    assert outbox.problem == "the spool is full (0 MiB)"
    # The event on disk comes first.
    assert outbox.waits_on_disk
    assert outbox.first_in_memory() is None
    segment = outbox.segment
    assert segment is not None
    assert segment.read() == [b'{"a":1}']
    segment.acknowledge(segment.size)
    assert outbox.first_in_memory() == b'{"long":"event"}'
    outbox.forget_first()
    assert outbox.first_in_memory() == b"{}"


def test_an_event_that_fits_nowhere_is_not_accepted(directory: Path) -> None:
    outbox = Outbox(directory, SpoolBounds(spool_bytes=1, memory_bytes=5))
    assert outbox.put([b"{1}", b"{2}"], durable=False) == 1
    with pytest.raises(OSError, match="the spool is full"):
        outbox.put([b"{3}"], durable=True)
    assert outbox.end() == 1
