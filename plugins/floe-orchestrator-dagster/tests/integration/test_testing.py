"""The `testing` module for users: a product in a few lines, and a backend that records events."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from floe_orchestrator_dagster import DagsterOrchestratorPlugin, load_product_definitions
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.testing import PLATFORM, RecordingBackend, write_product
from kit.support import EXAMPLES, asset_edges, materialized

PAGE = EXAMPLES.parent / "docs" / "testing.md"
FILES = {"orders": "select 1 as id", "revenue": "select * from {{ ref('orders') }}"}


def test_a_product_of_a_few_lines_loads(tmp_path: Path) -> None:
    target = write_product(
        tmp_path,
        {**FILES, "models/marts/top.sql": "select * from {{ ref('revenue') }}"},
        schedule={"cron": "0 8 * * *", "timezone": "UTC"},
    )
    definitions = load_product_definitions("tested", target)
    assert asset_edges(definitions) == {("orders", "revenue"), ("revenue", "top")}
    [schedule] = definitions.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.cron_schedule == "0 8 * * *"


def test_a_recording_backend_keeps_the_events_of_a_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    target = write_product(tmp_path, FILES)
    artifacts = json.loads((target / "compiled_artifacts.json").read_text())
    with RecordingBackend() as backend:
        plugin = DagsterOrchestratorPlugin(project_dir=tmp_path, lineage_backend=backend)
        job = plugin.create_definitions(artifacts).resolve_job_def("tested")
        result = job.execute_in_process(instance=instance)
    assert materialized(result) == ["orders", "revenue"]
    models = [event for event in backend.events if event["job"]["name"].endswith("revenue")]
    assert [event["eventType"] for event in models] == ["START", "COMPLETE"]
    assert {event["job"]["namespace"] for event in backend.events} == {"test.floe"}
    with pytest.raises(httpx.ConnectError):
        httpx.post(backend.url, json={})


def test_the_page_on_testing_shows_tests_that_pass(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102  the page is our own
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 2
    for name in tests:
        (tmp_path / name).mkdir()
        names[name](tmp_path / name)


def test_an_existing_project_file_is_kept(tmp_path: Path) -> None:
    project = "{name: mine, profile: mine, version: '1.0'}"
    (tmp_path / "dbt_project.yml").write_text(project)
    write_product(tmp_path, {"orders": "select 1 as id"}, name="my-product")
    assert (tmp_path / "dbt_project.yml").read_text() == project


def test_an_error_of_compiling_contains_the_output_of_floe(tmp_path: Path) -> None:
    platform = {**PLATFORM, "plugins": {"orchestrator": {"type": "nowhere"}}}
    with pytest.raises(ProductError) as error:
        write_product(tmp_path, FILES, platform=platform)
    message = str(error.value)
    assert message.startswith(
        f"Cannot compile the product in {tmp_path}: `floe platform compile` ended with exit code "
    )
    assert "nowhere" in message or "compute" in message
    assert message.endswith("Correct the files that it names.")
