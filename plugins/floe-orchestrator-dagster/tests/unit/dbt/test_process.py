"""A spare dbt process belongs to one owner and ends together with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from floe_orchestrator_dagster.dbt.process import DbtProcesses


def children() -> set[int]:
    """Return the child processes of this process that still exist."""
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}


@pytest.fixture
def before() -> Iterator[set[int]]:
    running = children()
    yield running
    assert children() == running


def test_an_owner_has_one_spare_process_and_ends_it(before: set[int]) -> None:
    with closing(DbtProcesses()) as processes:
        processes.start_spare()
        [started] = children() - before
        processes.start_spare()
        assert children() - before == {started}
    assert children() == before


def test_owners_do_not_share_a_spare_process(before: set[int]) -> None:
    with closing(DbtProcesses()) as first:
        first.start_spare()
        with closing(DbtProcesses()) as second:
            second.start_spare()
            assert len(children() - before) == 2
        assert len(children() - before) == 1


def test_an_owner_can_be_used_again_after_it_was_closed(before: set[int]) -> None:
    processes = DbtProcesses()
    for _ in range(2):
        processes.start_spare()
        assert len(children() - before) == 1
        processes.close()
