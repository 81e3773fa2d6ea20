"""The plugin class with a real dbt project: the assets that it creates run."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from floe_core.plugins.orchestrator import TransformConfig
from floe_core.schemas.compiled_artifacts import CompiledArtifacts

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.errors import PlanError
from kit.support import TinyProject, asset_edges, materialized

CHAIN = {"a": "select 1 as id", "b": "select id from {{ ref('a') }}"}
TRANSFORMS = [{"name": "a", "tags": ["daily"]}, {"name": "b", "depends_on": ["a"]}]

# Plugin 0.1.0a1 wrote such files, and users have them in their repositories.
RELEASED = '''"""Dagster definitions for tiny data product."""

from __future__ import annotations

from pathlib import Path

from floe_orchestrator_dagster.loader import load_product_definitions

PROJECT_DIR = Path(__file__).parent

defs = load_product_definitions("tiny", PROJECT_DIR)
'''


def artifacts_of(tiny: TinyProject) -> dict[str, Any]:
    path = tiny.directory / "target" / "compiled_artifacts.json"
    artifacts: dict[str, Any] = json.loads(path.read_text())
    return artifacts


def test_create_definitions_on_a_project_runs(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    plugin = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    plugin.schedule_job("tiny", "0 6 * * *", "UTC")
    plugin.schedule_job("tiny", "0 7 * * *", "Europe/Vienna")
    definitions = plugin.create_definitions(artifacts_of(tiny))
    result = job_named(definitions, "tiny").execute_in_process(instance=instance)
    assert materialized(result) == ["a", "b"]
    [schedule] = definitions.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 7 * * *", "Europe/Vienna")
    assert schedule.job_name == "tiny"


def test_floe_cores_own_model_works_like_a_dictionary(tiny: TinyProject) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    plugin = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    model = CompiledArtifacts.model_validate(artifacts_of(tiny))
    definitions = plugin.create_definitions(model)  # type: ignore[arg-type]
    assert asset_edges(definitions) == {("a", "b")}


def test_create_definitions_without_a_project_has_names_graph_tags_and_computes(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    # Not below the project: the plugin searches upwards.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    definitions = DagsterOrchestratorPlugin().create_definitions(artifacts_of(tiny))
    assert asset_edges(definitions) == {("a", "b")}
    [first] = [
        spec for spec in definitions.resolve_all_asset_specs() if spec.key == dg.AssetKey("a")
    ]
    assert first.tags["daily"] == ""
    assert first.metadata["floe/compute"] == "duckdb"
    with dg.DagsterInstance.ephemeral() as instance:
        result = job_named(definitions, "tiny").execute_in_process(
            instance=instance, raise_on_error=False
        )
    [failed] = [event for event in result.all_events if event.is_step_failure]
    assert "Set FLOE_PROJECT_DIR" in failed.step_failure_data.error_display_string


def test_the_project_is_taken_from_the_environment(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(CHAIN | {"x": "select 1 as id"}).compile(TRANSFORMS)
    monkeypatch.setenv("FLOE_PROJECT_DIR", str(tiny.directory))
    definitions = DagsterOrchestratorPlugin().create_definitions(artifacts_of(tiny))
    keys = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    # No transform names `x`, but it is an asset too.
    assert keys == {"a", "b", "x"}


def test_a_schedule_for_a_job_that_does_not_exist_is_refused(tiny: TinyProject) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    plugin = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    plugin.schedule_job("shop", "0 6 * * *", "UTC")
    with pytest.raises(PlanError) as error:
        plugin.create_definitions(artifacts_of(tiny))
    assert str(error.value) == (
        "Cannot schedule job 'shop': 1 problem.\n"
        "  1. schedule_job(): There is no job 'shop'. Jobs of this product: tiny."
    )


def test_no_transforms_and_no_project_give_empty_definitions(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.compile([])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    definitions = DagsterOrchestratorPlugin().create_definitions(artifacts_of(tiny))
    assert not list(definitions.assets or ())
    assert not list(definitions.jobs or ())


def test_each_asset_of_transforms_materializes_its_own_node(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    (tiny.directory / "profiles.yml").write_text(
        "tiny: {target: dev, outputs: {dev: {type: duckdb, path: target/tiny.duckdb}}}"
    )
    plugin = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    assets = plugin.create_assets_from_transforms(
        [TransformConfig("a"), TransformConfig("b", depends_on=["a"])]
    )
    result = dg.materialize(assets, instance=instance)
    assert materialized(result) == ["a", "b"]


def test_files_generated_by_the_released_plugin_keep_loading(tiny: TinyProject) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS)
    path = tiny.directory / "target" / "definitions.py"
    path.write_text(RELEASED)
    assert asset_edges(runpy.run_path(str(path))["defs"]) == {("a", "b")}


def test_the_owner_in_floe_yaml_applies_to_assets_without_another(tiny: TinyProject) -> None:
    tiny.spec = {"metadata": {"owner": "shop@example.com"}}
    tiny.write(
        {
            "a": "select 1 as id",
            "b": "{{ config(meta={'dagster': {'owners': ['team:other']}}) }} select 1 as id",
        }
    ).compile([{"name": "a"}, {"name": "b"}])
    specs = build_definitions(tiny.open()).resolve_all_asset_specs()
    assert {spec.key.path[-1]: [*spec.owners] for spec in specs} == {
        "a": ["shop@example.com"],
        "b": ["team:other"],
    }


def test_a_memory_duckdb_becomes_a_file_with_a_warning(
    tiny: TinyProject, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.write(CHAIN).compile(TRANSFORMS, outputs={"dev": {"type": "duckdb", "path": ":memory:"}})
    tiny.open()
    assert (
        "keeps DuckDB in memory, where every dbt run starts empty. The plugin uses" in caplog.text
    )
    assert str(tiny.directory / "target" / "tiny.duckdb") in caplog.text


def test_a_project_is_parsed_again_only_when_it_changed(tiny: TinyProject) -> None:
    from floe_orchestrator_dagster.product.opening import open_product

    lines: list[str] = []
    tiny.write(CHAIN).compile(TRANSFORMS)
    open_product(tiny.directory, progress=lines.append)
    open_product(tiny.directory, progress=lines.append)
    assert lines == ["Parsing the dbt project of 'tiny' for target 'dev' ..."]
    tiny.write({"c": "select 2 as id"})
    plan = open_product(tiny.directory, progress=lines.append).plan
    assert len(lines) == 2
    assert "model.tiny.c" in plan.assets


def test_profiles_are_private_and_outside_the_project(tiny: TinyProject) -> None:
    product = tiny.write(CHAIN).compile(TRANSFORMS).open()
    assert product.profiles_dir is not None
    assert tiny.directory not in product.profiles_dir.parents
    assert product.profiles_dir.stat().st_mode & 0o777 == 0o700
    assert (product.profiles_dir / "profiles.yml").stat().st_mode & 0o777 == 0o600


def test_generated_code_location_of_the_real_compile_loads(
    example: Callable[[str], Path],
) -> None:
    path = example("shop") / "target" / "definitions.py"
    definitions = runpy.run_path(str(path))["defs"]
    [schedule] = definitions.schedules
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Vienna")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
