"""dbt's events become OpenLineage events by values alone: no run, no file, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from floe_orchestrator_dagster.dbt.events import EventReader, NodeFinished
from floe_orchestrator_dagster.lineage.events import SourceCode, StepLineage, StepRun
from floe_orchestrator_dagster.plan import ProductPlan
from openlineage_checks import Event, problems
from plans import plan, uid

RUN = "6f0b3c1e-7f43-4d52-9a3a-0d2f5b1e9a11"
INVOCATION = "0b9f5b65-2a5e-4a42-8a0c-6d2f4f0a7a10"
OUTPUT = {"type": "duckdb", "path": "/data/shop.duckdb", "database": "shop"}
AT = "2026-01-01T00:00:{:02d}.000000Z"


def step(**fields: Any) -> StepRun:
    return StepRun(namespace="ns", job="shop", run_id=RUN, started_at=AT.format(0), **fields)


def finished(name: str, status: str = "success", **more: Any) -> NodeFinished:
    """Return what dbt's event of a finished node is decoded to; `sql` is not a part of it."""
    kind = more.pop("kind", "model")
    message = {
        "info": {"name": "NodeFinished", "msg": "", "level": "debug", "ts": AT.format(3)},
        "data": {
            "node_info": {
                "unique_id": uid(name, kind),
                "node_started_at": AT.format(2).rstrip("Z"),
                "node_finished_at": AT.format(3).rstrip("Z"),
            },
            "run_result": {"status": status, "execution_time": 1.0, **more.pop("result", {})},
        },
        "floe": more,
    }
    [event] = EventReader().read(json.dumps(message).encode())
    assert isinstance(event, NodeFinished)
    return event


def told(
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
        *lineage.invocation_started(INVOCATION, AT.format(1), compute, wave=1, waves=1, nodes=1),
    ]
    lineage.connected(output)
    for result in results:
        events += lineage.node_finished(result, sql)
    return [
        *events,
        *lineage.invocation_ended(AT.format(4), success=True),
        *lineage.finish(AT.format(5)),
    ]


def test_nodes_hang_below_their_invocation_below_the_run() -> None:
    events = told(plan("a > b"), finished("a"), finished("b"))
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


def test_the_same_happening_gives_the_same_events() -> None:
    planned = plan("a > b")
    assert told(planned, finished("a")) == told(planned, finished("a"))


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
def test_a_status_of_dbt_has_its_ending(status: str, ending: str) -> None:
    events = told(plan("a"), finished("a", status, result={"message": "because"}))
    assert problems(events) == []
    [node] = [e for e in events if e["job"]["name"].endswith(".a") and e["eventType"] != "START"]
    assert node["eventType"] == ending
    error = node["run"]["facets"].get("errorMessage")
    assert (error["message"] if error else None) == (None if ending == "COMPLETE" else "because")


def test_what_is_still_running_is_ended_with_its_run() -> None:
    planned = plan("a")
    lineage = StepLineage(step(), planned)
    compute = planned.computes[planned.default_compute]
    events = [
        *lineage.start(),
        *lineage.invocation_started(INVOCATION, AT.format(1), compute, wave=1, waves=1, nodes=1),
        *lineage.node_started(uid("a"), AT.format(2), 1),
        *lineage.abort(AT.format(3), "Cancelled"),
    ]
    assert problems(events) == []
    assert [event["eventType"] for event in events][-3:] == ["ABORT"] * 3


def test_nodes_that_dbt_never_saw_are_told_once() -> None:
    lineage = StepLineage(step(), plan("a > b"))
    events = [*lineage.start(), *lineage.skipped([uid("b")], AT.format(1))]
    assert list(lineage.skipped([uid("b")], AT.format(2))) == []
    events += lineage.finish(AT.format(3), "1 failed")
    assert problems(events) == []


def test_columns_seen_in_the_warehouse_become_schema_and_lineage() -> None:
    built = finished("b", columns=[["id", "INTEGER"]], inputs={'"db"."main"."a"': [["id", "INT"]]})
    change = {
        name: {"relation_name": f'"db"."main"."{name}"', "database": "db", "schema": "main"}
        for name in "ab"
    }
    sql = 'select id from "db"."main"."a"'
    events = told(plan("a > b", change=change), built, sql=sql)
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
    events = told(plan("a > s", kinds={"s": "snapshot"}, change=change), built, sql=sql)
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


def test_a_dataset_in_a_catalog_names_it() -> None:
    output = {"type": "duckdb", "attach": [{"path": "ducklake:meta.ducklake", "alias": "lake"}]}
    change = {"a": {"relation_name": '"lake"."main"."a"', "database": "lake", "schema": "main"}}
    events = told(plan("a", change=change), finished("a"), output=output)
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
def test_the_checker_sees_what_is_wrong(damage: Callable[[list[Event]], None], words: str) -> None:
    events = deepcopy(told(plan("a"), finished("a")))
    damage(events)
    assert any(words in said for said in problems(events))
