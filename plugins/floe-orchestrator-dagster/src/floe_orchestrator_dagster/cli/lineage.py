"""`floe-dagster lineage`: what waits in a product's spool, and sending it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.backend import lineage_destination, why_off
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, replay
from floe_orchestrator_dagster.lineage.spool import spool_status
from floe_orchestrator_dagster.product.finding import find_product
from floe_orchestrator_dagster.product.layout import layout_of, spool_directory

if TYPE_CHECKING:
    from pathlib import Path

    from floe_orchestrator_dagster.plan import CompiledProduct


def status(directory: Path, *, as_json: bool) -> None:
    """Print what waits, was refused and was dropped."""
    compiled, spool = _opened(directory)
    found, reason = spool_status(spool), why_off(compiled.artifacts)
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
    compiled, spool = _opened(directory)
    # floe-core's registry prints its steps on stdout, which is the document's.
    with redirect_stdout(io.StringIO()):
        destination = lineage_destination(compiled.artifacts)
    if destination is None:
        reason = why_off(compiled.artifacts) or "its lineage backend has no transport."
        raise LineageError(f"Cannot replay lineage of product '{compiled.name}': {reason}")
    report = replay(destination.transport, spool, seconds)
    if as_json:
        respond(asdict(report))
    else:
        click.echo(_sentence(report, seconds))
    return not report.waiting


def _opened(directory: Path) -> tuple[CompiledProduct, Path]:
    """Return a product as it was compiled, and the directory of its spool."""
    found = find_product(directory)
    compiled, project = found.compiled, found.project
    if project is None:
        return compiled, spool_directory(None, compiled.name)
    layout = layout_of(read_project(project.directory, compiled.config.vars))
    return compiled, spool_directory(layout, compiled.name)


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
