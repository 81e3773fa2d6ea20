"""The oracle reports the differences between two real builds, and dbt runs in real forks."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.testing import compile_product
from kit.dbt_build_cases import TABLE, project
from kit.dbt_server import Fork
from kit.oracle import Twins, contradictions, differences
from kit.support import EXAMPLES, TinyProject


@pytest.fixture
def twins(tmp_path: Path, compiled_template: dict[str, Any], forks: Fork) -> Twins:
    twins = Twins(tmp_path / "twins", forks)
    TinyProject(twins.ours, compiled_template).compile([])
    return twins.write(
        {
            **project(),
            "a": TABLE + "select 1 as id",
            "b": "select id from {{ ref('a') }}",
            "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}]",
        }
    )


def test_equal_copies_are_equal_and_planted_differences_are_reported(twins: Twins) -> None:
    assert twins.build().mismatches == []
    (twins.ours / "models" / "a.sql").write_text(TABLE + "select 2 as id")
    (twins.ours / "models" / "c.sql").write_text("select 1 as id")
    (twins.ours / "models" / "s.yml").unlink()
    assert twins.build().mismatches == [
        "graph: unexpected asset model.tiny.c",
        "status: model.tiny.c: dbt not run, we success",
        "status: test.tiny.unique_a_id.f6a5f640da: dbt pass, we not run",
        "relation: target/tiny.duckdb: main.a: only dbt has [('1',)], only we have [('2',)]",
        "relation: target/tiny.duckdb: main.b: only dbt has [('1',)], only we have [('2',)]",
        "relation: target/tiny.duckdb: main.c is unexpected",
        "events: model.tiny.c is materialized, dbt reported nothing",
        "events: 0 evaluations of test.tiny.unique_a_id.f6a5f640da, dbt reported pass",
    ]


def test_a_failure_on_one_side_is_reported(twins: Twins) -> None:
    (twins.ours / "models" / "a.sql").write_text("select nope")
    built = twins.build()
    assert built.mismatches[0].startswith("exit code: dbt 0, we not 0: ")
    assert "status: model.tiny.a: dbt success, we error" in built.mismatches
    assert "run: dbt succeeded, Dagster failed" in built.mismatches


def test_dbt_in_a_fork_has_its_own_directory_environment_and_exit_code(
    twins: Twins, forks: Fork
) -> None:
    (twins.bare / "macros").mkdir()
    (twins.bare / "macros" / "say.sql").write_text(
        "{% macro say() %}{{ print('word ' ~ env_var('WORD', 'none')) }}{% endmacro %}"
    )
    assert twins.dbt("run-operation", "say", env={"WORD": "given"})[1].count("word given") == 1
    code, words = twins.dbt("run-operation", "say")
    assert (code, words.count("word none")) == (0, 1)
    assert twins.dbt("build", "--no-such-option")[0] == 2
    assert forks.dbt(twins.bare / "models", ["debug"], dict(os.environ))[0] != 0


def test_a_fork_ends_with_its_caller_and_receives_its_signals(forks: Fork) -> None:
    done = subprocess.run(
        [str(forks.program), "-c", "import sys; sys.exit(7)"], check=False, timeout=60
    )
    assert done.returncode == 7
    waiting = subprocess.Popen(
        [str(forks.program), "-m", "floe_orchestrator_dagster.dbt.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with waiting:
        assert waiting.stdin is not None
        # The process exits at the end of its input, as it does without a fork server.
        waiting.stdin.close()
        assert waiting.wait(60) == 2
    killed = subprocess.Popen(
        [str(forks.program), "-m", "floe_orchestrator_dagster.dbt.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with killed:
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
        # The fork held the other end of the pipe. End of file shows that the fork is gone.
        assert killed.stdout is not None
        assert killed.stdout.read() == b""


def test_the_shop_example_equals_bare_dbt(tmp_path: Path, forks: Fork) -> None:
    twins = Twins(tmp_path / "twins", forks).copy(EXAMPLES / "shop")
    compile_product(twins.ours)
    # One seed is also a source with the same relation. dbt does not know, and may test it first.
    assert twins.build_bare("--select", "resource_type:seed").success
    built = twins.build()
    assert built.bare.success
    assert not built.mismatches, "\n".join(built.mismatches)


def test_the_two_engines_example_equals_bare_dbt_run_per_target(
    tmp_path: Path, forks: Fork, postgres: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    twins = Twins(tmp_path / "twins", forks).copy(EXAMPLES / "two-engines")
    compile_product(twins.ours)
    tables = ("a", "b", "c", "d", "pg_only")
    waves = [
        ("dev", "numbers a duck_only"),
        ("postgres", "b pg_only"),
        ("dev", "c"),
        ("postgres", "d"),
    ]
    statuses: dict[str, str] = {}
    for target, names in waves:
        bare = twins.build_bare(
            *("--target", target, "--indirect-selection", "buildable"), *("--select", names)
        )
        assert bare.success, bare.words
        statuses |= bare.statuses
    theirs = [postgres(f"select * from {name} order by 1") for name in tables]
    postgres("drop schema public cascade; create schema public")
    ours, recorded, _ = twins.build_ours()
    assert [postgres(f"select * from {name} order by 1") for name in tables] == theirs
    assert recorded is not None
    mismatches = contradictions(statuses, recorded, success=True)
    # The relations of PostgreSQL are compared above, and four builds have no single graph.
    mismatches += [line for line in differences(bare, ours) if line.startswith(("exit", "folder"))]
    assert not mismatches, "\n".join(mismatches)
    assert all(theirs)
