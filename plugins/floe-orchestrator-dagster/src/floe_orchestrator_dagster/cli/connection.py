"""`floe-dagster connection`: the state of a product's Dagster webserver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.screen import console
from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.product.artifacts import nearby_artifacts, read_compiled
from floe_orchestrator_dagster.webserver import (
    Address,
    WebserverState,
    ask_webserver,
    webserver_address,
)

if TYPE_CHECKING:
    from pathlib import Path


def query(directory: Path, url: str | None) -> WebserverState:
    """Query the webserver at `url`, else that of the product in `directory`, else the default.

    Raises:
        FloeDagsterError: `directory` has a product that cannot be read.
    """
    artifacts = nearby_artifacts(directory)
    config = read_compiled(artifacts).config if artifacts else PluginConfig()
    address = Address(url, "--url") if url else webserver_address(config.url)
    return ask_webserver(address, ca_bundle=config.ca_bundle)


def show(state: WebserverState, *, as_json: bool) -> None:
    """Print the version on stdout and problems on stderr, or respond with all of it as JSON."""
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
        errors.print(f"Cannot connect to Dagster: {state.problem}", style="red")
    for warning in state.warnings:
        errors.print(f"warning: {warning}", style="yellow")
