"""The SQL shapes of `column_shapes.yaml`, each with the lineage worked out for it by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from floe_orchestrator_dagster.lineage.columns import ColumnLineage, Source, column_lineage

_SUITE = yaml.safe_load((Path(__file__).parent / "column_shapes.yaml").read_text())
_QUOTED = {
    "duckdb": '"shop"."main"."{}"',
    "postgres": '"shop"."main"."{}"',
    "spark": "main.{}",
    "snowflake": "SHOP.MAIN.{}",
}
TABLES: dict[str, list[str]] = _SUITE["tables"]


@dataclass(frozen=True)
class Shape:
    """A query, the schemas it reads, and what must be said of its columns and of its rows."""

    name: str
    dialect: str
    sql: str
    schemas: dict[str, dict[str, str]]
    fields: dict[str, set[Source]]
    dataset: set[Source]


def relation(dialect: str, table: str) -> str:
    """Return a table's name as dbt writes it for that dialect."""
    return _QUOTED[dialect].format(table.upper() if dialect == "snowflake" else table)


def schemas(dialect: str) -> dict[str, dict[str, str]]:
    """Return all tables' columns, in the case that database keeps them."""
    upper = dialect == "snowflake"
    return {
        relation(dialect, table): {(name.upper() if upper else name): "text" for name in columns}
        for table, columns in TABLES.items()
    }


def _source(dialect: str, text: str) -> Source:
    column, subtype, *masked = text.split()
    table, name = column.split(".")
    direct = subtype in {"IDENTITY", "TRANSFORMATION", "AGGREGATION"}
    return Source(
        relation(dialect, table), name, "DIRECT" if direct else "INDIRECT", subtype, bool(masked)
    )


def _shape(said: dict[str, Any]) -> Shape:
    dialect = said["dialect"]
    return Shape(
        name=said["name"],
        dialect=dialect,
        sql=re.sub(r"@(\w+)", lambda match: relation(dialect, match[1]), said["sql"]),
        schemas=schemas(dialect),
        fields={
            name: {_source(dialect, text) for text in texts}
            for name, texts in said["fields"].items()
        },
        dataset={_source(dialect, text) for text in said.get("dataset", ())},
    )


def read_lineage(
    sql: str, dialect: str, relation_columns: Mapping[str, Mapping[str, str]]
) -> ColumnLineage | None:
    """Return the column lineage of a query; None where there is none, for whatever reason."""
    return column_lineage(sql, dialect, relation_columns)[0]


SHAPES = {shape.name: shape for shape in map(_shape, _SUITE["shapes"])}
