"""Column lineage matches shapes that were worked out by hand, and never raises."""

from __future__ import annotations

import cProfile
import logging
import pstats
import threading
from collections import Counter

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floe_orchestrator_dagster.lineage.columns import (
    MAX_LINKS,
    MAX_NESTING,
    MAX_OPEN_JOINS,
    MAX_PIPES,
    MAX_SQL,
    ColumnLineage,
    Source,
    column_lineage,
    snapshot_lineage,
)
from kit.column_shapes import SHAPES, TABLES, read_lineage

T = {"t": {"a": "int", "b": "int"}}


def identity(relation: str, column: str) -> tuple[Source, ...]:
    return (Source(relation, column, "DIRECT", "IDENTITY"),)


def lineage(sql: str, dialect: str = "duckdb") -> ColumnLineage:
    result = read_lineage(sql, dialect, T)
    assert result is not None
    return result


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_gives_the_lineage_worked_out_by_hand(name: str) -> None:
    shape = SHAPES[name]
    result = read_lineage(shape.sql, shape.dialect, shape.schemas)
    assert result is not None
    assert {column: set(sources) for column, sources in result.fields.items()} == shape.fields
    assert set(result.dataset) == shape.dataset


def test_the_shapes_are_many_and_of_every_dialect() -> None:
    count = Counter(shape.dialect for shape in SHAPES.values())
    assert sum(count.values()) >= 100
    assert min(count[dialect] for dialect in ("duckdb", "postgres", "spark", "snowflake")) >= 15


@pytest.fixture(scope="module")
def warehouse() -> duckdb.DuckDBPyConnection:
    kinds = {
        "tags": "varchar[]",
        "address": "struct(city varchar, zip varchar)",
        "ordered_at": "timestamp",
        "paid_at": "timestamp",
        "at": "timestamp",
        "name": "varchar",
        "email": "varchar",
        "country": "varchar",
        "status": "varchar",
        "coupon": "varchar",
        "method": "varchar",
        "kind": "varchar",
        "region": "varchar",
        "quarter": "varchar",
    }
    connection = duckdb.connect()
    connection.execute("attach ':memory:' as shop")
    for table, columns in TABLES.items():
        typed = ", ".join(f'"{column}" {kinds.get(column, "integer")}' for column in columns)
        connection.execute(f"create table shop.main.{table} ({typed})")
    return connection


@pytest.mark.parametrize(
    "name",
    [name for name, shape in SHAPES.items() if shape.dialect == "duckdb"],
)
def test_the_columns_are_those_of_duckdb(name: str, warehouse: duckdb.DuckDBPyConnection) -> None:
    shape = SHAPES[name]
    warehouse.execute(f"create or replace temp table created as {shape.sql}")
    described = warehouse.execute("describe created").fetchall()
    result = read_lineage(shape.sql, "duckdb", shape.schemas)
    assert result is not None
    assert list(result.fields) == [row[0] for row in described]


# --- relations and schemas -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "relation", "written"),
    [
        ("duckdb", '"shop"."main"."t"', "shop.main.t"),
        ("duckdb", "shop.main.t", '"shop"."main"."t"'),
        ("duckdb", '"shop"."main"."t"', "MAIN.T"),
        ("postgres", '"shop"."main"."t"', "Shop.Main.T"),
        ("snowflake", "shop.main.t", '"SHOP"."MAIN"."T"'),
        ("snowflake", "SHOP.MAIN.T", "shop.main.t"),
        ("bigquery", "`shop`.`main`.`t`", "`shop.main.t`"),
        ("databricks", "`shop`.`main`.`t`", "shop.main.t"),
        ("sqlserver", '"shop"."main"."t"', "[shop].[main].[t]"),
        ("trino", '"shop"."main"."t"', "t"),
        ("clickhouse", "`main`.`t`", "main.t"),
    ],
)
def test_a_relation_is_recognized_in_every_spelling(
    dialect: str, relation: str, written: str
) -> None:
    result = read_lineage(f"select a as x from {written}", dialect, {relation: {"a": "int"}})
    assert result is not None
    assert [*result.fields.values()] == [identity(relation, "a")]


def test_two_relations_whose_names_differ_in_case_are_two() -> None:
    relations = {'"d"."s"."t"': {"a": ""}, '"d"."s"."T"': {"a": ""}}
    for relation in relations:
        result = read_lineage(f"select a from {relation}", "postgres", relations)
        assert result == ColumnLineage({"a": identity(relation, "a")})


def test_a_short_name_of_two_relations_stays_unresolved() -> None:
    relations = {"x.t": {"a": ""}, "y.t": {"a": ""}}
    assert read_lineage("select a from t", "duckdb", relations) == ColumnLineage(
        {"a": identity("t", "a")}
    )


def test_a_source_column_has_the_spelling_of_its_schema() -> None:
    result = read_lineage("select id from s.t", "snowflake", {"s.t": {"id": "number"}})
    assert result == ColumnLineage({"ID": identity("s.t", "id")})


def test_an_unknown_relation_has_the_name_in_the_sql() -> None:
    sql = 'select e.kind from "raw"."web".events e'
    assert read_lineage(sql, "duckdb", {}) == ColumnLineage(
        {"kind": identity('"raw"."web".events', "kind")}
    )


def test_a_relation_without_known_columns_has_every_column() -> None:
    sql = "with s as (select * from t) select s.a, b + 1 as c from s where d > 1"
    result = read_lineage(sql, "duckdb", {"t": {}})
    assert result is not None
    assert result.fields["a"] == identity("t", "a")
    assert result.fields["c"] == (Source("t", "b", "DIRECT", "TRANSFORMATION"),)
    assert result.dataset == (Source("t", "d", "INDIRECT", "FILTER"),)


def test_a_bare_column_belongs_to_the_only_unknown_relation() -> None:
    sql = "select x, a from t join u on u.id = t.a"
    result = read_lineage(sql, "duckdb", {"t": {"a": ""}, "u": {}})
    assert result is not None
    assert result.fields == {"x": identity("u", "x"), "a": identity("t", "a")}


def test_a_bare_column_of_two_unknown_relations_is_not_guessed() -> None:
    result = read_lineage("select x from t join u using (id)", "duckdb", {"t": {}, "u": {}})
    assert result is not None
    assert result.fields == {"x": ()}


def test_a_star_over_an_unknown_relation_names_no_columns() -> None:
    assert read_lineage("select *, 1 as one from t", "duckdb", {}) == ColumnLineage({"one": ()})


def test_a_column_that_only_the_database_can_name_is_left_out() -> None:
    assert list(lineage("select a, a + b, b from t").fields) == ["a", "b"]


def test_a_whole_row_has_all_its_columns_as_sources() -> None:
    result = lineage("select to_json(t) as row from t")
    assert result.fields["row"] == (
        Source("t", "a", "DIRECT", "TRANSFORMATION"),
        Source("t", "b", "DIRECT", "TRANSFORMATION"),
    )


def test_an_unknown_dialect_is_read_as_plain_sql() -> None:
    assert read_lineage("select a as x from t", "firebolt", T) == ColumnLineage(
        {"x": identity("t", "a")}
    )


def test_a_comment_or_a_closing_semicolon_changes_nothing() -> None:
    assert lineage("/* a */ select a -- b\nfrom t;") == lineage("select a from t")


# --- SQL without lineage -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "   -- nothing",
        "select",
        "select from where",
        "select a from t where (",
        "select 'open",
        "select a from t; select b from t",
        "insert into t select 1, 2",
        "create table x as select a from t",
        "drop table t",
        "show tables",
        "this is not sql",
        "\x00\x01",
        "def model(dbt, session):\n    return dbt.ref('t')\n",
    ],
)
def test_sql_that_is_not_one_query_gives_none_and_no_output(
    sql: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for dialect in ("duckdb", "snowflake", "firebolt"):
        assert read_lineage(sql, dialect, T) is None
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def deep(opening: str, inner: str, closing: str, times: int) -> str:
    return f"select {opening * times}{inner}{closing * times} from t"


@pytest.mark.parametrize(
    "sql",
    [
        deep("(", "a", ")", MAX_NESTING + 1),
        deep("(", "a", ")", 40_000),
        deep("(select ", "a", ")", 10_000),
        deep("case when a then ", "1", " end", 5_000),
        deep("[", "1", "]", 40_000),
        deep("not ", "a", "", 20_000),
        deep("- ", "a", "", 40_000),
        deep("cast(", "a", " as int)", 7_000),
        deep("cast(a as struct<x ", "int", "> )", 1) + " struct<x" * 9_000,
        "select * from " + "(select * from " * 6_000 + "t" + ")" * 6_000,
        "select * from " + "t join (u " * 9_000 + ")" * 9_000,
        "from " * 19_000,
        "(" * 90_000,
        "select * from t " + "join t " * (MAX_OPEN_JOINS + 1),
        "select * from t " + "join t " * 14_000,
        "from t " + "|> where a " * (MAX_PIPES + 1),
        "select a from t -- " + "x" * MAX_SQL,
    ],
    ids=lambda sql: f"{sql[:24]}... {len(sql)}",
)
def test_hostile_sql_gives_none(sql: str) -> None:
    for dialect in ("duckdb", "postgres", "spark", "snowflake"):
        assert read_lineage(sql, dialect, T) is None


def test_columns_that_double_with_each_step_give_none() -> None:
    steps = "".join(
        f", c{at} as (select x.*, y.* from c{at - 1} x, c{at - 1} y)" for at in range(1, 40)
    )
    sql = f"with c0 as (select * from t){steps} select * from c39"
    assert read_lineage(sql, "duckdb", T) is None


def test_long_sql_that_is_not_deep_is_read() -> None:
    many = ", ".join(f"sum(case when a = {at} then b end) as c{at}" for at in range(1000))
    assert len(lineage(f"select {many} from t").fields) == 1000
    assert lineage(f"select {' + '.join(['a'] * 5000)} as s from t").fields["s"]
    assert lineage(" union all ".join(["select a from t"] * 1000)).fields["a"]
    chain = "".join(f", c{at} as (select * from c{at - 1})" for at in range(1, 400))
    assert lineage(f"with c0 as (select * from t){chain} select * from c399").fields["b"]
    joins = " ".join(f"left join t t{at} on t{at}.a = t.a" for at in range(200))
    assert lineage(f"select t.a from t {joins}").dataset


def test_the_work_to_read_a_wide_union_grows_with_its_length() -> None:
    columns = [f"a_measured_value_number_{at}" for at in range(45)]
    known = {"t": {"kind": "int", **dict.fromkeys(columns, "int")}}

    def calls(parts: int) -> int:
        casts = ", ".join(f'cast("{name}" as decimal(18, 2)) as "{name}"' for name in columns)
        arms = "union all".join(
            f"(select cast('part {part}' as text) as part_of, {casts} from t where kind = {part})"
            for part in range(parts)
        )
        sql = f"with base as ({arms}) select * from base"
        # Unlike seconds, calls are the same on a busy machine.
        profile = cProfile.Profile()
        result = profile.runcall(read_lineage, sql, "duckdb", known)
        assert result is not None
        assert [*result.fields] == ["part_of", *columns]
        assert all(result.fields[name] == cast_of(name) for name in columns)
        return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    def cast_of(name: str) -> tuple[Source, ...]:
        return (Source("t", name, "DIRECT", "TRANSFORMATION"),)

    calls(1)  # SQLGlot loads its dialect once.
    assert calls(240) < 12 * calls(30)
    distinct = " union ".join(f"select {', '.join(columns)} from t{at}" for at in range(100))
    many = {f"t{at}": dict.fromkeys(columns, "int") for at in range(100)}
    result = read_lineage(distinct, "duckdb", many)
    assert result is not None
    assert all(len(result.fields[name]) == 100 for name in columns)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select a from t", ""),
        ("select a from t -- " + "x" * MAX_SQL, "its SQL has 1,000,019 characters, more than"),
        (deep("(", "a", ")", MAX_NESTING + 1), "its SQL is nested too deeply"),
        ("select a" + "[1]" * (MAX_LINKS + 2) + " from t", "or repeats itself too often"),
        ("select a" + ".f()" * (MAX_LINKS + 2) + " from t", "or repeats itself too often"),
        ("select a from (", "its SQL cannot be parsed as duckdb"),
        ("insert into t select 1", "its SQL is not a query"),
        ("select 1; select 2", "its SQL has 2 statements"),
        ("", "its SQL is not a query"),
    ],
)
def test_sql_without_lineage_has_a_reason(sql: str, reason: str) -> None:
    result, why = column_lineage(sql, "duckdb", T)
    assert (result is None) == bool(reason)
    assert reason in why
    assert bool(reason) == bool(why)


def test_subscripts_of_many_values_are_not_a_chain() -> None:
    terms = " + ".join(["b[1][2] + f(b)[1]"] * (MAX_LINKS + 10))
    arms = " union all ".join(["select f(b)[1] as c from t"] * (MAX_LINKS + 10))
    assert lineage(f"select {terms} as c from t").fields["c"]
    assert lineage(arms).fields["c"]


def test_a_snapshot_has_the_columns_of_its_query_and_those_of_dbt() -> None:
    query = lineage("select a as id, max(b) as changed from t group by a")
    snapshot = snapshot_lineage(query, ["ID", "no column"], "changed", {"dbt_valid_to": "until"})

    def of(column: str) -> set[tuple[str, str, bool]]:
        return {(item.column, item.subtype, item.masking) for item in snapshot.fields[column]}

    assert [*snapshot.fields] == [
        *("id", "changed", "dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "until")
    ]
    assert snapshot.fields["dbt_valid_from"] == query.fields["changed"]
    assert of("until") == {("b", "AGGREGATION", False)}
    assert of("dbt_scd_id") == {("a", "TRANSFORMATION", True), ("b", "AGGREGATION", True)}
    assert snapshot.dataset == query.dataset
    # The strategy `check` uses the time of the run.
    checked = snapshot_lineage(query, ["id"], None, {})
    assert checked.fields["dbt_valid_from"] == checked.fields["dbt_valid_to"] == ()
    assert {item.column for item in checked.fields["dbt_scd_id"]} == {"a"}


TEXT = """
a b t u x 1 'q' * , , , ( ) ( ) . = + - < > [ ] : :: || -> select select from from where join left
on using group by order with recursive as union all except intersect distinct case when then else
end over partition count sum coalesce lateral unnest pivot for in exists not null and or having
qualify window values cross natural semi limit filter within cast int struct
"""
WORDS = st.sampled_from(TEXT.split())


# A loaded machine must not fail the tests: no deadline, and slow generation is allowed.
many = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@many
@given(st.lists(WORDS, max_size=40), st.sampled_from(["duckdb", "postgres", "spark", "snowflake"]))
def test_no_sequence_of_words_makes_it_raise(words: list[str], dialect: str) -> None:
    result = read_lineage(" ".join(["select", *words]), dialect, T)
    assert result is None or isinstance(result, ColumnLineage)


def test_a_thread_with_a_small_stack_reads_sql_at_the_depth_limit() -> None:
    results: list[ColumnLineage | None] = []
    sqls = [
        deep("(", "a", ")", MAX_NESTING),
        "select * from " + "(select * from " * (MAX_NESTING - 1) + "t" + ") x" * (MAX_NESTING - 1),
        deep("case when a then ", "1", " end", MAX_NESTING),
    ]
    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: results.extend(read_lineage(sql, "duckdb", T) for sql in sqls)
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(results) == len(sqls)
