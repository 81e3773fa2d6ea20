"""Real runs tell their lineage to a real server; what it gets is checked event by event.

With OPENLINEAGE_SPEC in the environment (`make conformance`) every event is also validated against
the official schemas in that folder.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import yaml
from floe_core.lineage import LineageDataset, RunState

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.lineage.facets import PRODUCER
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.testing import RecordingBackend
from kit.lineage_events import Recorded, build, kinds, sound
from kit.openlineage_checks import Event, spec_problems
from kit.support import TinyProject, failure_of, run

TABLE = "{{ config(materialized='table') }} "


def test_a_run_tells_its_tree_its_tables_and_its_columns(
    example: Callable[[str], Path],
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
) -> None:
    events, backend = recorded
    product = open_product(example("shop"), progress=lambda _: None)
    result = build(
        product,
        backend,
        instance,
        job="shop",
        tags={".dagster/scheduled_execution_time": "2026-01-02T06:00:00+00:00"},
    )
    assert result.success, failure_of(result)
    found = sound(events)
    top = found["shop"]
    assert kinds(top) == ["START", "RUNNING", "RUNNING", "COMPLETE"]
    assert top[0]["run"]["runId"] == result.run_id
    assert events[0] is top[0]
    assert events[-1] is top[-1]
    assert {event["job"]["namespace"] for event in events} == {"test.floe"}
    nominal = {event["run"]["facets"]["nominalTime"]["nominalStartTime"] for event in events}
    assert nominal == {"2026-01-02T06:00:00+00:00"}
    # Every node of the plan that dbt runs, whatever its kind; a quality check is told of its model.
    plan = product.plan
    told = {event["job"]["name"].removeprefix("shop.") for event in events}
    assert {*plan.assets, *plan.checks} - plan.quality_checks.keys() <= told
    for check in plan.quality_checks.values():
        assert check.quality is not None
        assert f"{check.on}.{check.quality.name}" in told
    done = found["stg_customers"][-1]
    [output], [source] = done["outputs"], done["inputs"]
    assert output["namespace"] == f"duckdb://{product.project_dir}/target/shop.duckdb"
    assert output["name"] == "shop.main.stg_customers"
    assert source["name"] == "shop.main.raw_customers"
    columns = {field["name"]: field for field in output["facets"]["schema"]["fields"]}
    assert columns["customer_id"] == {
        "name": "customer_id",
        "ordinal_position": 1,
        "type": "INTEGER",
        "description": "Key of the customer.",
    }
    [read] = output["facets"]["columnLineage"]["fields"]["customer_id"]["inputFields"]
    assert (read["name"], read["field"]) == ("shop.main.raw_customers", "id")
    assert [(item["type"], item["subtype"]) for item in read["transformations"]] == [
        ("DIRECT", "IDENTITY")
    ]
    revenue = found["daily_revenue"][-1]["outputs"][0]
    assert revenue["outputFacets"]["outputStatistics"]["rowCount"] == 29
    assert "select" in done["job"]["facets"]["sql"]["query"]
    warned = found["accepted_values_stg_payments_method__card__transfer"]
    assert kinds(warned) == ["START", "COMPLETE"]


def test_times_are_those_of_dbt(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    finished: dict[str, tuple[str, str]] = {}

    def listen(progress: Any) -> None:
        if type(progress).__name__ == "NodeFinished":
            finished[progress.unique_id] = (progress.started_at, progress.finished_at)

    tiny.write({"a": TABLE + "select 1 as id", "b": "select id from {{ ref('a') }}"})
    assert build(tiny.compile([]).open(), backend, instance, listener=listen).success
    found = sound(events)
    for name in ("a", "b"):
        times = [datetime.fromisoformat(event["eventTime"].rstrip("Z")) for event in found[name]]
        dbts = [datetime.fromisoformat(time.rstrip("Z")) for time in finished[f"model.tiny.{name}"]]
        assert times == dbts


def test_a_failure_is_told_in_dbts_words_and_what_is_below_it_is_aborted(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    tiny.write(
        {
            "a": "select 1 as id",
            "b": TABLE + "select nope from {{ ref('a') }}",
            "c": "select * from {{ ref('b') }}",
            "models/schema.yml": "models: [{name: a, columns: [{name: id, data_tests: "
            "[not_null, {accepted_values: {values: [7], config: {severity: warn}}}, "
            "{accepted_values: {name: only_eight, values: [8]}}]}]}]",
        }
    )
    product = tiny.compile([]).open()
    assert not build(product, backend, instance).success
    found = sound(events)
    assert kinds(found["b"])[-1] == "ABORT"  # a test on `a` failed before it
    assert kinds(found["c"]) == ["START", "ABORT"]
    assert kinds(found["tiny"])[-1] == "FAIL"
    assert (
        "failed: test only_eight" in found["tiny"][-1]["run"]["facets"]["errorMessage"]["message"]
    )

    def assertion(name: str) -> dict[str, Any]:
        [event] = [
            event
            for event in events
            if name in event["job"]["name"] and event["eventType"] in {"COMPLETE", "FAIL"}
        ]
        facet = event["inputs"][0]["inputFacets"]["dataQualityAssertions"]
        [told] = facet["assertions"]
        return {**told, "ended": event["eventType"]}

    assert assertion("not_null_a_id") == {
        "assertion": "not_null",
        "success": True,
        "name": "not_null_a_id",
        "severity": "error",
        "expected": "0",
        "actual": "0",
        "column": "id",
        "ended": "COMPLETE",
    }
    warned, failed = assertion("accepted_values_a_id__7"), assertion("only_eight")
    assert (warned["success"], warned["severity"], warned["ended"]) == (False, "warn", "COMPLETE")
    assert (failed["success"], failed["actual"], failed["ended"]) == (False, "1", "FAIL")


def test_a_model_that_fails_and_is_retried_is_two_runs(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    flag = tiny.directory / "flag.csv"
    tiny.write({"b": TABLE + f"select * from read_csv('{flag}')"})

    def heal(progress: Any) -> None:
        if type(progress).__name__ == "NodeFinished" and progress.status == "error":
            flag.write_text("v\n1\n")

    product = tiny.compile([], config={"retries": 1}).open()
    assert build(product, backend, instance, listener=heal).success
    found = sound(events)
    assert kinds(found["b"]) == ["START", "FAIL", "START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in found["b"]}) == 2
    assert "flag.csv" in found["b"][1]["run"]["facets"]["errorMessage"]["message"]
    attempts = [event["run"]["facets"]["floe_run"]["attempt"] for event in found["b"]]
    assert attempts == [1, 1, 2, 2]


def test_a_canceled_run_leaves_nothing_open(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    tiny.write({"a": "select 1 as id", "b": TABLE + "select id from {{ ref('a') }}"})

    def cancel(progress: Any) -> None:
        if type(progress).__name__ == "NodeStarted" and progress.unique_id.endswith(".b"):
            raise KeyboardInterrupt

    assert not build(tiny.compile([]).open(), backend, instance, listener=cancel).success
    found = sound(events)
    assert kinds(found["a"]) == ["START", "COMPLETE"]
    assert kinds(found["b"]) == ["START", "ABORT"]
    assert kinds(found["dev"]) == ["START", "ABORT"]
    assert kinds(found["tiny"])[-1] == "ABORT"
    said = found["tiny"][-1]["run"]["facets"]["errorMessage"]["message"]
    assert said == "Canceled (KeyboardInterrupt)"


def column_sources(events: list[Event], name: str) -> dict[str, list[tuple[str, str]]]:
    """Return by column what a node's output was made of: names of datasets and columns."""
    [output] = sound(events)[name][-1]["outputs"]
    fields = output["facets"]["columnLineage"]["fields"]
    return {
        column: [(read["name"], read["field"]) for read in field["inputFields"]]
        for column, field in fields.items()
    }


def test_snapshots_batches_and_files_have_their_columns(
    tiny: TinyProject,
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events, backend = recorded
    tiny.write(
        {
            "in/towns.csv": "id,town,seen\n1,Linz,2026-01-01 10:00:00\n2,Wels,2026-01-02 11:00:00",
            "models/sources.yml": "sources: [{name: files, schema: main, "
            "config: {external_location: 'in/{name}.csv'}, "
            "tables: [{name: towns, columns: [{name: id, data_tests: [unique]}]}]}]",
            # A model of the source's name: the file must not become the table.
            "towns": "{{ config(materialized='table', event_time='seen') }} "
            "select id as key, upper(town) as town, seen from {{ source('files', 'towns') }}",
            "days": "{{ config(materialized='incremental', incremental_strategy='microbatch', "
            "event_time='seen', batch_size='day', begin='2026-01-01', lookback=0) }} "
            "select key, seen from {{ ref('towns') }}",
            "written": "{{ config(materialized='external', location='out.parquet') }} "
            "select key from {{ ref('towns') }}",
            "read_again": TABLE + "select key as again from {{ ref('written') }}",
            "snapshots/by_sql.sql": "{% snapshot by_sql %}{{ config(unique_key='key', "
            "strategy='timestamp', updated_at='seen') }}select * from {{ ref('towns') }}"
            "{% endsnapshot %}",
            "snapshots/by_yaml.yml": "snapshots: [{name: by_yaml, relation: ref('towns'), "
            "config: {unique_key: key, strategy: check, check_cols: [town]}}]",
        }
    )
    # Batches go from `begin` to now; of two days there are two.
    monkeypatch.setenv("DBT_EVENT_TIME_START", "2026-01-01")
    monkeypatch.setenv("DBT_EVENT_TIME_END", "2026-01-03")
    product = tiny.compile([]).open()
    assert build(product, backend, instance).success
    file = str(tiny.directory / "in" / "towns.csv")
    assert column_sources(events, "towns") == {
        "key": [(file, "id")],
        "town": [(file, "town")],
        "seen": [(file, "seen")],
    }
    [source] = sound(events)["towns"][-1]["inputs"]
    columns = [field["name"] for field in source["facets"]["schema"]["fields"]]
    assert (source["namespace"], columns) == ("file", ["id", "town", "seen"])
    assert kinds(sound(events)["days"]) == ["START", "COMPLETE"]
    towns = "tiny.main.towns"
    assert column_sources(events, "days") == {"key": [(towns, "key")], "seen": [(towns, "seen")]}
    by_sql, by_yaml = column_sources(events, "by_sql"), column_sources(events, "by_yaml")
    own = {"key": [(towns, "key")], "town": [(towns, "town")], "seen": [(towns, "seen")]}
    assert by_sql == {
        **own,
        "dbt_scd_id": [(towns, "key"), (towns, "seen")],
        "dbt_updated_at": [(towns, "seen")],
        "dbt_valid_from": [(towns, "seen")],
        "dbt_valid_to": [(towns, "seen")],
    }
    assert by_yaml == {**own, "dbt_scd_id": [(towns, "key")]}
    assert "select * from" in sound(events)["by_yaml"][-1]["job"]["facets"]["sql"]["query"]
    out = str(tiny.directory / "out.parquet")
    assert column_sources(events, "written") == {"key": [(towns, "key")]}
    assert column_sources(events, "read_again") == {"again": [(out, "key")]}
    [written] = sound(events)["written"][-1]["outputs"]
    [link] = written["facets"]["symlinks"]["identifiers"]
    assert (written["namespace"], written["name"]) == ("file", out)
    assert link["name"] == "tiny.main.written"


def test_a_model_without_column_lineage_is_named_once_in_dagsters_log(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    deep = "(" * 160 + "1" + ")" * 160
    tiny.write({"a": TABLE + f"select {deep} as id", "b": TABLE + "select id from {{ ref('a') }}"})
    result = build(tiny.compile([]).open(), backend, instance)
    assert result.success
    sound(events)
    said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    [line] = [line for line in said if line.startswith("Column lineage is missing")]
    assert line == (
        "Column lineage is missing for a (its SQL is nested too deeply, or repeats itself too "
        "often)."
    )


def test_what_a_second_dbt_run_would_have_built_is_named_as_ever(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    tiny.write(
        {
            "a": TABLE + "select nope as id",
            "models/sources.yml": "sources: [{name: own, schema: main, tables: [{name: a}]}]",
            "b": TABLE + "select id from {{ source('own', 'a') }}",
        }
    )
    assert not build(tiny.compile([]).open(), backend, instance).success
    found = sound(events)
    assert kinds(found["b"]) == ["START", "ABORT"]
    space = f"duckdb://{tiny.database}"
    for event in found["b"]:
        assert [(item["namespace"], item["name"]) for item in event["outputs"]] == [
            (space, "tiny.main.b")
        ]
        assert [(item["namespace"], item["name"]) for item in event["inputs"]] == [
            (space, "tiny.main.a")
        ]
        assert event["run"]["facets"]["parent"]["job"]["name"] == "tiny.dbt.dev"


def test_where_dbt_cannot_connect_no_dataset_is_told_and_the_reason_is_the_true_one(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend], instance: dg.DagsterInstance
) -> None:
    events, backend = recorded
    product = tiny.write({"a": "select 1 as id"}).compile([]).open()
    tiny.database.write_bytes(b"This is not a database of DuckDB's. " * 200)
    assert not build(product, backend, instance).success
    found = sound(events)
    assert not any(event["inputs"] or event["outputs"] for event in events)
    assert kinds(found["a"])[-1] in {"ABORT", "FAIL"}
    said = found["a"][-1]["run"]["facets"]["errorMessage"]["message"]
    assert "a node or a test above it failed" not in said
    assert kinds(found["dev"])[-1] == "FAIL"


def test_tables_are_called_as_dbt_calls_them_in_this_run(
    tiny: TinyProject,
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events, backend = recorded
    schema = "{{ config(materialized='table', schema=env_var('AREA', 'scratch')) }} "
    tiny.write({"a": schema + "select 1 as id", "b": schema + "select id from {{ ref('a') }}"})
    product = tiny.compile([]).open()
    monkeypatch.setenv("AREA", "live")
    build(product, backend, instance)
    sound(events)
    names = {item["name"] for event in events for item in (*event["inputs"], *event["outputs"])}
    assert names == {"tiny.main_live.a", "tiny.main_live.b"}
    assert column_sources(events, "b") == {"id": [("tiny.main_live.a", "id")]}


@pytest.mark.parametrize("hook", ["on-run-start", "on-run-end"])
def test_a_failing_hook_fails_the_dbt_run_in_its_words(
    tiny: TinyProject,
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
    hook: str,
) -> None:
    events, backend = recorded
    tiny.write({"a": "select 1 as id"}).compile([])
    project = yaml.safe_load((tiny.directory / "dbt_project.yml").read_text())
    text = yaml.safe_dump({**project, hook: ["select error('the hook says no')"]})
    (tiny.directory / "dbt_project.yml").write_text(text)
    assert not build(tiny.open(), backend, instance).success
    found = sound(events)
    assert kinds(found["dev"]) == ["START", "FAIL"]
    assert "the hook says no" in found["dev"][-1]["run"]["facets"]["errorMessage"]["message"]
    # dbt builds the nodes all the same.
    assert kinds(found["a"]) == ["START", "COMPLETE"]
    assert not any(".operation." in event["job"]["name"] for event in events)


SECRETS = {
    "DBT_ENV_SECRET_LAKE": "canary+one/Kq7=zX",
    "DBT_ENV_SECRET_UNUSED": "canary-two&Rw4 pL",
    "PROXY_PASSWORD": "canary-three!Vm2",
}


def test_no_secret_is_in_any_event_or_file_of_lineage(
    tiny: TinyProject,
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events, backend = recorded
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    forms = [form for secret in SECRETS.values() for form in (secret, *encoded(secret))]
    comments = "".join(f"-- {form}\n" for form in forms)
    errors = "'" + " ".join(forms) + "'"
    tiny.write(
        {
            "a": TABLE + f"select 1 as id\n{comments}",
            "b": TABLE + f"select error({errors}) as id from {{{{ ref('a') }}}}",
            "c": "select * from {{ ref('b') }}",
            "tests/t.sql": f"select error({errors}) from {{{{ ref('s') }}}}",
            "snapshots/s.sql": "{% snapshot s %}{{ config(unique_key='id', strategy='check', "
            "check_cols=['id']) }}select * from {{ ref('a') }}\n" + comments + "{% endsnapshot %}",
        }
    )
    output = {
        "type": "duckdb",
        "path": "target/tiny.duckdb",
        "secrets": [
            {
                "type": "http",
                "bearer_token": "{{ env_var('DBT_ENV_SECRET_LAKE') }}",
                "http_proxy_password": "{{ env_var('PROXY_PASSWORD') }}",
            }
        ],
    }
    tiny.compile([], outputs={"dev": output})
    project = yaml.safe_load((tiny.directory / "dbt_project.yml").read_text())
    hooked = yaml.safe_dump({**project, "on-run-end": [f"select error({errors})"]})
    (tiny.directory / "dbt_project.yml").write_text(hooked)
    product = tiny.open()
    away = RecordingBackend(port=1)
    assert not build(product, backend, instance).success
    assert not build(product, away, instance).success
    found = sound(events)
    assert "select 1 as id" in found["a"][-1]["job"]["facets"]["sql"]["query"]
    assert kinds(found["b"])[-1] == "FAIL"
    spool = tiny.directory / "target" / "floe" / "lineage"
    files = [path.read_text() for path in spool.rglob("*") if path.is_file()]
    assert sum(text.count("\n") for text in files) >= len(events)
    for text in (json.dumps(events, ensure_ascii=False), *files):
        assert [form for form in forms if form in text or json.dumps(form)[1:-1] in text] == []


def encoded(secret: str) -> list[str]:
    """Return a secret as it may stand in a URL or a header."""
    return [base64.b64encode(secret.encode()).decode(), quote(secret, safe="")]


def test_lineage_joins_across_engines(
    example: Callable[[str], Path],
    postgres: Callable[[str], list[Any]],
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
) -> None:
    events, backend = recorded
    product = open_product(example("two-engines"), progress=lambda _: None)
    result = build(product, backend, instance, job="two_engines")
    assert result.success, failure_of(result)
    found = sound(events)
    assert postgres("select 1") == [(1,)]
    written = {}
    for name in "abcd":
        [output] = found[name][-1]["outputs"]
        written[name] = (output["namespace"], output["name"])
    assert {space.partition("://")[0] for space, _ in written.values()} == {"postgres"}
    for reader, parent in (("b", "a"), ("c", "b"), ("d", "c")):
        assert written[parent] in {
            (item["namespace"], item["name"]) for item in found[reader][-1]["inputs"]
        }
    computes = {name: found[name][-1]["run"]["facets"]["floe_run"]["compute"] for name in "abcd"}
    assert computes == {"a": "duckdb", "b": "postgres", "c": "duckdb", "d": "postgres"}


def test_without_a_backend_there_is_no_thread_and_no_file(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    before = threading.active_count()
    tiny.write({"a": "select 1 as id"})
    assert run(tiny.compile([]).open(), instance).success
    assert threading.active_count() == before
    assert not (tiny.directory / "target" / "floe" / "lineage").exists()


@pytest.mark.parametrize("off", [{"lineage": False}, {"lineage_transport": "noop"}])
def test_lineage_that_is_switched_off_leaves_no_event_no_file_and_no_sensor(
    tiny: TinyProject,
    recorded: tuple[Recorded, RecordingBackend],
    instance: dg.DagsterInstance,
    off: dict[str, Any],
) -> None:
    events, backend = recorded
    product = tiny.write({"a": "select 1 as id"}).compile([]).open()
    artifacts = dict(product.compiled.artifacts)
    artifacts["observability"] = {**artifacts["observability"], **off}
    product = replace(product, compiled=replace(product.compiled, artifacts=artifacts))
    assert build(product, backend, instance).success
    assert events == []
    assert not (tiny.directory / "target" / "floe" / "lineage").exists()
    assert not build_definitions(replace(product, lineage_backend=backend)).sensors


def test_a_backend_that_is_not_installed_is_said_and_required_lineage_fails_the_run(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write({"a": "select 1 as id"})
    product = tiny.compile([], config={"lineage": "required"}).open()
    named = {"plugins": {"lineage_backend": {"type": "nowhere", "version": "1.0.0"}}}
    product = replace(product, compiled=replace(product.compiled, artifacts=named))
    result = run(product, instance)
    assert not result.success
    assert "names lineage backend 'nowhere', and no plugin of that name is" in failure_of(result)


def test_single_events_and_floe_cores_emitter_go_the_same_way(
    recorded: tuple[Recorded, RecordingBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, backend = recorded
    monkeypatch.setenv("FLOE_LINEAGE_SPOOL", str(tmp_path / "spool"))
    plugin = DagsterOrchestratorPlugin(lineage_backend=backend)
    table = LineageDataset(namespace="duckdb:///shop.duckdb", name="shop.main.a")
    emitter = plugin.get_lineage_emitter()
    assert emitter is not None

    async def tell() -> None:
        run_id = await emitter.emit_start("nightly", inputs=[table])
        await emitter.emit_complete(run_id, "nightly", outputs=[table])

    asyncio.run(tell())
    run_id = plugin.emit_lineage_event(RunState.START, "single", "ns", inputs=[table])
    assert plugin.emit_lineage_event(RunState.FAIL, "single", "ns", run_id) == run_id
    plugin.shutdown()
    assert [(event["eventType"], event["job"]["name"]) for event in events] == [
        ("START", "nightly"),
        ("COMPLETE", "nightly"),
        ("START", "single"),
        ("FAIL", "single"),
    ]
    assert {event["producer"] for event in events} == {PRODUCER}
    folder = os.environ.get("OPENLINEAGE_SPEC")
    if folder:
        assert spec_problems(events, Path(folder)) == []


def test_a_product_with_a_backend_has_the_drain_sensor_and_no_other_has(
    tiny: TinyProject, recorded: tuple[Recorded, RecordingBackend]
) -> None:
    product = tiny.write({"a": "select 1 as id"}).compile([]).open()
    assert not build_definitions(product).sensors
    [sensor] = build_definitions(replace(product, lineage_backend=recorded[1])).sensors or ()
    assert sensor.name == "tiny_lineage_drain"
