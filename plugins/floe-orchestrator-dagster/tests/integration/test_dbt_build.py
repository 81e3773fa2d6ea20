"""We do everything that `dbt build` does; docs/dbt-build.md is the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from floe_orchestrator_dagster.testing import PLATFORM
from kit.dbt_build_cases import CASES, DAYS, TABLE, Case, Row, by_day, project
from kit.dbt_server import Fork
from kit.oracle import Build, Twins, contradictions, differences, named
from kit.support import TinyProject, floe_product

ROWS = [(case, row) for case in CASES for row in case.rows]
Builds = Callable[[Case], list[Build]]


def twins_of(case: Case, directory: Path, template: dict[str, Any], forks: Fork) -> Twins:
    twins = Twins(directory, forks)
    TinyProject(twins.ours, template).compile(
        case.transforms, config=case.config, outputs=case.outputs
    )
    return twins


@pytest.fixture(scope="module")
def builds(
    tmp_path_factory: pytest.TempPathFactory, compiled_template: dict[str, Any], forks: Fork
) -> Builds:
    """The builds of a case; the first row of the case runs them."""
    done: dict[str, list[Build]] = {}

    def built(case: Case) -> list[Build]:
        if case.name not in done:
            twins = twins_of(case, tmp_path_factory.mktemp("twins"), compiled_template, forks)
            done[case.name] = [
                twins.write(step.files).build(
                    *step.words, options=step.options, env=step.env, bare_builds=step.bare
                )
                for step in case.steps
            ]
        return done[case.name]

    return built


def is_about(row: Row, line: str) -> bool:
    """Return whether a difference is about a row; the exit code is about every row."""
    whole = line.startswith(("exit code", "run:", "events: Dagster has no run"))
    return whole or not row.about or any(name in line for name in row.about)


@pytest.mark.parametrize(("case", "row"), ROWS, ids=[row.name for _, row in ROWS])
def test_row(case: Case, row: Row, builds: Builds) -> None:
    step, build = case.steps[row.step], builds(case)[row.step]
    assert build.bare.success is not step.fails, build.bare.words
    assert step.says in build.bare.words
    assert {name: named(build.bare.statuses).get(name) for name in row.statuses} == row.statuses
    relations = {shown.partition(": ")[2]: rows for shown, rows in build.bare.relations.items()}
    for name, rows in row.tables.items():
        assert sorted(relations[name][1:]) == sorted(
            tuple(repr(value) for value in values) for values in rows
        )
    mismatches = [line for line in build.mismatches if is_about(row, line)]
    assert not mismatches, "\n".join(mismatches)


@pytest.fixture
def twins(tmp_path: Path, compiled_template: dict[str, Any], forks: Fork) -> Twins:
    twins = Twins(tmp_path / "twins", forks)
    TinyProject(twins.ours, compiled_template).compile([])
    return twins


def test_only_failed_batches_are_retried(twins: Twins) -> None:
    # The fix is outside the project: a change of the code would make every batch stale.
    for copy in (twins.bare, twins.ours):
        (copy / "target").mkdir(exist_ok=True)
        change(copy, "create table gate as select false as is_open")
    batches = by_day(
        "select case when id = 1 and not (select is_open from gate) then error('closed') "
        "else id end as id, now() as built_at, seen from {{ ref('days') }}",
        lookback=2,
    )
    below = TABLE + "select id from {{ ref('batches') }}"
    first = twins.write({**project(), "days": DAYS, "batches": batches, "below": below}).build()
    assert not first.mismatches, "\n".join(first.mismatches)
    before = rows_of_batches(twins)
    assert {id_ for id_, _ in before} == {0, 2}
    for copy in (twins.bare, twins.ours):
        change(copy, "update gate set is_open = true")
    assert not (mismatches := twins.resume(first, verb="retry")), "\n".join(mismatches)
    after = rows_of_batches(twins)
    assert {id_ for id_, _ in after} == {0, 1, 2}
    # The batches that the first run built are unchanged.
    assert before < after


def change(copy: Path, statement: str) -> None:
    with duckdb.connect(str(copy / "target" / "tiny.duckdb")) as connection:
        connection.execute(statement)


def rows_of_batches(twins: Twins) -> set[tuple[int, str]]:
    with duckdb.connect(str(twins.ours / "target" / "tiny.duckdb"), read_only=True) as connection:
        return {*connection.execute("select id, built_at::varchar from batches").fetchall()}


def test_deferral_by_dbts_own_environment(twins: Twins) -> None:
    files = {
        **project(models={"tiny": {"+schema": "{{ env_var('AREA') }}", "+materialized": "table"}}),
        "up": "select 1 as id",
        "down": "select id + 1 as id from {{ ref('up') }}",
    }
    production = twins.write(files).build(env={"AREA": "production"})
    assert not production.mismatches, "\n".join(production.mismatches)
    manifest = (twins.bare / "target" / "manifest.json").read_text()
    deferred = twins.write({"state/manifest.json": manifest}).build(
        "--select", "down", env={"AREA": "mine", "DBT_DEFER": "1", "DBT_STATE": "state"}
    )
    assert not deferred.mismatches, "\n".join(deferred.mismatches)
    assert deferred.bare.relations["target/tiny.duckdb: main_mine.down"] == (("id",), ("2",))
    assert "target/tiny.duckdb: main_mine.up" not in deferred.bare.relations


def test_the_default_target_of_the_profile(tmp_path: Path, forks: Fork) -> None:
    twins = Twins(tmp_path / "twins", forks).write(
        {
            **project(),
            "profiles.yml": yaml.safe_dump(
                {
                    "tiny": {
                        "target": "mine",
                        "outputs": {
                            name: {"type": "duckdb", "path": f"target/{name}.duckdb"}
                            for name in ("ci", "mine")
                        },
                    }
                }
            ),
            "here": TABLE + "select '{{ target.name }}' as home",
        }
    )
    plugins = {"compute": {"type": "duckdb"}, "orchestrator": {"type": "dagster"}}
    floe_product(twins.ours, "tiny", ["here"], manifest={**PLATFORM, "plugins": plugins})
    built = twins.build()
    assert not built.mismatches, "\n".join(built.mismatches)
    assert built.bare.relations == {"target/mine.duckdb: main.here": (("home",), ("'mine'",))}


def test_grants_materialized_views_and_comments_on_postgres(
    twins: Twins,
    compiled_template: dict[str, Any],
    postgres: Callable[[str], list[tuple[Any, ...]]],
) -> None:
    output = {
        "type": "postgres",
        "host": "{{ env_var('SHOP_PG_HOST') }}",
        "port": 5432,
        "user": "{{ env_var('SHOP_PG_USER') }}",
        "password": "{{ env_var('SHOP_PG_PASSWORD', '') }}",
        "dbname": "shop",
        "schema": "public",
        "threads": 2,
    }
    TinyProject(twins.ours, compiled_template).compile(
        [], config={"computes": {"duckdb": {"target": "dev"}}}, outputs={"dev": output}
    )
    postgres("drop role if exists reader; create role reader")
    twins.write(
        {
            **project(models={"tiny": {"+persist_docs": {"relation": True, "columns": True}}}),
            "granted": TABLE.replace("'table'", "'table', grants={'select': ['reader']}")
            + "select 1 as id",
            "matview": "{{ config(materialized='materialized_view') }} "
            "select id from {{ ref('granted') }}",
            "below": "select id from {{ ref('matview') }}",
            "models/s.yml": "models: [{name: granted, description: Of one row., columns: "
            "[{name: id, description: A number., data_tests: [unique]}]}]",
        }
    )

    def database_state() -> list[list[tuple[Any, ...]]]:
        return [
            postgres(query)
            for query in (
                (
                    "select relname, relkind::text, obj_description(oid) from pg_class "
                    "where relnamespace = 'public'::regnamespace order by 1"
                ),
                (
                    "select table_name, privilege_type from information_schema.role_table_grants "
                    "where grantee = 'reader'"
                ),
                "select col_description('granted'::regclass, 1)",
                "select * from below",
            )
        ]

    bare = twins.build_bare()
    theirs = database_state()
    postgres("drop schema public cascade; create schema public")
    ours, recorded, _ = twins.build_ours()
    assert not (mismatches := [*differences(bare, ours)]), "\n".join(mismatches)
    assert recorded is not None
    assert contradictions(bare.statuses, recorded, success=True) == []
    assert database_state() == theirs
    assert theirs == [
        [("below", "v", None), ("granted", "r", "Of one row."), ("matview", "m", None)],
        [("granted", "SELECT")],
        [("A number.",)],
        [(1,)],
    ]
