"""Consoles to print on, and warnings collected to be shown in their place."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

# Files and pipes have no width; tables in them need not be folded.
UNLIMITED = 250


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that prints text as it is, without markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED
    return Console(file=_own_copy(stream), width=width, markup=False, emoji=False, highlight=False)


def _own_copy(stream: TextIO) -> TextIO:
    """Return a stream to the same place that Dagster cannot redirect.

    A Dagster instance captures the file descriptors 1 and 2 while a step runs, and with them
    whatever the live view draws.
    """
    if stream not in {sys.__stdout__, sys.__stderr__}:
        return stream
    stream.flush()
    return os.fdopen(
        os.dup(stream.fileno()),
        "w",
        encoding=stream.encoding,
        errors="backslashreplace",
        buffering=1,
    )


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a command prints: its result, and what goes on beside it."""

    out: Console
    errors: Console

    @classmethod
    def opened(cls, *, as_json: bool) -> Screen:
        """Return a screen of this process; a result goes to stderr beside a JSON document."""
        return cls(console(stderr=as_json), console(stderr=True))

    def warn(self, *lines: str) -> None:
        """Print warnings."""
        for line in lines:
            self.errors.print(f"warning: {line}", style="yellow")

    def progress(self, line: str) -> None:
        """Print a line on what goes on."""
        self.errors.print(line, style="dim")


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings that this package logs, without repeats."""
    lines: dict[str, None] = {}
    result: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.setdefault(record.getMessage())
            result[:] = lines

    logger = logging.getLogger("floe_orchestrator_dagster")
    handler = Collector(logging.WARNING)
    was_propagating, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield result
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagating
