"""How a command ends: with an exit code, and with a JSON document if one was requested."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from floe_orchestrator_dagster.cli.exits import DBT_UNUSABLE, INTERRUPTED, PRODUCT_WRONG
from floe_orchestrator_dagster.cli.output import failure, one_document, requests_json, respond
from floe_orchestrator_dagster.errors import DbtError, FloeDagsterError, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STOPPED = "Interrupted: dbt was stopped."


class Commands(click.Group):
    """A group whose commands print one JSON document each when `--json` requests it."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  click's own signature
        **extra: Any,
    ) -> Any:
        """Run one command and exit with its code."""
        words = [*(sys.argv[1:] if args is None else args)]
        with _terminable():
            if not requests_json(words):
                return super().main(words, prog_name, complete_var, standalone_mode, **extra)
            with one_document(ends_process=standalone_mode) as response:
                try:
                    code = super().main(
                        words, prog_name, complete_var, standalone_mode=False, obj=response, **extra
                    )
                except click.ClickException as error:
                    error.show()
                    response.content = failure(error.format_message())
                    code = error.exit_code
                except (click.Abort, KeyboardInterrupt):
                    response.content = response.content or failure("Interrupted.")
                    code = INTERRUPTED
                except Exception as error:
                    response.content = failure(f"{type(error).__name__}: {error}")
                    raise
                sys.exit(code)


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, which stops a container, like Ctrl-C."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # only the main thread may set a handler
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def reporting(*, as_json: bool, product_wrong: int = PRODUCT_WRONG) -> Iterator[None]:
    """Print an error of this package without a traceback, and exit with its code."""
    try:
        yield
    except FloeDagsterError as error:
        if as_json:
            respond(failure(str(error), error.problems if isinstance(error, PlanError) else ()))
        click.echo(str(error), err=True)
        sys.exit(DBT_UNUSABLE if isinstance(error, DbtError) else product_wrong)
    except KeyboardInterrupt:
        if as_json:
            respond(failure(STOPPED))
        click.echo(STOPPED, err=True)
        sys.exit(INTERRUPTED)
