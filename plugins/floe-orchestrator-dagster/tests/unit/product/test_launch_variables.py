"""A var that is only printed decides no graph; any other use may decide it."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.plan import Node, ProductPlan
from floe_orchestrator_dagster.product.launch_variables import decide_graph, graph_changes


def decides(root: Path, name: str, content: str) -> bool:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if name != "dbt_project.yml":
        (root / "dbt_project.yml").write_text("name: shop\nvars: {day: 1}\n")
    return decide_graph(read_project(root), {"day"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("models/a.sql", "select 1"),
        ("models/a.sql", "select '{{ var('day') }}' as day from {{ ref('b') }}"),
        ("models/a.sql", "{% if var('other') %} select '{{ var('day', 'x') }}' {% endif %}"),
        ("models/a.sql", "{% for d in [1] %} select '{{ var('day') }}' {% endfor %}"),
        ("tests/a.sql", "select '{{ var('day') }}' as day"),
        ("models/a.yml", "models: [{name: a, description: '{{ var(''other'') }}'}]"),
        ("models/a.yml", "models: [{name: day}]"),
        ("models/a.md", "{% docs a %}{{ var('day') }}{% enddocs %}"),
        ("models/a.sql", "-- no var of the day"),
        ("models/a.sql", "select '{{ var('other') }}'"),
        ("elsewhere/a.sql", "{% if var('day') %}{% endif %}"),
    ],
)
def test_it_decides_nothing(tmp_path: Path, name: str, content: str) -> None:
    assert not decides(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dbt_project.yml", "name: shop\nmodels: {+enabled: \"{{ var('day') }}\"}\n"),
        ("models/a.yml", "models: [{name: a, config: {enabled: \"{{ var('day') }}\"}}]"),
        ("models/a.sql", "{{ config(enabled=var('day')) }} select 1"),
        ("models/a.sql", "select * from {{ ref(var('day')) }}"),
        ("models/a.sql", "{% if var('day') %} select * from {{ ref('b') }} {% endif %}"),
        ("models/a.sql", "{% set day = var('day') %} select '{{ day }}'"),
        ("models/a.sql", "{% set text %}{{ var('day') }}{% endset %}{{ ref(text) }}"),
        ("models/a.sql", "{% set get = var %}{{ ref(get('day')) }} {{ var('other') }}"),
        ("models/a.sql", "{% set get = var %}{{ ref(get('day')) }}"),
        ("models/a.yml", "models: [{name: a, config: {enabled: '{{ var(''day'') }}'}}]"),
        ("models/a.yml", 'models: [{name: a, config: {enabled: "{{ var(\\"day\\") }}"}}]'),
        ("models/a.sql", "{{ ref(var('da' ~ 'y')) }}"),
        ("models/a.sql", "{% set n = 'x' %}{{ ref(var(n)) }}"),
        ("snapshots/a.sql", "{% snapshot a %} select '{{ var('day') }}' {% endsnapshot %}"),
        ("macros/a.sql", "{% macro a() %}{{ var('day') }}{% endmacro %}"),
        ("tests/generic/a.sql", "{{ var('day') }}"),
        ("models/a.py", "def model(dbt, session):\n    return dbt.config.var('day')"),
        ("dbt_packages/p/models/a.sql", "{{ config(enabled=var('day')) }} select 1"),
    ],
)
def test_it_may_decide(tmp_path: Path, name: str, content: str) -> None:
    package = tmp_path / "dbt_packages" / "p" / "dbt_project.yml"
    package.parent.mkdir(parents=True)
    package.write_text("name: p\n")
    assert decides(tmp_path, name, content)


def plan(*nodes: Node) -> ProductPlan:
    return ProductPlan("shop", {node.unique_id: node for node in nodes}, {}, "")


def test_changes_of_a_graph_are_listed() -> None:
    a, b, c = (Node(name, name=name) for name in "abc")
    fed = Node("b", name="b", parents=("a",))
    renamed = Node("a", name="a", relation="other")
    assert [*graph_changes(plan(a, b), plan(a, b))] == []
    assert [*graph_changes(plan(a), plan(renamed))] == []
    assert [*graph_changes(plan(a, b), plan(a, fed, c))] == [
        "Only with these vars: c.",
        "With another kind, key, compute or input: b.",
    ]
    assert [*graph_changes(plan(a, b), plan(a))] == ["Only without these vars: b."]
