"""The chart's README lists the values of the chart."""

from __future__ import annotations

from chart_readme import README, with_table


def test_the_table_of_values_is_up_to_date() -> None:
    readme = README.read_text()
    assert readme == with_table(readme), "run `make chart-docs`"
    assert readme.count("\n| `") > 150
