"""Column lineage names the output columns as PostgreSQL does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812  it is a class

from kit.column_shapes import SHAPES, TABLES, read_lineage

TYPES = {"tags": "text[]", "ordered_at": "timestamp", "paid_at": "timestamp", "at": "timestamp"}
NUMBERS = {"id", "customer_id", "amount", "order_id", "manager_id", "user_id"}


@pytest.fixture(scope="module")
def tables(postgres_directory: Path) -> Iterator[Cursor]:
    connection = psycopg2.connect(host=str(postgres_directory), user="postgres", dbname="shop")
    with connection.cursor() as cursor:
        cursor.execute("create schema if not exists main")
        for table, columns in (*TABLES.items(), ("events_copy", ["ordered_at"])):
            typed = ", ".join(
                f'"{name}" {"integer" if name in NUMBERS else TYPES.get(name, "text")}'
                for name in columns
            )
            cursor.execute(f"create table main.{table} ({typed})")
        yield cursor
    connection.close()  # without a commit, so the tables disappear


@pytest.mark.parametrize(
    "name", [name for name, shape in SHAPES.items() if shape.dialect == "postgres"]
)
def test_the_columns_have_the_names_of_postgresql(name: str, tables: Cursor) -> None:
    shape = SHAPES[name]
    tables.execute(shape.sql)
    lineage = read_lineage(shape.sql, "postgres", shape.schemas)
    assert lineage is not None
    assert list(lineage.fields) == [column.name for column in tables.description or ()]


def test_a_column_that_only_the_database_names_has_its_name_or_none(tables: Cursor) -> None:
    sql = """select count(*), sum(id) over (), max(id) filter (where true), coalesce(id, 1),
        now(), id + 1, id::text, date_trunc('day', ordered_at), string_agg(status, ','),
        case when true then 1 end, (select min(id) from shop.main.payments), to_char(id, '9')
        from shop.main.orders group by id, ordered_at"""
    tables.execute(sql)
    column_names = [column.name for column in tables.description or ()]
    lineage = read_lineage(sql, "postgres", {})
    assert lineage is not None
    assert [name for name in column_names if name in lineage.fields] == list(lineage.fields)
    assert {"count", "sum", "max", "coalesce", "id", "case", "min"} <= set(lineage.fields)
