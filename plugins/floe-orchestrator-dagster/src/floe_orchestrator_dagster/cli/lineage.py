"""`floe-dagster lineage`: what waits in a product's spool, and sending it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.backend import lineage_destination, why_off
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, replay
from floe_orchestrator_dagster.lineage.spool import spool_directory, spool_status
from floe_orchestrator_dagster.product.artifacts import (
    compiled_product,
    find_artifacts,
    read_artifacts,
)
from floe_orchestrator_dagster.product.finding import find_project
from floe_orchestrator_dagster.product.prepare import target_directory

if TYPE_CHECKING:
    from pathlib import Path


def status(directory: Path, *, as_json: bool) -> None:
    """Print what waits, was refused and was dropped."""
    _, artifacts, spool = _opened(directory)
    found, reason = spool_status(spool), why_off(artifacts)
    if as_json:
        respond({"directory": str(spool), "enabled": not reason, **asdict(found)})
        return
    if reason:
        click.echo(f"off       {reason}")
    age = f", the oldest for {_span(found.oldest)}" if found.oldest is not None else ""
    click.echo(f"spool     {spool}")
    click.echo(f"waiting   {found.waiting} events, {found.waiting_bytes:,} bytes{age}")
    click.echo(f"held      {found.held} of them by processes that run now")
    click.echo(f"refused   {found.refused} events, in dead_letters.jsonl")
    click.echo(f"dropped   {found.dropped} events")


def send(directory: Path, seconds: float, *, as_json: bool) -> bool:
    """Send what waits, and print what became of it; False if something still waits.

    Raises:
        LineageError: the product has no backend, or it cannot be used.
    """
    name, artifacts, spool = _opened(directory)
    # floe-core's registry prints its steps on stdout, which is the document's.
    with redirect_stdout(io.StringIO()):
        destination = lineage_destination(artifacts)
    if destination is None:
        reason = why_off(artifacts) or "its lineage backend has no transport."
        raise LineageError(f"Cannot replay lineage of product '{name}': {reason}")
    report = replay(destination.transport, spool, seconds)
    if as_json:
        respond(asdict(report))
    else:
        click.echo(_sentence(report, seconds))
    return not report.waiting


def _opened(directory: Path) -> tuple[str, dict[str, Any], Path]:
    path = find_artifacts(directory)
    artifacts = read_artifacts(path)
    compiled = compiled_product(artifacts)
    project = find_project(compiled, path.parent)
    target = target_directory(project, compiled.config.vars) if project else None
    return compiled.name, artifacts, spool_directory(target, compiled.name)


def _sentence(report: DeliveryReport, seconds: float) -> str:
    if not report.made:
        return "Nothing waits."
    line = f"Delivered {report.delivered} of {report.made} events, {report.refused} refused"
    if report.dropped:
        line += f", {report.dropped} dropped"
    if report.waiting:
        why = report.problem or f"{seconds:g} s were not enough"
        line += f"; {report.waiting} still wait: {why}"
    return f"{line}."


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
