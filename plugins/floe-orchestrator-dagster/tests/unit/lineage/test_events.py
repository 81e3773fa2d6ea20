"""dbt's events become OpenLineage events, tested over values without a run, file or clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from floe_orchestrator_dagster.dbt.events import EventReader, NodeFinished, QualityResult
from floe_orchestrator_dagster.lineage.events import StepLineage, StepRun, WaveRun
from floe_orchestrator_dagster.lineage.source_code import SourceCode
from floe_orchestrator_dagster.plan import ProductPlan, QualityCheck, Transform
from kit.openlineage_checks import Event, problems
from kit.plans import plan, uid

RUN = "6f0b3c1e-7f43-4d52-9a3a-0d2f5b1e9a11"
INVOCATION = "0b9f5b65-2a5e-4a42-8a0c-6d2f4f0a7a10"
OUTPUT = {"type": "duckdb", "path": "/data/shop.duckdb", "database": "shop"}
AT = "2026-01-01T00:00:{:02d}.000000Z"


def step(**fields: Any) -> StepRun:
    return StepRun(namespace="ns", job="shop", run_id=RUN, started_at=AT.format(0), **fields)


def finished(name: str, status: str = "success", **more: Any) -> NodeFinished:
    """Return the decoded dbt event of a finished node."""
    kind = more.pop("kind", "model")
    message = {
        "info": {"name": "NodeFinished", "msg": "", "level": "debug", "ts": AT.format(3)},
        "data": {
            "node_info": {
                "unique_id": uid(name, kind),
                "node_started_at": AT.format(2).rstrip("Z"),
                "node_finished_at": AT.format(3).rstrip("Z"),
                **more.pop("node", {}),
            },
            "run_result": {"status": status, "execution_time": 1.0, **more.pop("result", {})},
        },
        "floe": more,
    }
    [event] = EventReader().read(json.dumps(message).encode())
    assert isinstance(event, NodeFinished)
    return event


def events_of(
    planned: ProductPlan,
    *results: NodeFinished,
    sql: str | None = None,
    facts: StepRun | None = None,
    output: dict[str, Any] = OUTPUT,
) -> list[Event]:
    lineage = StepLineage(facts or step(), planned)
    compute = planned.computes[planned.default_compute]
    events = [
        *lineage.start(),
        *lineage.invocation_started(INVOCATION, AT.format(1), WaveRun(compute, 1, 1, 1)),
    ]
    lineage.connected(output)
    for result in results:
        events += lineage.node_finished(result, sql)
    return [
        *events,
        *lineage.invocation_ended(AT.format(4), success=True),
        *lineage.finish(AT.format(5)),
    ]


def test_nodes_are_children_of_their_invocation_and_it_of_the_run() -> None:
    events = events_of(plan("a > b"), finished("a"), finished("b"))
    assert problems(events) == []
    assert [(event["eventType"], event["job"]["name"]) for event in events] == [
        ("START", "shop"),
        ("RUNNING", "shop"),
        ("START", "shop.dbt.duck"),
        ("START", "shop.model.shop.a"),
        ("COMPLETE", "shop.model.shop.a"),
        ("START", "shop.model.shop.b"),
        ("COMPLETE", "shop.model.shop.b"),
        ("COMPLETE", "shop.dbt.duck"),
        ("COMPLETE", "shop"),
    ]


def test_the_same_results_give_the_same_events() -> None:
    planned = plan("a > b")
    assert events_of(planned, finished("a")) == events_of(planned, finished("a"))


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        ("success", "COMPLETE"),
        ("no-op", "COMPLETE"),
        ("error", "FAIL"),
        ("runtime error", "FAIL"),
        ("partial success", "FAIL"),
        ("something new", "FAIL"),
        ("skipped", "ABORT"),
    ],
)
def test_a_dbt_status_decides_the_final_event(status: str, ending: str) -> None:
    events = events_of(plan("a"), finished("a", status, result={"message": "because"}))
    assert problems(events) == []
    [node] = [e for e in events if e["job"]["name"].endswith(".a") and e["eventType"] != "START"]
    assert node["eventType"] == ending
    error = node["run"]["facets"].get("errorMessage")
    assert (error["message"] if error else None) == (None if ending == "COMPLETE" else "because")


def test_an_abort_ends_all_open_runs() -> None:
    planned = plan("a")
    lineage = StepLineage(step(), planned)
    compute = planned.computes[planned.default_compute]
    events = [
        *lineage.start(),
        *lineage.invocation_started(INVOCATION, AT.format(1), WaveRun(compute, 1, 1, 1)),
        *lineage.node_started(uid("a"), AT.format(2), 1),
        *lineage.abort(AT.format(3), "Canceled"),
    ]
    assert problems(events) == []
    assert [event["eventType"] for event in events][-3:] == ["ABORT"] * 3


def test_nodes_that_dbt_never_reached_get_events_once() -> None:
    lineage = StepLineage(step(), plan("a > b"))
    events = [*lineage.start(), *lineage.skipped([uid("b")], AT.format(1))]
    assert list(lineage.skipped([uid("b")], AT.format(2))) == []
    events += lineage.finish(AT.format(3), "1 failed")
    assert problems(events) == []


def invoked(lineage: StepLineage, planned: ProductPlan, compute: str, number: int) -> list[Event]:
    """Start a dbt run on a compute; its invocation id ends with `number`."""
    at = AT.format(number)
    where, run = planned.computes[compute], INVOCATION[:-1] + str(number)
    return [*lineage.invocation_started(run, at, WaveRun(where, number, 2, 1))]


def test_a_node_never_reached_has_the_names_and_the_dbt_run_of_its_compute() -> None:
    planned = plan("a > b > c", on={"b": "pg"})
    lineage = StepLineage(step(), planned)
    events = [*lineage.start(), *invoked(lineage, planned, "duck", 1)]
    lineage.connected(OUTPUT)
    events += lineage.node_finished(finished("a", "error", result={"message": "no"}))
    events += lineage.invocation_ended(AT.format(4), success=False)
    reasons = {uid("b"): "model a failed", uid("c"): ""}
    events += lineage.skipped(reasons, AT.format(5), reasons)
    events += lineage.finish(AT.format(6), "1 failed")
    assert problems(events) == []
    [b] = [e for e in events if e["job"]["name"].endswith(".b") and e["eventType"] == "ABORT"]
    [c] = [e for e in events if e["job"]["name"].endswith(".c") and e["eventType"] == "ABORT"]
    # There was no dbt run on `pg`, so the location of its tables is not known.
    assert (b["inputs"], b["outputs"]) == ([], [])
    assert b["run"]["facets"]["parent"]["job"]["name"] == "shop"
    assert b["run"]["facets"]["errorMessage"]["message"] == "Not run: model a failed."
    [output] = c["outputs"]
    assert (output["namespace"], output["name"]) == ("duckdb:///data/shop.duckdb", "shop.main.c")
    assert c["run"]["facets"]["parent"]["job"]["name"] == "shop.dbt.duck"
    message = c["run"]["facets"]["errorMessage"]["message"]
    assert message == "Not run: a node or test upstream of it failed."


def test_without_a_connection_events_have_no_datasets() -> None:
    lineage = StepLineage(step(), plan("a > b"))
    events = [*lineage.start(), *invoked(lineage, plan("a > b"), "duck", 1)]
    events += lineage.node_finished(finished("b", "skipped"))
    events += lineage.invocation_ended(AT.format(4), success=False)
    events += lineage.finish(AT.format(5), "1 failed")
    assert problems(events) == []
    assert not any(event["inputs"] or event["outputs"] for event in events)


def test_a_relation_has_the_name_that_dbt_reports_in_this_run() -> None:
    planned = plan("a > b")

    def elsewhere(name: str) -> dict[str, Any]:
        where = {"database": "db", "schema": "live", "alias": name}
        return {"node_relation": {**where, "relation_name": f'"db"."live"."{name}"'}}

    first = finished("a", node=elsewhere("a"), columns=[["id", "INTEGER"]])
    second = finished("b", node=elsewhere("b"), columns=[["id", "INTEGER"]])
    events = events_of(planned, first, second, sql='select id from "db"."live"."a"')
    assert problems(events) == []
    names = {item["name"] for event in events for item in (*event["inputs"], *event["outputs"])}
    assert names == {"shop.live.a", "shop.live.b"}
    [done] = [e for e in events if e["job"]["name"].endswith(".b") and e["eventType"] == "COMPLETE"]
    [source] = done["outputs"][0]["facets"]["columnLineage"]["fields"]["id"]["inputFields"]
    assert (source["name"], source["field"]) == ("shop.live.a", "id")


def test_an_assertion_on_an_inlined_model_names_no_column_of_its_parent() -> None:
    tests = {
        name: {
            "reads": name[-1],
            "column_name": "twice",
            "test_metadata": {"name": "not_null", "kwargs": {"column_name": "twice"}},
        }
        for name in ("on_a", "on_e")
    }
    planned = plan("a > e > b", kinds={"e": "ephemeral"}, tests=tests)
    results = [finished(name, "pass", kind="test") for name in tests]
    events = events_of(planned, *results)
    assert problems(events) == []
    columns = {}
    for event in events:
        for item in event["inputs"]:
            for facet in item.get("inputFacets", {}).values():
                [assertion] = facet["assertions"]
                columns[event["job"]["name"]] = (item["name"], assertion.get("column"))
    assert columns == {
        "shop.test.shop.on_a": ("shop.main.a", "twice"),
        "shop.test.shop.on_e": ("shop.main.a", None),
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"relation_name": "'data/people.csv'"}, ("file", "/shop/data/people.csv")),
        ({"relation_name": "'/data/*.csv'"}, ("file", "/data/*.csv")),
        ({"relation_name": "read_csv('a/b.csv', header=true)"}, ("file", "/shop/a/b.csv")),
        (
            {"relation_name": "read_parquet(['x.parquet', 'y.parquet'])"},
            ("file", "/shop/x.parquet"),
        ),
        ({"relation_name": "(select * from read_json('x.json'))"}, ("file", "/shop/x.json")),
        ({"relation_name": "'s3://lake/raw/x.parquet'"}, ("s3://lake", "raw/x.parquet")),
        ({"relation_name": "'gcs://lake/x.parquet'"}, ("gs://lake", "x.parquet")),
        (
            {"relation_name": "'https://me:pass@host.example.com:8443/x.csv?token=t'"},
            ("https://host.example.com:8443", "x.csv"),
        ),
        (
            {"relation_name": "'abfss://box@acc.dfs.core.windows.net/x.csv'"},
            ("abfss://box@acc.dfs.core.windows.net", "x.csv"),
        ),
        ({"relation_name": "delta_scan('s3://lake/d')"}, ("s3://lake", "d")),
        (
            {"relation_name": "postgres_scan('host=h password=p dbname=d', 'public', 't')"},
            ("postgres://h:5432", "d.public.t"),
        ),
        ({"relation_name": "sqlite_scan('x.db', 't')"}, ("sqlite:///shop/x.db", "t")),
        (
            {"config": {"plugin": "excel", "external_location": "in/{name}.xlsx"}},
            ("file", "/shop/in/people.xlsx"),
        ),
        (
            {"meta": {"plugin": "excel", "external_location": "in/{identifier}.xlsx"}},
            ("file", "/shop/in/people.xlsx"),
        ),
        ({"config": {"plugin": "gsheet"}}, ("duckdb:///data/shop.duckdb", "shop.main.people")),
        ({"relation_name": "our_macro('x')"}, None),
        ({"relation_name": "(select * from somewhere)"}, None),
    ],
)
def test_an_external_source_is_named_by_its_location(
    change: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    planned = plan("files.people > people", change={"files.people": change})
    events = events_of(planned, finished("people"), facts=step(project_dir="/shop"))
    assert problems(events) == []
    [start] = [e for e in events if e["job"]["name"].endswith(".people")][:1]
    assert [(item["namespace"], item["name"]) for item in start["inputs"]] == (
        [expected] if expected else []
    )
    assert [item["name"] for item in start["outputs"]] == ["shop.main.people"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"location": "out/a.csv"}, ("file", "/shop/out/a.csv")),
        ({"location": "s3://lake/a.parquet"}, ("s3://lake", "a.parquet")),
        ({"format": "csv"}, ("file", "/shop/lake/a.csv")),
        ({"options": {"partition_by": "day"}}, ("file", "/shop/lake/a")),
        ({"location": "{{ var('x') }}"}, ("duckdb:///data/shop.duckdb", "shop.main.a")),
    ],
)
def test_an_external_model_is_named_by_its_file_and_the_view_is_a_symlink(
    config: dict[str, Any], expected: tuple[str, str]
) -> None:
    change = {"a": {"config": {"materialized": "external", **config}}}
    output = {**OUTPUT, "external_root": "lake"}
    planned = plan("a > b", change=change)
    events = events_of(
        planned,
        finished("a"),
        finished("b"),
        facts=step(project_dir="/shop"),
        output=output,
    )
    assert problems(events) == []
    written = [item for e in events if e["job"]["name"].endswith(".a") for item in e["outputs"]]
    read = [item for e in events if e["job"]["name"].endswith(".b") for item in e["inputs"]]
    assert {(item["namespace"], item["name"]) for item in (*written, *read)} == {expected}
    if expected[1] != "shop.main.a":
        [link] = written[0]["facets"]["symlinks"]["identifiers"]
        assert link == {
            "namespace": "duckdb:///data/shop.duckdb",
            "name": "shop.main.a",
            "type": "TABLE",
        }


def test_columns_of_an_external_source_are_read_through_its_expression() -> None:
    relation = "read_csv('people.csv', header=true)"
    planned = plan("files.people > people", change={"files.people": {"relation_name": relation}})
    built = finished("people", inputs={relation: [["id", "BIGINT"], ["name", "VARCHAR"]]})
    sql = f"select id as person, upper(name) as name from {relation}"
    events = events_of(planned, built, sql=sql, facts=step(project_dir="/shop"))
    assert problems(events) == []
    done = next(e for e in events if e["eventType"] == "COMPLETE" and "model" in e["job"]["name"])
    fields = done["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert {
        name: [(read["name"], read["field"]) for read in field["inputFields"]]
        for name, field in fields.items()
    } == {"person": [("/shop/people.csv", "id")], "name": [("/shop/people.csv", "name")]}


def test_quality_checks_that_run_alone_have_events() -> None:
    check = QualityCheck("no_negative", "expression_is_true", {"column_name": "id"})
    transforms = [Transform("a", "duck", quality_checks=(check,))]
    planned = plan("a", transforms=transforms, macros=["test_expression_is_true"])
    [check_id] = planned.quality_checks
    lineage = StepLineage(step(), planned)
    events = [*lineage.start(), *invoked(lineage, planned, "duck", 1)]
    lineage.connected(OUTPUT)
    results = (QualityResult(check_id, failures=2),)
    events += lineage.quality_checked(uid("a"), AT.format(2), 1, results)
    events += lineage.invocation_ended(AT.format(4), success=False)
    events += lineage.finish(AT.format(5), "1 failed")
    assert problems(events) == []
    ran = [event for event in events if event["job"]["name"] == "shop.model.shop.a.no_negative"]
    assert [event["eventType"] for event in ran] == ["START", "FAIL"]
    [result] = ran[-1]["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (result["assertion"], result["success"], result["column"]) == (
        "expression_is_true",
        False,
        "id",
    )
    assert [*lineage.skipped([check_id], AT.format(6))] == []


def test_a_function_has_runs_and_no_datasets() -> None:
    planned = plan("f > a", kinds={"f": "function"})
    events = events_of(planned, finished("f", kind="function"), finished("a"))
    assert problems(events) == []
    runs = [event for event in events if event["job"]["name"] == "shop.function.shop.f"]
    assert [event["eventType"] for event in runs] == ["START", "COMPLETE"]
    assert not any(event["inputs"] or event["outputs"] for event in runs)


def test_a_model_without_column_lineage_has_a_reason() -> None:
    planned = plan("a, b, c, d")
    lineage = StepLineage(step(), planned)
    assert [*invoked(lineage, planned, "duck", 1)]
    lineage.connected(OUTPUT)
    for name, sql in (("a", "select 1 as id"), ("b", "select (("), ("c", None)):
        assert [*lineage.node_finished(finished(name), sql)]
    assert [*lineage.node_finished(finished("d", "reused"), None)]
    assert lineage.without_columns == {
        uid("b"): "its SQL cannot be parsed as duckdb",
        uid("c"): "dbt wrote no compiled SQL for it",
    }


def test_columns_from_the_warehouse_become_schema_and_lineage() -> None:
    built = finished("b", columns=[["id", "INTEGER"]], inputs={'"db"."main"."a"': [["id", "INT"]]})
    change = {
        name: {"relation_name": f'"db"."main"."{name}"', "database": "db", "schema": "main"}
        for name in "ab"
    }
    sql = 'select id from "db"."main"."a"'
    events = events_of(plan("a > b", change=change), built, sql=sql)
    assert problems(events) == []
    done = next(e for e in events if e["eventType"] == "COMPLETE" and "model" in e["job"]["name"])
    facets = done["outputs"][0]["facets"]
    assert facets["schema"]["fields"] == [{"name": "id", "ordinal_position": 1, "type": "INTEGER"}]
    [read] = facets["columnLineage"]["fields"]["id"]["inputFields"]
    assert (read["namespace"], read["name"], read["field"]) == (
        done["inputs"][0]["namespace"],
        done["inputs"][0]["name"],
        "id",
    )


def test_columns_that_dbt_adds_to_a_snapshot_have_their_lineage() -> None:
    change: dict[str, dict[str, Any]] = {
        name: {"relation_name": f'"db"."main"."{name}"', "database": "db", "schema": "main"}
        for name in "as"
    }
    change["s"]["config"] = {"unique_key": "id", "updated_at": "at", "strategy": "timestamp"}
    built = finished("s", kind="snapshot", inputs={'"db"."main"."a"': [["id", "INT"], ["at", ""]]})
    sql = 'select id, at from "db"."main"."a"'
    events = events_of(plan("a > s", kinds={"s": "snapshot"}, change=change), built, sql=sql)
    assert problems(events) == []
    done = next(e for e in events if e["eventType"] == "COMPLETE" and e["job"]["name"][-2:] == ".s")
    fields = done["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert {
        name: [read["field"] for read in field["inputFields"]] for name, field in fields.items()
    } == {
        "id": ["id"],
        "at": ["at"],
        "dbt_scd_id": ["at", "id"],
        "dbt_updated_at": ["at"],
        "dbt_valid_from": ["at"],
        "dbt_valid_to": ["at"],
    }


def test_a_dataset_in_a_catalog_has_the_catalog_facet() -> None:
    output = {"type": "duckdb", "attach": [{"path": "ducklake:meta.ducklake", "alias": "lake"}]}
    change = {"a": {"relation_name": '"lake"."main"."a"', "database": "lake", "schema": "main"}}
    events = events_of(plan("a", change=change), finished("a"), output=output)
    assert problems(events) == []
    done = next(e for e in events if e["eventType"] == "COMPLETE" and "model" in e["job"]["name"])
    catalog = done["outputs"][0]["facets"]["catalog"]
    assert {key: value for key, value in catalog.items() if not key.startswith("_")} == {
        "framework": "ducklake",
        "type": "duckdb",
        "name": "lake",
        "source": "duckdb",
    }


def test_code_is_located_in_its_repository() -> None:
    code = SourceCode("https://git.example.com/org/repo.git", "abc", "main", "dbt/shop")
    facet = code.locate("models/a.sql")
    assert facet["url"] == "https://git.example.com/org/repo/blob/abc/dbt/shop/models/a.sql"
    assert (facet["path"], facet["version"], facet["branch"]) == (
        "dbt/shop/models/a.sql",
        "abc",
        "main",
    )


def _drop_end(events: list[Event]) -> None:
    events.pop()


def _misplace(events: list[Event]) -> None:
    events[-1]["run"]["facets"]["sql"] = events[0]["run"]["facets"]["floe_run"]


def _orphan(events: list[Event]) -> None:
    events[3]["run"]["facets"]["parent"]["run"]["runId"] = RUN[:-1] + "0"


def _unknown_field(events: list[Event]) -> None:
    events[0]["job"]["facets"]["jobType"]["colour"] = "red"


def _backwards(events: list[Event]) -> None:
    events[-1]["eventTime"] = "2025-01-01T00:00:00Z"


def _null(events: list[Event]) -> None:
    events[0]["run"]["facets"]["floe_run"]["compute"] = None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_drop_end, "ends with"),
        (_misplace, "does not belong on a run"),
        (_orphan, "never started"),
        (_unknown_field, "unknown fields ['colour']"),
        (_backwards, "times run backwards"),
        (_null, "has a null"),
    ],
)
def test_the_checker_reports_each_problem(
    damage: Callable[[list[Event]], None], words: str
) -> None:
    events = deepcopy(events_of(plan("a"), finished("a")))
    damage(events)
    assert any(words in problem for problem in problems(events))
