"""The SQL shapes of `column_shapes.yaml`, each with its lineage as a person worked it out."""

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
    """A query, the schemas that it reads, and the expected lineage of its columns and rows."""

    name: str
    dialect: str
    sql: str
    schemas: dict[str, dict[str, str]]
    fields: dict[str, set[Source]]
    dataset: set[Source]


def relation(dialect: str, table: str) -> str:
    """Return a table's name as dbt writes it for a dialect."""
    return _QUOTED[dialect].format(table.upper() if dialect == "snowflake" else table)


def schemas(dialect: str) -> dict[str, dict[str, str]]:
    """Return the columns of all tables, in the case that the database stores."""
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


def _shape(entry: dict[str, Any]) -> Shape:
    dialect = entry["dialect"]
    return Shape(
        name=entry["name"],
        dialect=dialect,
        sql=re.sub(r"@(\w+)", lambda match: relation(dialect, match[1]), entry["sql"]),
        schemas=schemas(dialect),
        fields={
            name: {_source(dialect, text) for text in texts}
            for name, texts in entry["fields"].items()
        },
        dataset={_source(dialect, text) for text in entry.get("dataset", ())},
    )


def read_lineage(
    sql: str, dialect: str, relation_columns: Mapping[str, Mapping[str, str]]
) -> ColumnLineage | None:
    """Return the column lineage of a query, or None if there is none for any reason."""
    return column_lineage(sql, dialect, relation_columns)[0]


SHAPES = {shape.name: shape for shape in map(_shape, _SUITE["shapes"])}
