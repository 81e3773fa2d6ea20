"""Runs the measurements and prints one table: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks import discovery, handling, lineage, loading, runs
from benchmarks.measure import MeasureError, Row
from benchmarks.projects import project

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORK = Path(__file__).parent / "work"
PACKAGES = ("floe-orchestrator-dagster", "dagster", "dagster-dbt", "dbt-core", "dbt-duckdb")
FAMILIES = (
    *("discovery", "load", "events", "run", "lineage"),
    *("disk", "postgres", "big", "two", "one"),
)
# Fewer models, because dbt itself takes minutes.
QUICK_MODELS = 100
QUICK = ("discovery", "load", "events", "run", "one")
HEAD = ("work", "against", "figure", "ours", "theirs", "ratio", "spread", "target", "", "load")


def measurements(
    families: Sequence[str], rounds: int, *, quick: bool
) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Return the measurements in order, each with its title."""
    sizes = (500,) if quick else (500, 2000, 10_000)
    small = QUICK_MODELS if quick else 500
    few = 1 if quick else max(1, rounds // 2)

    def load(size: int) -> list[Row]:
        return loading.load(project(WORK, size), rounds)

    def run(size: int, count: int) -> list[Row]:
        made = project(WORK, size)
        runs.warm(made)
        return runs.whole(made, count)

    def with_lineage() -> list[Row]:
        made = project(WORK, small)
        runs.warm(made)
        return lineage.lineage(made, rounds)

    def two() -> list[Row]:
        made = project(WORK, 500, two_computes=True)
        runs.warm(made)
        return runs.two_computes(made, few)

    def disk() -> list[Row]:
        made = project(WORK, 500)
        runs.warm(made)
        return runs.on_disk(made, few)

    def postgres() -> list[Row]:
        made = project(WORK, 500)
        runs.warm(made)
        return runs.on_postgres(made, few)

    def one() -> list[Row]:
        made = project(WORK, small)
        runs.warm(made)
        return runs.one_model(made, rounds)

    every: dict[str, list[tuple[str, Callable[[], list[Row]]]]] = {
        "discovery": [("discovery", lambda: discovery.discover(WORK, rounds))],
        "load": [(f"load {size:,}", partial(load, size)) for size in sizes],
        "events": [("event handling", lambda: handling.handle(WORK, few, quick=quick))],
        "run": [(f"whole run {small}", lambda: run(small, few))],
        "one": [(f"one model of {small}", one)],
        "lineage": [(f"lineage of {small}", with_lineage)],
        "two": [("two computes", two)],
        "disk": [("SQLite on disk", disk)],
        "postgres": [("PostgreSQL", postgres)],
        "big": [("whole run 2,000", lambda: run(2000, 1))],
    }
    return [item for family in every if family in families for item in every[family]]


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table as text."""
    if not row.values:
        return (row.work, row.anchor, "", "", "", row.problem, "", "", row.verdict, "")
    digits = 0 if row.measure == "MiB" or row.unit == "ms" else 2
    return (
        row.work,
        row.anchor,
        row.measure,
        f"{statistics.median(row.ours):.{digits}f}" if row.ours else "",
        f"{statistics.median(row.theirs):.{digits}f}" if row.theirs else "",
        _value(row, row.value),
        f"{_value(row, min(row.values))} to {_value(row, max(row.values))} ({len(row.values)})",
        "" if row.target is None else f"<= {_value(row, row.target)}",
        row.verdict,
        f"{row.busy:.1f}",
    )


def _value(row: Row, value: float) -> str:
    return f"{value:.0f} ms" if row.unit == "ms" else f"{value:.2f}{row.unit}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(*HEAD, title="Ours against the anchors", show_lines=False)
    colours = {"MET": "green", "SHORT": "red", "NOT MEASURED": "yellow"}
    for row in rows:
        table.add_row(*cells(row), style=colours.get(row.verdict, "dim"))
    console.print(table)


def merged(file: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of an earlier results file, with these rows in place of older ones."""
    kept: dict[tuple[str, ...], Row] = {}
    if file.is_file():
        for item in json.loads(file.read_text())["rows"]:
            item.pop("verdict")
            old = Row(**item)
            if old.values:
                kept[old.work, old.anchor, old.measure] = old
    return [*(kept | {(row.work, row.anchor, row.measure): row for row in rows}).values()]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write the results file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = [asdict(row) | {"verdict": row.verdict} for row in rows]
    file.write_text(json.dumps(about() | {"rows": entries}, indent=2))


def about() -> dict[str, object]:
    """Return the versions and the machine that the figures depend on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as a page."""
    facts = about()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Results of the benchmarks",
        "",
        "This page is for developers and users who want figures: it compares the plugin with bare",
        "dbt, raw dagster-dbt and the last release.",
        "",
        f"{facts['date']}, Python {facts['python']}, {facts['cores']} cores, {packages}.",
        "",
        "`load` is the load average of the machine while a row was measured. If it is above the",
        "number of cores, trust the ratios of CPU time, not of wall time. Ratios are medians of",
        "pairs. The spread is their minimum and maximum, with the number of pairs. Rows may come",
        "from several runs of the benchmarks; `make bench` measures every row again.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write; exit 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the rows that take minutes")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="only these families of rows")
    parser.add_argument(
        "--rounds", type=int, default=0, help="pairs per row (default: 3; quick: 2)"
    )
    parser.add_argument("--show", action="store_true", help="show the results and measure nothing")
    parser.add_argument("--json", type=Path, default=WORK / "results.json", metavar="FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the table to FILE"
    )
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 3)
    families = options.only or (QUICK if options.quick else FAMILIES)
    console = Console(width=max(Console().width, 150))
    rows: list[Row] = []
    failed = False
    todo = [] if options.show else measurements(families, rounds, quick=options.quick)
    for title, measure in todo:
        began = time.monotonic()
        try:
            measured = measure()
        except MeasureError as error:
            failed = True
            measured = [Row(work=title, anchor="", unit="", problem=str(error).splitlines()[0])]
            console.print(str(error), style="red", markup=False)
        rows += measured
        console.print(f"{title}: measured in {time.monotonic() - began:.0f} s", style="dim")
        # Write after each measurement: a run takes hours, and no result must be lost.
        write(options.json, merged(options.json, rows))
    every = merged(options.json, rows)
    show(every if options.show else rows, console)
    console.print(f"All samples, including those of earlier runs: {options.json}", style="dim")
    if options.markdown is not None:
        options.markdown.write_text(markdown(every))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
