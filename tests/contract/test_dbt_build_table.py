"""Each row of docs/dbt-build.md is a test, and each test is a row."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from kit.dbt_build_cases import CASES

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "dbt-build.md"
TESTS = ROOT / "plugins/floe-orchestrator-dagster/tests/integration/test_dbt_build.py"


def test_each_row_of_the_table_is_a_test_and_each_test_has_a_row() -> None:
    named = re.findall(r"\| `([^`]+)` \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [row.name for case in CASES for row in case.rows]
    functions = re.findall(r"^def (test_\w+)\(", TESTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, times in Counter(rows).items() if times > 1} == set()
    assert set(named) == {*rows, *functions} - {"test_row"}
