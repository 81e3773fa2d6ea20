"""Names tables that DuckDB reaches: in its file, in memory, or in what is attached to it.

A table of an attached server or catalog is named as that store names it, so that two computes agree
on it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.addresses import (
    UNKNOWN,
    as_mapping,
    bracketed,
    file_path,
    first_text,
    host_and_port,
    read_connection,
)
from floe_orchestrator_dagster.lineage.datasets import Catalog, DatasetName, Table, dotted
from floe_orchestrator_dagster.lineage.stores import in_iceberg, mysql, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def duckdb(table: Table) -> DatasetName:
    """Name a table by the file, or the database of another kind, it really is in."""
    main = table.get("path") or ":memory:"
    for entry in _attached(table.output):
        path = first_text(entry.get("path"))
        alias = first_text(entry.get("alias")) or _stem(path)
        if table.database and alias.lower() == table.database.lower() != _stem(main).lower():
            return _attachment(entry, path, table)
    return _duckdb_file(main, table)


def _attachment(entry: Mapping[str, Any], path: str, table: Table) -> DatasetName:
    kind = first_text(entry.get("type")).lower()
    scheme = re.match(r"(postgresql|postgres|mysql|sqlite|ducklake|iceberg):", path, re.IGNORECASE)
    if scheme and not kind:
        kind = scheme[1].lower()
    if kind in {"postgres", "postgresql"}:
        return postgres(replace(table, output=_connection(entry, path, table), database=""))
    if kind == "mysql":
        found = _connection(entry, path, table)
        schema = (
            table.schema if table.schema not in {"", "main"} else first_text(found.get("database"))
        )
        return mysql(replace(table, output=found, schema=schema))
    if kind == "iceberg":
        options = {
            str(key).lower(): value for key, value in as_mapping(entry.get("options")).items()
        }
        said = {**_secret(entry, kind, table), **options}
        glue = first_text(said.get("endpoint_type")).lower() == "glue"
        catalog = {
            "type": "glue" if glue else "rest",
            "uri": said.get("endpoint"),
            "warehouse": path,
            "region": said.get("region"),
            "account_id": path if glue else "",
        }
        return in_iceberg(catalog, table)
    if kind == "ducklake":
        return _ducklake(path, table)
    if kind == "sqlite":
        file = file_path(path.partition(":")[2] if scheme else path, table.root)
        return DatasetName(f"sqlite://{file}", table.identifier)
    return _duckdb_file(path, table)


def _ducklake(path: str, table: Table) -> DatasetName:
    """Name a lake by the database that holds its catalog, without what opens it."""
    store = path.partition(":")[2] if path.lower().startswith("ducklake:") else path
    name = dotted(table.schema or "main", table.identifier)
    scheme = re.match(r"(postgresql|postgres|mysql):", store, re.IGNORECASE)
    catalog = Catalog("ducklake", scheme[1].lower() if scheme else "duckdb", table.database)
    if not scheme:
        return DatasetName(f"ducklake://{file_path(store, table.root)}", name, catalog=catalog)
    found = _connection({}, store, table)
    host, beside = host_and_port(first_text(found.get("host")))
    port = first_text(found.get("port")) or beside or "5432"
    database = first_text(found.get("database")) or UNKNOWN
    return DatasetName(
        f"ducklake://{bracketed(host)}:{port}/{database}",
        name,
        catalog=catalog,
    )


def _duckdb_file(path: str, table: Table) -> DatasetName:
    """Name by the file and DuckDB's own name for it, whatever it is attached as.

    MotherDuck is one place for all of an account's databases, which no profile names.
    """
    schema = table.schema or "main"
    if _is_motherduck(path):
        return DatasetName(
            "duckdb://md:", dotted(_stem(path) or table.database, schema, table.identifier)
        )
    name = dotted(_stem(path), schema, table.identifier)
    if path == ":memory:" or path.startswith(":memory:"):
        return DatasetName("inmemory://", dotted(table.scope, name))
    return DatasetName(f"duckdb://{file_path(path, table.root)}", name)


def _attached(output: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    entries = output.get("attach")
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        yield {"path": entry} if isinstance(entry, str) else as_mapping(entry)


def _connection(entry: Mapping[str, Any], path: str, table: Table) -> dict[str, Any]:
    """Return host, port and database of an attached server; the string wins over the secret."""
    secret = _secret(entry, first_text(entry.get("type")).lower(), table)
    found = read_connection(path)
    database = found.get("dbname") or found.get("database") or found.get("db")
    database = database or first_text(secret.get("database"), secret.get("dbname"))
    host = found.get("host") or found.get("hostaddr") or first_text(secret.get("host"))
    if not host and found.get("") != UNKNOWN:
        host = "localhost"
    return {
        "host": host or UNKNOWN,
        "port": found.get("port") or first_text(secret.get("port")),
        "database": database or UNKNOWN,
    }


def _secret(entry: Mapping[str, Any], kind: str, table: Table) -> Mapping[str, Any]:
    """Return the profile's secret that an attachment names, or the unnamed one of its kind."""
    secrets = table.output.get("secrets")
    wanted = first_text(entry.get("secret")).lower()
    for item in secrets if isinstance(secrets, (list, tuple)) else ():
        secret = as_mapping(item)
        name = first_text(secret.get("name")).lower()
        if wanted and name == wanted:
            return secret
        if not wanted and not name and kind and first_text(secret.get("type")).lower() == kind:
            return secret
    return {}


def _is_motherduck(path: str) -> bool:
    return path.lower().startswith(("md:", "motherduck:"))


def _stem(path: str) -> str:
    """Return the name DuckDB gives a database by its path."""
    if _is_motherduck(path):
        return path.partition(":")[2].partition("?")[0]
    if path.startswith(":memory:"):
        return path.removeprefix(":memory:") or "memory"
    return posixpath.basename(file_path(path, "")).split(".")[0]
