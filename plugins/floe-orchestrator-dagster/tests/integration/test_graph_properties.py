"""Dagster's resolved asset graph equals dbt's, on random products."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.plan import CompiledProduct
from floe_orchestrator_dagster.product.product import Product
from kit.random_products import Case, cases
from kit.support import asset_edges


# Dagster loads a step with only checks through a constructor that it marks as beta.
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
@given(cases())
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
def test_dagster_resolves_the_asset_graph_of_dbt(case: Case) -> None:
    plan = case.plan()
    definitions = build_definitions(Product(plan=plan, compiled=CompiledProduct(plan.name)))
    keys = {uid: "/".join(node.key) for uid, node in plan.nodes.items() if node.key}
    expected = {
        (keys[parent], keys[uid])
        for uid in case.nodes
        if case.is_asset(uid)
        for parent in case.reads(uid)
        if keys[parent] != keys[uid]
    }
    assert asset_edges(definitions) == (expected if plan.assets else set())
