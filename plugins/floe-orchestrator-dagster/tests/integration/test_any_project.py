"""We build what bare dbt builds: disabled nodes, colliding names, tests that read nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml
from dagster_dbt import DagsterDbtTranslator

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.dbt.events import NodeFinished
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.errors import PlanError
from floe_orchestrator_dagster.product.product import Product
from kit.support import (
    DBT_PROJECT,
    TinyProject,
    checked,
    dbt,
    failure_of,
    materialized,
    run,
    tables,
)

SEVERAL = [{"name": "a", "compute": "duckdb"}, {"name": "b", "compute": "other"}]
TARGETS = {"duckdb": {"target": "dev"}, "other": {"target": "other"}}
BOTH = {"other": {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 2}}


def opened(
    tiny: TinyProject, files: Mapping[str, str], *, project: Mapping[str, Any] = {}, **fields: Any
) -> Product:
    tiny.write(files).compile(fields.pop("transforms", []), **fields)
    settings = yaml.safe_dump({**DBT_PROJECT, **project})
    (tiny.directory / "dbt_project.yml").write_text(settings)
    return tiny.open()


def by_dbt(product: Product, directory: Path, copy: Path, *words: str) -> dict[str, str]:
    """Return dbt's status of each node, from a build of a copy."""
    assert product.profiles_dir is not None
    ignored = shutil.ignore_patterns("target", "logs")
    shutil.copytree(directory, copy, ignore=ignored, dirs_exist_ok=True)
    (copy / "target").mkdir(exist_ok=True)
    output = dbt(copy, "build", *words, profiles=product.profiles_dir)
    results = copy / "target" / "bare" / "run_results.json"
    assert results.is_file(), output
    return {one["unique_id"]: one["status"] for one in json.loads(results.read_text())["results"]}


def by_us(
    product: Product, instance: dg.DagsterInstance, **fields: Any
) -> tuple[dict[str, str], dg.ExecuteInProcessResult]:
    """Return the status of each node, and the result of the run."""
    statuses: dict[str, str] = {}

    def note(progress: Any) -> None:
        if isinstance(progress, NodeFinished):
            statuses[progress.unique_id] = progress.status

    result = run(product, instance, listener=note, **fields)
    return statuses, result


# --- names

ODD = {
    "type": "select 1 as id",
    "type_x": "select id from {{ ref('type') }}",
    "größe": 'select 1 as "氏名", 2 as "住所", 3 as id',
    "Type_X2": "select 1 as id",
    "nothing": " \n",
    "retired": "{{ config(enabled=false) }} select 1 as id",
    "twin": "select 1 as id",
    "inlined": "{{ config(materialized='ephemeral') }} select 1 as id",
    "inliner": "select * from {{ ref('inlined') }}",
    "book_v1": "select 1 as id",
    "book_v2": "select 1 as id, 2 as pages",
    "tests/reads_nothing.sql": "select 1 where false",
    "tests/empty.sql": "\n",
    "packages.yml": "packages: [{local: vendor/lib}]",
    "vendor/lib/dbt_project.yml": "{name: lib, version: '1.0', models: {+alias: lib_twin}}",
    "vendor/lib/models/twin.sql": "select id from {{ source('raw', 'clicks') }}",
    "vendor/lib/models/sources.yml": """
sources:
  - {name: raw, schema: main, tables: [{name: clicks, columns: [{name: id, data_tests: [unique]}]}]}
""",
    "models/properties.yml": """
models:
  - name: type
    config: {meta: {dagster: {group: 2024, owners: a@example.com, left: alone}}}
    columns:
      - name: id
        data_tests:
          - unique: {name: x}
          - not_null: {name: x-y}
          - accepted_values: {name: same, arguments: {values: [1]}}
          - accepted_values: {name: same, arguments: {values: [1, 2]}}
  - name: größe
    columns:
      - {name: "氏名", quote: true, data_tests: [not_null]}
      - {name: "住所", quote: true, data_tests: [not_null]}
  - name: retired
    columns:
      - name: id
        data_tests: [unique, {relationships: {arguments: {to: ref('type'), field: id}}}]
  - {name: inlined, columns: [{name: id, data_tests: [unique]}]}
  - name: type_x
    columns:
      - name: id
        data_tests: [{relationships: {arguments: {to: ref('retired'), field: id}}}]
  - name: book
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
    columns: [{name: id, data_tests: [unique]}]
unit_tests:
  - {name: x_y, model: type, given: [], expect: {rows: [{id: 1}]}}
  - {name: of_retired, model: retired, given: [], expect: {rows: [{id: 1}]}}
sources:
  - name: raw
    schema: main
    tables:
      - {name: clicks, columns: [{name: id, data_tests: [unique]}]}
      - {name: one, meta: {dagster: {asset_key: [load, all]}}}
      - {name: two, meta: {dagster: {asset_key: [load, all]}}}
""",
    "reader": "select 1 as id -- {{ source('raw', 'one') }} {{ source('raw', 'two') }}",
}


@pytest.mark.parametrize("isolation", ["product", "compute"])
def test_a_project_with_odd_names_and_idle_nodes_is_built_as_dbt_builds_it(
    tiny: TinyProject, instance: dg.DagsterInstance, isolation: str, tmp_path: Path
) -> None:
    (tiny.directory / "target").mkdir(exist_ok=True)
    with duckdb.connect(str(tiny.database)) as connection:
        connection.execute("create table clicks as select 1 as id")
    product = opened(tiny, ODD, config={"isolation": isolation})
    copy = tmp_path / "bare"
    (copy / "target").mkdir(parents=True)
    shutil.copyfile(tiny.database, copy / "target" / "tiny.duckdb")
    theirs = by_dbt(product, tiny.directory, copy)
    ours, result = by_us(product, instance)
    assert result.success
    assert ours == theirs
    assert tables(tiny.database) == tables(copy / "target" / "tiny.duckdb")
    assert sorted(materialized(result)) == [
        *("Type_X2", "book_v1", "book_v2", "größe", "inliner", "lib/twin", "reader"),
        *("twin", "type", "type_x"),
    ]
    plan = product.plan
    evaluated = {
        (one.asset_key.to_user_string(), one.check_name)
        for one in result.get_asset_check_evaluations()
    }
    tests = [uid for uid in ours if uid.startswith(("test.", "unit_test."))]
    assert len(evaluated) == len(plan.checks) == len(tests)
    assert {
        ("type", "x"),
        ("type", "x_y"),
        ("raw/clicks", "source_unique_raw_clicks_id"),
        ("inliner", "unique_inlined_id"),
    } <= evaluated
    names = {node.name for node in plan.assets.values()}
    assert {"book.v1", "book.v2", "twin", "lib.twin", "größe"} <= names
    output = "\n".join(plan.warnings)
    assert (
        "dbt model 'type' (models/properties.yml)" in output or "'type' (models/type.sql)" in output
    )
    assert "meta.dagster.group is 2024 and is left out" in output
    specs = Specs(plan)
    [uid] = [uid for uid, node in plan.assets.items() if node.name == "type"]
    assert list(specs.assets[uid].owners) == ["a@example.com"]
    assert specs.assets[uid].group_name == "tiny"
    [reader] = [spec for spec in specs.assets.values() if spec.key == dg.AssetKey("reader")]
    assert [dep.asset_key for dep in reader.deps] == [dg.AssetKey(["load", "all"])]


def test_odd_meta_and_colliding_names_do_no_harm_with_a_translator(
    tiny: TinyProject,
) -> None:
    class Mine(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            if dbt_resource_props["resource_type"] == "source":
                return dg.AssetKey("landed")
            return super().get_asset_key(dbt_resource_props)

    product = opened(tiny, ODD)
    specs = Specs(
        product.plan,
        translator=Mine(),
        manifests={
            name: json.loads(path.read_text()) for name, path in product.manifest_paths.items()
        },
    )
    keys = [spec.key.to_user_string() for spec in specs.assets.values()]
    assert {"twin", "lib/twin", "type"} <= {*keys}
    assert len({*keys}) == len(keys)
    on_source = [spec for spec in specs.checks.values() if spec.asset_key == dg.AssetKey("landed")]
    assert len({spec.name for spec in on_source}) == 2
    twin = specs.assets["model.lib.twin"]
    assert [dep.asset_key for dep in twin.deps] == [dg.AssetKey("landed")]
    assert build_definitions(product, translator=Mine()).resolve_asset_graph()


# --- nodes that only some targets enable

BY_TARGET = {
    "a": "select 1 as id",
    "b": "select id from {{ ref('a') }}",
    "here": "select id from {{ ref('a') }}",
    "between": "select id from {{ ref('a') }}",
    "near": "select id from {{ ref('between') }}",
    "c": "select id from {{ ref('between') }}",
    "tests/heavy_only.sql": (
        "{{ config(enabled=target.name == 'other') }} select * from {{ ref('b') }} where id > 1"
    ),
    "tests/moves.sql": (
        "select * from {% if target.name == 'other' %} {{ ref('b') }} {% else %} {{ ref('a') }} "
        "{% endif %} where id > 1"
    ),
    "models/properties.yml": """
models:
  - name: here
    columns: [{name: id, data_tests: [{accepted_values: {arguments: {values: [7]}}}]}]
  - name: b
    columns:
      - name: id
        data_tests: [unique, {relationships: {arguments: {to: ref('a'), field: id}}}]
unit_tests:
  - name: u
    model: b
    config: {enabled: "{{ target.name == 'other' }}"}
    given: [{input: ref('a'), rows: [{id: 4}]}]
    expect: {rows: [{id: 4}]}
""",
}
PROJECT = {
    "models": {
        "tiny": {
            "+materialized": "table",
            "b": {"+enabled": "{{ target.name == 'other' }}"},
            "here": {"+enabled": "{{ target.name == 'dev' }}"},
            "between": {
                "+materialized": "{{ 'table' if target.name == 'other' else 'ephemeral' }}"
            },
        }
    },
    "data_tests": {"tiny": {"+severity": "{{ 'error' if target.name == 'other' else 'warn' }}"}},
}


@pytest.mark.parametrize("isolation", ["product", "compute"])
def test_each_target_is_built_as_dbt_builds_it(
    tiny: TinyProject, instance: dg.DagsterInstance, isolation: str, tmp_path: Path
) -> None:
    product = opened(
        tiny,
        BY_TARGET,
        project=PROJECT,
        transforms=[
            {"name": "a"},
            {"name": "b", "compute": "other"},
            {"name": "c", "compute": "other"},
        ],
        outputs=BOTH,
        config={"isolation": isolation, "computes": TARGETS},
    )
    ours, result = by_us(product, instance)
    assert result.success, failure_of(result)
    copy = tmp_path / "bare"
    heavy = by_dbt(product, tiny.directory, copy, "--target", "other")
    light = by_dbt(product, tiny.directory, copy)
    at = {uid: product.plan.target_of(uid) for uid in ours}
    assert ours == {uid: (heavy if target == "other" else light)[uid] for uid, target in at.items()}
    # We run exactly the nodes that dbt runs on some target.
    assert {*ours} == {*heavy, *light}
    assert at["model.tiny.between"] == "other"
    assert {name: passed for name, passed in checked(result).items() if not passed} == {
        "accepted_values_here_id__7": False
    }
    assert tables(tiny.database).keys() == tables(copy / "target" / "tiny.duckdb").keys()


# --- tests that read nothing


@pytest.mark.parametrize("isolation", ["product", "compute"])
def test_a_test_that_reads_nothing_runs_last_and_fails_the_run(
    tiny: TinyProject, instance: dg.DagsterInstance, isolation: str
) -> None:
    files = {
        "a": "{{ config(materialized='table') }} select 1 as id",
        "b": "{{ config(materialized='table') }} select 1 as id, -5 as amount",
        "c": "{{ config(materialized='table') }} select 1 as id",
        "tests/hard_coded.sql": "select * from {{ target.schema }}.b where amount < 0",
    }
    product = opened(
        tiny,
        files,
        transforms=SEVERAL,
        outputs=BOTH,
        config={"isolation": isolation, "computes": TARGETS},
    )
    ours, result = by_us(product, instance)
    assert [*ours][-1] == "test.tiny.hard_coded"
    assert ours["test.tiny.hard_coded"] == "fail"
    assert not result.success
    assert "hard_coded" in failure_of(result)
    [evaluation] = result.get_asset_check_evaluations()
    assert (evaluation.asset_key, evaluation.passed) == (dg.AssetKey("c"), False)
    assert {*materialized(result)} == {"a", "b", "c"}


def test_a_product_of_sources_and_tests_alone_runs_its_tests(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    files = {
        "models/sources.yml": """
sources:
  - {name: raw, schema: main, tables: [{name: t, columns: [{name: id, data_tests: [unique]}]}]}
""",
        "tests/hard_coded.sql": "select 1",
    }
    product = opened(tiny, files)
    with duckdb.connect(str(tiny.database)) as connection:
        connection.execute("create table t as select 1 as id")
    ours, result = by_us(product, instance)
    assert set(ours.values()) == {"pass", "fail"}
    assert not result.success
    assert checked(result) == {"source_unique_raw_t_id": True, "hard_coded": False}


@pytest.mark.parametrize("isolation", ["product", "compute"])
def test_a_unit_test_of_an_ephemeral_model_stops_the_models_that_inline_it(
    tiny: TinyProject, instance: dg.DagsterInstance, isolation: str, tmp_path: Path
) -> None:
    files = {
        "a": "{{ config(materialized='table') }} select 1 as id",
        "e": "{{ config(materialized='ephemeral') }} select id + 1 as id from {{ ref('a') }}",
        "b": "select id from {{ ref('e') }}",
        "models/properties.yml": """
unit_tests:
  - name: u
    model: e
    given: [{input: ref('a'), rows: [{id: 1}]}]
    expect: {rows: [{id: 3}]}
""",
    }
    product = opened(tiny, files, config={"isolation": isolation})
    theirs = by_dbt(product, tiny.directory, tmp_path / "bare")
    ours, result = by_us(product, instance)
    assert not result.success
    assert ours["unit_test.tiny.e.u"] == theirs["unit_test.tiny.e.u"] == "fail"
    assert materialized(result) == ["a"]
    assert {uid for uid, status in theirs.items() if status == "success"} == {"model.tiny.a"}


# --- all problems are reported at once


def test_problems_of_partitions_plan_and_schedule_are_reported_together(
    tiny: TinyProject,
) -> None:
    tiny.spec = {"schedule": {"cron": "61 * * * *"}}
    files = {
        "a": "{{ config(meta={'dagster': {'partitions': {'type': 'dayly', 'start': '2026-01-01'}}})"
        " }} select 1 as id"
    }
    with pytest.raises(PlanError) as error:
        opened(tiny, files, transforms=[{"name": "zzz"}])
    assert [problem.path for problem in error.value.problems] == [
        "dbt model 'a' meta.dagster.partitions.type",
        "transforms.models[0].name",
        "`schedule` of floe.yaml",
    ]
    assert str(error.value.problems[-1]).startswith(
        "`schedule` of floe.yaml: cron '61 * * * *' is not one that Dagster accepts. Write five "
        "fields"
    )


def test_problems_of_dates_and_schedule_are_reported_together(tiny: TinyProject) -> None:
    tiny.spec = {"schedule": {"cron": "0 6 * * *", "timezone": "Mars"}}
    meta = {"dagster": {"partitions": {"type": "daily", "start": "2026-02-30"}}}
    files = dict.fromkeys("ab", f"{{{{ config(meta={meta}) }}}} select 1 as id")
    product = opened(tiny, files)
    with pytest.raises(PlanError) as error:
        build_definitions(product)
    assert [problem.path for problem in error.value.problems] == [
        "dbt model 'a' meta.dagster.partitions",
        "dbt model 'b' meta.dagster.partitions",
        "`schedule` of floe.yaml",
    ]
