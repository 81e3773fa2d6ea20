"""Measures the handling of dbt's events, without dbt, against raw dagster-dbt."""

from __future__ import annotations

import math
import sys
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.events import write_events
from benchmarks.measure import MeasureError, Pairs, Row, Sample, in_pairs, measured, row
from benchmarks.projects import project

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.projects import Project

SUBJECT = (sys.executable, "-m", "benchmarks.subjects")
SMALL = 10
TARGETS = {500: 0.30, 1000: 0.15}
GROWTH = 2.2
RAW_TIMEOUT_SECONDS = 900.0
ANCHOR = "raw dagster-dbt"
# The time of Dagster alone, for events that cost us nothing.
FLOORS = {
    "events_same": "our events, built beforehand: the floor with content",
    "events_floor": "empty events: the floor",
}


def handle(work: Path, rounds: int, *, quick: bool) -> list[Row]:
    """Measure both up to 1,000 models, ours up to 10,000, minus ten models; quick: only 500."""
    small = project(work, SMALL)
    fixed_ours, fixed_raw = _ours(small), _raw(small)
    rows: list[Row] = []
    taken: dict[int, Sample] = {}
    for size in (500,) if quick else (500, 1000):
        made = project(work, size)
        name = f"event handling, {size:,} models + {made.tests:,} tests"
        try:
            measured_pairs = in_pairs(partial(_ours, made), partial(_raw, made), rounds)
        except MeasureError as error:
            rows.append(Row(name, ANCHOR, "x", TARGETS[size], problem=str(error)))
            taken[size] = _less(_ours(made), fixed_ours)
            continue
        pairs = Pairs(
            [_less(sample, fixed_ours) for sample in measured_pairs.ours],
            [_less(sample, fixed_raw) for sample in measured_pairs.anchor],
        )
        taken[size] = pairs.ours[0]
        rows.append(row(pairs, name, ANCHOR, "cpu", TARGETS[size]))
        for subject, what in FLOORS.items():
            least = [_less(_floor(subject, made), fixed_ours) for _ in measured_pairs.anchor]
            rows.append(row(Pairs(least, pairs.anchor), f"{name}, {what}", ANCHOR, "cpu"))
    for size in () if quick else (2000, 10_000):
        taken[size] = _less(_ours(project(work, size)), fixed_ours)
    return rows + [_growth(less, more, taken) for less, more in pairwise(taken)]


def _growth(less: int, more: int, taken: dict[int, Sample]) -> Row:
    doublings = math.log2(more / less)
    return Row(
        work=f"event handling, {less:,} to {more:,} models, growth per doubling",
        anchor=f"ours at {less:,}",
        unit="x",
        target=GROWTH,
        values=[(taken[more].cpu / taken[less].cpu) ** (1 / doublings)],
        ours=[taken[more].cpu],
        theirs=[taken[less].cpu],
        measure="s CPU",
        busy=taken[more].busy,
    )


def _less(sample: Sample, fixed: Sample) -> Sample:
    return Sample(sample.cpu - fixed.cpu, sample.wall - fixed.wall, sample.memory, sample.busy)


def _ours(made: Project) -> Sample:
    return measured([*SUBJECT, "events_ours", made.ours, write_events(made)])


def _floor(subject: str, made: Project) -> Sample:
    recorded = [write_events(made)] if subject == "events_same" else []
    return measured([*SUBJECT, subject, made.ours, *recorded])


def _raw(made: Project) -> Sample:
    return measured(
        [*SUBJECT, "events_raw", made.bare, made.manifest, write_events(made)],
        timeout=RAW_TIMEOUT_SECONDS,
    )
