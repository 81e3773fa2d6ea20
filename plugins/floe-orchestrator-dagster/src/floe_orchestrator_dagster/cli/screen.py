"""The consoles of a command, and the collection of warnings to print there."""

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

# Files and pipes have no width, so tables in them are not folded.
UNLIMITED = 250


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that prints text without interpreting markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED
    return Console(file=_own_copy(stream), width=width, markup=False, emoji=False, highlight=False)


def _own_copy(stream: TextIO) -> TextIO:
    """Return a stream to the same file that Dagster cannot redirect.

    While a step runs, a Dagster instance captures the file descriptors 1 and 2. It would capture
    the live view too.
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
    """The consoles of a command: `out` for results, `errors` for progress and warnings."""

    out: Console
    errors: Console

    @classmethod
    def opened(cls, *, as_json: bool) -> Screen:
        """Return a screen of this process; with a JSON document, results go to stderr."""
        return cls(console(stderr=as_json), console(stderr=True))

    def warn(self, *lines: str) -> None:
        """Print warnings."""
        for line in lines:
            self.errors.print(f"warning: {line}", style="yellow")

    def progress(self, line: str) -> None:
        """Print a line about the current step."""
        self.errors.print(line, style="dim")


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings that this package logs, each once."""
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
