"""The quick start against a running `dagster dev`, over GraphQL like its UI."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kit.ports import free_port
from kit.support import BIN

LOCATION = "definitions.py"


class Server:
    """A running `dagster dev` and its GraphQL endpoint."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.log = home / "dev.log"
        environment = {key: value for key, value in os.environ.items() if key != "FLOE_PREPARED"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BIN / "dagster"), "dev", "-f", "target/definitions.py", "-p", str(self.port)],
                cwd=directory,
                env={**environment, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def wait_for(self, condition: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                result = condition()
            except httpx.HTTPError:
                result = None
            if result:
                return result
            time.sleep(1)
        raise AssertionError(f"not within {seconds} s; log:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            # Some releases of Dagster ignore the signal.
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def dev(example: Callable[[str], Path], tmp_path: Path) -> Iterator[Server]:
    directory = example("shop")
    spec = yaml.safe_load((directory / "floe.yaml").read_text())
    spec["schedule"] = {"cron": "* * * * *", "timezone": "Europe/Vienna", "enabled": False}
    (directory / "floe.yaml").write_text(yaml.safe_dump(spec))
    home = tmp_path / "home"
    home.mkdir()
    server = Server(directory, home)
    yield server
    server.stop()


LOAD = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
  locationOrLoadError { __typename ... on PythonError { message }
    ... on RepositoryLocation { repositories { name } } } } } } }"""
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status
  assetMaterializations { assetKey { path } } } } }"""
SCHEDULES = """query($selector: RepositorySelector!) {
  schedulesOrError(repositorySelector: $selector) { ... on Schedules { results {
    name cronSchedule executionTimezone pipelineName
    scheduleState { id status ticks(limit: 5) { status runIds } } } } } }"""
START = """mutation($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector)
  { __typename } }"""
STOP = """mutation($id: String!) { stopRunningSchedule(id: $id) { __typename } }"""
ASSETS = """{ assetNodes { assetKey { path } groupName kinds owners { __typename }
  assetChecksOrError { ... on AssetChecks { checks { name } } } } }"""


REEXECUTE = """mutation($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def finished(dev: Server, run_id: str) -> Any:
    """Wait for a run to end and return it."""

    def ended() -> Any:
        run = dev.ask(STATUS, id=run_id)["runOrError"]
        return run if run["status"] in {"SUCCESS", "FAILURE"} else None

    return dev.wait_for(ended, 180)


def names(run: Any) -> list[str]:
    return sorted(item["assetKey"]["path"][-1] for item in run["assetMaterializations"])


def test_the_quick_start_loads_runs_and_ticks_in_dagster_dev(dev: Server) -> None:
    model = dev.directory / "models" / "marts" / "daily_revenue.sql"
    good = model.read_text()
    entry = dev.wait_for(
        lambda: next(
            (
                entry
                for entry in dev.ask(LOAD)["workspaceOrError"]["locationEntries"]
                if entry["loadStatus"] == "LOADED"
            ),
            None,
        ),
        120,
    )
    location = entry["locationOrLoadError"]
    assert location["__typename"] == "RepositoryLocation", location
    repository = {
        "repositoryLocationName": entry["name"],
        "repositoryName": location["repositories"][0]["name"],
    }

    nodes = {node["assetKey"]["path"][-1]: node for node in dev.ask(ASSETS)["assetNodes"]}
    assert {"orders", "customers", "customers_snapshot", "raw_orders"} <= set(nodes)
    assert nodes["orders"]["groupName"] == "finance"
    assert sorted(nodes["orders"]["kinds"]) == ["dbt", "duckdb"]
    assert len(nodes["orders"]["assetChecksOrError"]["checks"]) == 4

    params = {"selector": {**repository, "jobName": "shop"}, "runConfigData": {}}
    launched = dev.ask(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    first = finished(dev, launched["run"]["runId"])
    assert first["status"] == "SUCCESS"
    assert len(first["assetMaterializations"]) == 11

    model.write_text("select nope from {{ ref('orders') }}")
    failing = dev.ask(LAUNCH, params=params)["launchRun"]["run"]["runId"]
    failed = finished(dev, failing)
    assert failed["status"] == "FAILURE"
    assert len(failed["assetMaterializations"]) == 10
    model.write_text(good)
    again = {"parentRunId": failing, "strategy": "FROM_FAILURE"}
    healing = dev.ask(REEXECUTE, params=again)["launchRunReexecution"]
    assert healing["__typename"] == "LaunchRunSuccess", healing
    healed = finished(dev, healing["run"]["runId"])
    assert healed["status"] == "SUCCESS"
    assert names(healed) == ["daily_revenue"]

    def schedule() -> Any:
        return dev.ask(SCHEDULES, selector=repository)["schedulesOrError"]["results"][0]

    stopped = schedule()
    assert stopped["name"] == "shop_schedule"
    assert stopped["pipelineName"] == "shop"
    assert (stopped["cronSchedule"], stopped["executionTimezone"]) == ("* * * * *", "Europe/Vienna")
    assert stopped["scheduleState"]["status"] == "STOPPED"
    dev.ask(START, selector={**repository, "scheduleName": "shop_schedule"})
    tick = dev.wait_for(
        lambda: next(
            (
                tick
                for tick in schedule()["scheduleState"]["ticks"]
                if tick["status"] == "SUCCESS" and tick["runIds"]
            ),
            None,
        ),
        150,
    )
    dev.ask(STOP, id=schedule()["scheduleState"]["id"])
    ran = finished(dev, tick["runIds"][0])
    assert ran["status"] == "SUCCESS"

    log = dev.log.read_text()
    ours = [line for line in log.splitlines() if "Warning" in line and "floe" in line]
    assert ours == []
