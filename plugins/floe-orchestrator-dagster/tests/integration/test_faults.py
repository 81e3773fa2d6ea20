"""Faults in mid-run: what the user is told, what is recorded, and that a rerun heals it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import dagster as dg
import duckdb
import pytest

from floe_orchestrator_dagster.product import Product
from support import TinyProject, checked, failure_of, materialized, run

pytestmark = pytest.mark.heavy

TABLE = "{{ config(materialized='table') }} "
# Where the environment asks for many rows, a node takes hours; its SQL stays the same.
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
    """Return the dbt processes that a process started, itself or through others."""
    found = processes()

    def is_below(child: int) -> bool:
        while child in found:
            child = found[child][0]
            if child == pid:
                return True
        return False

    return [
        child
        for child, (_, command) in found.items()
        if "floe_orchestrator_dagster.dbt_process" in command and is_below(child)
    ]


def kill_dbt() -> None:
    [dbt] = dbt_below(os.getpid())
    os.kill(dbt, signal.SIGKILL)


def once(moment: str, name: str, action: Callable[[], None]) -> Callable[[Any], None]:
    """Return a listener that acts the first time a node called `name` reaches that moment."""
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
    """Return the rows of a table; None where it does not exist."""
    with duckdb.connect(str(project.database)) as connection:
        try:
            return connection.execute(f"select * from {name}").fetchall()
        except duckdb.CatalogException:
            return None


def assert_told_is_there(project: TinyProject, result: dg.ExecuteInProcessResult) -> None:
    """Nothing half-reported as done: what the run says it built is in the warehouse."""
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
    said = failure_of(failed)
    assert "dbt build on target 'dev' ended without a result (killed by SIGKILL" in said
    assert "as the kernel does when memory runs out" in said
    assert "dbt.log" in said
    missing = [name for name in "abc" if name not in built]
    assert all(f"model {name}" in said.partition("skipped:")[2] for name in missing)
    assert 'Re-execute "from failure" to build only what is missing.' in said
    assert materialized(failed) == built
    assert_told_is_there(tiny, failed)
    monkeypatch.delenv(f"ROWS_OF_{during}")
    healed = from_failure(product, instance, failed)
    assert healed.success, failure_of(healed)
    assert materialized(healed) == missing
    # `b` only ever appends: building it twice would show.
    assert {name: rows(tiny, name) for name in "abc"} == {name: [(1,)] for name in "abc"}
    assert set(checked(failed) | checked(healed)) == {"unique_a_id", "not_null_c_id"}
