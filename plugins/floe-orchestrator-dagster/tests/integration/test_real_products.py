"""Projects from other packages: compiled by floe, built, and compared with bare dbt."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import dbt.include.starter_project
import dbt_metricflow.cli
import pytest
import yaml

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import Product
from kit.support import BIN, asset_edges, checked, floe_product, materialized, run, tables
from kit.support import dbt as bare_dbt


def starter(directory: Path) -> Path:
    """dbt-core's starter project; its not_null test on the first model fails by design."""
    source = Path(dbt.include.starter_project.__file__).parent
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("__*"))
    project = directory / "dbt_project.yml"
    project.write_text(
        project.read_text()
        .replace("{project_name}", "starter")
        .replace("{profile_name}", "starter")
    )
    floe_product(directory, "starter", ["my_first_dbt_model", "my_second_dbt_model"])
    return directory


def metricflow(directory: Path) -> Path:
    """The sample project of dbt-metricflow; its sources name the tables that its seeds build."""
    source = Path(dbt_metricflow.cli.__file__).parent / "sample_dbt_models"
    shutil.copytree(source, directory / "models", ignore=shutil.ignore_patterns("seeds"))
    shutil.copytree(source / "seeds", directory / "seeds")
    sources = directory / "models" / "sources.yml"
    sources.write_text(sources.read_text().replace("$system_schema", "main"))
    # The time spine that the metrics need; the tutorial of the project creates it by hand.
    (directory / "models" / "spine.sql").write_text(
        "select cast(range as date) as ds from range("
        "date '2022-01-01', date '2023-01-01', interval 1 day)"
    )
    (directory / "models" / "spine.yml").write_text(
        yaml.safe_dump(
            {
                "models": [
                    {
                        "name": "spine",
                        "time_spine": {"standard_granularity_column": "ds"},
                        "columns": [{"name": "ds", "granularity": "day"}],
                    }
                ]
            }
        )
    )
    (directory / "dbt_project.yml").write_text(
        yaml.safe_dump({"name": "metricflow", "profile": "metricflow", "version": "1.0"})
    )
    floe_product(directory, "metricflow", ["countries", "customers", "transactions"])
    return directory


def sourced(directory: Path) -> Path:
    """The same project, but its models read the seeds through sources, as in its first version."""
    metricflow(directory)
    for name in ("countries", "customers", "transactions"):
        model = directory / "models" / "sample_models" / f"{name}.sql"
        model.write_text(f"select * from {{{{ source('tutorial', '{name}_seed') }}}}")
    return directory


@pytest.fixture(scope="module", params=[starter, metricflow, sourced])
def product(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Product:
    directory = tmp_path_factory.mktemp("real") / "product"
    return open_product(request.param(directory), progress=lambda _: None)


def test_the_asset_graph_equals_dbt_ls_edge_by_edge(product: Product) -> None:
    assert product.project_dir is not None
    assert product.profiles_dir is not None
    listed = bare_dbt(
        product.project_dir,
        "--quiet",
        "ls",
        "--output",
        "json",
        "--output-keys",
        "unique_id name resource_type source_name depends_on",
        profiles=product.profiles_dir,
    )
    nodes = {
        node["unique_id"]: node
        for node in (json.loads(line) for line in listed.splitlines() if line.startswith("{"))
    }
    assets = {"model", "seed", "snapshot", "source"}

    def key(node: dict[str, str]) -> str:
        source = node.get("source_name")
        return f"{source}/{node['name']}" if node["resource_type"] == "source" else node["name"]

    expected = {
        (key(nodes[parent]), key(node))
        for node in nodes.values()
        if node["resource_type"] in assets
        for parent in node.get("depends_on", {}).get("nodes", [])
        if nodes[parent]["resource_type"] in assets
    }
    assert expected
    assert asset_edges(build_definitions(product)) == expected


def test_built_relations_equal_those_of_bare_dbt(product: Product) -> None:
    assert product.project_dir is not None
    assert product.profiles_dir is not None
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(product, instance, job=product.plan.name)
    database = product.project_dir / "target" / f"{product.plan.name}.duckdb"
    ours = tables(database)
    database.unlink()
    bare_dbt(product.project_dir, "seed", profiles=product.profiles_dir)
    bare_dbt(product.project_dir, "build", profiles=product.profiles_dir)
    theirs = tables(database)
    assert ours == theirs
    assert ours
    failing_by_design = product.plan.name == "starter"
    assert result.success is not failing_by_design
    built = {name.partition(".")[2] for name in ours}
    assert {name.rpartition("/")[2] for name in materialized(result)} == built
    if failing_by_design:
        assert checked(result)["not_null_my_first_dbt_model_id"] is False


def test_dagster_validates_the_generated_code_location(product: Product) -> None:
    done = subprocess.run(
        [str(BIN / "dagster"), "definitions", "validate", "-f", "target/definitions.py"],
        cwd=product.project_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "All code locations passed validation" in output
    assert "yielded before its dependency" not in output
