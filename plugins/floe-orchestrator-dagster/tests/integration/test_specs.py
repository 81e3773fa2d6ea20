"""Our specs equal those of `@dbt_assets` and its stock translator, except as specs.py lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import Product, load_all_manifests

# `build_definitions` silences Dagster's beta warnings; these tests build specs directly.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
# dagster-dbt attaches the manifest, the translator and dbt Cloud's project id to each spec.
NOT_OURS = {
    "dagster_dbt/manifest",
    "dagster_dbt/dagster_dbt_translator",
    "dagster_dbt/project_id",
}
OURS = "floe/"


@pytest.fixture
def shop(example: Callable[[str], Path]) -> Product:
    return open_product(example("shop"), progress=lambda _: None)


def comparable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in metadata.items()
        if key not in NOT_OURS and not key.startswith(OURS) and key != "dagster/code_references"
    }


def test_specs_equal_those_of_dagster_dbt(shop: Product) -> None:
    [(_, manifest)] = load_all_manifests(shop)
    specs = Specs(shop.plan, project_dir=shop.project_dir)
    stock = DagsterDbtTranslator(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))
    assert specs.assets
    for uid, ours in specs.assets.items():
        theirs = stock.get_asset_spec(manifest, uid, None)
        assert ours.key == theirs.key
        assert {dep.asset_key for dep in ours.deps} == {dep.asset_key for dep in theirs.deps}
        assert ours.description == theirs.description
        # Theirs covers only the node's own code; test_code_versions.py tests ours.
        assert ours.code_version
        assert ours.automation_condition == theirs.automation_condition
        assert ours.kinds == theirs.kinds
        assert ours.group_name == (theirs.group_name or "shop")
        assert set(theirs.owners) <= set(ours.owners)
        assert theirs.tags.items() <= ours.tags.items()
        # Older versions of dagster-dbt do not name the kind of storage.
        stored = {"dagster/storage_kind": "duckdb"}
        assert comparable(ours.metadata) == stored | comparable(theirs.metadata)
    for uid, check in specs.checks.items():
        on = shop.plan.nodes[uid].on
        if shop.plan.nodes[uid].kind != "test":
            continue
        theirs_on = stock.get_asset_spec(manifest, on, None)
        expected = stock.get_asset_check_spec(theirs_on, manifest, uid, None)
        if expected is None:
            # A singular test with several parents: dagster-dbt only observes it.
            assert uid == "test.shop.orders_and_payments_agree"
            continue
        assert check.key == expected.key
        # This is the rule of newer versions of dagster-dbt; before Dagster 1.12 no test blocks.
        severity = manifest["nodes"][uid]["config"]["severity"]
        assert check.blocking == (severity.casefold() == "error")
        assert {dep.asset_key for dep in check.additional_deps} == {
            dep.asset_key for dep in expected.additional_deps
        }


def test_a_users_own_translator_is_applied(shop: Product) -> None:
    class Prefixed(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> Any:
            return super().get_asset_key(dbt_resource_props).with_prefix("mine")

        def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
            return "theirs" if dbt_resource_props["resource_type"] == "model" else None

    manifests = dict(load_all_manifests(shop))
    specs = Specs(
        shop.plan, project_dir=shop.project_dir, translator=Prefixed(), manifests=manifests
    )
    orders = specs.assets["model.shop.orders"]
    assert orders.key.to_user_string() == "mine/orders"
    assert orders.group_name == "theirs"
    assert orders.metadata["floe/compute"] == "duckdb"
    assert {dep.asset_key.to_user_string() for dep in orders.deps} == {
        "mine/stg_orders",
        "mine/stg_payments",
    }


def test_the_asset_shows_data_of_the_artifacts(shop: Product) -> None:
    specs = Specs(shop.plan, project_dir=shop.project_dir)
    orders = specs.assets["model.shop.orders"]
    assert orders.tags["layer"] == "gold"
    assert orders.metadata["floe/quality_tier"] == "gold"
    assert orders.metadata["floe/product"] == "shop"
    assert orders.owners == ["finance@example.com"]
    # An asset without another owner gets the owner of floe.yaml.
    assert specs.assets["model.shop.stg_orders"].owners == ["shop@example.com"]
    assert "weekly_report" in specs.assets["model.shop.customers"].metadata["floe/exposures"]
    [reference] = orders.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("models/marts/orders.sql")
    assert json.dumps(sorted(specs.checks))
