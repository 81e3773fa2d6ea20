"""A step is an assets definition that Dagster does not copy, and whose keys it collects once."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.plan import CompiledProduct, QualityCheck, Transform
from floe_orchestrator_dagster.product.opening import product_of_transforms


@pytest.fixture
def definitions() -> dg.Definitions:
    check = QualityCheck(name="full", type="not_null", arguments={"column_name": "id"})
    transforms = (
        Transform("a", "duckdb", quality_checks=(check,)),
        Transform("b", "duckdb", depends_on=("a",)),
    )
    return build_definitions(
        product_of_transforms(
            CompiledProduct("tiny", default_compute="duckdb", transforms=transforms)
        )
    )


def step_of(definitions: dg.Definitions) -> dg.AssetsDefinition:
    [step] = [item for item in definitions.assets or () if isinstance(item, dg.AssetsDefinition)]
    return step


def test_a_step_has_the_same_keys_as_in_dagster_and_collects_them_once(
    definitions: dg.Definitions,
) -> None:
    step = step_of(definitions)
    a, b = dg.AssetKey("a"), dg.AssetKey("b")
    assert step.asset_and_check_keys == {a, b, dg.AssetCheckKey(a, "full")}
    assert step.asset_and_check_keys is step.asset_and_check_keys
    part = step.subset_for({b}, selected_asset_check_keys=set())
    assert part.asset_and_check_keys == {b}


def test_a_step_is_not_copied_for_resources_that_it_does_not_use(
    definitions: dg.Definitions, tmp_path: Path
) -> None:
    step = step_of(definitions)

    @dg.asset(deps=["b"])
    def mine() -> int:
        return 1

    theirs = dg.Definitions(
        assets=[mine], resources={"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path))}
    )
    merged = dg.Definitions.merge(definitions, theirs)
    repository = merged.get_repository_def()
    assert repository.assets_defs_by_key[dg.AssetKey("a")] is step
    # Dagster still lists the I/O manager that it adds to each output.
    assert step.required_resource_keys == {"io_manager"}
    job = repository.get_implicit_global_asset_job_def()
    result = job.execute_in_process(asset_selection=[dg.AssetKey("mine")])
    assert result.success
    assert (tmp_path / "mine").exists()
    # The product's own job has the I/O manager of the code location too.
    own = job_named(merged, "tiny").resource_defs["io_manager"]
    assert own is repository.get_top_level_resources()["io_manager"]
