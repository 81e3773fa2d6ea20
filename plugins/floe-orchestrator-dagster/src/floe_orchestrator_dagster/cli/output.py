"""With `--json`, stdout is one document; everything else that the process prints goes to stderr."""

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


def requests_json(words: Sequence[str]) -> bool:
    """Return whether a command line requests a document; a request for help comes first."""
    options = {*takewhile(lambda word: word != "--", words)}
    return "--json" in options and options.isdisjoint({"-h", "--help", "--version"})


@dataclass
class Response:
    """The document of a command, kept until the command ends; the last one counts."""

    content: Mapping[str, Any] | None = None


def respond(content: Mapping[str, Any]) -> None:
    """Set the document of the running command."""
    response = click.get_current_context().find_object(Response)
    if response is not None:
        response.content = content
    else:
        # A program called the command directly, without `Commands.main`.
        click.echo(_text(content), nl=False)


def failure(error: str, problems: Iterable[Problem] = ()) -> dict[str, Any]:
    """Return the document of a command that failed."""
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

    Libraries print in many ways: with `print`, to a stream that they took at import, through a
    program that they start, or when the process exits. All of these end at file descriptor 1, so
    this redirects the descriptor, for good if `ends_process`.
    """
    response = Response()
    with _stdout_as_stderr(ends_process=ends_process) as write:
        try:
            yield response
        finally:
            write(_text(response.content or failure("The command ended without a result.")))


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, default=str) + "\n"


@contextmanager
def _stdout_as_stderr(*, ends_process: bool) -> Iterator[Callable[[str], object]]:
    if sys.stdout is not sys.__stdout__:
        # A replaced stream, as in a test, has no descriptor.
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
