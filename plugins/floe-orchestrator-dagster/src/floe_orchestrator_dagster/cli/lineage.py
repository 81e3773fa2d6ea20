"""`floe-dagster lineage`: shows and sends the events in a product's spool."""

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
    """Print how many events wait, were refused and were dropped."""
    compiled, spool = _opened(directory)
    counts, reason = spool_status(spool), why_off(compiled.artifacts)
    if as_json:
        respond({"directory": str(spool), "enabled": not reason, **asdict(counts)})
        return
    if reason:
        click.echo(f"off       {reason}")
    age = f", the oldest for {_span(counts.oldest)}" if counts.oldest is not None else ""
    click.echo(f"spool     {spool}")
    click.echo(f"waiting   {counts.waiting} events, {counts.waiting_bytes:,} bytes{age}")
    click.echo(f"held      {counts.held} of these, by running processes")
    click.echo(f"refused   {counts.refused} events, in dead_letters.jsonl")
    click.echo(f"dropped   {counts.dropped} events")


def send(directory: Path, seconds: float, *, as_json: bool) -> bool:
    """Send waiting events and print the result; return whether none wait now.

    Raises:
        LineageError: the product has no usable backend.
    """
    compiled, spool = _opened(directory)
    # floe-core's registry prints its steps on stdout, where only the JSON document belongs.
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
    """Return a compiled product and the directory of its spool."""
    product = find_product(directory)
    compiled, project = product.compiled, product.project
    if project is None:
        return compiled, spool_directory(None, compiled.name)
    layout = layout_of(read_project(project.directory, compiled.config.vars))
    return compiled, spool_directory(layout, compiled.name)


def _sentence(report: DeliveryReport, seconds: float) -> str:
    if not report.made:
        return "No events wait."
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
