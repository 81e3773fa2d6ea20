"""Ends a network conversation at its deadline, even in the middle of a read."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
THREAD_NAME = "floe-dagster-connection"


class Line:
    """The sockets of one conversation, so that it can be ended from outside."""

    def __init__(self, seconds: float) -> None:
        """Begin a conversation that may take `seconds`."""
        self._until = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; never 0, which httpx takes for no timeout."""
        return max(0.01, self._until - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self._until

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle a trace event of httpx: keep the sockets that it opens."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            opened = info["return_value"].get_extra_info("socket")
            if opened is not None:
                self._sockets.append(opened)

    def cut(self) -> None:
        """Shut the sockets, which wakes and ends the thread that reads them."""
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def within(seconds: float, talk: Callable[[Line], T]) -> T:
    """Return what `talk` returns, within `seconds`.

    `talk` runs in a thread, because a name lookup or a slow read of headers cannot be interrupted.
    At the deadline that thread is left behind.

    Raises:
        TimeoutError: the time is over.
        Exception: any error that `talk` raises.
    """
    line, ended = Line(seconds), Future[T]()

    def run() -> None:
        try:
            ended.set_result(talk(line))
        except Exception as error:  # noqa: BLE001  raised again in the caller's thread
            ended.set_exception(error)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    try:
        return ended.result(max(0.0, line.seconds_left))
    except NotInTime:  # the built-in TimeoutError only since Python 3.11
        line.cut()
        raise TimeoutError(f"not done within {seconds:g} s") from None
