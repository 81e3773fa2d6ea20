"""Names the tables that DuckDB reaches: in its file, in memory, or in an attached database.

A table of an attached server or catalog is named by the rules of that store, so that two computes
agree on the name.
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
    """Name a table by the file, or the foreign database, that it is really in."""
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
        server = _connection(entry, path, table)
        schema = (
            table.schema if table.schema not in {"", "main"} else first_text(server.get("database"))
        )
        return mysql(replace(table, output=server, schema=schema))
    if kind == "iceberg":
        options = {
            str(key).lower(): value for key, value in as_mapping(entry.get("options")).items()
        }
        settings = {**_secret(entry, kind, table), **options}
        glue = first_text(settings.get("endpoint_type")).lower() == "glue"
        catalog = {
            "type": "glue" if glue else "rest",
            "uri": settings.get("endpoint"),
            "warehouse": path,
            "region": settings.get("region"),
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
    """Name a lake by the database that holds its catalog, without credentials."""
    store = path.partition(":")[2] if path.lower().startswith("ducklake:") else path
    name = dotted(table.schema or "main", table.identifier)
    scheme = re.match(r"(postgresql|postgres|mysql):", store, re.IGNORECASE)
    catalog = Catalog("ducklake", scheme[1].lower() if scheme else "duckdb", table.database)
    if not scheme:
        return DatasetName(f"ducklake://{file_path(store, table.root)}", name, catalog=catalog)
    server = _connection({}, store, table)
    host, own_port = host_and_port(first_text(server.get("host")))
    port = first_text(server.get("port")) or own_port or "5432"
    database = first_text(server.get("database")) or UNKNOWN
    return DatasetName(
        f"ducklake://{bracketed(host)}:{port}/{database}",
        name,
        catalog=catalog,
    )


def _duckdb_file(path: str, table: Table) -> DatasetName:
    """Name a table by its file and DuckDB's own name of it, independent of the alias.

    MotherDuck is one namespace for all databases of an account, because no profile names the
    account.
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
    """Return host, port and database of an attached server; the path wins over the secret."""
    secret = _secret(entry, first_text(entry.get("type")).lower(), table)
    parts = read_connection(path)
    database = parts.get("dbname") or parts.get("database") or parts.get("db")
    database = database or first_text(secret.get("database"), secret.get("dbname"))
    host = parts.get("host") or parts.get("hostaddr") or first_text(secret.get("host"))
    if not host and parts.get("") != UNKNOWN:
        host = "localhost"
    return {
        "host": host or UNKNOWN,
        "port": parts.get("port") or first_text(secret.get("port")),
        "database": database or UNKNOWN,
    }


def _secret(entry: Mapping[str, Any], kind: str, table: Table) -> Mapping[str, Any]:
    """Return the secret of the profile that an attachment names, else the unnamed one by type."""
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
    """Return the name that DuckDB derives from a path."""
    if _is_motherduck(path):
        return path.partition(":")[2].partition("?")[0]
    if path.startswith(":memory:"):
        return path.removeprefix(":memory:") or "memory"
    return posixpath.basename(file_path(path, "")).split(".")[0]
