"""Names datasets by the rules of OpenLineage's Naming page, the same from every compute.

Names contain hosts, ports, paths and identifiers, never a user or a password. If a connection
string cannot be read, or a profile names no host, the host is `unknown`; nothing is raised. Dots
inside identifiers are not escaped, which is the default of OpenLineage's clients.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage import attached, stores
from floe_orchestrator_dagster.lineage.addresses import first_text, place_of_files
from floe_orchestrator_dagster.lineage.datasets import DatasetName, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from floe_orchestrator_dagster.lineage.datasets import TableName

_STORES: dict[str, Callable[[Table], DatasetName]] = {
    "athena": stores.athena,
    "bigquery": stores.bigquery,
    "clickhouse": stores.clickhouse,
    "databricks": stores.databricks,
    "duckdb": attached.duckdb,
    "fabric": stores.fabric,
    "glue": stores.glue,
    "mysql": stores.mysql,
    "postgres": stores.postgres,
    "redshift": stores.redshift,
    "snowflake": stores.snowflake,
    "spark": stores.spark,
    "sqlserver": stores.sqlserver,
    "synapse": stores.synapse,
    "trino": stores.trino,
}


def dataset_name(
    adapter_type: str,
    output: Mapping[str, Any],
    table: TableName,
    *,
    root: str = "",
    scope: str = "",
) -> DatasetName:
    """Return the name of the table or view that a dbt relation stands for.

    Args:
        adapter_type: dbt's adapter, such as `duckdb`; for an adapter without a rule the namespace
            is `{adapter}://{host}:{port}`.
        output: the resolved profile output through which the table is read or written.
        table: its name in dbt.
        root: the directory from which relative paths of database files start.
        scope: a name that distinguishes databases in memory, such as that of the product.

    A table of an Iceberg catalog that the output configures is named by that catalog, so that two
    computes on one catalog agree.
    """
    kind = str(adapter_type).lower()
    named = Table(
        output=output,
        database=first_text(table.database),
        schema=first_text(table.schema, output.get("schema")),
        identifier=first_text(table.identifier),
        root=root,
        scope=scope,
    )
    store = _STORES.get(kind)
    return store(named) if store is not None else stores.generic(kind, named)


def file_name(path: str, root: str) -> DatasetName:
    """Return the name of a file, a folder or a glob pattern; a relative path starts at `root`."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        local = path[5:] if path.lower().startswith("file:") else path
        return DatasetName("file", posixpath.normpath(posixpath.join(root, local)))
    authority, slash, key = rest.partition("?")[0].partition("/")
    # Keep only the host of `user:password@host`; `container@account` has no password.
    if ":" in authority.rpartition("@")[0]:
        authority = authority.rpartition("@")[2]
    scheme = "gs" if scheme.lower() == "gcs" else scheme
    return DatasetName(*place_of_files(f"{scheme}://{authority}{slash}{key}"))
