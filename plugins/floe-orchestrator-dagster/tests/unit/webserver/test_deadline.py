"""A conversation ends with its result, its error, or at its deadline."""

from __future__ import annotations

import socket
import threading

import pytest

from floe_orchestrator_dagster.webserver.deadline import Line, within


def test_a_result_or_error_in_time_is_passed_on() -> None:
    def fails(line: Line) -> str:
        assert not line.is_over
        raise ValueError("no")

    assert within(60.0, lambda line: line.seconds_left > 1) is True
    with pytest.raises(ValueError, match="no"):
        within(60.0, fails)


def test_the_deadline_shuts_the_sockets_and_ends_the_thread() -> None:
    here, there = socket.socketpair()
    ended = threading.Event()

    class Stream:
        def get_extra_info(self, _: str) -> socket.socket:
            return here

    def waits(line: Line) -> bytes:
        line.trace("connection.connect_tcp.complete", {"return_value": Stream()})
        try:
            return here.recv(1)
        finally:
            ended.set()

    with here, there:
        with pytest.raises(TimeoutError, match=r"not done within 0\.05 s"):
            within(0.05, waits)
        assert ended.wait(60.0)


def test_a_passed_deadline_is_still_a_timeout_for_httpx() -> None:
    line = Line(-1.0)
    assert line.is_over
    assert line.seconds_left > 0
