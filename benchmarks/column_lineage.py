"""Prints how many SQL shapes we and openlineage_sql read correctly, and the time per model.

Run it with the project's Python: `.venv/bin/python benchmarks/column_lineage.py`. The shapes are
those of the tests. `direct` compares only the source columns of each output column, because
openlineage_sql knows no kinds, no schemas and no influences on the dataset.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import openlineage_sql

sys.path.insert(
    0, str(Path(__file__).parents[1] / "plugins" / "floe-orchestrator-dagster" / "tests")
)

from kit.column_shapes import SHAPES, Shape, read_lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from floe_orchestrator_dagster.lineage.columns import Source

Pairs = dict[str, set[tuple[str, str]]]
MODEL = "a dbt model of two imports, an aggregate and a join"
MODELS_IN_A_RUN = 500


def _plain(relation: str) -> str:
    return relation.replace('"', "").replace("`", "").lower()


def _pairs(fields: dict[str, Iterable[Source]], *, indirect: bool) -> Pairs:
    pairs = {
        name.lower(): {
            (_plain(source.relation), source.column.lower())
            for source in sources
            if indirect or source.type == "DIRECT"
        }
        for name, sources in fields.items()
    }
    return {name: sources for name, sources in pairs.items() if sources}


def _theirs(shape: Shape) -> Pairs:
    parsed = openlineage_sql.parse([shape.sql], shape.dialect)
    pairs: Pairs = {}
    for column in parsed.column_lineage if parsed else ():
        sources = {
            (_plain(source.origin.qualified_name), source.name.lower())
            for source in column.lineage
            if source.origin is not None
        }
        if sources:
            pairs.setdefault(column.descendant.name.lower(), set()).update(sources)
    return pairs


def _right(shape: Shape) -> tuple[bool, bool, bool]:
    """Return whether our lineage, our direct sources, and their direct sources are correct."""
    ours = read_lineage(shape.sql, shape.dialect, shape.schemas)
    if ours is None:
        return False, False, False
    full = {name: set(sources) for name, sources in ours.fields.items()} == shape.fields
    full = full and set(ours.dataset) == shape.dataset
    expected = _pairs(shape.fields, indirect=False)
    # The columns that a CASE tests may count as sources or not: both are correct.
    theirs = _theirs(shape) in (expected, _pairs(shape.fields, indirect=True))
    return full, _pairs(ours.fields, indirect=False) == expected, theirs


def _milliseconds(call: Callable[[], object], rounds: int = 7, calls: int = 50) -> float:
    """Return the median CPU time of one call."""
    call()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            call()
        taken.append((time.process_time() - start) / calls * 1000)
    return median(taken)


def main() -> None:
    """Print the table, the shapes that we read wrongly, and the times."""
    results = {name: _right(shape) for name, shape in SHAPES.items()}
    print(
        f"{'dialect':<10} {'shapes':>6} {'ours':>6} {'ours, direct':>13}"
        f" {'openlineage_sql, direct':>24}"
    )
    for dialect in (*sorted({shape.dialect for shape in SHAPES.values()}), "all"):
        of = [
            result for name, result in results.items() if dialect in {"all", SHAPES[name].dialect}
        ]
        full, direct, theirs = (sum(result[at] for result in of) for at in range(3))
        print(f"{dialect:<10} {len(of):>6} {full:>6} {direct:>13} {theirs:>24}")
    for name, (full, *_) in results.items():
        if not full:
            print(f"wrong: {name}")

    shape = SHAPES[MODEL]
    ours = _milliseconds(lambda: read_lineage(shape.sql, shape.dialect, shape.schemas))
    theirs_ms = _milliseconds(lambda: openlineage_sql.parse([shape.sql], shape.dialect))
    every = list(SHAPES.values())
    mean = _milliseconds(
        lambda: [read_lineage(one.sql, one.dialect, one.schemas) for one in every], calls=1
    ) / len(every)
    print(f"\nCPU ms of '{MODEL}' ({len(shape.sql)} characters):")
    print(f"  ours {ours:.2f}")
    print(f"  openlineage_sql {theirs_ms:.2f}")
    print(f"CPU ms of a shape, mean: {mean:.2f}")
    print(f"{MODELS_IN_A_RUN} models: {ours * MODELS_IN_A_RUN / 1000:.2f} s")


if __name__ == "__main__":
    main()
