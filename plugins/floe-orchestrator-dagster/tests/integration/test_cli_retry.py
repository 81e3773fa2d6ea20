"""`floe-dagster retry` runs what is left of the last run, with its options, or explains why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_orchestrator_dagster.cli import main
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.run.step import Host
from kit.support import TinyProject, cli_runner, tables

TABLE = "{{ config(materialized='table') }} "
FILES = {
    "models/a.sql": TABLE + "select range as id from range(3)",
    "models/b.sql": TABLE + "select id, '{{ var(\"word\", \"\") }}' as word from {{ ref('a') }}",
    "models/c.sql": TABLE + "select * from {{ ref('b') }}",
    "models/other.sql": TABLE + "select 1 as id",
    "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]},"
    " {name: b, columns: [{name: id, data_tests: [not_null]}]}]",
}
BROKEN = {"models/b.sql": "select nope from {{ ref('a') }}"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Dagster instance."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def floe_dagster(code: int, *words: str) -> dict[str, Any]:
    """Run a command; return its document with an extra key `stderr`."""
    done = cli_runner().invoke(main, [*words, "--json"])
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return {**document, "stderr": " ".join(done.stderr.split())}


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {node["name"]: node["status"] for node in document["nodes"]}


def last_runs(count: int) -> list[dg.DagsterRun]:
    with dg.DagsterInstance.get() as instance:
        return [*instance.get_runs(limit=count)]


@pytest.mark.usefixtures("home")
def test_a_retry_is_dagsters_re_execution_of_what_is_left(tiny: TinyProject) -> None:
    directory = str(tiny.write(FILES | BROKEN).compile([{"name": "a"}]).directory)
    words = ("--select", "a+", "--vars", "{word: Größe}", "--threads", "1")
    failed = floe_dagster(1, "run", directory, *words)
    assert statuses(failed)["b"] == "error"
    tiny.write(FILES)
    retried = floe_dagster(0, "retry", directory)
    assert statuses(retried) == {"b": "success", "c": "success", "not_null_b_id": "pass"}
    assert (
        f"Retrying run {failed['run_id']} of job 'tiny' (FAILURE, started 20" in retried["stderr"]
    )
    assert "2 assets of 3 and 1 check of 2 are left." in retried["stderr"]
    built = tables(tiny.database)
    assert {row[1] for row in built["main.c"]} == {"Größe"}
    assert "main.other" not in built
    child, parent = last_runs(2)
    assert (child.parent_run_id, child.root_run_id) == (parent.run_id, parent.run_id)
    assert child.tags["dagster/parent_run_id"] == parent.run_id
    assert child.tags["dagster/is_resume_retry"] == "true"
    assert child.run_config["ops"] == parent.run_config["ops"]
    again = floe_dagster(2, "run", directory, "--from-failure")
    assert f"Cannot retry run {child.run_id}, the last run of product 'tiny'" in again["error"]
    assert "it succeeded. Start a new run with `floe-dagster run`." in again["error"]


@pytest.mark.usefixtures("home")
def test_a_run_that_was_launched_elsewhere_is_retried_with_its_partition(
    tiny: TinyProject,
) -> None:
    daily = (
        "{{ config(materialized='incremental', meta={'dagster': {'partitions': "
        "{'type': 'daily', 'start': '2024-01-01', 'end': '2024-01-04'}}}) }} "
        'select \'{{ var("partition_start", "") }}\' as at'
    )
    directory = str(tiny.write({"a": daily, "b": daily + ", nope"}).compile([]).directory)
    tiny.compile([{"name": "a"}])
    with dg.DagsterInstance.get() as instance:
        job = job_named(build_definitions(tiny.open(), host=Host(echo=lambda _: None)), "tiny")
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            partition_key="2024-01-02",
            tags={"team": "shop"},
        )
    assert not result.success
    tiny.write({"b": daily})
    retried = floe_dagster(0, "retry", directory)
    assert statuses(retried) == {"b": "success"}
    assert "partition 2024-01-02): 1 asset of 2" in retried["stderr"]
    assert tables(tiny.database)["main.b"][0][0].startswith("2024-01-02")
    [child] = last_runs(1)
    assert child.tags["dagster/partition"] == "2024-01-02"
    assert child.tags["team"] == "shop"


@pytest.mark.usefixtures("home")
def test_a_retry_of_steps_by_compute_skips_those_that_succeeded(tiny: TinyProject) -> None:
    tiny.write(FILES | {"models/b.sql": "select nope from {{ ref('a') }}"})
    second = {"type": "duckdb", "path": str(tiny.database)}
    config = {
        "isolation": "compute",
        "computes": {"duckdb": {"target": "dev"}, "second": {"target": "second"}},
    }
    names = [{"name": "a"}, {"name": "other"}, {"name": "c"}, {"name": "b", "compute": "second"}]
    tiny.compile(names, config=config, outputs={"second": second})
    floe_dagster(1, "run", str(tiny.directory))
    tiny.write(FILES)
    retried = floe_dagster(0, "retry", str(tiny.directory))
    assert statuses(retried) == {"b": "success", "c": "success", "not_null_b_id": "pass"}


def test_a_retry_without_a_run_reports_what_is_missing(
    tiny: TinyProject, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}]).directory)
    nothing = floe_dagster(2, "retry", directory)["error"]
    assert f"the Dagster instance at {home} has no run of it." in nothing
    with dg.DagsterInstance.get() as instance:

        @dg.op
        def fails() -> None:
            raise ValueError

        @dg.job(name="nightly", tags={"floe/product": "tiny"})
        def nightly() -> None:
            fails()

        nightly.execute_in_process(instance=instance, raise_on_error=False)
    gone = floe_dagster(2, "retry", directory)["error"]
    assert "its job 'nightly' no longer exists. Jobs: tiny." in gone
    monkeypatch.delenv("DAGSTER_HOME")
    without = floe_dagster(2, "retry", directory)["error"]
    assert "DAGSTER_HOME is not set, so Dagster has kept no record of its runs." in without
    mixed = floe_dagster(2, "run", directory, "--from-failure", "--select", "a", "--empty")["error"]
    assert mixed.endswith("with the options of that run: leave out --select, --empty.")
