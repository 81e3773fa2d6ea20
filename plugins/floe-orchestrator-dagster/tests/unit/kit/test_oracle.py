"""The oracle reports each planted mismatch, and reports nothing without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from kit.oracle import (
    Evaluation,
    Materialization,
    Outcome,
    Recorded,
    contradictions,
    differences,
    graph_of,
    read_relations,
)

A, B, T = "model.p.a", "model.p.b", "test.p.t"
BARE = Outcome(
    success=True,
    statuses={A: "success", B: "success", T: "pass"},
    assets=frozenset({A, B}),
    edges=frozenset({(A, B)}),
    relations={"p.duckdb: main.a": (("id",), ("1",))},
)
RECORDED = Recorded((Materialization(A), Materialization(B)), (Evaluation(T, "passed"),))


def test_equal_builds_have_no_difference() -> None:
    assert differences(BARE, BARE) == []
    assert contradictions(BARE.statuses, RECORDED, success=True) == []


def test_a_node_that_dbt_skipped_may_have_no_status_with_us() -> None:
    bare = replace(BARE, statuses={A: "error", B: "skipped"})
    assert differences(bare, replace(BARE, statuses={A: "error", B: "not run"})) == []
    assert differences(bare, replace(BARE, statuses={A: "error"})) == []


def test_a_function_must_be_reported_only_if_it_failed() -> None:
    uid = "function.p.f"
    built = replace(BARE, statuses=dict(BARE.statuses) | {uid: "success"})
    failed = replace(BARE, statuses=dict(BARE.statuses) | {uid: "error"})
    assert differences(built, BARE) == []
    assert differences(failed, BARE) == [f"status: {uid}: dbt error, we not run"]


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (replace(BARE, success=False, words="x\nboom"), "exit code: dbt 0, we not 0: x / boom"),
        (replace(BARE, assets=frozenset({A})), f"graph: missing asset {B}"),
        (replace(BARE, assets=BARE.assets | {"model.p.c"}), "graph: unexpected asset model.p.c"),
        (replace(BARE, edges=frozenset()), f"graph: missing edge {A} -> {B}"),
        (replace(BARE, edges=BARE.edges | {(B, A)}), f"graph: unexpected edge {B} -> {A}"),
        (
            replace(BARE, statuses=dict(BARE.statuses) | {T: "warn"}),
            f"status: {T}: dbt pass, we warn",
        ),
        (
            replace(BARE, statuses={A: "success", B: "success"}),
            f"status: {T}: dbt pass, we not run",
        ),
        (replace(BARE, relations={}), "relation: p.duckdb: main.a is missing"),
        (
            replace(BARE, relations=dict(BARE.relations) | {"p.duckdb: main.b": ()}),
            "relation: p.duckdb: main.b is unexpected",
        ),
        (
            replace(BARE, relations={"p.duckdb: main.a": (("id",), ("2",))}),
            "relation: p.duckdb: main.a: only dbt has [('1',)], only we have [('2',)]",
        ),
        (replace(BARE, folders=frozenset({"{{ x }}"})), "folder: only we make {{ x }}"),
        (
            # Equal rows count.
            replace(BARE, relations={"p.duckdb: main.a": (("id",), ("1",), ("1",))}),
            "relation: p.duckdb: main.a: only dbt has [], only we have [('1',)]",
        ),
    ],
)
def test_a_planted_difference_is_one_line(ours: Outcome, line: str) -> None:
    assert differences(BARE, ours) == [line]


@pytest.mark.parametrize(
    ("recorded", "line"),
    [
        (replace(RECORDED, success=False), "run: dbt succeeded, Dagster failed"),
        (
            replace(RECORDED, materializations=(*RECORDED.materializations, Materialization(A))),
            f"events: 2 materializations of {A}",
        ),
        (
            replace(RECORDED, materializations=(Materialization(B),)),
            f"events: {A} is not materialized, dbt reported success",
        ),
        (
            replace(
                RECORDED,
                materializations=(*RECORDED.materializations, Materialization("model.p.c")),
            ),
            "events: model.p.c is materialized, dbt reported nothing",
        ),
        (replace(RECORDED, evaluations=()), f"events: 0 evaluations of {T}, dbt reported pass"),
        (
            replace(RECORDED, evaluations=RECORDED.evaluations * 2),
            f"events: 2 evaluations of {T}, dbt reported pass",
        ),
        (
            replace(RECORDED, evaluations=(Evaluation(T, "failed"),)),
            f"events: {T} failed, dbt reported pass",
        ),
        (
            replace(RECORDED, evaluations=(Evaluation(T, "warned"),)),
            f"events: {T} warned, dbt reported pass",
        ),
        (
            replace(
                RECORDED,
                evaluations=(*RECORDED.evaluations, Evaluation("test.p.u", "passed")),
            ),
            "events: test.p.u is evaluated, dbt reported nothing",
        ),
    ],
)
def test_a_planted_contradiction_of_dagsters_events_is_one_line(
    recorded: Recorded, line: str
) -> None:
    assert contradictions(BARE.statuses, recorded, success=True) == [line]


@pytest.mark.parametrize("status", ["error", "skipped", "partial success"])
def test_a_node_that_dbt_did_not_build_must_not_be_materialized(status: str) -> None:
    recorded = Recorded((Materialization(A),))
    assert contradictions({A: status}, recorded, success=True) == [
        f"events: {A} is materialized, dbt reported {status}"
    ]


def test_partitions_are_materialized_once_each() -> None:
    days = tuple(Materialization(A, day) for day in ("2026-01-01", "2026-01-02"))
    assert contradictions({A: "success"}, Recorded(days), success=True) == []
    twice = Recorded((*days, days[0]))
    assert contradictions({A: "success"}, twice, success=True) == [
        f"events: 2 materializations of {A} of partition 2026-01-01"
    ]


def test_a_skipped_check_must_not_be_evaluated() -> None:
    recorded = Recorded((), (Evaluation(T, "passed"),))
    assert contradictions({T: "skipped"}, recorded, success=True) == [
        f"events: 1 evaluations of {T}, dbt reported skipped"
    ]


def test_the_graph_of_a_manifest_folds_ephemerals_and_identifies_sources_by_their_table() -> None:
    def node(kind: str, relation: str | None, *parents: str, materialized: str = "view") -> object:
        return {
            "resource_type": kind,
            "relation_name": relation,
            "config": {"materialized": materialized},
            "depends_on": {"nodes": parents},
        }

    manifest = {
        "nodes": {
            A: node("model", "a", "source.p.raw.x", "seed.p.s"),
            "model.p.e": node("model", None, A, materialized="ephemeral"),
            B: node("model", "b", "model.p.e", "source.p.raw.s"),
            "seed.p.s": {"resource_type": "seed", "relation_name": "s", "config": {}},
            T: node("test", None, B),
        },
        "sources": {
            "source.p.raw.x": node("source", "x"),
            "source.p.raw.s": node("source", "s"),
        },
    }
    assets, edges = graph_of(manifest)
    assert assets == {A, B, "seed.p.s"}
    assert edges == {("source x", A), ("seed.p.s", A), (A, B), ("seed.p.s", B)}


def test_relations_are_read_from_every_file_and_schema_without_times(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    with duckdb.connect(str(tmp_path / "one.duckdb")) as connection:
        connection.execute("create table a as select 1 as id, now() as dbt_valid_from")
        connection.execute("create schema s; create view s.v as select id + 1 as id from main.a")
    with duckdb.connect(str(tmp_path / "more" / "two.duckdb")) as connection:
        connection.execute("create table b as select null::timestamp as dbt_valid_to")
        connection.execute("create view broken as select * from b; drop table b")
    assert read_relations(tmp_path) == {
        "one.duckdb: main.a": (("id", "dbt_valid_from"), ("1", "set")),
        "one.duckdb: s.v": (("id",), ("2",)),
        "more/two.duckdb: main.broken": (("unreadable: CatalogException",),),
    }
