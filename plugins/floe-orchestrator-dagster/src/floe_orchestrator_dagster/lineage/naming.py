"""Names datasets as OpenLineage's Naming page does, the same from whichever compute.

Names hold hosts, ports, paths and identifiers, never a user or a password. A connection string that
cannot be read gives the host `unknown`, as does a profile that names none; nothing is raised.
Dots inside identifiers are not escaped: that is the default of OpenLineage's clients.
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
        adapter_type: dbt's adapter, as `duckdb`; one without a store of its own is named
            `{adapter}://{host}:{port}`.
        output: the resolved profile output by which it is read or written.
        table: what dbt calls it.
        root: the directory that relative paths of database files start from.
        scope: what tells databases in memory apart, as the product's name.

    A table of an Iceberg catalog that the output configures is named by that catalog: two computes
    on one catalog agree.
    """
    kind = str(adapter_type).lower()
    asked = Table(
        output=output,
        database=first_text(table.database),
        schema=first_text(table.schema, output.get("schema")),
        identifier=first_text(table.identifier),
        root=root,
        scope=scope,
    )
    store = _STORES.get(kind)
    return store(asked) if store is not None else stores.generic(kind, asked)


def file_name(path: str, root: str) -> DatasetName:
    """Return the name of a file, a folder or a pattern of them; a relative one is below `root`."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        local = path[5:] if path.lower().startswith("file:") else path
        return DatasetName("file", posixpath.normpath(posixpath.join(root, local)))
    authority, slash, key = rest.partition("?")[0].partition("/")
    # Of `user:password@host` the host is left; `container@account` has no password.
    if ":" in authority.rpartition("@")[0]:
        authority = authority.rpartition("@")[2]
    scheme = "gs" if scheme.lower() == "gcs" else scheme
    return DatasetName(*place_of_files(f"{scheme}://{authority}{slash}{key}"))
