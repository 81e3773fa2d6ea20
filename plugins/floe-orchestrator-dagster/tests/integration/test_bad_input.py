"""Broken products: each gets one clear error with exactly these words, and no new files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_orchestrator_dagster.cli import main
from kit.bad_input_messages import MESSAGES
from kit.support import BIN, TinyProject, cli_runner

Break = Callable[[TinyProject], None]
CASES: dict[str, Break] = {}

ARTIFACTS = "target/compiled_artifacts.json"
DBT_MANIFEST = "target/floe/dev/manifest.json"


def case(function: Break) -> Break:
    CASES[function.__name__] = function
    return function


def edit(project: TinyProject, change: Callable[[dict[str, Any]], None]) -> None:
    path = project.directory / ARTIFACTS
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def models(*items: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["transforms"]["models"] = [{"compute": "duckdb", **item} for item in items]

    return change


def plugin_config(**config: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["plugins"]["orchestrator"]["config"] = config

    return change


def output(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["dbt_profiles"]["tiny"]["outputs"] |= changes

    return change


def node(name: str, kind: str = "model", **fields: Any) -> dict[str, Any]:
    return {
        "unique_id": f"{kind}.tiny.{name}",
        "name": name,
        "resource_type": kind,
        "package_name": "tiny",
        "original_file_path": f"{kind}s/{name}.sql",
        "relation_name": f'"tiny"."main"."{name}"',
        **fields,
    }


def manifest(project: TinyProject, *nodes: dict[str, Any], **fields: Any) -> None:
    """Write a dbt manifest as an image would contain it."""
    document = {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
            "dbt_version": "1.11.0",
            "adapter_type": "duckdb",
            "project_name": "tiny",
        },
        "nodes": {item["unique_id"]: item for item in nodes if item["resource_type"] != "source"},
        "sources": {item["unique_id"]: item for item in nodes if item["resource_type"] == "source"},
        **fields,
    }
    path = project.directory / DBT_MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


# Artifacts.


@case
def artifacts_missing(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).unlink()


@case
def artifacts_empty(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).write_text("")


@case
def artifacts_truncated(project: TinyProject) -> None:
    path = project.directory / ARTIFACTS
    path.write_text(path.read_text()[:200])


@case
def artifacts_not_utf8(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).write_bytes(b'{"metadata": "\xff\xfe"}')


@case
def artifacts_a_list(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).write_text("[]")


@case
def artifacts_nested_too_deeply(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).write_text("[" * 200_000)


@case
def artifacts_huge(project: TinyProject) -> None:
    with (project.directory / ARTIFACTS).open("wb") as file:
        file.truncate(300 * 2**20)  # sparse: takes no disk


@case
def artifacts_a_directory(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).unlink()
    (project.directory / ARTIFACTS).mkdir()


@case
def artifacts_of_another_shape(project: TinyProject) -> None:
    (project.directory / ARTIFACTS).write_text('{"metadata": {"product_name": "tiny"}}')


@case
def artifacts_with_an_unknown_field(project: TinyProject) -> None:
    edit(project, lambda document: document.update(surprise=1))


@case
def artifacts_with_a_bad_version(project: TinyProject) -> None:
    edit(project, lambda document: document.update(version="one"))


@case
def artifacts_with_no_models(project: TinyProject) -> None:
    edit(project, lambda document: document["transforms"].update(models=[]))


@case
def artifacts_with_an_unnamed_model(project: TinyProject) -> None:
    edit(project, models({"name": ""}))


# The product.


@case
def duplicate_names(project: TinyProject) -> None:
    edit(project, models({"name": "a"}, {"name": "a"}))
    manifest(project, node("a"))


@case
def a_cycle(project: TinyProject) -> None:
    edit(
        project,
        models(
            {"name": "a", "depends_on": ["c"]},
            {"name": "b", "depends_on": ["a"]},
            {"name": "c", "depends_on": ["b"]},
        ),
    )
    manifest(project, node("a"), node("b"), node("c"))


@case
def a_model_that_needs_itself(project: TinyProject) -> None:
    edit(project, models({"name": "a", "depends_on": ["a"]}))
    manifest(project, node("a"))


@case
def an_unknown_dependency(project: TinyProject) -> None:
    edit(project, models({"name": "a", "depends_on": ["ordrs"]}, {"name": "orders"}))
    manifest(project, node("a"), node("orders"))


@case
def a_model_that_dbt_does_not_know(project: TinyProject) -> None:
    edit(project, models({"name": "oders"}))
    manifest(project, node("orders"))


@case
def a_compute_without_an_output(project: TinyProject) -> None:
    edit(project, models({"name": "a", "compute": "spark"}))


@case
def a_compute_that_fits_two_outputs(project: TinyProject) -> None:
    # And the profile names neither as its own target.
    edit(project, output(second={"type": "duckdb", "path": "x.duckdb"}))
    edit(project, lambda artifacts: artifacts["dbt_profiles"]["tiny"].pop("target"))


@case
def a_compute_mapped_to_no_output(project: TinyProject) -> None:
    edit(project, plugin_config(computes={"duckdb": {"target": "prod"}}))


@case
def several_problems_at_once(project: TinyProject) -> None:
    edit(
        project,
        models(
            {"name": "a", "compute": "spark", "depends_on": ["b"]},
            {"name": "b", "depends_on": ["a"]},
            {"name": "b"},
        ),
    )


# The plugin's configuration.


@case
def an_unknown_config_key(project: TinyProject) -> None:
    edit(project, plugin_config(isolaton="compute"))


@case
def a_bad_config_value(project: TinyProject) -> None:
    edit(project, plugin_config(isolation="model", retries=-1))


@case
def an_unknown_compute_key(project: TinyProject) -> None:
    edit(project, plugin_config(computes={"duckdb": {"targt": "dev"}}))


@case
def a_project_dir_without_a_project(project: TinyProject) -> None:
    edit(project, plugin_config(project_dir="/nowhere"))


@case
def a_default_schedule_that_never_comes(project: TinyProject) -> None:
    edit(project, plugin_config(default_schedule="0 0 31 4 *"))
    manifest(project, node("a"))


# dbt's project and profile.


@case
def no_dbt_project(project: TinyProject) -> None:
    (project.directory / "dbt_project.yml").unlink()


@case
def a_dbt_project_that_is_not_yaml(project: TinyProject) -> None:
    (project.directory / "dbt_project.yml").write_text("name: [tiny\nprofile: x")


@case
def a_dbt_project_that_is_a_list(project: TinyProject) -> None:
    (project.directory / "dbt_project.yml").write_text("- tiny")


@case
def a_dbt_project_not_utf8(project: TinyProject) -> None:
    (project.directory / "dbt_project.yml").write_bytes(b"name: \xff")


@case
def no_output_at_all(project: TinyProject) -> None:
    edit(project, lambda document: document.update(dbt_profiles=None))


@case
def a_profile_without_outputs(project: TinyProject) -> None:
    edit(project, lambda document: document.update(dbt_profiles={"tiny": {"target": "dev"}}))


@case
def an_output_that_is_not_a_mapping(project: TinyProject) -> None:
    edit(project, output(dev="duckdb"))


@case
def a_profiles_file_that_is_not_yaml(project: TinyProject) -> None:
    (project.directory / "profiles.yml").write_text("tiny: {outputs: [")


# dbt's manifest.


@case
def manifest_missing_from_a_prepared_product(project: TinyProject) -> None:
    del project


@case
def manifest_truncated(project: TinyProject) -> None:
    manifest(project, node("a"))
    path = project.directory / DBT_MANIFEST
    path.write_text(path.read_text()[:100])


@case
def manifest_not_utf8(project: TinyProject) -> None:
    manifest(project, node("a"))
    path = project.directory / DBT_MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"tiny"', b'"\xff"', 1))


@case
def manifest_with_a_wrong_type(project: TinyProject) -> None:
    manifest(project, node("a", fqn=7))


@case
def manifest_without_nodes(project: TinyProject) -> None:
    manifest(project)
    path = project.directory / DBT_MANIFEST
    path.write_text('{"metadata": {}}')


@case
def manifest_of_an_old_dbt(project: TinyProject) -> None:
    manifest(
        project,
        node("a"),
        metadata={
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v9.json",
            "dbt_version": "1.5.0",
            "project_name": "tiny",
        },
    )


@case
def partitions_with_wrong_settings(project: TinyProject) -> None:
    meta = {"dagster": {"partitions": {"type": "dayly", "begin": "2026-01-01"}}}
    manifest(project, node("a", meta=meta))


# floe.yaml.


@case
def a_schedule_that_is_not_a_mapping(project: TinyProject) -> None:
    manifest(project, node("a"))
    (project.directory / "floe.yaml").write_text("schedule: daily")


@case
def a_schedule_with_an_unknown_key(project: TinyProject) -> None:
    manifest(project, node("a"))
    (project.directory / "floe.yaml").write_text("schedule: {corn: '0 6 * * *'}")


@case
def a_schedule_with_a_bad_cron(project: TinyProject) -> None:
    manifest(project, node("a"))
    (project.directory / "floe.yaml").write_text("schedule: {cron: '0 6 * *'}")


@case
def a_schedule_with_a_bad_time_zone(project: TinyProject) -> None:
    manifest(project, node("a"))
    (project.directory / "floe.yaml").write_text(
        "schedule: {cron: '0 6 * * *', timezone: Europe/Viena}"
    )


@case
def a_floe_yaml_that_is_not_yaml(project: TinyProject) -> None:
    manifest(project, node("a"))
    (project.directory / "floe.yaml").write_text("schedule: {")


def files_below(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_there_are_at_least_forty_broken_inputs_and_each_has_its_words() -> None:
    assert len(CASES) >= 40
    assert set(CASES) == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_broken_product_gets_one_clear_error(
    name: str, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With prepared manifests, dbt does not parse, so the error comes at once.
    monkeypatch.setenv("FLOE_PREPARED", "1")
    monkeypatch.setenv("TZ", "UTC")
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    CASES[name](tiny)
    before = files_below(tiny.directory)
    done = cli_runner().invoke(main, ["check", str(tiny.directory)])
    assert done.stderr.replace(str(tiny.directory), "DIR").rstrip("\n") == MESSAGES[name]
    assert done.exit_code == 1
    new = files_below(tiny.directory) - before
    # Only the cache of checked artifacts and plans may be new.
    assert {path for path in new if not fnmatch(path, "target/floe/cache/[CP]*.msgpack")} == set()


def test_dbt_that_cannot_parse_says_why_without_a_traceback(tiny: TinyProject) -> None:
    tiny.write({"a": "select {{ ref('gone') }}"}).compile([{"name": "a"}])
    done = subprocess.run(
        [str(BIN / "floe-dagster"), "check", str(tiny.directory)],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "FLOE_PREPARED"},
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Cannot parse the dbt project {tiny.directory} for target 'dev'. dbt reports: " in (
        done.stderr
    )
    assert "depends on a node named 'gone' which was not found" in done.stderr
    assert not (tiny.directory / "target/floe/dev/parsed.json").exists()


if __name__ == "__main__":  # prints the table of messages, for review
    sys.stdout.write(yaml.safe_dump(MESSAGES))
