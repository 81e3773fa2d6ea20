"""Measures discovery and creation of the plugin against the release and floe-core's interface."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT, Row, Sample, busy, in_pairs, measured, row

if TYPE_CHECKING:
    from pathlib import Path

# The release imports dbt, so install it too, in our versions.
RELEASED = ("floe-orchestrator-dagster==0.1.0a1", "dbt-core", "dbt-duckdb")
HOME = ROOT / ".venvs" / "released"
PINS = ("-c", str(ROOT / "constraints.txt"))
MILLISECONDS = 1000.0


def discover(work: Path, rounds: int) -> list[Row]:
    """Measure discovery and instantiation."""
    released = _released(work)
    more = 2 * rounds + 1
    pairs = in_pairs(
        lambda: _subject(sys.executable, "discovery"),
        lambda: _subject(released, "discovery"),
        more,
    )
    name = "discovery and instantiation"
    over = in_pairs(
        lambda: _subject(sys.executable, "discovery"), lambda: _subject(sys.executable, "abc"), more
    )
    return [
        row(pairs, name, "released 0.1.0a1", "cpu", 0.20),
        row(pairs, name, "released 0.1.0a1", "memory"),
        Row(
            work=name,
            anchor="over floe-core's ABC",
            unit="ms",
            target=50.0,
            values=[MILLISECONDS * value for value in over.differences("cpu")],
            ours=[MILLISECONDS * sample.cpu for sample in over.ours],
            theirs=[MILLISECONDS * sample.cpu for sample in over.anchor],
            measure="ms CPU",
            busy=busy(over),
        ),
    ]


def _subject(python: str | Path, name: str) -> Sample:
    return measured([python, "-m", "benchmarks.subjects", name])


def _released(work: Path) -> Path:
    """Return the interpreter of a separate environment for the released plugin."""
    python = HOME / "bin" / "python"
    stamp = HOME / "installed"
    if not stamp.is_file():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        with (work / "released.log").open("w") as log:
            subprocess.run([*install, *RELEASED, *PINS], check=True, stdout=log, stderr=log)
        stamp.touch()
    return python
