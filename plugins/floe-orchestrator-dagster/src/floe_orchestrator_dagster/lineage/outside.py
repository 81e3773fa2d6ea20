"""Names the files and servers that dbt-duckdb reads and writes outside its database.

A source with `external_location` is not a table: dbt renders an expression that DuckDB reads, such
as `'data/people.csv'` or `read_parquet('s3://lake/*.parquet')`. A source with a plugin is loaded
from its location. A model materialized as `external` is a file with a view over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.datasets import DatasetName, TableName
from floe_orchestrator_dagster.lineage.naming import dataset_name, file_name

if TYPE_CHECKING:
    from floe_orchestrator_dagster.plan import Node

# Functions of DuckDB and its extensions whose first argument is the location of files.
_READS_FILES = re.compile(
    r"read_\w+|parquet_scan|delta_scan|iceberg_scan|arrow_scan_ipc|st_read|st_readosm|csv_scan"
)
# The keys under which dbt-duckdb's plugins find the location of a source.
_PLUGIN_LOCATIONS = ("external_location", "delta_table_path")
_STORES_A_FILE = "external"


def reads_outside(node: Node, adapter: str) -> bool:
    """Return whether a source is not a table of the database that reads it."""
    return (
        node.kind == "source"
        and adapter == "duckdb"
        and (is_expression(node.relation or "") or _plugin_location(node) is not None)
    )


def source_name(node: Node, root: str) -> DatasetName | None:
    """Return the name of the file or table behind such a source; None if it is not known.

    Relative paths start at `root`.
    """
    location = _plugin_location(node)
    if location is not None:
        return file_name(location, root)
    return _read_by(node.relation or "", root)


def with_file(
    named: DatasetName, node: Node, adapter: str, output: Mapping[str, Any], root: str
) -> DatasetName:
    """Return the name of a relation; for an `external` model that of its file.

    As everywhere, the location of the data is the name, and the view over it is a symlink.
    """
    if adapter != "duckdb" or node.materialized != _STORES_A_FILE or node.dbt is None:
        return named
    config = node.dbt.config
    location = config.location
    if location is None:
        options = config.options if isinstance(config.options, Mapping) else {}
        ending = "" if options.get("partition_by") else f".{config.format or 'parquet'}"
        location = f"{output.get('external_root', '.')}/{node.identifier}{ending}"
    if not isinstance(location, str) or "{{" in location:
        return named  # dbt renders it only during the run
    file = file_name(location, root)
    return replace(file, symlinks=(named.as_symlink(), *named.symlinks))


def is_expression(relation: str) -> bool:
    """Return whether a relation in dbt is a quoted file or an expression, not a name."""
    return relation.startswith("'") or re.match(r"\w*\s*\(", relation) is not None


def _plugin_location(node: Node) -> str | None:
    dbt = node.dbt
    if dbt is None:
        return None
    config = dbt.config
    settings = {**dbt.meta, **config.meta, **_without_none(config)}
    if not settings.get("plugin"):
        return None
    known = {
        "name": dbt.name,
        "identifier": node.identifier,
        "schema": dbt.schema,
        "database": dbt.database,
        **settings,
    }
    for key in _PLUGIN_LOCATIONS:
        template = settings.get(key)
        if isinstance(template, str):
            try:
                return template.format_map(known).strip("'")
            except (KeyError, ValueError, IndexError, AttributeError):
                return None
    return None


def _without_none(config: Any) -> dict[str, Any]:
    names = ("plugin", *_PLUGIN_LOCATIONS)
    return {name: value for name in names if (value := getattr(config, name)) is not None}


@lru_cache(maxsize=1024)
def _read_by(relation: str, root: str) -> DatasetName | None:
    """Return the name of the first file or table that an expression of DuckDB reads."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        query = parse_one(f"select * from {relation}", dialect="duckdb")  # noqa: S608  only parsed
    except SqlglotError:
        return None
    table = query.find(exp.Table)
    if table is not None and isinstance(table.this, exp.Identifier):
        # The table behind a subquery is not known.
        return file_name(table.name, root) if relation.startswith("'") else None
    for call in query.find_all(exp.Func):
        anonymous = isinstance(call, exp.Anonymous)
        name = str(call.name if anonymous else call.sql_name()).lower()
        words = [str(item.this) for item in call.find_all(exp.Literal) if item.is_string]
        if words and _READS_FILES.fullmatch(name):
            return file_name(words[0], root)
        if name.startswith(("postgres_scan", "sqlite_scan")):
            return _scanned(name, words, root)
    return None


def _scanned(name: str, words: list[str], root: str) -> DatasetName | None:
    """Return the table that a scan function names: `postgres_scan(connection, schema, table)`."""
    kind = name.partition("_")[0]
    parts = {"postgres": 3, "sqlite": 2}[kind]
    if len(words) < parts:
        return None
    schema, table = (words[1], words[2]) if kind == "postgres" else ("", words[1])
    attached = {"attach": [{"path": words[0], "alias": "scanned", "type": kind}]}
    return dataset_name("duckdb", attached, TableName("scanned", schema, table), root=root)
