"""With --json, stdout is one JSON document, even if libraries print or the command fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.backends import Backend
from kit.support import BIN, TinyProject

COMMAND = str(BIN / "floe-dagster")
TABLE = "{{ config(materialized='table') }} "
# This cross join of two ranges takes minutes, and DuckDB can interrupt it.
SLOW = TABLE + "select sum(x.range * y.range) as s from range(300000) x, range(3000000) y"
# Python imports this module at startup. It prints in every way that a library can: at the first
# import of rich or Dagster, and at the end of the process.
NOISE = """
import atexit, os, subprocess, sys

def make_noise():
    print("printed")
    sys.__stdout__.write("written to the first stream")
    sys.__stdout__.flush()
    os.write(1, b"written to the descriptor")
    subprocess.run(["echo", "printed by a child"], check=True)

class OnImport:
    def find_spec(self, name, path=None, target=None):
        if name in ("rich", "dagster"):
            make_noise()

sys.meta_path.insert(0, OnImport())
atexit.register(make_noise)
"""


@pytest.fixture
def noise(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which a library prints on stdout."""
    folder = tmp_path / "noise"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NOISE)
    kept = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    path = os.pathsep.join(filter(None, (str(folder), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "DO_NOT_TRACK": "1"}


@pytest.fixture
def marquez(tiny: TinyProject) -> Iterator[tuple[TinyProject, Backend]]:
    """A product with a failing test, whose lineage goes to a server by floe's own client."""
    tiny.write(
        {
            "a": TABLE + "select range as id from range(3)",
            "b": "select id from {{ ref('a') }} where {{ var('keep', 'true') }}",
            "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}]",
            "tests/none_is_two.sql": "select * from {{ ref('b') }} where id = 2",
        }
    )
    tiny.compile([{"name": "a"}])
    with Backend() as server:
        path = tiny.directory / "target" / "compiled_artifacts.json"
        artifacts = json.loads(path.read_text())
        url = server.url.removesuffix("/api/v1/lineage").replace("127.0.0.1", "localhost")
        named = {"type": "marquez", "version": "0.1.0", "config": {"url": url}}
        artifacts["plugins"]["lineage_backend"] = named
        path.write_text(json.dumps(artifacts))
        yield tiny, server


def document(
    environment: dict[str, str], code: int, *words: str, cwd: Path | None = None
) -> dict[str, Any]:
    done = subprocess.run(
        [COMMAND, *words, "--json"],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "printed by a child" in done.stderr
    response: dict[str, Any] = json.loads(done.stdout)
    return response


def test_a_run_with_every_option_and_a_lineage_backend(
    marquez: tuple[TinyProject, Backend], noise: dict[str, str], tmp_path: Path
) -> None:
    tiny, server = marquez
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    noise |= {"DAGSTER_HOME": str(home), "PYTHONWARNINGS": "default"}
    directory = str(tiny.directory)
    failed = document(noise, 1, "run", directory, "--verbose", "--lineage", "--full-refresh")
    assert failed["success"] is False
    assert failed["counts"]["tests_failed"] == 1
    assert server.names
    kept = document(
        noise,
        0,
        *("run", directory, "--select", "b", "--exclude", "none_is_two", "--threads", "1"),
        *("--vars", "keep: 'id < 2'", "--job", "tiny", "--empty"),
    )
    assert [node["name"] for node in kept["nodes"]] == ["b"]
    assert document(noise, 0, "run", directory, "--no-checks")["counts"]["built"] == 2
    refused = document(noise, 2, "retry", directory)
    assert "the last run of product 'tiny': it succeeded." in refused["error"]


def test_commands_that_start_no_run(
    marquez: tuple[TinyProject, Backend], noise: dict[str, str], tmp_path: Path
) -> None:
    tiny, _ = marquez
    directory, values = str(tiny.directory), str(tmp_path / "values.yaml")
    assert document(noise, 0, "check", directory)["problems"] == []
    assert document(noise, 0, "prepare", directory)["product"] == "tiny"
    assert document(noise, 0, "lineage", "status", directory)["waiting"] == 0
    assert document(noise, 0, "lineage", "replay", directory)["made"] == 0
    assert "postgresql" in document(noise, 0, "helm-values", directory)
    assert document(noise, 0, "helm-values", directory, "--output", values) == {"output": values}
    assert document(noise, 1, "helm-values", "--size", "large", "--diff", values)["equal"] is False
    context = document(noise, 0, "build-context", directory, "--output", str(tmp_path / "context"))
    assert context["files"]
    unreachable = document(noise, 1, "connection", directory, "--url", "http://localhost:1")
    assert unreachable["success"] is False


def test_errors_are_documents_too(
    marquez: tuple[TinyProject, Backend], noise: dict[str, str]
) -> None:
    tiny, _ = marquez
    directory = str(tiny.directory)
    for words, message in (
        (("run", directory, "--threads", "0"), "0 is not in the range"),
        (("run", directory, "--no-such-option"), "No such option"),
        (("run", directory, "--vars", "[1]"), "'[1]' is not a mapping."),
        (("run", str(tiny.directory / "nowhere")), "does not exist"),
        (("run", directory, "--select", "key:nothing_is_called_so"), "selects no model"),
        (("run", directory, "--job", "nightly"), "There is no job 'nightly'."),
        (("run", directory, "--from-failure", "--select", "a"), "leave out --select."),
        (("retry", directory), "DAGSTER_HOME is not set"),
        (("paint",), "No such command 'paint'"),
        (("helm-values", "--image", "x:1"), "--image needs a product"),
    ):
        response = document(noise, 2, *words)
        assert response["success"] is False
        assert message in response["error"], words
    (tiny.directory / "models" / "a.sql").write_text("select {{ nothing_is_called_so( }}")
    assert "dbt reports: " in document(noise, 3, "run", directory)["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_its_progress(
    tiny: TinyProject, noise: dict[str, str], number: signal.Signals
) -> None:
    tiny.write({"a": "select 1 as id", "slow": SLOW + ", {{ ref('a') }}"}).compile([{"name": "a"}])
    with subprocess.Popen(
        [COMMAND, "run", str(tiny.directory), "--json"],
        env=noise,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if " success " in line:
                break
        process.send_signal(number)
        output = process.stdout.read()
        process.stderr.read()
        assert process.wait(60) == 130
    response = json.loads(output)
    assert response["success"] is False
    assert response["errors"] == ["Interrupted: dbt was stopped; 1 of 2 nodes done."]
    assert [node["status"] for node in response["nodes"]] == ["success", "not run"]


def test_a_bug_of_ours_is_a_document_and_a_traceback(tmp_path: Path) -> None:
    code = (
        "import floe_orchestrator_dagster.cli as cli\n"
        "import floe_orchestrator_dagster.cli.lineage as room\n"
        "def broken(*words, **more): raise ZeroDivisionError('a bug')\n"
        "room.status = broken\n"
        f"cli.main(['lineage', 'status', {str(tmp_path)!r}, '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "ZeroDivisionError: a bug"
    assert "Traceback" in done.stderr


def test_help_is_printed_even_with_json() -> None:
    done = subprocess.run(
        [COMMAND, "run", "--json", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")
