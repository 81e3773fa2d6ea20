"""Writes the table of values in the chart's README from values.yaml and values.schema.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "floe-dagster"
README = CHART / "README.md"
START, END = "<!-- values: make chart-docs -->\n", "<!-- end of values -->\n"


def rows(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield a row for each value, and a row without a default for each section."""
    for key, default in values.items():
        known = schema["properties"][key]
        here = f"{path}.{key}".lstrip(".")
        if isinstance(default, dict) and "properties" in known:
            yield f"| **`{here}`** | | {known['description']} |"
            yield from rows(default, known, here)
        else:
            yield f"| `{here}` | `{json.dumps(default)}` | {known['description']} |"


def product_rows(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each key of a product in `deployments`."""
    product = schema["definitions"]["deployment"]
    for key, known in product["properties"].items():
        needed = "needed" if key in product["required"] else ""
        yield f"| `dagster-user-code.deployments[].{key}` | {needed} | {known['description']} |"


def table() -> str:
    """Return the expected table."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines = [
        "| value | default | what it is |",
        "|---|---|---|",
        *rows(values, schema),
        *product_rows(schema),
    ]
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """Return the README with the expected table."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
