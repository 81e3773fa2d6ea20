"""Products run for real: dbt on DuckDB through Dagster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DagsterDbtTranslator

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.run.step import Host
from kit.support import TinyProject, checked, failure_of, materialized, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHAIN = {
    "a": "select 1 as id",
    "b": "select id from {{ ref('a') }}",
    "c": "select id from {{ ref('b') }}",
}
TABLE = "{{ config(materialized='table') }} "


def rows(project: TinyProject, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project.database), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_chain_is_built_in_order_by_one_dbt_run(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    product = tiny.write(CHAIN).compile([{"name": name} for name in CHAIN]).open()
    result = run(product, instance)
    assert result.success
    assert materialized(result) == ["a", "b", "c"]
    assert len(list((tiny.directory / "target/floe/runs").iterdir())) == 1
    assert rows(tiny, "select id from c") == [(1,)]


def test_a_failed_node_blocks_only_its_descendants(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(CHAIN | {"b": TABLE + "select nope from {{ ref('a') }}", "x": "select 2 as id"})
    result = run(tiny.compile([]).open(), instance)
    assert not result.success
    assert sorted(materialized(result)) == ["a", "x"]
    message = failure_of(result)
    assert "1 failed, 1 skipped." in message
    assert "failed: model b: Runtime Error" in message
    assert "skipped: model c" in message


def test_a_failed_test_blocks_descendants_and_a_warning_does_not(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        CHAIN
        | {
            "b": "select cast(null as integer) as id from {{ ref('a') }}",
            "models/schema.yml": """
models:
  - name: a
    columns: [{name: id, data_tests: [{accepted_values: {values: [7], config: {severity: warn}}}]}]
  - name: b
    columns: [{name: id, data_tests: [not_null]}]
""",
        }
    )
    result = run(tiny.compile([]).open(), instance)
    assert materialized(result) == ["a", "b"]
    assert checked(result) == {"accepted_values_a_id__7": False, "not_null_b_id": False}
    severities = {
        item.check_name: item.severity.value for item in result.get_asset_check_evaluations()
    }
    assert severities == {"accepted_values_a_id__7": "WARN", "not_null_b_id": "ERROR"}
    assert "failed: test not_null_b_id: Got 1 result, configured to fail if != 0" in failure_of(
        result
    )


def test_rows_columns_versions_and_times_reach_the_materialization(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write({"a": TABLE + "select range as id, 'x' as v from range(5)", "b": CHAIN["b"]})
    run(tiny.compile([{"name": "a"}, {"name": "b"}]).open(), instance)
    record = instance.fetch_materializations(dg.AssetKey("a"), limit=1).records[0]
    materialization = record.asset_materialization
    assert materialization is not None
    assert materialization.metadata["dagster/row_count"].value == 5
    columns = materialization.metadata["dagster/column_schema"].value
    assert [(column.name, column.type) for column in columns.columns] == [
        ("id", "BIGINT"),
        ("v", "character varying(256)"),
    ]
    assert materialization.metadata["floe/compute"].value == "duckdb"
    assert materialization.metadata["Execution Duration"].value > 0
    below = instance.fetch_materializations(dg.AssetKey("b"), limit=1).records[0]
    tags = below.asset_materialization.tags if below.asset_materialization else {}
    assert tags["dagster/input_data_version/a"] == materialization.tags["dagster/data_version"]
    assert tags["dagster/input_event_pointer/a"] == str(record.storage_id)
    assert "dagster/row_count" not in (
        below.asset_materialization.metadata if below.asset_materialization else {}
    )


def test_a_check_points_at_the_materialization_that_it_checked(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": CHAIN["a"],
            "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}]",
        }
    )
    result = run(tiny.compile([]).open(), instance)
    [evaluation] = result.get_asset_check_evaluations()
    record = instance.fetch_materializations(dg.AssetKey("a"), limit=1).records[0]
    assert evaluation.target_materialization_data is not None
    assert evaluation.target_materialization_data.storage_id == record.storage_id


def test_every_planned_test_of_every_kind_runs_once(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        CHAIN
        | {
            "seeds/raw.csv": "id\n1\n2\n",
            "b": TABLE + "select id from {{ source('landing', 'raw') }}",
            "models/s.yml": """
sources:
  - name: landing
    schema: main
    tables:
      - name: raw
        columns: [{name: id, data_tests: [unique]}]
models:
  - name: c
    columns:
      - name: id
        data_tests: [not_null, {relationships: {to: ref('a'), field: id, config: {severity: warn}}}]
unit_tests:
  - name: c_passes_ids_through
    model: c
    given: [{input: ref('b'), rows: [{id: 5}]}]
    expect: {rows: [{id: 5}]}
""",
            "tests/a_and_c.sql": "select 1 from {{ ref('a') }} a join {{ ref('c') }} c using (id) "
            "where a.id > 1",
        }
    )
    product = tiny.compile([]).open()
    result = run(product, instance)
    assert result.success, failure_of(result)
    planned = {node.name for node in product.plan.checks.values()}
    assert set(checked(result)) == planned
    assert len(planned) == 5
    # dbt cannot know that the seed feeds the source, so a separate dbt run builds the seed first.
    assert len(list((tiny.directory / "target/floe/runs").iterdir())) == 2
    assert materialized(result).index("raw") < materialized(result).index("b")


def test_a_unit_test_alone_runs_without_its_model(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": "select 1 as id",
            "b": "select id + 1 as id from {{ ref('a') }}",
            "models/s.yml": """
models:
  - name: a
    columns: [{name: id, data_tests: [unique]}]
unit_tests:
  - name: b_adds_one
    model: b
    given: [{input: ref('a'), rows: [{id: 5}]}]
    expect: {rows: [{id: 6}]}
""",
        }
    )
    definitions = build_definitions(tiny.compile([]).open(), host=Host(echo=lambda _: None))
    job = dg.define_asset_job(
        "alone", dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("b"), "b_adds_one"))
    )
    mixed = dg.define_asset_job(
        "mixed",
        dg.AssetSelection.assets("a")
        | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("b"), "b_adds_one")),
    )
    merged = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job, mixed]))
    everything = job_named(merged, "tiny").execute_in_process(instance=instance)
    assert checked(everything) == {"unique_a_id": True, "b_adds_one": True}
    alone = job_named(merged, "alone").execute_in_process(instance=instance)
    assert (materialized(alone), checked(alone)) == ([], {"b_adds_one": True})
    both = job_named(merged, "mixed").execute_in_process(instance=instance)
    assert materialized(both) == ["a"]
    assert checked(both) == {"unique_a_id": True, "b_adds_one": True}


def test_a_partitioned_asset_is_not_built_without_a_partition(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    meta = "{'dagster': {'partitions': {'type': 'daily', 'start': '2026-01-01'}}}"
    tiny.write({"a": f"{{{{ config(meta={meta}) }}}} select 1 as id"})
    result = run(tiny.compile([]).open(), instance)
    assert not result.success
    assert (
        "Cannot build a: partitioned assets need a partition, and this run has none. Launch a "
        "partition or a backfill."
    ) in failure_of(result)
    assert materialized(result) == []


def test_checks_that_are_not_selected_do_not_run(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": CHAIN["a"],
            "models/s.yml": """
models:
  - name: a
    columns: [{name: id, data_tests: [unique, not_null]}]
""",
        }
    )
    product = tiny.compile([]).open()
    definitions = build_definitions(product, host=Host(echo=lambda _: None))
    job = dg.define_asset_job(
        "no_checks",
        selection=dg.AssetSelection.all().without_checks()
        | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("a"), "unique_a_id")),
    )
    merged = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))
    result = job_named(merged, "no_checks").execute_in_process(instance=instance)
    assert checked(result) == {"unique_a_id": True}


def test_only_errored_nodes_are_retried(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    flag = tiny.directory / "flag.csv"
    tiny.write(
        {
            "a": TABLE + "select 1 as id",
            "b": TABLE + f"select * from read_csv('{flag}') cross join {{{{ ref('a') }}}}",
            "c": TABLE + "select 3 as id from {{ ref('b') }}",
        }
    )
    product = tiny.compile([], config={"retries": 1}).open()
    attempts: list[tuple[str, str, int]] = []

    def heal(progress: Any) -> None:
        if type(progress).__name__ == "NodeFinished":
            attempts.append((progress.unique_id, progress.status, progress.attempt))
            if progress.status == "error":
                flag.write_text("v\n1\n")

    result = run(product, instance, listener=heal)
    assert result.success, failure_of(result)
    assert attempts == [
        ("model.tiny.a", "success", 1),
        ("model.tiny.b", "error", 1),
        ("model.tiny.c", "skipped", 1),
        ("model.tiny.b", "success", 2),
        ("model.tiny.c", "success", 2),
    ]
    assert materialized(result) == ["a", "b", "c"]


def test_from_failure_builds_only_what_is_missing(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        CHAIN
        | {
            "b": TABLE + "select nope from {{ ref('a') }}",
            "x": "select 2 as id",
            "models/s.yml": "models: [{name: x, columns: [{name: id, data_tests: [unique]}]}]",
        }
    )
    failed = run(tiny.compile([]).open(), instance)
    tiny.write({"b": CHAIN["b"]})
    healed = run(
        tiny.open(),
        instance,
        tags={
            "dagster/parent_run_id": failed.run_id,
            "dagster/root_run_id": failed.run_id,
            "dagster/is_resume_retry": "true",
        },
    )
    assert healed.success, failure_of(healed)
    assert materialized(healed) == ["b", "c"]
    assert checked(healed) == {}


def test_a_subset_runs_through_nodes_that_are_not_selected(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    product = tiny.write(CHAIN).compile([]).open()
    assert run(product, instance).success
    result = run(product, instance, select=["a", "c"])
    assert materialized(result) == ["a", "c"]


def test_vars_full_refresh_and_empty_reach_dbt(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": "{{ config(materialized='incremental') }} "
            "select '{{ var('who', 'nobody') }}' as who from {{ ref('s') }}",
            "seeds/s.csv": "id\n1\n",
        }
    )
    product = tiny.compile([]).open()
    assert run(product, instance).success
    assert run(product, instance, config={"variables": {"who": "me"}}).success
    assert rows(tiny, "select who from a order by who") == [("me",), ("nobody",)]
    assert run(product, instance, config={"full_refresh": True}).success
    assert rows(tiny, "select who from a") == [("nobody",)]
    assert run(product, instance, config={"full_refresh": True, "empty": True}).success
    assert rows(tiny, "select who from a") == []


def test_a_partition_passes_its_window_to_dbt(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": """{{ config(
                materialized='incremental', unique_key='day',
                meta={'dagster': {'partitions': {'type': 'daily', 'start': '2026-01-01'}}})
            }}
            select cast('{{ var("partition_start", "none") }}' as varchar) as day,
                   '{{ var("partition_end", "none") }}' as until""",
            "b": "select count(*) as days from {{ ref('a') }}",
        }
    )
    product = tiny.compile([]).open()
    for day in ("2026-01-02", "2026-01-03"):
        assert run(product, instance, partition=day).success
    assert rows(tiny, "select day, until from a order by 1") == [
        ("2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00"),
        ("2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00"),
    ]
    assert instance.get_materialized_partitions(dg.AssetKey("a")) == {"2026-01-02", "2026-01-03"}


def test_quality_checks_of_floe_yaml_run_if_dbt_has_no_equal_test(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    def check(name: str, kind: str, severity: str, **parameters: Any) -> dict[str, Any]:
        return {
            "name": name,
            "type": kind,
            "column": "id",
            "dimension": "validity",
            "severity": severity,
            "parameters": parameters,
        }

    tiny.write(
        {
            "a": TABLE + "select unnest([1, 1, 2]) as id",
            "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [not_null]}]}]",
        }
    )
    tiny.compile(
        [
            {
                "name": "a",
                "quality_checks": [
                    check("ids_are_there", "not_null", "critical"),
                    check("ids_are_unique", "unique", "warning"),
                    check("ids_are_known", "accepted_values", "critical", values=[1, 2]),
                ],
            }
        ]
    )
    result = run(tiny.open(), instance)
    assert result.success, failure_of(result)
    assert checked(result) == {
        "not_null_a_id": True,
        "ids_are_unique": False,
        "ids_are_known": True,
    }


def test_assets_of_another_op_downstream_run_in_the_same_run(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    @dg.asset(deps=["c"])
    def report() -> None: ...

    product = tiny.write(CHAIN).compile([]).open()
    merged = dg.Definitions.merge(
        build_definitions(product, host=Host(echo=lambda _: None)),
        dg.Definitions(assets=[report], jobs=[dg.define_asset_job("all", "*")]),
    )
    result = job_named(merged, "all").execute_in_process(instance=instance)
    assert materialized(result) == ["a", "b", "c", "report"]


LOADED = {
    "m": TABLE + "select id from {{ source('raw', 'events') }}",
    "n": TABLE + "select id from {{ source('raw', 'people') }}",
    "models/s.yml": """
sources:
  - name: raw
    schema: main
    tables:
      - {name: events, columns: [{name: id, data_tests: [not_null]}], META}
      - {name: people, description: Who there is.}
""",
}
NAMED = "meta: {dagster: {asset_key: [ingest, events]}}"


class Fivetran(DagsterDbtTranslator):
    """A translator that gives a source the key of the asset that loads it."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["name"] == "events":
            return dg.AssetKey(["ingest", "events"])
        return super().get_asset_key(dbt_resource_props)


@pytest.mark.parametrize("isolation", ["product", "compute"])
@pytest.mark.parametrize("named_by", ["meta", "translator"])
def test_dbt_waits_for_a_source_that_another_asset_loads_in_the_same_run(
    tiny: TinyProject, instance: dg.DagsterInstance, named_by: str, isolation: str
) -> None:
    @dg.asset(key=["ingest", "events"])
    def load() -> None:
        time.sleep(0.5)
        with duckdb.connect(str(tiny.database)) as connection:
            connection.execute("create or replace table events as select 7 as id")
            connection.execute("create or replace table people as select 8 as id")

    by_meta = named_by == "meta"
    files = {**LOADED, "models/s.yml": LOADED["models/s.yml"].replace("META", NAMED * by_meta)}
    product = tiny.write(files).compile([], config={"isolation": isolation}).open()
    definitions = build_definitions(
        product, translator=None if by_meta else Fivetran(), host=Host(echo=lambda _: None)
    )
    merged = dg.Definitions.merge(
        definitions, dg.Definitions(assets=[load], jobs=[dg.define_asset_job("all", "*")])
    )
    result = job_named(merged, "all").execute_in_process(instance=instance)
    assert result.success
    assert materialized(result)[0] == "ingest/events"
    assert sorted(materialized(result)) == ["ingest/events", "m", "n"]
    assert checked(result) == {"source_not_null_raw_events_id": True}
    assert rows(tiny, "select id from m union select id from n order by id") == [(7,), (8,)]
    # The plugin describes only sources that no other asset defines.
    graph = merged.get_repository_def().asset_graph
    assert (graph.get(dg.AssetKey(["raw", "people"])).description or "").startswith("Who there is.")
    # The product loads without that asset too, which is then in another code location.
    job_named(definitions, "tiny")
    key = dg.AssetKey(["ingest", "events"])
    assert not definitions.get_repository_def().asset_graph.get(key).is_executable


def test_isolation_compute_gives_a_step_per_run_of_nodes_on_one_compute(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    second = {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 1}
    tiny.write(
        CHAIN | {"models/s.yml": "models: [{name: c, columns: [{name: id, data_tests: [unique]}]}]"}
    )
    tiny.compile(
        [{"name": "a"}, {"name": "b", "compute": "other"}, {"name": "c"}],
        outputs={"other": second},
        config={
            "isolation": "compute",
            "computes": {
                "duckdb": {"target": "dev"},
                "other": {"pool": "the_file", "resources": "large"},
            },
        },
    )
    result = run(tiny.open(), instance)
    assert result.success, failure_of(result)
    steps = [event.step_key for event in result.all_events if event.is_step_start]
    assert steps == ["tiny_dbt_1_duckdb", "tiny_dbt_2_other", "tiny_dbt_3_duckdb"]
    assert materialized(result) == ["a", "b", "c"]
    assert checked(result) == {"unique_c_id": True}
    node = result.job_def.get_node_named("tiny_dbt_2_other")
    assert node.definition.tags["dagster-k8s/config"] is not None
    assert node.definition.pool == "the_file"


SLOW = """
from pathlib import Path
import sys
sys.path.insert(0, {tests!r})
import dagster as dg
from kit.support import run
from floe_orchestrator_dagster.product.opening import open_product
with dg.DagsterInstance.ephemeral() as instance:
    run(open_product(Path({directory!r})), instance, listener=lambda p: print(p, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_dbt_outlives_an_interrupted_or_killed_run(
    tiny: TinyProject, how: signal.Signals, tmp_path: Path
) -> None:
    slow = "select count(*) as n from range(10000000000) a, range(1000) b where a.range % 7 = 3"
    tiny.write({"slow": TABLE + slow}).compile([]).open()
    script = SLOW.format(
        tests=str(tmp_path.__class__(__file__).parents[1]), directory=str(tiny.directory)
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"NodeStarted" in line:
                break
        [dbt] = _children(process.pid)
        os.kill(process.pid, how)
        process.wait(40)
    deadline = time.monotonic() + 40
    while _is_alive(dbt) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_alive(dbt)


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def _is_alive(pid: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")
