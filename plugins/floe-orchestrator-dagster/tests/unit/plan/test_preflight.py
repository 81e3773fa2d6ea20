"""Preflight: an edge that crosses computes names one relation on both sides, or is refused."""

from __future__ import annotations

import pytest

from floe_orchestrator_dagster.plan import (
    Compute,
    ProductPlan,
    Transform,
    plan_product,
    preflight,
    resolve_computes,
)
from floe_orchestrator_dagster.plan.preflight import same_relation
from kit.plans import manifest, plan, problems_of, product

FIX = (
    "Give it the same database, schema and alias for both targets (+database and +schema in "
    "dbt_project.yml, or `attach` one engine to the other under that database name), or build "
    "both on one compute."
)
PG_ELSEWHERE = {"pg": {"change": {"a": {"relation_name": '"pg"."public"."a"'}}}}


def test_an_edge_of_one_relation_passes() -> None:
    assert plan("a > b > c", on={"b": "pg"}).assets


def test_an_edge_of_two_relations_is_refused_with_both() -> None:
    assert problems_of("a > b", on={"b": "pg"}, per_target=PG_ELSEWHERE) == [
        'a -> b: \'a\' is written as "db"."main"."a" on compute \'duck\' (target duck) but read '
        'as "pg"."public"."a" on compute \'pg\' (target pg). ' + FIX
    ]


def test_each_relation_is_refused_once_for_each_target() -> None:
    found = problems_of("a > b c d", on={"b": "pg", "c": "pg", "d": "pg2"}, per_target=PG_ELSEWHERE)
    assert [problem.split(":")[0] for problem in found] == ["a -> b"]
    both = {**PG_ELSEWHERE, "pg2": PG_ELSEWHERE["pg"]}
    found = problems_of("a > b c d", on={"b": "pg", "c": "pg", "d": "pg2"}, per_target=both)
    assert [problem.split(":")[0] for problem in found] == ["a -> b", "a -> d"]


def test_an_edge_within_a_target_needs_no_agreement_with_others() -> None:
    assert plan("a > b, c", on={"c": "pg"}, per_target=PG_ELSEWHERE).assets


def test_an_edge_through_an_ephemeral_counts() -> None:
    kinds = {"e": "ephemeral"}
    found = problems_of("a > e > b", kinds=kinds, on={"b": "pg"}, per_target=PG_ELSEWHERE)
    assert [problem.split(":")[0] for problem in found] == ["a -> b"]


def test_a_test_that_crosses_computes_counts() -> None:
    seen_nowhere = {**PG_ELSEWHERE, "duck": {"change": {"b": {"relation_name": "duck.b"}}}}
    found = problems_of("a, b", on={"b": "pg"}, tests={"t": "a b"}, per_target=seen_nowhere)
    assert [problem.split(":")[0] for problem in found] == ["a -> t"]


def test_sources_and_unit_tests_are_not_judged() -> None:
    elsewhere = {"pg": {"change": {"raw.x": {"relation_name": "pg.x"}}}}
    assert plan("raw.x > a b", on={"b": "pg"}, unit_tests={"u": "b"}, per_target=elsewhere).assets


def test_a_relation_that_one_side_does_not_have_is_told_so() -> None:
    off = {"pg": {"change": {"a": {"relation_name": None}}}}
    [problem] = problems_of("a > b", on={"b": "pg"}, per_target=off)
    assert "but read as no relation (disabled or ephemeral there) on compute 'pg'" in problem
    off = {"duck": {"change": {"a": {"relation_name": None}}}}
    [problem] = problems_of("a > b", on={"b": "pg"}, per_target=off)
    assert "'a' is written as no relation on compute 'duck'" in problem


def test_two_computes_on_one_target_agree() -> None:
    computes = {name: Compute(name, "dev", "duckdb") for name in ("duck", "x")}
    made = product(Transform("a", "duck"), Transform("b", "x"))
    assert plan_product(made, computes, {"dev": manifest("a > b")}).assets


def test_without_manifests_nothing_is_known_and_nothing_refused() -> None:
    made = product(Transform("a", "duck"), Transform("b", "pg", ("a",)))
    computes, _ = resolve_computes(made, {"duck": "duckdb", "pg": "postgres"})
    planned = plan_product(made, computes)
    assert isinstance(planned, ProductPlan)
    assert preflight(planned, {}) == ()
    assert preflight(planned, {"duck": manifest("a")}) == ()


@pytest.mark.parametrize(
    "name", ['"db"."main"."a"', "`db`.`main`.`a`", "[DB].[Main].[A]", "db.main.a"]
)
def test_relations_are_equal_but_for_quotes_and_case(name: str) -> None:
    assert same_relation(name) == "db.main.a"
