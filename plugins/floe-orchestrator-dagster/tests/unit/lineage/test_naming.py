"""A dataset is named by the rules of OpenLineage's Naming page, the same from every compute."""

from __future__ import annotations

import string
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floe_orchestrator_dagster.lineage import naming
from floe_orchestrator_dagster.lineage.addresses import place_of_files
from floe_orchestrator_dagster.lineage.datasets import Catalog, DatasetName, Symlink, TableName

PG = "postgres://db.example.com:5432"
PG_TABLE = DatasetName(PG, "shop.public.orders")


def dataset_name(
    adapter: str,
    output: dict[str, Any],
    database: str | None,
    schema: str | None,
    identifier: str,
    **more: str,
) -> DatasetName:
    return naming.dataset_name(adapter, output, TableName(database, schema, identifier), **more)


def name(
    adapter: str, output: dict[str, Any], *relation: str | None, **more: str
) -> tuple[str, str]:
    database, schema, identifier = relation
    named = dataset_name(adapter, output, database, schema, identifier or "", **more)
    return named.namespace, named.name


def on(adapter: str, **output: Any) -> tuple[str, str]:
    return name(adapter, output, "db", "sch", "tab")


# The rows of the page in its order, then the stores that are not on the page.
ROWS = [
    (
        on("athena", region_name="eu-west-1", s3_staging_dir="s3://x/"),
        ("awsathena://athena.eu-west-1.amazonaws.com", "db.sch.tab"),
    ),
    (
        name("athena", {"region_name": "eu-west-1"}, None, "sch", "tab"),
        ("awsathena://athena.eu-west-1.amazonaws.com", "awsdatacatalog.sch.tab"),
    ),
    (
        on("glue", region="eu-west-1", role_arn="arn:aws:iam::123456789012:role/dbt"),
        ("arn:aws:glue:eu-west-1:123456789012", "table/sch/tab"),
    ),
    (
        on("synapse", server="w.sql.azuresynapse.net", port=1433),
        ("sqlserver://w.sql.azuresynapse.net:1433", "sch.tab"),
    ),
    (on("bigquery", project="my-project", dataset="d"), ("bigquery", "db.sch.tab")),
    (
        name("bigquery", {"project": "my-project", "dataset": "d"}, None, None, "tab"),
        ("bigquery", "my-project.d.tab"),
    ),
    (
        on("fabric", server="x.datawarehouse.fabric.microsoft.com"),
        ("fabric-warehouse://x.datawarehouse.fabric.microsoft.com", "db.sch.tab"),
    ),
    (
        on("fabric", server="x.datawarehouse.fabric.microsoft.com", port=1433),
        ("fabric-warehouse://x.datawarehouse.fabric.microsoft.com:1433", "db.sch.tab"),
    ),
    (on("mysql", server="my", port=3307), ("mysql://my:3307", "sch.tab")),
    (on("sqlserver", server="ms", port=1444), ("mssql://ms:1444", "db.sch.tab")),
    (on("sqlserver", server="ms,1444"), ("mssql://ms:1444", "db.sch.tab")),
    (on("sqlserver", server="ms"), ("mssql://ms:1433", "db.sch.tab")),
    (on("postgres", host="pg", port=5433), ("postgres://pg:5433", "db.sch.tab")),
    (on("postgres", host="pg"), ("postgres://pg:5432", "db.sch.tab")),
    (on("postgres", host="::1", port="5432"), ("postgres://localhost:5432", "db.sch.tab")),
    (on("postgres", host="fe80::7"), ("postgres://[fe80::7]:5432", "db.sch.tab")),
    (on("postgres", host="/run/pg"), ("postgres://%2Frun%2Fpg:5432", "db.sch.tab")),
    (
        name("postgres", {"host": "pg", "dbname": "shop", "schema": "out"}, None, None, "tab"),
        ("postgres://pg:5432", "shop.out.tab"),
    ),
    (
        on("redshift", host="wh.abc123.eu-west-1.redshift.amazonaws.com", port=5439),
        ("redshift://wh.eu-west-1:5439", "db.sch.tab"),
    ),
    (
        on("redshift", host="wg.123456789012.eu-west-1.redshift-serverless.amazonaws.com"),
        ("redshift://wg.eu-west-1:5439", "db.sch.tab"),
    ),
    (
        on("redshift", method="iam", cluster_id="wh", region="eu-west-1"),
        ("redshift://wh.eu-west-1:5439", "db.sch.tab"),
    ),
    (on("redshift", host="proxy.example.com"), ("redshift://proxy.example.com:5439", "db.sch.tab")),
    (on("snowflake", account="myorg-acct"), ("snowflake://myorg-acct", "DB.SCH.TAB")),
    (on("snowflake", account="xy12345"), ("snowflake://xy12345.us-west-1.aws", "DB.SCH.TAB")),
    (
        on("snowflake", account="xy12345.eu-central-1"),
        ("snowflake://xy12345.eu-central-1.aws", "DB.SCH.TAB"),
    ),
    (
        on("snowflake", account="xy12345.west-europe.azure"),
        ("snowflake://xy12345.west-europe.azure", "DB.SCH.TAB"),
    ),
    (
        on("snowflake", account="xy12345.fhplus.us-gov-west-1.aws"),
        ("snowflake://xy12345.fhplus.us-gov-west-1.aws", "DB.SCH.TAB"),
    ),
    (on("trino", host="tr", port=8443), ("trino://tr:8443", "db.sch.tab")),
    (on("trino", host="https://tr"), ("trino://tr:8080", "db.sch.tab")),
    (
        on("databricks", host="https://dbc-1.cloud.databricks.com/", http_path="/sql/1"),
        ("unitycatalog://dbc-1.cloud.databricks.com", "db.sch.tab"),
    ),
    (
        name("databricks", {"host": "dbc-1"}, None, "sch", "tab"),
        ("databricks://dbc-1", "hive_metastore.sch.tab"),
    ),
    (on("duckdb"), ("inmemory://", "memory.sch.tab")),
    (on("duckdb", path=":memory:"), ("inmemory://", "memory.sch.tab")),
    # Not on the page.
    (on("clickhouse", host="ch"), ("clickhouse://ch:8123", "sch.tab")),
    (on("clickhouse", host="ch", secure=True), ("clickhouse://ch:8443", "sch.tab")),
    (on("clickhouse", host="ch", driver="native"), ("clickhouse://ch:9000", "sch.tab")),
    (on("clickhouse", host="ch", port=8123), ("clickhouse://ch:8123", "sch.tab")),
    (on("duckdb", path="/data/shop.duckdb"), ("duckdb:///data/shop.duckdb", "shop.sch.tab")),
    (on("duckdb", path="target/shop.duckdb"), ("duckdb://target/shop.duckdb", "shop.sch.tab")),
    (on("duckdb", path="md:shop?motherduck_token=t0ken"), ("duckdb://md:", "shop.sch.tab")),
    (on("spark", method="thrift", host="sp"), ("spark://sp:10001", "sch.tab")),
    (on("spark", method="http", host="sp"), ("spark://sp:443", "sch.tab")),
    (on("spark", method="odbc", host="sp", port=444), ("spark://sp:444", "sch.tab")),
    (on("spark", method="session", host="NA"), ("spark://localhost", "sch.tab")),
    (on("firebolt", host="fb", port=1), ("firebolt://fb:1", "db.sch.tab")),
]


@pytest.mark.parametrize(("actual", "expected"), ROWS)
def test_each_store_follows_its_row(actual: tuple[str, str], expected: tuple[str, str]) -> None:
    assert actual == expected


# --- the same table, the same name ---------------------------------------------------------------

ATTACHED = [
    {"path": "postgresql://me:secret@db.example.com:5432/shop", "type": "postgres"},
    {"path": "postgres://me:secret@db.example.com/shop?sslmode=require"},
    {"path": "postgres:dbname=shop host=db.example.com user=me password=secret"},
    {"path": "dbname=shop host=DB.example.com port=5432 password='se cret'", "type": "postgres"},
    {"path": "dbname='shop'  host = 'db.example.com'", "type": "POSTGRES"},
    {"path": "postgresql:///shop?host=db.example.com&password=secret", "type": "postgres"},
    {"path": "", "type": "postgres", "secret": "pg"},
    {"path": "dbname=shop", "type": "postgres", "secret": "PG"},
]
SECRETS = [
    {"type": "postgres", "name": "other", "host": "elsewhere", "database": "x"},
    {
        "type": "postgres",
        "name": "pg",
        "host": "db.example.com",
        "port": 5432,
        "database": "shop",
        "user": "me",
        "password": "secret",
    },
]


@pytest.mark.parametrize("attached", ATTACHED)
def test_postgres_read_through_duckdb_is_named_as_postgres(attached: dict[str, str]) -> None:
    through = {"path": "w.duckdb", "attach": [{**attached, "alias": "pg"}], "secrets": SECRETS}
    straight = {"host": "db.example.com", "port": 5432, "dbname": "shop", "pass": "secret"}
    assert dataset_name("duckdb", through, "pg", "public", "orders") == PG_TABLE
    assert dataset_name("postgres", straight, "shop", "public", "orders") == PG_TABLE


def test_postgres_on_a_socket_is_named_the_same_through_duckdb() -> None:
    straight = {"host": "/run/pg", "dbname": "shop"}
    for path in ("host=/run/pg dbname=shop", "postgresql://me@%2Frun%2Fpg/shop"):
        through = {"attach": [{"path": path, "alias": "pg", "type": "postgres"}]}
        assert dataset_name("duckdb", through, "pg", "s", "t") == dataset_name(
            "postgres", straight, "shop", "s", "t"
        )


def test_an_attachment_without_a_secret_uses_the_unnamed_one_of_its_type() -> None:
    output = {
        "attach": [{"path": "", "type": "postgres", "alias": "pg"}],
        "secrets": [{"type": "s3"}, {"type": "postgres", "host": "h", "database": "d"}],
    }
    assert name("duckdb", output, "pg", "public", "t") == ("postgres://h:5432", "d.public.t")


def test_a_duckdb_file_is_named_the_same_opened_or_attached() -> None:
    owner = {"path": "./data/../data/stock.duckdb"}
    reader = {"path": "shop.duckdb", "attach": [{"path": "data/stock.duckdb", "alias": "other"}]}
    named = dataset_name("duckdb", owner, "stock", "main", "items", root="/srv")
    assert named == DatasetName("duckdb:///srv/data/stock.duckdb", "stock.main.items")
    assert dataset_name("duckdb", reader, "other", "main", "items", root="/srv") == named
    assert dataset_name("duckdb", reader, "shop", "main", "items", root="/srv") != named


def test_a_file_attached_without_an_alias_has_its_own_name() -> None:
    output = {"path": "shop.duckdb", "attach": ["data/stock.duckdb"]}
    assert name("duckdb", output, "stock", "main", "t") == (
        "duckdb://data/stock.duckdb",
        "stock.main.t",
    )


def test_motherduck_is_one_namespace_for_all_its_databases() -> None:
    whole, one = {"path": "md:"}, {"path": "motherduck:shop?motherduck_token=t0ken"}
    attached = {"path": "x.duckdb", "attach": [{"path": "md:shop", "alias": "cloud"}]}
    expected = ("duckdb://md:", "shop.main.t")
    assert name("duckdb", whole, "shop", "main", "t") == expected
    assert name("duckdb", one, "shop", "main", "t") == expected
    assert name("duckdb", attached, "cloud", "main", "t") == expected


def test_databases_in_memory_differ_by_their_scope() -> None:
    assert name("duckdb", {}, "memory", "main", "t", scope="shop") == (
        "inmemory://",
        "shop.memory.main.t",
    )


def test_mysql_sqlite_and_ducklake_attached_to_duckdb() -> None:
    output = {
        "attach": [
            {"path": "host=my user=me password=secret database=crm", "type": "mysql", "alias": "m"},
            {"path": "sqlite:data/app.db", "alias": "s"},
            {"path": "ducklake:meta.ducklake", "alias": "lake"},
            {"path": "ducklake:postgres:dbname=cat host=pg password=secret", "alias": "pglake"},
        ]
    }
    assert name("duckdb", output, "m", "crm", "t") == ("mysql://my:3306", "crm.t")
    assert name("duckdb", output, "s", "main", "t") == ("sqlite://data/app.db", "t")
    assert name("duckdb", output, "lake", "main", "t") == ("ducklake://meta.ducklake", "main.t")
    assert name("duckdb", output, "pglake", "main", "t") == ("ducklake://pg:5432/cat", "main.t")


def test_snowflake_keeps_names_in_upper_case() -> None:
    assert name("snowflake", {"account": "o-a"}, "db", "Raw", "Orders") == (
        "snowflake://o-a",
        "DB.RAW.ORDERS",
    )


@pytest.mark.parametrize(
    "account",
    ["myorg-acct", "MYORG-ACCT", "https://myorg-acct.snowflakecomputing.com", " myorg-acct "],
)
def test_all_spellings_of_a_snowflake_account_give_one_name(account: str) -> None:
    assert on("snowflake", account=account)[0] == "snowflake://myorg-acct"


def test_a_separate_region_is_part_of_the_account() -> None:
    expected = "snowflake://xy12345.eu-central-1.aws"
    assert on("snowflake", account="xy12345", region="eu-central-1")[0] == expected
    assert on("snowflake", account="xy12345.eu-central-1.privatelink")[0] == expected


def test_spark_with_a_metastore_is_named_by_it_for_every_method() -> None:
    conf = {"spark.hadoop.hive.metastore.uris": "thrift://meta:9083,thrift://meta2:9083"}
    thrift = {"method": "thrift", "host": "a", "server_side_parameters": conf}
    session = {"method": "session", "server_side_parameters": conf}
    assert name("spark", thrift, None, "sch", "tab") == ("hive://meta:9083", "sch.tab")
    assert name("spark", session, None, "sch", "tab") == ("hive://meta:9083", "sch.tab")


def test_spark_with_a_warehouse_is_named_by_its_files() -> None:
    output = {
        "method": "session",
        "server_side_parameters": {"spark.sql.warehouse.dir": "s3a://lake/warehouse/"},
    }
    assert name("spark", output, None, "sch", "tab") == ("s3://lake", "warehouse/sch.db/tab")
    assert name("spark", output, None, "default", "tab") == ("s3://lake", "warehouse/tab")


def test_databricks_has_the_name_of_other_producers_as_a_symlink() -> None:
    named = dataset_name("databricks", {"host": "dbc-1"}, "main", "s", "t")
    assert named == DatasetName(
        "unitycatalog://dbc-1", "main.s.t", (Symlink("databricks://dbc-1", "main.s.t"),)
    )


# --- Iceberg -------------------------------------------------------------------------------------


def spark_catalog(kind: str, **settings: str) -> dict[str, Any]:
    """Return a Spark output with an Iceberg catalog named `lake`."""
    prefix = "spark.sql.catalog.lake"
    conf = {prefix: "org.apache.iceberg.spark.SparkCatalog", f"{prefix}.type": kind}
    conf |= {f"{prefix}.{key}": value for key, value in settings.items()}
    return {"method": "session", "server_side_parameters": conf}


def test_iceberg_catalogs_of_spark_and_duckdb_are_read_from_their_profiles() -> None:
    spark = spark_catalog("rest", uri="http://cat:8181")
    duckdb = {
        "attach": [
            {
                "path": "",
                "type": "iceberg",
                "alias": "ice",
                "options": {"endpoint": "http://cat:8181/", "token": "secret"},
            }
        ]
    }
    expected = ("http://cat:8181", "sch.tab")
    assert name("spark", spark, None, "lake.sch", "tab") == expected
    assert name("duckdb", duckdb, "ice", "sch", "tab") == expected


def test_a_dataset_has_its_catalog() -> None:
    rest = spark_catalog(
        "rest",
        uri="https://id:secret@cat:8181/api/",
        warehouse="s3://id:secret@bucket/wh?key=secret",
    )
    attached = {"attach": [{"path": "ducklake:meta.ducklake", "alias": "lake"}]}
    cases: list[tuple[str, dict[str, Any], str | None, Catalog | None]] = [
        (
            "spark",
            rest,
            "lake",
            Catalog("iceberg", "rest", "lake", "https://cat:8181/api", "s3://bucket/wh"),
        ),
        ("databricks", {"host": "dbc-1"}, "main", Catalog("delta", "unity", "main")),
        ("databricks", {"host": "dbc-1"}, "hive_metastore", None),
        ("duckdb", attached, "lake", Catalog("ducklake", "duckdb", "lake")),
        ("duckdb", {"path": "x.duckdb"}, "x", None),
        ("glue", {"region": "eu-west-1"}, None, Catalog("iceberg", "glue", "glue")),
    ]
    for adapter, output, database, expected in cases:
        assert dataset_name(adapter, output, database, "s", "t").catalog == expected


def test_glue_is_recognized_by_the_catalog_class_and_by_duckdbs_endpoint_type() -> None:
    spark = {
        "method": "session",
        "server_side_parameters": {
            "spark.sql.defaultCatalog": "g",
            "spark.sql.catalog.g": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.g.catalog-impl": "org.apache.iceberg.aws.glue.GlueCatalog",
            "spark.sql.catalog.g.glue.id": "123456789012",
            "spark.sql.catalog.g.client.region": "eu-west-1",
        },
    }
    entry = {"path": "123456789012", "type": "iceberg", "alias": "g", "secret": "aws"}
    duckdb = {
        "attach": [{**entry, "options": {"ENDPOINT_TYPE": "glue"}}],
        "secrets": [{"type": "s3", "name": "aws", "region": "eu-west-1", "secret": "hush"}],
    }
    expected = ("arn:aws:glue:eu-west-1:123456789012", "table/sch/tab")
    assert name("spark", spark, None, "sch", "tab") == expected
    assert name("duckdb", duckdb, "g", "sch", "tab") == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://b/k/t", ("s3://b", "k/t")),
        ("gs://b/k", ("gs://b", "k")),
        (
            "abfss://c@acc.dfs.core.windows.net/p",
            ("abfss://c@acc.dfs.core.windows.net", "p"),
        ),
        ("hdfs://nn:8020/w/t", ("hdfs://nn:8020", "/w/t")),
        ("hdfs://me:secret@nn:8020/w/t", ("hdfs://unknown", "unknown")),
        ("hdfs://me@nn:8020/w/t", ("hdfs://nn:8020", "/w/t")),
        ("file:/w/t", ("file", "/w/t")),
        ("file:///w/t", ("file", "/w/t")),
        ("/w/t", ("file", "/w/t")),
    ],
)
def test_files_are_named_by_bucket_and_key_or_by_path(
    location: str, expected: tuple[str, str]
) -> None:
    warehouse, _, identifier = location.rpartition("/")
    output = spark_catalog("hadoop", warehouse=warehouse)
    assert place_of_files(location) == expected
    assert name("spark", output, "lake", None, identifier) == expected


# --- properties ----------------------------------------------------------------------------------

# A loaded machine must not fail the tests: no deadline, and slow generation is allowed.
many = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

ADAPTERS = [
    "athena",
    "bigquery",
    "clickhouse",
    "databricks",
    "duckdb",
    "fabric",
    "firebolt",
    "glue",
    "mysql",
    "postgres",
    "redshift",
    "snowflake",
    "spark",
    "sqlserver",
    "synapse",
    "trino",
]
# Letters that no fixed part of a name contains, so that each of them reveals the password.
PASSWORDS = st.text("ÀÈÌ@:/?#&=%+.,;!$*()[]{}<>|^~0123456789", min_size=8).map(
    lambda text: f"ÒÙ{text}ÙÒ"
)


def leaks(named: DatasetName, password: str) -> bool:
    names = [named.namespace, named.name]
    names += [part for link in named.symlinks for part in (link.namespace, link.name)]
    if named.catalog is not None:
        names += [str(part) for part in asdict(named.catalog).values()]
    return any(
        piece.lower() in text.lower()
        for text in names
        for piece in (password, quote(password), quote(password, safe=""), "ÒÙ", "ÙÒ")
    )


@many
@given(adapter=st.sampled_from(ADAPTERS), password=PASSWORDS)
def test_no_name_contains_a_password(adapter: str, password: str) -> None:
    secret = dict.fromkeys(
        ("password", "pass", "token", "private_key", "motherduck_token"), password
    )
    for value in (password, quote(password, safe="")):
        host = f"https://me:{value}@host:1234/path"
        output = {
            **secret,
            "host": host,
            "server": host,
            "account": host,
            "path": f"md:db?motherduck_token={value}",
            "attach": [
                {"alias": "u", "type": "postgres", "path": f"postgresql://me:{value}@h/d"},
                {"alias": "k", "type": "postgres", "path": f"host=h password={value} dbname=d"},
                {"alias": "q", "type": "postgres", "path": f"host=h dbname=d password='{value}'"},
                {"alias": "l", "path": f"ducklake:postgres://me:{value}@h:1/d"},
                {"alias": "m", "type": "mysql", "path": f"mysql://me:{value}@h:1/d"},
                {"alias": "f", "path": f"s3://me:{value}@bucket/x.duckdb?key={value}"},
                {"alias": "i", "type": "iceberg", "options": {"endpoint": host, "token": value}},
            ],
            "server_side_parameters": {
                "spark.hadoop.hive.metastore.uris": f"thrift://me:{value}@meta:9083",
                "spark.sql.warehouse.dir": f"hdfs://me:{value}@nn:1/w",
            },
        }
        warehouse = f"s3://me:{value}@bucket/w?key={value}"
        rest = spark_catalog("rest", uri=host, token=value, warehouse=warehouse)
        for database in ("u", "k", "q", "l", "m", "f", "i", None):
            assert not leaks(dataset_name(adapter, output, database, "s", "t"), password)
        assert not leaks(dataset_name("spark", rest, "lake", "s", "t"), password)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.dictionaries(st.sampled_from(["path", "alias", "type"]), st.text(max_size=20))),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
KEYS = st.sampled_from(
    [
        "host",
        "server",
        "port",
        "account",
        "region",
        "project",
        "dataset",
        "path",
        "attach",
        "secrets",
        "method",
        "dbname",
        "database",
        "schema",
        "driver",
        "secure",
        "cluster_id",
        "region_name",
        "role_arn",
        "server_side_parameters",
    ]
)


@many
@given(
    adapter=st.sampled_from(ADAPTERS),
    output=st.dictionaries(KEYS, VALUES),
    database=st.none() | st.text(max_size=8),
    schema=st.none() | st.text(max_size=8),
    settings_=st.dictionaries(st.sampled_from(["type", "uri", "warehouse"]), VALUES),
)
def test_every_profile_gives_a_name(
    adapter: str,
    output: dict[str, Any],
    database: str | None,
    schema: str | None,
    settings_: dict[str, Any],
) -> None:
    iceberg = spark_catalog("rest")
    iceberg["server_side_parameters"] |= {
        f"spark.sql.catalog.lake.{key}": value for key, value in settings_.items()
    }
    for named in (
        dataset_name(adapter, output, database, schema, "t"),
        dataset_name("spark", iceberg, "lake", schema, "t"),
    ):
        assert named.namespace
        assert named.name


@many
@given(
    host=st.text(string.ascii_letters + string.digits, min_size=1, max_size=12),
    port=st.integers(1, 65535),
    adapter=st.sampled_from(["postgres", "trino", "clickhouse", "sqlserver", "mysql", "spark"]),
)
def test_equivalent_profiles_give_equal_names(host: str, port: int, adapter: str) -> None:
    outputs: list[dict[str, Any]] = [
        {"host": host, "port": port},
        {"host": host.upper(), "port": str(port), "user": "me", "threads": 4},
        {"host": f"https://{host}:{port}/", "schema": "elsewhere"},
        {"host": f" {host}:{port} "},
    ]
    assert len({on(adapter, **output) for output in outputs}) == 1


@many
@given(adapter=st.sampled_from(ADAPTERS))
def test_an_empty_profile_gives_a_name(adapter: str) -> None:
    namespace, table = name(adapter, {}, "db", "sch", "tab")
    assert table.lower().endswith(("sch.tab", "sch/tab"))
    assert "None" not in namespace
    assert "://:" not in namespace
