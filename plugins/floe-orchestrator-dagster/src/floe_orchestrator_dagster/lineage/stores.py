"""Names tables by the rules of OpenLineage's Naming page, with one function per store.

https://openlineage.io/docs/spec/naming. Stores that are not on the page (ClickHouse, Spark without
a metastore) are named as in OpenLineage's own dbt integration.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.addresses import (
    UNKNOWN,
    as_mapping,
    as_port,
    file_path,
    first_text,
    host_and_port,
    place_of_files,
    plain_uri,
    server_uri,
)
from floe_orchestrator_dagster.lineage.datasets import Catalog, DatasetName, Table, dotted

if TYPE_CHECKING:
    from collections.abc import Mapping


def postgres(table: Table) -> DatasetName:
    """Name `postgres://host:port` and `database.schema.table`."""
    return DatasetName(
        server_uri("postgres", table.get("host"), table.get("port"), "5432"),
        dotted(
            table.database or table.get("dbname", "database"),
            table.schema or "public",
            table.identifier,
        ),
    )


def redshift(table: Table) -> DatasetName:
    """Name the cluster or workgroup and its region; any other host by itself."""
    table = table.cased(str.lower)
    host, port = host_and_port(table.get("host"))
    cluster, region = table.get("cluster_id"), table.get("region")
    aws = re.fullmatch(
        r"([^.]+)\.[^.]+\.([^.]+)\.redshift(?:-serverless)?\.amazonaws\.com(?:\.cn)?", host
    )
    if aws:
        host = f"{aws[1]}.{aws[2]}"
    elif cluster and region and host == UNKNOWN:
        host = f"{cluster}.{region}".lower()
    return DatasetName(
        f"redshift://{host}:{as_port(table.get('port')) or port or '5439'}",
        dotted(
            table.database or table.get("dbname", "database").lower(),
            table.schema or "public",
            table.identifier,
        ),
    )


def snowflake(table: Table) -> DatasetName:
    """Name `snowflake://account` and `DATABASE.SCHEMA.TABLE`, Snowflake's case of plain names."""
    table = replace(table, database=table.database or table.get("database")).cased(str.upper)
    return DatasetName(
        f"snowflake://{_snowflake_account(table.get('account'), table.get('region'))}", table.full()
    )


def _snowflake_account(account: str, region: str) -> str:
    """Return `organization-account`, or `locator.region.cloud` with OpenLineage's defaults."""
    host, _ = host_and_port(account)
    host = host.removesuffix(".snowflakecomputing.com").removesuffix(".privatelink")
    first, *rest = host.split(".")
    if "-" in first or host == UNKNOWN:
        return first
    rest = rest or [part for part in region.lower().split(".") if part] or ["us-west-1"]
    return ".".join((first, *rest, "aws") if len(rest) == 1 else (first, *rest))


def bigquery(table: Table) -> DatasetName:
    """Name `bigquery` and `project.dataset.table`."""
    return DatasetName(
        "bigquery",
        dotted(
            table.database or table.get("project", "database"),
            table.schema or table.get("dataset"),
            table.identifier,
        ),
    )


def databricks(table: Table) -> DatasetName:
    """Name a table by Unity Catalog; a table of the old metastore by its workspace."""
    table = table.cased(str.lower)
    host, _ = host_and_port(table.get("host"))
    catalog = table.database or table.get("catalog", "database").lower() or "hive_metastore"
    name = dotted(catalog, table.schema, table.identifier)
    workspace = DatasetName(f"databricks://{host}", name)
    if catalog == "hive_metastore":
        return workspace
    unity = Catalog("delta", "unity", catalog)
    return DatasetName(f"unitycatalog://{host}", name, (workspace.as_symlink(),), unity)


def spark(table: Table) -> DatasetName:
    """Name by the Iceberg catalog, else the metastore, else the warehouse, else the endpoint."""
    table = table.cased(str.lower)
    parameters = as_mapping(table.output.get("server_side_parameters"))
    conf = {str(key): first_text(value) for key, value in parameters.items()}
    catalog, schema = _spark_catalog(conf, table)
    if catalog is not None:
        return in_iceberg(catalog, replace(table, schema=schema))
    name = dotted(table.schema or "default", table.identifier)
    stores: list[DatasetName] = []
    for key in ("spark.hadoop.hive.metastore.uris", "hive.metastore.uris"):
        if uris := conf.get(key):
            stores.append(DatasetName(server_uri("hive", uris.split(",")[0], "", "9083"), name))
            break
    if warehouse := conf.get("spark.sql.warehouse.dir"):
        folder = "" if table.schema in {"", "default"} else f"{table.schema}.db/"
        path = f"{warehouse.rstrip('/')}/{folder}{table.identifier}"
        stores.append(DatasetName(*place_of_files(path)))
    if stores:
        first, *more = stores
        return replace(first, symlinks=tuple(other.as_symlink() for other in more))
    method = table.get("method")
    if method == "session":
        return DatasetName("spark://localhost", name)
    default = "10001" if method == "thrift" else "443"
    return DatasetName(server_uri("spark", table.get("host"), table.get("port"), default), name)


def _spark_catalog(conf: Mapping[str, str], table: Table) -> tuple[dict[str, str] | None, str]:
    """Return the Iceberg catalog of a relation, if any, and its schema in that catalog."""
    catalog, schema = table.database, table.schema
    if "." in schema:
        catalog, _, schema = schema.partition(".")
    catalog = catalog or conf.get("spark.sql.defaultCatalog", "")
    prefix = f"spark.sql.catalog.{catalog}"
    if not catalog or "iceberg" not in conf.get(prefix, "").lower():
        return None, table.schema
    settings = {key.removeprefix(f"{prefix}."): value for key, value in conf.items()}
    settings["name"] = catalog
    implementation = settings.get("catalog-impl", "").rpartition(".")[2].removesuffix("Catalog")
    settings.setdefault("type", implementation.lower())
    settings.setdefault("account_id", settings.get("glue.id", ""))
    settings.setdefault("region", settings.get("client.region", ""))
    return settings, schema


def trino(table: Table) -> DatasetName:
    """Name `trino://host:port` and `catalog.schema.table`."""
    table = replace(table, database=table.database or table.get("database")).cased(str.lower)
    return DatasetName(
        server_uri("trino", table.get("host"), table.get("port"), "8080"), table.full()
    )


def athena(table: Table) -> DatasetName:
    """Name the endpoint of Athena in its region, and `catalog.schema.table`."""
    catalog = table.database or table.get("database") or "awsdatacatalog"
    table = replace(table, database=catalog).cased(str.lower)
    region = table.get("region_name").lower() or UNKNOWN
    return DatasetName(f"awsathena://athena.{region}.amazonaws.com", table.full())


def clickhouse(table: Table) -> DatasetName:
    """Name by schema and table only: dbt's schema is ClickHouse's database."""
    native, secure = table.get("driver") == "native", table.output.get("secure") is True
    default = ("9440" if secure else "9000") if native else ("8443" if secure else "8123")
    return DatasetName(
        server_uri("clickhouse", table.get("host"), table.get("port"), default),
        dotted(table.schema or "default", table.identifier),
    )


def sqlserver(table: Table) -> DatasetName:
    """Name `mssql://host:port` and `database.schema.table`."""
    return DatasetName(
        _microsoft_uri("mssql", table, "1433"),
        dotted(table.database or table.get("database"), table.schema or "dbo", table.identifier),
    )


def synapse(table: Table) -> DatasetName:
    """Name `sqlserver://host:port` and `schema.table`: a pool is one database."""
    return DatasetName(
        _microsoft_uri("sqlserver", table, "1433"),
        dotted(table.schema or "dbo", table.identifier),
    )


def fabric(table: Table) -> DatasetName:
    """Name `fabric-warehouse://host` and `database.schema.table`."""
    return DatasetName(
        _microsoft_uri("fabric-warehouse", table, ""),
        dotted(table.database or table.get("database"), table.schema or "dbo", table.identifier),
    )


def _microsoft_uri(scheme: str, table: Table, default: str) -> str:
    """Return the URI of a server that dbt may name as `host,port`."""
    server, _, port = table.get("server", "host").partition(",")
    return server_uri(scheme, server, port or table.get("port"), default)


def mysql(table: Table) -> DatasetName:
    """Name `mysql://host:port` and `schema.table`: in MySQL a schema is a database."""
    return DatasetName(
        server_uri("mysql", table.get("host", "server"), table.get("port"), "3306"),
        dotted(table.schema or table.database, table.identifier),
    )


def glue(table: Table) -> DatasetName:
    """Name a table of the Glue catalog; the account comes from `account_id` or the role."""
    role = re.fullmatch(r"arn:[\w-]+:iam::(\d+):.*", table.get("role_arn"))
    account = table.get("account_id") or (role[1] if role else "")
    return in_iceberg({"type": "glue", "region": table.get("region"), "account_id": account}, table)


def generic(adapter_type: str, table: Table) -> DatasetName:
    """Name `adapter://host:port` and `database.schema.table`, for adapters without a rule."""
    scheme = re.sub(r"[^a-z0-9+.\-]", "-", adapter_type) or UNKNOWN
    return DatasetName(
        server_uri(scheme, table.get("host", "server"), table.get("port"), ""), table.full()
    )


def in_iceberg(catalog: Mapping[str, Any], table: Table) -> DatasetName:
    """Name a table by the catalog that holds it, like OpenLineage's Spark integration."""
    kind = first_text(catalog.get("type")).lower()
    held = Catalog(
        framework="iceberg",
        type=kind or "rest",
        name=first_text(catalog.get("name"), table.database) or kind or "rest",
        metadata_uri=plain_uri(first_text(catalog.get("uri"))),
        warehouse_uri=plain_uri(first_text(catalog.get("warehouse"))),
    )
    return replace(_by_catalog(catalog, table), catalog=held)


def _by_catalog(catalog: Mapping[str, Any], table: Table) -> DatasetName:
    kind = first_text(catalog.get("type")).lower()
    warehouse = first_text(catalog.get("warehouse"))
    name = dotted(table.schema or "default", table.identifier)
    if kind == "glue":
        region = first_text(catalog.get("region")).lower() or UNKNOWN
        account = first_text(catalog.get("account_id")) or UNKNOWN
        return DatasetName(
            f"arn:aws:glue:{region}:{account}",
            f"table/{table.schema or 'default'}/{table.identifier}",
        )
    if kind == "hive":
        return DatasetName(
            server_uri("hive", first_text(catalog.get("uri")).split(",")[0], "", "9083"), name
        )
    if kind == "hadoop":
        folder = "/".join(part for part in (table.schema, table.identifier) if part)
        return DatasetName(*place_of_files(f"{warehouse.rstrip('/')}/{folder}"))
    uri = file_path(first_text(catalog.get("uri")), "").rstrip("/")
    plain = warehouse if re.fullmatch(r"[\w\-]+", warehouse) else ""
    return DatasetName(uri, dotted(plain, name))
