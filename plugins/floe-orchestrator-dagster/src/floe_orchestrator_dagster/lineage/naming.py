"""Names datasets as OpenLineage's Naming page does, the same from whichever compute.

https://openlineage.io/docs/spec/naming. Stores without a row there (DuckDB, ClickHouse, Spark
without a metastore) are named as OpenLineage's own dbt integration names them.

Names hold hosts, ports, paths and identifiers, never a user or a password. A connection string that
cannot be read gives the host `unknown`, as does a profile that names none; nothing is raised.
Dots inside identifiers are not escaped: that is the default of OpenLineage's clients.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNKNOWN = "unknown"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  only compared
# Users and passwords may hold anything but `/?#`; elsewhere an `@` means an unquoted password, and
# then nothing is read at all.
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.\-]*)://)?(?:[^/?#]*@)?(?P<host>\[[^\]@]*\]|[^:/?#@\[\]]*)"
    r"(?::(?P<port>\d*))?(?:/(?P<path>[^?#@]*))?(?:\?(?P<query>[^#@]*))?(?:#[^@]*)?",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"(?:[\w.\-$]+@)?[\w.\-]*(?::\d+)?")  # container@account, too
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


@dataclass(frozen=True, slots=True)
class Symlink:
    """Another name of the same dataset, for the `symlinks` facet."""

    namespace: str
    name: str
    type: str = "TABLE"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog that holds a dataset, for the `catalog` facet; its URIs carry no credentials."""

    framework: str
    type: str
    name: str
    metadata_uri: str | None = None
    warehouse_uri: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetName:
    """Where a dataset is and what it is called there, its other names, and its catalog."""

    namespace: str
    name: str
    symlinks: tuple[Symlink, ...] = ()
    catalog: Catalog | None = field(default=None, compare=False)

    @property
    def uri(self) -> str:
        """The namespace as a URI; that of local files, and some others, is a bare word."""
        return self.namespace if ":" in self.namespace else f"{self.namespace}:///"

    def as_symlink(self) -> Symlink:
        """Return this as another dataset's other name."""
        return Symlink(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class _Table:
    """What is asked: a relation of dbt's, and the profile output that reaches it."""

    output: Mapping[str, Any]
    database: str
    schema: str
    identifier: str
    quoting: Mapping[str, Any]
    root: str
    scope: str

    def get(self, *keys: str) -> str:
        """Return the first of the output's values that says something."""
        return _text(*(self.output.get(key) for key in keys))

    def dotted(self, *parts: str) -> str:
        return ".".join(part for part in parts if part)

    def full(self) -> str:
        return self.dotted(self.database, self.schema, self.identifier)

    def cased(self, fold: Callable[[str], str]) -> _Table:
        """Return the relation in the case the database keeps unquoted names in."""

        def kept(part: str, value: str) -> str:
            return value if self.quoting.get(part) is True else fold(value)

        return replace(
            self,
            database=kept("database", self.database),
            schema=kept("schema", self.schema),
            identifier=kept("identifier", self.identifier),
        )


def dataset_name(
    adapter_type: str,
    output: Mapping[str, Any],
    database: str | None,
    schema: str | None,
    identifier: str,
    *,
    quoting: Mapping[str, Any] | None = None,
    root: str = "",
    scope: str = "",
    catalog: Mapping[str, Any] | None = None,
    location: str | None = None,
) -> DatasetName:
    """Return the name of the table or view that a dbt relation stands for.

    Args:
        adapter_type: dbt's adapter, as `duckdb`; one without a row is named
            `{adapter}://{host}:{port}`.
        output: the resolved profile output by which it is read or written.
        database: dbt's `database` of the relation; None means the output's own.
        schema: dbt's `schema` of the relation; None means the output's own.
        identifier: the table's name; of a source its `identifier`, not its `name`.
        quoting: dbt's `quoting` of the node, where it says more than the adapter's default.
        root: the directory that relative paths of database files start from.
        scope: what tells databases in memory apart, as the product's name.
        catalog: the Iceberg catalog that holds the table, as `type` (glue, hive, hadoop, or else
            rest), `name`, `uri`, `warehouse`, `region`, `account_id`.
        location: where the table's files are, as `s3://bucket/path`, when known.

    An Iceberg table is named by its location, else by its catalog, and the name by which the
    compute knows it becomes a symlink: two computes on one catalog agree.
    """
    kind = str(adapter_type).lower()
    table = _Table(
        output=output,
        database=_text(database),
        schema=_text(schema, output.get("schema")),
        identifier=_text(identifier),
        quoting=quoting or {},
        root=root,
        scope=scope,
    )
    row = _ROWS.get(kind)
    named = row(table) if row is not None else _generic(kind, table)
    if catalog is not None:
        held = _iceberg(catalog, table)
        named = replace(held, symlinks=_others(held, *held.symlinks, named.as_symlink()))
    if location:
        at = DatasetName(*_location(location))
        others = _others(at, named.as_symlink(), *named.symlinks)
        named = replace(at, symlinks=others, catalog=named.catalog)
    return named


# --- one row per store ---------------------------------------------------------------------------


def _postgres(table: _Table) -> DatasetName:
    return DatasetName(
        _at("postgres", table.get("host"), table.get("port"), "5432"),
        table.dotted(
            table.database or table.get("dbname", "database"),
            table.schema or "public",
            table.identifier,
        ),
    )


def _redshift(table: _Table) -> DatasetName:
    """Name the cluster or workgroup and its region; of another host, the host."""
    table = table.cased(str.lower)
    host, port = _host(table.get("host"))
    cluster, region = table.get("cluster_id"), table.get("region")
    aws = re.fullmatch(
        r"([^.]+)\.[^.]+\.([^.]+)\.redshift(?:-serverless)?\.amazonaws\.com(?:\.cn)?", host
    )
    if aws:
        host = f"{aws[1]}.{aws[2]}"
    elif cluster and region and host == UNKNOWN:
        host = f"{cluster}.{region}".lower()
    return DatasetName(
        f"redshift://{host}:{_port(table.get('port')) or port or '5439'}",
        table.dotted(
            table.database or table.get("dbname", "database").lower(),
            table.schema or "public",
            table.identifier,
        ),
    )


def _snowflake(table: _Table) -> DatasetName:
    table = replace(table, database=table.database or table.get("database")).cased(str.upper)
    return DatasetName(
        f"snowflake://{_snowflake_account(table.get('account'), table.get('region'))}", table.full()
    )


def _snowflake_account(account: str, region: str) -> str:
    """Return `organization-account`, or `locator.region.cloud` with OpenLineage's defaults."""
    host, _ = _host(account)
    host = host.removesuffix(".snowflakecomputing.com").removesuffix(".privatelink")
    first, *rest = host.split(".")
    if "-" in first or host == UNKNOWN:
        return first
    rest = rest or [part for part in region.lower().split(".") if part] or ["us-west-1"]
    return ".".join((first, *rest, "aws") if len(rest) == 1 else (first, *rest))


def _bigquery(table: _Table) -> DatasetName:
    return DatasetName(
        "bigquery",
        table.dotted(
            table.database or table.get("project", "database"),
            table.schema or table.get("dataset"),
            table.identifier,
        ),
    )


def _databricks(table: _Table) -> DatasetName:
    """Name a table of Unity Catalog by it; one of the old metastore has only its workspace."""
    table = table.cased(str.lower)
    host, _ = _host(table.get("host"))
    catalog = table.database or table.get("catalog", "database").lower() or "hive_metastore"
    name = table.dotted(catalog, table.schema, table.identifier)
    workspace = DatasetName(f"databricks://{host}", name)
    if catalog == "hive_metastore":
        return workspace
    unity = Catalog("delta", "unity", catalog)
    return DatasetName(f"unitycatalog://{host}", name, (workspace.as_symlink(),), unity)


def _spark(table: _Table) -> DatasetName:
    """Name by the Iceberg catalog, else the metastore, else the warehouse, else the endpoint."""
    table = table.cased(str.lower)
    given = _mapping(table.output.get("server_side_parameters"))
    conf = {str(key): _text(value) for key, value in given.items()}
    catalog, schema = _spark_catalog(conf, table)
    if catalog is not None:
        return _iceberg(catalog, replace(table, schema=schema))
    name = table.dotted(table.schema or "default", table.identifier)
    stores: list[DatasetName] = []
    for key in ("spark.hadoop.hive.metastore.uris", "hive.metastore.uris"):
        if uris := conf.get(key):
            stores.append(DatasetName(_at("hive", uris.split(",")[0], "", "9083"), name))
            break
    if warehouse := conf.get("spark.sql.warehouse.dir"):
        folder = "" if table.schema in {"", "default"} else f"{table.schema}.db/"
        path = f"{warehouse.rstrip('/')}/{folder}{table.identifier}"
        stores.append(DatasetName(*_location(path)))
    if stores:
        first, *more = stores
        return replace(first, symlinks=tuple(other.as_symlink() for other in more))
    method = table.get("method")
    if method == "session":
        return DatasetName("spark://localhost", name)
    default = "10001" if method == "thrift" else "443"
    return DatasetName(_at("spark", table.get("host"), table.get("port"), default), name)


def _spark_catalog(conf: Mapping[str, str], table: _Table) -> tuple[dict[str, str] | None, str]:
    """Return the Iceberg catalog a relation is in, if any, and its schema there."""
    catalog, schema = table.database, table.schema
    if "." in schema:
        catalog, _, schema = schema.partition(".")
    catalog = catalog or conf.get("spark.sql.defaultCatalog", "")
    prefix = f"spark.sql.catalog.{catalog}"
    if not catalog or "iceberg" not in conf.get(prefix, "").lower():
        return None, table.schema
    said = {key.removeprefix(f"{prefix}."): value for key, value in conf.items()}
    said["name"] = catalog
    implementation = said.get("catalog-impl", "").rpartition(".")[2].removesuffix("Catalog")
    said.setdefault("type", implementation.lower())
    said.setdefault("account_id", said.get("glue.id", ""))
    said.setdefault("region", said.get("client.region", ""))
    return said, schema


def _trino(table: _Table) -> DatasetName:
    table = replace(table, database=table.database or table.get("database")).cased(str.lower)
    return DatasetName(_at("trino", table.get("host"), table.get("port"), "8080"), table.full())


def _athena(table: _Table) -> DatasetName:
    catalog = table.database or table.get("database") or "awsdatacatalog"
    table = replace(table, database=catalog).cased(str.lower)
    region = table.get("region_name").lower() or UNKNOWN
    return DatasetName(f"awsathena://athena.{region}.amazonaws.com", table.full())


def _clickhouse(table: _Table) -> DatasetName:
    """Name by schema and table only: what dbt calls a schema is ClickHouse's database."""
    native, secure = table.get("driver") == "native", table.output.get("secure") is True
    default = ("9440" if secure else "9000") if native else ("8443" if secure else "8123")
    return DatasetName(
        _at("clickhouse", table.get("host"), table.get("port"), default),
        table.dotted(table.schema or "default", table.identifier),
    )


def _sqlserver(table: _Table) -> DatasetName:
    server, _, port = table.get("server", "host").partition(",")
    return DatasetName(
        _at("mssql", server, port or table.get("port"), "1433"),
        table.dotted(
            table.database or table.get("database"), table.schema or "dbo", table.identifier
        ),
    )


def _synapse(table: _Table) -> DatasetName:
    server, _, port = table.get("server", "host").partition(",")
    return DatasetName(
        _at("sqlserver", server, port or table.get("port"), "1433"),
        table.dotted(table.schema or "dbo", table.identifier),
    )


def _fabric(table: _Table) -> DatasetName:
    server, _, port = table.get("server", "host").partition(",")
    return DatasetName(
        _at("fabric-warehouse", server, port or table.get("port"), ""),
        table.dotted(
            table.database or table.get("database"), table.schema or "dbo", table.identifier
        ),
    )


def _mysql(table: _Table) -> DatasetName:
    return DatasetName(
        _at("mysql", table.get("host", "server"), table.get("port"), "3306"),
        table.dotted(table.schema or table.database, table.identifier),
    )


def _glue(table: _Table) -> DatasetName:
    role = re.fullmatch(r"arn:[\w-]+:iam::(\d+):.*", table.get("role_arn"))
    account = table.get("account_id") or (role[1] if role else "")
    return _iceberg({"type": "glue", "region": table.get("region"), "account_id": account}, table)


def _generic(adapter_type: str, table: _Table) -> DatasetName:
    scheme = re.sub(r"[^a-z0-9+.\-]", "-", adapter_type) or UNKNOWN
    return DatasetName(
        _at(scheme, table.get("host", "server"), table.get("port"), ""), table.full()
    )


# --- DuckDB and what is attached to it -----------------------------------------------------------


def _duckdb(table: _Table) -> DatasetName:
    """Name a table by the file, or the database of another kind, it really is in."""
    main = table.get("path") or ":memory:"
    for entry in _attached(table.output):
        path = _text(entry.get("path"))
        alias = _text(entry.get("alias")) or _stem(path)
        if table.database and alias.lower() == table.database.lower() != _stem(main).lower():
            return _attachment(entry, path, table)
    return _duckdb_file(main, table)


def _attachment(entry: Mapping[str, Any], path: str, table: _Table) -> DatasetName:
    kind = _text(entry.get("type")).lower()
    scheme = re.match(r"(postgresql|postgres|mysql|sqlite|ducklake|iceberg):", path, re.IGNORECASE)
    if scheme and not kind:
        kind = scheme[1].lower()
    if kind in {"postgres", "postgresql"}:
        return _postgres(replace(table, output=_connection(entry, path, table), database=""))
    if kind == "mysql":
        found = _connection(entry, path, table)
        schema = table.schema if table.schema not in {"", "main"} else _text(found.get("database"))
        return _mysql(replace(table, output=found, schema=schema))
    if kind == "iceberg":
        options = {str(key).lower(): value for key, value in _mapping(entry.get("options")).items()}
        said = {**_secret(entry, kind, table), **options}
        glue = _text(said.get("endpoint_type")).lower() == "glue"
        catalog = {
            "type": "glue" if glue else "rest",
            "uri": said.get("endpoint"),
            "warehouse": path,
            "region": said.get("region"),
            "account_id": path if glue else "",
        }
        return _iceberg(catalog, table)
    if kind == "ducklake":
        return _ducklake(path, table)
    if kind == "sqlite":
        file = _file(path.partition(":")[2] if scheme else path, table.root)
        return DatasetName(f"sqlite://{file}", table.identifier)
    return _duckdb_file(path, table)


def _ducklake(path: str, table: _Table) -> DatasetName:
    """Name a lake by the database that holds its catalog, without what opens it."""
    store = path.partition(":")[2] if path.lower().startswith("ducklake:") else path
    name = table.dotted(table.schema or "main", table.identifier)
    scheme = re.match(r"(postgresql|postgres|mysql):", store, re.IGNORECASE)
    catalog = Catalog("ducklake", scheme[1].lower() if scheme else "duckdb", table.database)
    if not scheme:
        return DatasetName(f"ducklake://{_file(store, table.root)}", name, catalog=catalog)
    found = _connection({}, store, table)
    host, port = _host(_text(found.get("host")))
    database = _text(found.get("database")) or UNKNOWN
    return DatasetName(
        f"ducklake://{_bracketed(host)}:{_text(found.get('port')) or port or '5432'}/{database}",
        name,
        catalog=catalog,
    )


def _duckdb_file(path: str, table: _Table) -> DatasetName:
    """Name by the file and DuckDB's own name for it, whatever it is attached as.

    MotherDuck is one place for all of an account's databases, which no profile names.
    """
    schema = table.schema or "main"
    if _is_motherduck(path):
        return DatasetName(
            "duckdb://md:", table.dotted(_stem(path) or table.database, schema, table.identifier)
        )
    name = table.dotted(_stem(path), schema, table.identifier)
    if path == ":memory:" or path.startswith(":memory:"):
        return DatasetName("inmemory://", table.dotted(table.scope, name))
    return DatasetName(f"duckdb://{_file(path, table.root)}", name)


def _attached(output: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    entries = output.get("attach")
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        yield {"path": entry} if isinstance(entry, str) else _mapping(entry)


def _connection(entry: Mapping[str, Any], path: str, table: _Table) -> dict[str, Any]:
    """Return host, port and database of an attached server; the string wins over the secret."""
    secret = _secret(entry, _text(entry.get("type")).lower(), table)
    found = _read_connection(path)
    database = found.get("dbname") or found.get("database") or found.get("db")
    database = database or _text(secret.get("database"), secret.get("dbname"))
    host = found.get("host") or found.get("hostaddr") or _text(secret.get("host"))
    if not host and found.get("") != UNKNOWN:
        host = "localhost"
    return {
        "host": host or UNKNOWN,
        "port": found.get("port") or _text(secret.get("port")),
        "database": database or UNKNOWN,
    }


def _read_connection(text: str) -> dict[str, str]:
    """Return the words of a connection URL or of `key=value` pairs; `{"": unknown}` of neither."""
    bare = re.sub(r"^(?:postgres|postgresql|mysql):(?!//)", "", text.strip(), flags=re.IGNORECASE)
    if "://" in bare:
        url = _URL.fullmatch(bare)
        if url is None or "/" in (url["path"] or ""):
            return {"": UNKNOWN}
        query = {key: values[-1] for key, values in parse_qs(url["query"] or "").items()}
        said = {
            "host": unquote(url["host"] or "").strip("[]"),
            "port": url["port"] or "",
            "dbname": unquote(url["path"] or ""),
        }
        return {key: said.get(key) or _text(query.get(key)) for key in said}
    pairs: dict[str, str] = {}
    at = 0
    while at < len(bare):
        pair = _PAIR.match(bare, at)
        if pair is None or pair.end() == at:
            return {"": UNKNOWN}
        value = pair[2][1:-1] if pair[2].startswith("'") else pair[2]
        pairs[pair[1].lower()] = re.sub(r"\\(.)", r"\1", value)
        at = pair.end()
    return pairs


def _secret(entry: Mapping[str, Any], kind: str, table: _Table) -> Mapping[str, Any]:
    """Return the profile's secret that an attachment names, or the unnamed one of its kind."""
    secrets = table.output.get("secrets")
    wanted = _text(entry.get("secret")).lower()
    for item in secrets if isinstance(secrets, (list, tuple)) else ():
        secret = _mapping(item)
        name = _text(secret.get("name")).lower()
        if wanted and name == wanted:
            return secret
        if not wanted and not name and kind and _text(secret.get("type")).lower() == kind:
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
    return posixpath.basename(_file(path, "")).split(".")[0]


def _file(path: str, root: str) -> str:
    """Return a file's path in one form, without what a URL carries besides."""
    if "://" in path:
        url = _URL.fullmatch(path)
        if url is None or not url["scheme"]:
            return UNKNOWN
        port = f":{url['port']}" if url["port"] else ""
        return f"{url['scheme'].lower()}://{url['host'].lower()}{port}/{url['path'] or ''}"
    path = path.partition("?")[0]
    return posixpath.normpath(posixpath.join(root, path)) if path else UNKNOWN


# --- Iceberg catalogs and files ------------------------------------------------------------------


def _iceberg(catalog: Mapping[str, Any], table: _Table) -> DatasetName:
    """Name a table by the catalog that holds it, as OpenLineage's Spark integration does."""
    kind = _text(catalog.get("type")).lower()
    held = Catalog(
        framework="iceberg",
        type=kind or "rest",
        name=_text(catalog.get("name"), table.database) or kind or "rest",
        metadata_uri=_address(_text(catalog.get("uri"))),
        warehouse_uri=_address(_text(catalog.get("warehouse"))),
    )
    return replace(_by_catalog(catalog, table), catalog=held)


def _by_catalog(catalog: Mapping[str, Any], table: _Table) -> DatasetName:
    kind = _text(catalog.get("type")).lower()
    warehouse = _text(catalog.get("warehouse"))
    name = table.dotted(table.schema or "default", table.identifier)
    if kind == "glue":
        region = _text(catalog.get("region")).lower() or UNKNOWN
        account = _text(catalog.get("account_id")) or UNKNOWN
        return DatasetName(
            f"arn:aws:glue:{region}:{account}",
            f"table/{table.schema or 'default'}/{table.identifier}",
        )
    if kind == "hive":
        return DatasetName(_at("hive", _text(catalog.get("uri")).split(",")[0], "", "9083"), name)
    if kind == "hadoop":
        folder = "/".join(part for part in (table.schema, table.identifier) if part)
        return DatasetName(*_location(f"{warehouse.rstrip('/')}/{folder}"))
    uri = _file(_text(catalog.get("uri")), "").rstrip("/")
    plain = warehouse if re.fullmatch(r"[\w\-]+", warehouse) else ""
    return DatasetName(uri, table.dotted(plain, name))


def _address(uri: str) -> str | None:
    """Return a URI without user, password and query; None of what is not one."""
    url = _URL.fullmatch(uri)
    return _file(uri, "").rstrip("/") if url and url["scheme"] and url["host"] else None


def _location(uri: str) -> tuple[str, str]:
    """Return the namespace and name of files: buckets by bucket and key, others by path."""
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator:
        path = uri[5:] if uri.lower().startswith("file:") else uri
        return "file", posixpath.normpath(path) if path else UNKNOWN
    authority, _, path = rest.partition("?")[0].partition("/")
    path = path.rstrip("/")
    if not _AUTHORITY.fullmatch(authority) or (":" in authority and "@" in path):
        # Something else than a bucket or a server, so perhaps part of a password.
        return f"{scheme}://{UNKNOWN}", UNKNOWN
    if scheme not in {"abfs", "abfss", "wasb", "wasbs"}:
        authority = authority.rpartition("@")[2]
    if scheme == "file":
        return f"file://{authority}" if authority else "file", f"/{path}"
    scheme = "s3" if scheme in {"s3a", "s3n"} else scheme
    return f"{scheme}://{authority}", f"/{path}" if scheme == "hdfs" else path


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
    return DatasetName(*_location(f"{scheme}://{authority}{slash}{key}"))


def _others(named: DatasetName, *symlinks: Symlink) -> tuple[Symlink, ...]:
    """Return the other names once each, without the name itself."""
    return tuple(dict.fromkeys(link for link in symlinks if link != named.as_symlink()))


# --- small things --------------------------------------------------------------------------------


def _text(*values: object) -> str:
    """Return the first value that is a word or a number, as text."""
    for value in values:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value).strip()
            if text:
                return text
    return ""


def _mapping(value: object) -> Mapping[str, Any]:
    """Return what should be a mapping, empty where it is something else."""
    return value if isinstance(value, Mapping) else {}


def _host(text: str) -> tuple[str, str]:
    """Return the host, in lower case and one word for this machine, and the port beside it."""
    if text.startswith("/"):
        return text.replace("/", "%2F"), ""
    if text.count(":") > 1 and "://" not in text and "[" not in text:
        text = f"[{text}]"
    url = _URL.fullmatch(text)
    host = (url["host"] or "").strip("[]").lower() if url else ""
    if host in _LOOPBACK:
        host = "localhost"
    return host or UNKNOWN, (url["port"] or "" if url else "")


def _port(text: str) -> str:
    return text if text.isdigit() else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _at(scheme: str, host: str, port: str, default: str) -> str:
    """Return `scheme://host:port`; an explicit port wins over one beside the host."""
    name, beside = _host(host)
    number = _port(port) or beside or default
    return f"{scheme}://{_bracketed(name)}" + (f":{number}" if number else "")


_ROWS: dict[str, Callable[[_Table], DatasetName]] = {
    "athena": _athena,
    "bigquery": _bigquery,
    "clickhouse": _clickhouse,
    "databricks": _databricks,
    "duckdb": _duckdb,
    "fabric": _fabric,
    "glue": _glue,
    "mysql": _mysql,
    "postgres": _postgres,
    "redshift": _redshift,
    "snowflake": _snowflake,
    "spark": _spark,
    "sqlserver": _sqlserver,
    "synapse": _synapse,
    "trino": _trino,
}
