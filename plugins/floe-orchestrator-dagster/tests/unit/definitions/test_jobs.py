"""A product has one job per partitioning, and a job can be narrowed to some nodes."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.definitions.jobs import (
    JobContent,
    asset_job,
    job_contents,
    job_named,
    narrowed_job,
)
from floe_orchestrator_dagster.definitions.steps import Steps
from floe_orchestrator_dagster.plan import CompiledProduct, QualityCheck, Transform
from floe_orchestrator_dagster.product.opening import product_of_transforms
from kit.plans import plan, uid

SPLIT = "daily, monthly, raw.t > plain"
TESTS = {"on_daily": "daily", "on_monthly": "monthly", "on_plain": "plain", "on_source": "raw.t"}


def partitioned(**names: str) -> dict[str, dict[str, Any]]:
    return {
        name: {"meta": {"dagster": {"partitions": {"type": kind, "start": "2026-01-01"}}}}
        for name, kind in names.items()
    }


def names_of(uids: Any) -> list[str]:
    return sorted(one.rpartition(".")[2] for one in uids)


def test_a_product_with_one_partitioning_has_one_job_for_all_nodes() -> None:
    specs = Specs(plan(SPLIT, tests=TESTS, change=partitioned(daily="daily")))
    contents = job_contents(specs)
    [(name, content)] = contents.items()
    assert name == "shop"
    assert names_of(content.assets) == ["daily", "monthly", "plain"]
    assert names_of(content.checks) == sorted(TESTS)
    assert content.partitions == specs.partitions(uid("daily")) is not None


def test_each_further_partitioning_has_a_job_with_the_checks_on_its_assets() -> None:
    change = partitioned(daily="daily", monthly="monthly")
    contents = job_contents(Specs(plan(SPLIT, tests=TESTS, change=change)))
    described = {
        name: (names_of(content.assets), names_of(content.checks), content.partitions is not None)
        for name, content in contents.items()
    }
    assert described == {
        "shop": (["plain"], ["on_plain", "on_source"], False),
        "shop_partitioned_1": (["daily"], ["on_daily"], True),
        "shop_partitioned_2": (["monthly"], ["on_monthly"], True),
    }


@pytest.fixture
def product_parts() -> tuple[dg.Definitions, Specs]:
    check = QualityCheck(name="full", type="not_null", arguments={"column_name": "id"})
    transforms = (
        Transform("a", "duckdb", quality_checks=(check,)),
        Transform("b", "duckdb", depends_on=("a",)),
    )
    compiled = CompiledProduct("tiny", default_compute="duckdb", transforms=transforms)
    product = product_of_transforms(compiled)
    specs = Specs(product.plan)
    jobs = [asset_job(specs, name, content) for name, content in job_contents(specs).items()]
    return dg.Definitions(assets=Steps(product, specs).all(), jobs=jobs), specs


def keys_of(job: dg.JobDefinition) -> tuple[set[str], set[str]]:
    layer = job.asset_layer
    return (
        {key.to_user_string() for key in layer.selected_asset_keys},
        {check.name for check in layer.asset_graph.asset_check_keys},
    )


def test_a_job_of_all_nodes_has_the_quality_checks_too(
    product_parts: tuple[dg.Definitions, Specs],
) -> None:
    definitions, _ = product_parts
    assert keys_of(job_named(definitions, "tiny")) == ({"a", "b"}, {"full"})


def test_a_narrowed_job_has_only_the_chosen_nodes(
    product_parts: tuple[dg.Definitions, Specs],
) -> None:
    definitions, specs = product_parts
    [a] = [one for one, node in specs.plan.assets.items() if node.name == "a"]
    job = narrowed_job(definitions, specs, "tiny", JobContent([a], []))
    assert job.name == "tiny"
    assert keys_of(job) == ({"a"}, set())
    [check] = specs.checks
    assert keys_of(narrowed_job(definitions, specs, "tiny", JobContent([], [check]))) == (
        set(),
        {"full"},
    )
