"""An edge between computes is refused unless both sides name the same relation."""

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


def test_an_edge_with_one_relation_passes() -> None:
    assert plan("a > b > c", on={"b": "pg"}).assets


def test_an_edge_with_two_relations_is_refused_and_both_are_named() -> None:
    assert problems_of("a > b", on={"b": "pg"}, per_target=PG_ELSEWHERE) == [
        'a -> b: \'a\' is written as "db"."main"."a" on compute \'duck\' (target duck) but read '
        'as "pg"."public"."a" on compute \'pg\' (target pg). ' + FIX
    ]


def test_each_relation_is_refused_once_for_each_target() -> None:
    problems = problems_of(
        "a > b c d", on={"b": "pg", "c": "pg", "d": "pg2"}, per_target=PG_ELSEWHERE
    )
    assert [problem.split(":")[0] for problem in problems] == ["a -> b"]
    both = {**PG_ELSEWHERE, "pg2": PG_ELSEWHERE["pg"]}
    problems = problems_of("a > b c d", on={"b": "pg", "c": "pg", "d": "pg2"}, per_target=both)
    assert [problem.split(":")[0] for problem in problems] == ["a -> b", "a -> d"]


def test_an_edge_within_a_target_needs_no_agreement_with_others() -> None:
    assert plan("a > b, c", on={"c": "pg"}, per_target=PG_ELSEWHERE).assets


def test_an_edge_through_an_ephemeral_counts() -> None:
    kinds = {"e": "ephemeral"}
    problems = problems_of("a > e > b", kinds=kinds, on={"b": "pg"}, per_target=PG_ELSEWHERE)
    assert [problem.split(":")[0] for problem in problems] == ["a -> b"]


def test_a_test_that_crosses_computes_counts() -> None:
    two_relations = {**PG_ELSEWHERE, "duck": {"change": {"b": {"relation_name": "duck.b"}}}}
    problems = problems_of("a, b", on={"b": "pg"}, tests={"t": "a b"}, per_target=two_relations)
    assert [problem.split(":")[0] for problem in problems] == ["a -> t"]


def test_sources_and_unit_tests_are_not_checked() -> None:
    elsewhere = {"pg": {"change": {"raw.x": {"relation_name": "pg.x"}}}}
    assert plan("raw.x > a b", on={"b": "pg"}, unit_tests={"u": "b"}, per_target=elsewhere).assets


def test_a_problem_names_the_side_without_the_relation() -> None:
    off = {"pg": {"change": {"a": {"relation_name": None}}}}
    [problem] = problems_of("a > b", on={"b": "pg"}, per_target=off)
    assert "but read as no relation (disabled or ephemeral there) on compute 'pg'" in problem
    off = {"duck": {"change": {"a": {"relation_name": None}}}}
    [problem] = problems_of("a > b", on={"b": "pg"}, per_target=off)
    assert "'a' is written as no relation on compute 'duck'" in problem


def test_two_computes_on_one_target_agree() -> None:
    computes = {name: Compute(name, "dev", "duckdb") for name in ("duck", "x")}
    compiled = product(Transform("a", "duck"), Transform("b", "x"))
    assert plan_product(compiled, computes, {"dev": manifest("a > b")}).assets


def test_a_plan_without_manifests_is_never_refused() -> None:
    compiled = product(Transform("a", "duck"), Transform("b", "pg", ("a",)))
    computes, _ = resolve_computes(compiled, {"duck": "duckdb", "pg": "postgres"})
    planned = plan_product(compiled, computes)
    assert isinstance(planned, ProductPlan)
    assert preflight(planned, {}) == ()
    assert preflight(planned, {"duck": manifest("a")}) == ()


@pytest.mark.parametrize(
    "name", ['"db"."main"."a"', "`db`.`main`.`a`", "[DB].[Main].[A]", "db.main.a"]
)
def test_relations_are_compared_without_quotes_and_case(name: str) -> None:
    assert same_relation(name) == "db.main.a"
