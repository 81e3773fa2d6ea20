"""The chart's README tells the values that the chart has."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "chart_readme.py"


def test_the_table_of_values_is_up_to_date() -> None:
    written = runpy.run_path(str(SCRIPT))
    readme = written["README"].read_text()
    assert readme == written["with_table"](readme), "run `make chart-docs`"
    assert readme.count("\n| `") > 150
