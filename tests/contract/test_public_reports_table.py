"""The table of public reports names exactly the products that are built for them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "public-reports.md"
CASES = ROOT / "plugins/floe-orchestrator-dagster/tests/cases"
ROW = re.compile(r"^\| ([\w.-]+ \d+) \| .+ \| .+ \| .+ \| `([^`]+)` \|$", re.MULTILINE)


def test_each_product_has_its_reports_and_each_report_its_product() -> None:
    text = TABLE.read_text(encoding="utf-8")
    rows = ROW.findall(text)
    # The table has only two other lines: its heading and its rule.
    assert len(rows) == text.count("\n| ") - 1
    assert {
        report for report, times in Counter(report for report, _ in rows).items() if times > 1
    } == set()
    assert {product for _, product in rows} == {path.name for path in CASES.iterdir()}
    assert len(rows) >= 30
