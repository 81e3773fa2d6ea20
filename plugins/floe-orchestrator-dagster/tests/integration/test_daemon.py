"""A real daemon launches runs from a schedule; a restart neither repeats nor drops a run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from kit.servers import dagster_home, process
from kit.support import TinyProject, floe_product

PATIENCE_SECONDS = 420
SCHEDULED = ".dagster/scheduled_execution_time"


@contextmanager
def daemon(definitions: Path, environment: dict[str, str]) -> Iterator[int]:
    command = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(definitions)]
    with process(command, definitions.with_suffix(".daemon.log"), environment) as pid:
        yield pid


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, log.read_text()[-4000:]
        time.sleep(1)


@pytest.mark.heavy
def test_a_minutely_schedule_survives_the_death_of_its_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = floe_product(
        tmp_path, "tiny", ["a"], {"cron": "* * * * *", "timezone": "Australia/Lord_Howe"}
    )
    spec = (tmp_path / "floe.yaml").read_text()
    TinyProject(tmp_path, json.loads(artifacts.read_text())).write({"a": "select 1 as id"})
    TinyProject(tmp_path, json.loads(artifacts.read_text())).compile()
    (tmp_path / "floe.yaml").write_text(spec)
    definitions = tmp_path / "target" / "definitions.py"
    log = definitions.with_suffix(".daemon.log")
    environment = dagster_home(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as instance:

        def done() -> int:
            ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
            return instance.get_runs_count(ended)

        with daemon(definitions, environment) as pid:
            wait_for(lambda: done() >= 1, log)
            os.killpg(pid, signal.SIGKILL)
        before = instance.get_runs_count()
        # One tick is missed while no daemon runs; Dagster launches the last missed one later.
        time.sleep(62 - time.time() % 60)
        with daemon(definitions, environment):
            wait_for(lambda: instance.get_runs_count() >= before + 2 and done() >= 2, log)
        runs = instance.get_runs()
    times = Counter(_epoch(run.tags[SCHEDULED]) for run in runs)
    assert set(times.values()) == {1}
    assert all(run.job_name == "tiny" for run in runs)
    moments = sorted(times)
    assert moments == [moments[0] + 60 * number for number in range(len(moments))]


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
