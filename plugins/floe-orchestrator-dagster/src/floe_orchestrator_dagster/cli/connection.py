"""What `floe-dagster connection` does: asks the webserver of a product, and shows the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.screen import console
from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.product.artifacts import artifacts_beside, read_compiled
from floe_orchestrator_dagster.webserver import (
    Address,
    WebserverState,
    ask_webserver,
    webserver_address,
)

if TYPE_CHECKING:
    from pathlib import Path


def ask(directory: Path, url: str | None) -> WebserverState:
    """Ask the webserver of --url, else that of the product in `directory`, else the default.

    Raises:
        FloeDagsterError: there is a product, and it cannot be read.
    """
    found = artifacts_beside(directory)
    config = read_compiled(found).config if found else PluginConfig()
    address = Address(url, "--url") if url else webserver_address(config.url)
    return ask_webserver(address, ca_bundle=config.ca_bundle)


def show(state: WebserverState, *, as_json: bool) -> None:
    """Print an answer: the version on stdout, what is wrong on stderr, or all as JSON."""
    if as_json:
        document = {
            "success": state.version is not None,
            "url": state.url,
            "version": state.version,
            "problem": state.problem,
            "warnings": [*state.warnings],
        }
        respond(document)
    elif state.version is not None:
        click.echo(f"Dagster {state.version} at {state.url}")
    errors = console(stderr=True)
    if state.problem:
        errors.print(f"No Dagster: {state.problem}", style="red")
    for warning in state.warnings:
        errors.print(f"warning: {warning}", style="yellow")
