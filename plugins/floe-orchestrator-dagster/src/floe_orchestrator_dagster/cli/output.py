"""With `--json`, stdout is one document: whatever else this process prints goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.errors import Problem


def asks_for_json(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for a document; one that asks for help gets the help."""
    options = {*takewhile(lambda word: word != "--", words)}
    return "--json" in options and options.isdisjoint({"-h", "--help", "--version"})


@dataclass
class Response:
    """What a command responds with, kept until it is over; the last one counts."""

    content: Mapping[str, Any] | None = None


def respond(content: Mapping[str, Any]) -> None:
    """Make this the document of the command that runs."""
    found = click.get_current_context().find_object(Response)
    if found is not None:
        found.content = content
    else:
        # A program has called the command by itself, in a process that is its own.
        click.echo(_text(content), nl=False)


def failure(error: str, problems: Iterable[Problem] = ()) -> dict[str, Any]:
    """Return the document of a command that could not do what it was asked."""
    return {
        "success": False,
        "error": error,
        "problems": [
            {"path": problem.path, "found": problem.message, "fix": problem.fix}
            for problem in problems
        ],
    }


@contextmanager
def one_document(*, ends_process: bool) -> Iterator[Response]:
    """Print the response at the end, alone on stdout.

    Libraries print where they like: by `print`, by a stream that they took when they were
    imported, by a program that they start, at the exit of the process. All of these lead to file
    descriptor 1, so that is what changes, and it stays changed where `ends_process`.
    """
    found = Response()
    with _stdout_as_stderr(ends_process=ends_process) as write:
        try:
            yield found
        finally:
            write(_text(found.content or failure("The command ended without a result.")))


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, default=str) + "\n"


@contextmanager
def _stdout_as_stderr(*, ends_process: bool) -> Iterator[Callable[[str], object]]:
    if sys.stdout is not sys.__stdout__:
        # Somebody's own stream, as that of a test: there is no descriptor behind it.
        own = sys.stdout
        with redirect_stdout(sys.stderr):
            yield own.write
        return
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        content = text.encode()
        while content:
            content = content[os.write(real, content) :]

    try:
        yield write
    finally:
        sys.stdout.flush()
        if not ends_process:
            os.dup2(real, 1)
        os.close(real)
