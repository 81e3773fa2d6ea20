"""A re-execution from failure does the remaining work, and repeats work of unknown result."""

from __future__ import annotations

from typing import Any

import dagster as dg

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from kit.support import TinyProject, checked, failure_of, materialized, run, tables

CRITICAL = {
    "name": "few",
    "type": "accepted_values",
    "dimension": "validity",
    "column": "id",
    "parameters": {"values": [1], "quote": False},
    "severity": "critical",
}


def resumed(failed: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the tags with which Dagster re-executes a run from failure."""
    return {
        "dagster/parent_run_id": failed.run_id,
        "dagster/root_run_id": failed.run_id,
        "dagster/is_resume_retry": "true",
    }


def with_settings(tiny: TinyProject, **settings: Any) -> None:
    lines = [f"{name}: {value}" for name, value in settings.items()]
    path = tiny.directory / "dbt_project.yml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("on-run-")]
    path.write_text("\n".join([*kept, *lines]) + "\n")


def test_a_failed_hook_runs_again_with_the_cheapest_node(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write({"a": "select 1 as id", "b": "select * from {{ ref('a') }}"}).compile([])
    with_settings(tiny, **{"on-run-end": "[insert into audit values (1)]"})
    failed = run(tiny.open(), instance)
    assert "failed: hook tiny-on-run-end-0: tiny.on-run-end.0 failed, error:" in failure_of(failed)
    assert sorted(materialized(failed)) == ["a", "b"]
    hooks = "[create table if not exists audit(n int), insert into audit values (1)]"
    with_settings(tiny, **{"on-run-end": hooks})
    rerun = run(tiny.open(), instance, tags=resumed(failed))
    assert rerun.success
    assert materialized(rerun) == ["b"]
    assert tables(tiny.database)["main.audit"] == [(1,)]


def test_a_failed_quality_check_runs_again_on_the_existing_table(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write({"a": "select 1 as id union all select 2"})
    tiny.compile([{"name": "a", "quality_checks": [CRITICAL]}])
    product = tiny.open()
    failed = run(product, instance)
    assert not failed.success
    assert checked(failed) == {"few": False}
    rerun = run(product, instance, tags=resumed(failed))
    assert not rerun.success
    assert materialized(rerun) == []
    assert checked(rerun) == {"few": False}
    assert "failed: quality check few: 1 failing rows" in failure_of(rerun)


def test_a_quality_check_can_be_launched_alone(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write({"a": "select 1 as id"})
    tiny.compile([{"name": "a", "quality_checks": [CRITICAL]}])
    product = tiny.open()
    assert run(product, instance).success
    key = dg.AssetCheckKey(dg.AssetKey("a"), "few")
    alone = dg.Definitions(
        assets=build_definitions(product).assets,
        jobs=[dg.define_asset_job("alone", dg.AssetSelection.checks(key))],
    )
    result = job_named(alone, "alone").execute_in_process(instance=instance)
    assert result.success
    assert materialized(result) == []
    assert checked(result) == {"few": True}


def test_the_log_does_not_report_missing_checks(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    properties = "models: [{name: a, columns: [{name: id, data_tests: [unique, not_null]}]}]"
    product = tiny.write({"a": "select 1 as id", "models/p.yml": properties}).compile([]).open()
    result = run(product, instance)
    assert result.success
    assert len(checked(result)) == 2
    lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any("2 tests" in line for line in lines)
    assert not [line for line in lines if "did not yield" in line]
