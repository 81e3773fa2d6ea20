"""One chain over DuckDB and a real PostgreSQL: each model on its own engine, in the right order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from floe_orchestrator_dagster.errors import PlanError
from floe_orchestrator_dagster.product.opening import open_product
from kit.support import checked, failure_of, materialized, run

Query = Callable[[str], list[tuple[Any, ...]]]
JOB = "two_engines"


def dbt_runs(directory: Path) -> int:
    runs = directory / "target" / "floe" / "runs"
    return len(list(runs.iterdir())) if runs.exists() else 0


def opened(directory: Path) -> Any:
    return open_product(directory, progress=lambda _: None)


def test_a_chain_over_two_engines_takes_four_dbt_runs(
    example: Callable[[str], Path], postgres: Query, instance: dg.DagsterInstance
) -> None:
    directory = example("two-engines")
    result = run(opened(directory), instance, job=JOB)
    assert result.success, failure_of(result)
    assert dbt_runs(directory) == 4
    order = [name.rpartition("/")[2] for name in materialized(result)]
    assert [name for name in order if len(name) == 1] == ["a", "b", "c", "d"]
    assert sorted(order) == ["a", "b", "c", "d", "duck_only", "numbers", "pg_only"]
    # Cross-compute tests run exactly once, and all of them.
    names = [item.check_name for item in result.get_asset_check_evaluations()]
    assert len(names) == len(set(names)) == 6
    assert all(checked(result).values())
    # Each relation is in its engine. Models local to DuckDB are only in its file.
    in_postgres = postgres(
        "select table_name from information_schema.tables where table_schema = 'public' order by 1"
    )
    assert in_postgres == [("a",), ("b",), ("c",), ("d",), ("pg_only",)]
    with duckdb.connect(str(directory / "target" / "two_engines.duckdb")) as connection:
        assert connection.execute("show tables").fetchall() == [("duck_only",), ("numbers",)]
    assert postgres("select sum(n) from d") == [(6,)]
    computes = {
        record.asset_key.to_user_string(): record.asset_materialization.metadata[
            "floe/compute"
        ].value
        for name in materialized(result)
        for record in instance.fetch_materializations(dg.AssetKey(name.split("/")), limit=1).records
        if record.asset_materialization
    }
    assert computes["public/b"] == computes["public/d"] == "postgres"
    assert computes["public/a"] == computes["public/c"] == "duckdb"


def test_a_failing_model_leaves_other_branches_and_from_failure_builds_what_is_missing(
    example: Callable[[str], Path], postgres: Query, instance: dg.DagsterInstance
) -> None:
    directory = example("two-engines")
    model = directory / "models" / "crossing" / "c.sql"
    good = model.read_text()
    model.write_text("select nope from {{ ref('b') }}")
    failed = run(opened(directory), instance, job=JOB)
    assert not failed.success
    built = {name.rpartition("/")[2] for name in materialized(failed)}
    assert built == {"numbers", "a", "b", "duck_only", "pg_only"}
    assert "failed: model c" in failure_of(failed)
    assert "skipped: model d" in failure_of(failed)
    model.write_text(good)
    rerun = run(
        opened(directory),
        instance,
        job=JOB,
        tags={"dagster/parent_run_id": failed.run_id, "dagster/is_resume_retry": "true"},
    )
    assert rerun.success, failure_of(rerun)
    assert materialized(rerun) == ["public/c", "public/d"]
    assert postgres("select count(*) from d") == [(4,)]


def test_the_ends_of_the_chain_run_in_the_right_order(
    example: Callable[[str], Path], postgres: Query, instance: dg.DagsterInstance
) -> None:
    product = opened(example("two-engines"))
    assert run(product, instance, job=JOB).success
    ends = run(product, instance, job=JOB, select=["public/d", "public/a"])
    assert ends.success, failure_of(ends)
    assert materialized(ends) == ["public/a", "public/d"]
    assert postgres("select count(*) from a") == [(6,)]


def test_an_edge_whose_relation_names_differ_is_refused_before_anything_runs(
    example: Callable[[str], Path], postgres: Query
) -> None:
    directory = example("two-engines")
    project = directory / "dbt_project.yml"
    project.write_text(project.read_text().replace("+database: shop\n", "+enabled: true\n"))
    with pytest.raises(PlanError) as error:
        opened(directory)
    message = str(error.value)
    assert '\'a\' is written as "two_engines"."public"."a" on compute \'duckdb\'' in message
    assert 'but read as "shop"."public"."a" on compute \'postgres\'' in message
    assert "Give it the same database, schema and alias for both targets" in message
    assert dbt_runs(directory) == 0
    assert postgres("select 1 from information_schema.tables where table_schema='public'") == []
