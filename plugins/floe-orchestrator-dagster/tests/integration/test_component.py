"""The dg component: a compiled product as part of a Dagster project."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from floe_orchestrator_dagster.component import FloeProduct, FloeProductScaffolder
from floe_orchestrator_dagster.definitions.jobs import job_named
from kit.support import TinyProject


def test_dg_finds_the_component_by_entry_point() -> None:
    [point] = [
        entry
        for entry in entry_points(group="dagster_dg_cli.registry_modules")
        if entry.value.startswith("floe_orchestrator_dagster")
    ]
    assert point.load().FloeProduct is FloeProduct


def test_a_defs_yaml_loads_the_product(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    defs = tmp_path / "project" / "defs"
    (defs / "tiny").mkdir(parents=True)
    (defs / "tiny" / "defs.yaml").write_text(
        yaml.safe_dump(
            {
                "type": "floe_orchestrator_dagster.component.FloeProduct",
                "attributes": {"product_dir": "../../..", "product_name": "tiny"},
            }
        )
    )
    (tmp_path / "project" / "__init__.py").write_text("")
    (defs / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    definitions = dg.build_component_defs(defs)
    assert job_named(definitions, "tiny").name == "tiny"
    assert dg.AssetKey("a") in {spec.key for spec in definitions.resolve_all_asset_specs()}


def test_scaffolding_writes_a_defs_yaml_to_fill_in(tmp_path: Path) -> None:
    request = SimpleNamespace(
        type_name="floe_orchestrator_dagster.component.FloeProduct", target_path=tmp_path
    )
    FloeProductScaffolder().scaffold(request)
    written = yaml.safe_load((tmp_path / "defs.yaml").read_text())
    assert written == {
        "type": "floe_orchestrator_dagster.component.FloeProduct",
        "attributes": {"product_dir": "."},
    }
