"""Column lineage says what the SQL says, for shapes worked out by hand, and never harms the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_orchestrator_dagster.lineage.columns import Source, column_lineage

SUITE = yaml.safe_load((Path(__file__).parent / "column_shapes.yaml").read_text())
SHAPES = {shape["name"]: shape for shape in SUITE["shapes"]}
QUOTED = {
    "duckdb": '"shop"."main"."{}"',
    "postgres": '"shop"."main"."{}"',
    "spark": "main.{}",
    "snowflake": "SHOP.MAIN.{}",
}


def relation(dialect: str, table: str) -> str:
    return QUOTED[dialect].format(table.upper() if dialect == "snowflake" else table)


def schemas(dialect: str) -> dict[str, dict[str, str]]:
    upper = dialect == "snowflake"
    return {
        relation(dialect, table): {(name.upper() if upper else name): "text" for name in columns}
        for table, columns in SUITE["tables"].items()
    }


def sql_of(shape: dict[str, Any]) -> str:
    return re.sub(r"@(\w+)", lambda match: relation(shape["dialect"], match[1]), shape["sql"])


def source(dialect: str, text: str) -> Source:
    column, subtype, *masked = text.split()
    table, name = column.split(".")
    direct = subtype in {"IDENTITY", "TRANSFORMATION", "AGGREGATION"}
    return Source(
        relation(dialect, table), name, "DIRECT" if direct else "INDIRECT", subtype, bool(masked)
    )


def expected(shape: dict[str, Any]) -> tuple[dict[str, set[Source]], set[Source]]:
    dialect = shape["dialect"]
    fields = {
        name: {source(dialect, text) for text in texts} for name, texts in shape["fields"].items()
    }
    return fields, {source(dialect, text) for text in shape.get("dataset", ())}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_gives_the_lineage_worked_out_by_hand(name: str) -> None:
    shape = SHAPES[name]
    lineage = column_lineage(sql_of(shape), shape["dialect"], schemas(shape["dialect"]))
    assert lineage is not None
    fields, dataset = expected(shape)
    assert {column: set(sources) for column, sources in lineage.fields.items()} == fields
    assert set(lineage.dataset) == dataset
