"""A dbt that is started ahead belongs to whoever asked for it, and ends with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from floe_orchestrator_dagster.dbt.process import DbtProcesses


def children() -> set[int]:
    """Return the processes that this one has started and not yet waited for."""
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}


@pytest.fixture
def before() -> Iterator[set[int]]:
    found = children()
    yield found
    assert children() == found


def test_one_process_is_started_ahead_and_ends_with_its_owner(before: set[int]) -> None:
    with closing(DbtProcesses()) as processes:
        processes.start_ahead()
        [started] = children() - before
        processes.start_ahead()
        assert children() - before == {started}
    assert children() == before


def test_owners_do_not_share_what_they_have_started(before: set[int]) -> None:
    with closing(DbtProcesses()) as mine:
        mine.start_ahead()
        with closing(DbtProcesses()) as other:
            other.start_ahead()
            assert len(children() - before) == 2
        assert len(children() - before) == 1


def test_an_owner_can_be_used_again_after_it_was_closed(before: set[int]) -> None:
    processes = DbtProcesses()
    for _ in range(2):
        processes.start_ahead()
        assert len(children() - before) == 1
        processes.close()
