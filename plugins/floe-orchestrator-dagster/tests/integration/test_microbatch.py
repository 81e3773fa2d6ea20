"""A microbatch model is one asset: dbt builds one window and reports one materialization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import duckdb
import pytest

from floe_orchestrator_dagster.dbt.events import NodeFinished, NodeStarted
from kit.support import TinyProject, failure_of, materialized, run, tables

DAYS = "2026-01-0{}"
EVENTS = """{{{{ config(materialized='table', event_time='ts') }}}}
select * from (values {}) as days(id, ts)
"""
SESSIONS = """{{{{ config(
    materialized='incremental', incremental_strategy='microbatch', event_time='ts',
    batch_size='day', begin='2026-01-01', lookback=0, concurrent_batches={concurrent}, meta={meta}
) }}}}
select id, ts, {column} as value from {{{{ ref('events') }}}}
"""
PARTITIONS = {"partitions": {"type": "daily", "start": "2026-01-01", "end": "2026-01-05"}}
PROPERTIES = "models: [{name: sessions, columns: [{name: id, data_tests: [not_null]}]}]"
BROKEN = "case when id = 3 then 1 / cast('x' || id as int) else id end"


def events(*days: int) -> str:
    return EVENTS.format(", ".join(f"({day}, timestamp '2026-01-0{day} 10:00')" for day in days))


def sessions(meta: Mapping[str, Any], column: str = "id", *, concurrent: bool = False) -> str:
    return SESSIONS.format(meta={"dagster": dict(meta)}, column=column, concurrent=concurrent)


def write(tiny: TinyProject, meta: Mapping[str, Any], column: str = "id", **more: Any) -> None:
    tiny.write(
        {
            "events": events(1, 2, 3, 4),
            "sessions": sessions(meta, column, **more),
            "below": "select count(*) as n from {{ ref('sessions') }}",
            "models/p.yml": PROPERTIES,
        }
    ).compile([])


def days(tiny: TinyProject) -> list[int]:
    return [row[0] for row in tables(tiny.database)["main.sessions"]]


def backfill(
    tiny: TinyProject,
    instance: dg.DagsterInstance,
    first: str,
    last: str,
    **more: Any,
) -> dg.ExecuteInProcessResult:
    """Run a range of partitions in one run."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return run(tiny.open(), instance, tags=tags | more.pop("tags", {}), **more)


def resumed(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        "dagster/is_resume_retry": "true",
        "dagster/parent_run_id": result.run_id,
        "dagster/root_run_id": result.run_id,
    }


def test_a_partition_builds_its_own_window_and_is_recorded_once(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    write(tiny, PARTITIONS)
    reported: list[Any] = []
    result = run(tiny.open(), instance, partition=DAYS.format(2), listener=reported.append)
    assert result.success
    assert sorted(materialized(result)) == ["below", "events", "sessions"]
    assert days(tiny) == [2]
    of_sessions = [event for event in reported if event.unique_id.endswith(".sessions")]
    assert [type(event) for event in of_sessions] == [NodeStarted, NodeFinished]


def test_a_deleted_row_disappears_when_its_partition_is_built_again(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    write(tiny, PARTITIONS)
    assert backfill(tiny, instance, DAYS.format(1), DAYS.format(4)).success
    assert days(tiny) == [1, 2, 3, 4]
    tiny.write({"events": events(1, 2, 4)}).compile([])
    assert run(tiny.open(), instance, partition=DAYS.format(3)).success
    assert days(tiny) == [1, 2, 4]


def test_partitions_of_another_zone_reach_dbt_in_utc(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    zone = {"partitions": PARTITIONS["partitions"] | {"timezone": "Asia/Tokyo"}}
    write(tiny, zone)
    assert run(tiny.open(), instance, partition=DAYS.format(3)).success
    # Day 3 in Tokyo begins on day 2 in UTC, and dbt builds whole batches.
    assert days(tiny) == [2, 3]


def test_a_full_refresh_of_one_partition_is_refused(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    write(tiny, PARTITIONS)
    config = {"full_refresh": True}
    result = run(tiny.open(), instance, partition=DAYS.format(3), config=config)
    assert not result.success
    assert "dbt would replace the whole table, and 3 other partitions would be lost" in failure_of(
        result
    )
    assert materialized(result) == []
    assert backfill(tiny, instance, DAYS.format(1), DAYS.format(4), config=config).success


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_model_with_a_failed_batch_fails_and_is_completed_from_failure(
    tiny: TinyProject, instance: dg.DagsterInstance, *, concurrent: bool
) -> None:
    write(tiny, PARTITIONS, BROKEN, concurrent=concurrent)
    result = backfill(tiny, instance, DAYS.format(1), DAYS.format(4))
    assert not result.success
    assert materialized(result) == ["events"]
    assert result.get_asset_check_evaluations() == []
    assert "PARTIAL SUCCESS (3/4)" in failure_of(result)
    assert "Could not convert string 'x3'" in failure_of(result)
    write(tiny, PARTITIONS, concurrent=concurrent)
    rerun = backfill(tiny, instance, DAYS.format(1), DAYS.format(4), tags=resumed(result))
    assert rerun.success
    assert tables(tiny.database)["main.sessions"] == [
        (day, row[1], day) for day, row in enumerate(tables(tiny.database)["main.sessions"], 1)
    ]
    assert tables(tiny.database)["main.below"] == [(4,)]


LIMITED = "if((select count(*) from limits where day = id) = 0, error('no limit'), id)"
THREE_THEN_ONE = [[DAYS.format(1), DAYS.format(2), DAYS.format(4)], [DAYS.format(3)]]


def limit(tiny: TinyProject, *limited: int) -> None:
    """Write the table of allowed days, which dbt does not build; the model fails on other days."""
    with duckdb.connect(str(tiny.database)) as connection:
        connection.execute("create or replace table limits(day int)")
        connection.executemany("insert into limits values (?)", [[day] for day in limited])


def batches_built(tiny: TinyProject) -> list[list[str]]:
    """Return the first days of the batches that each dbt run built, one list per run."""
    runs = (tiny.directory / "target/floe/runs").glob("*/run_results.json")
    return [
        [start[:10] for start, _ in result["batch_results"]["successful"]]
        for path in sorted(runs, key=lambda path: path.stat().st_mtime)
        for result in json.loads(path.read_text())["results"]
        if result["unique_id"].endswith(".sessions")
    ]


def test_from_failure_builds_only_the_missing_batches_if_the_code_is_the_same(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    write(tiny, PARTITIONS, LIMITED)
    limit(tiny, 1, 2, 4)
    result = backfill(tiny, instance, DAYS.format(1), DAYS.format(4))
    assert "no limit" in failure_of(result)
    limit(tiny, 1, 2, 3, 4)
    rerun = backfill(tiny, instance, DAYS.format(1), DAYS.format(4), tags=resumed(result))
    assert rerun.success
    assert days(tiny) == [1, 2, 3, 4]
    assert batches_built(tiny) == THREE_THEN_ONE
    # Each partition of the range has one materialization.
    assert materialized(rerun) == ["sessions"] * 4 + ["below"]


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_retry_within_the_run_builds_the_missing_batches(
    tiny: TinyProject, instance: dg.DagsterInstance, *, full_refresh: bool
) -> None:
    write(tiny, PARTITIONS, LIMITED)
    tiny.compile([], config={"retries": 1})
    # The hook at the end of the first dbt run removes the cause of the failure.
    project = tiny.directory / "dbt_project.yml"
    project.write_text(project.read_text() + 'on-run-end: ["insert into limits values (3)"]\n')
    limit(tiny, 1, 2, 4)
    config = {"full_refresh": full_refresh}
    result = backfill(tiny, instance, DAYS.format(1), DAYS.format(4), config=config)
    assert result.success, failure_of(result)
    assert days(tiny) == [1, 2, 3, 4]
    assert batches_built(tiny) == THREE_THEN_ONE
    assert materialized(result) == ["events"] + ["sessions"] * 4 + ["below"]


def test_models_with_and_without_partitions_have_their_own_windows(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    write(tiny, PARTITIONS)
    today = datetime.now(timezone.utc).date() - timedelta(days=1)
    tiny.write({"other": sessions({}).replace("2026-01-01", str(today))}).compile([])
    result = run(tiny.open(), instance, partition=DAYS.format(2))
    assert result.success
    assert days(tiny) == [2]
    # `other` has no partition, so dbt chooses its batches: from `begin`, which is yesterday.
    assert tables(tiny.database)["main.other"] == []
    assert sorted(materialized(result)) == ["below", "events", "other", "sessions"]
