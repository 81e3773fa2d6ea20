"""Real runs tell their lineage to a real server; what it gets is checked event by event.

With OPENLINEAGE_SPEC in the environment (`make conformance`) every event is also validated against
the official schemas in that folder.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from floe_core.lineage import LineageDataset, RunState
from lineage_server import Backend, Recorded, build, kinds, sound

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.definitions import build_definitions
from floe_orchestrator_dagster.lineage.facets import PRODUCER
from floe_orchestrator_dagster.product import open_product
from openlineage_checks import spec_problems
from support import TinyProject, failure_of, run

TABLE = "{{ config(materialized='table') }} "


def test_a_run_tells_its_tree_its_tables_and_its_columns(
    example: Callable[[str], Path],
    recorded: tuple[Recorded, Backend],
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
    # Every node of the plan that dbt runs, whatever its kind.
    plan = product.plan
    told = {event["job"]["name"].removeprefix("shop.") for event in events}
    assert {*plan.assets, *plan.checks} <= told
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
    tiny: TinyProject, recorded: tuple[Recorded, Backend], instance: dg.DagsterInstance
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
    tiny: TinyProject, recorded: tuple[Recorded, Backend], instance: dg.DagsterInstance
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
    tiny: TinyProject, recorded: tuple[Recorded, Backend], instance: dg.DagsterInstance
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


def test_a_cancelled_run_leaves_nothing_open(
    tiny: TinyProject, recorded: tuple[Recorded, Backend], instance: dg.DagsterInstance
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
    assert said == "Cancelled (KeyboardInterrupt)"


def test_lineage_joins_across_engines(
    example: Callable[[str], Path],
    postgres: Callable[[str], list[Any]],
    recorded: tuple[Recorded, Backend],
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
    recorded: tuple[Recorded, Backend],
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
    recorded: tuple[Recorded, Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    tiny: TinyProject, recorded: tuple[Recorded, Backend]
) -> None:
    product = tiny.write({"a": "select 1 as id"}).compile([]).open()
    assert not build_definitions(product).sensors
    [sensor] = build_definitions(replace(product, lineage_backend=recorded[1])).sensors or ()
    assert sensor.name == "tiny_lineage_drain"
