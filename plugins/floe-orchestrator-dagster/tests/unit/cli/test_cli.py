"""The command line without real products: messages, exit codes, the rule of selections, lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from floe_orchestrator_dagster.cli import main
from floe_orchestrator_dagster.cli.live import (
    Lines,
    LiveView,
    NodeResult,
    PlainView,
    clock,
    time_left,
)
from floe_orchestrator_dagster.cli.report import Ending, RunReport, summarize
from floe_orchestrator_dagster.cli.selection import is_dagster
from floe_orchestrator_dagster.cli.variables import read_variables
from floe_orchestrator_dagster.dbt.events import NodeFinished, NodeStarted
from floe_orchestrator_dagster.errors import DbtError, PlanError, Problem, ProductError
from kit.support import cli_runner


def result(name: str, status: str = "not run", kind: str = "model", **more: Any) -> NodeResult:
    return NodeResult(f"{kind}.p.{name}", name, kind, "duckdb", status, **more)


def recording_console() -> Console:
    return Console(record=True, width=200, file=StringIO(), highlight=False)


@pytest.mark.parametrize("command", [[], ["check"], ["prepare"], ["run"], ["retry"]])
def test_every_command_has_help(command: list[str]) -> None:
    done = cli_runner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_the_help_of_run_lists_exit_codes_and_the_rule_of_selections() -> None:
    help_text = cli_runner().invoke(main, ["run", "--help"]).output
    for line in (
        "0  everything was built and no test of error severity failed",
        "1  a node or a test failed, or was skipped",
        "2  wrong usage, a selection that cannot be used, or no run to retry",
        "3  the product or its files are wrong",
        "4  dbt could not run at all",
        "130  interrupted; dbt was stopped",
    ):
        assert line in help_text
    assert "`dagster:`" in help_text


def test_help_imports_neither_dagster_nor_rich_nor_floe_core() -> None:
    code = (
        "import sys; from floe_orchestrator_dagster.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('dagster', 'rich', 'floe_core', 'dbt') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["check", "no/such/directory"],
        ["run", ".", "--vars", "[1]"],
        ["run", ".", "--vars", "{"],
        ["run", ".", "--threads", "0"],
        ["paint"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    assert cli_runner().invoke(main, words).exit_code == 2


def test_vars_that_are_not_a_mapping_are_refused() -> None:
    error = cli_runner().invoke(main, ["run", ".", "--vars", "[1]"]).stderr
    assert "'[1]' is not a mapping. Write '{name: value}'." in error


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (None, {}),
        ("", {}),
        ("a: b", {"a": "b"}),
        ("{a: {b: [1, 2.5, true, null]}}", {"a": {"b": [1, 2.5, True, None]}}),
        ('{"a": "\N{GRINNING FACE} Größe 氏名"}', {"a": "\N{GRINNING FACE} Größe 氏名"}),
        ("day: 2026-01-02", {"day": "2026-01-02"}),
        ("at: 2026-01-02 03:04:05", {"at": "2026-01-02 03:04:05"}),
        ("{1: x, false: y}", {"1": "x", "false": "y"}),
    ],
)
def test_vars_are_read_as_dbt_reads_them(text: str | None, variables: dict[str, Any]) -> None:
    assert read_variables(text) == variables


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'{' is neither JSON nor YAML."),
        ("just words", "'just words' is not a mapping."),
        ("a: .nan", "'a: .nan' cannot be written as JSON"),
        ("a: !!binary aGk=", "cannot be written as JSON (b'hi' is a bytes)"),
        ("a: !!set {x}", "cannot be written as JSON"),
        ("&a {b: *a}", "cannot be written as JSON"),
        ('{"a": "\\ud83d"}', "cannot be written as JSON"),
        ("[" * 3000, "is neither JSON nor YAML."),
        ("2026-01-02: a", "cannot be written as JSON"),
        ("!!python/object/apply:os.getcwd []", "is neither JSON nor YAML."),
    ],
)
def test_vars_that_dbt_cannot_receive_are_refused(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=re.escape(message)):
        read_variables(text)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def open_product(*_: Any, **__: Any) -> None:
        raise error

    # Modules that import the function while it is replaced would keep the replacement, so import
    # them before. `import_module`, because `cli.run` is also the command of that name.
    modules = [
        import_module(f"floe_orchestrator_dagster.{name}")
        for name in ("product.opening", "cli.run")
    ]
    for module in modules:
        monkeypatch.setattr(module, "open_product", open_product)


PROBLEM = PlanError("Cannot plan product 'p'", [Problem("transforms.a", "Twice.", "Rename one.")])


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("check", PROBLEM, 1),
        ("prepare", PROBLEM, 3),
        ("run", PROBLEM, 3),
        ("run", ProductError("Cannot find x."), 3),
        ("run", DbtError("Cannot start dbt."), 4),
        ("prepare", DbtError("Cannot start dbt."), 4),
        ("run", KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    command: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    done = cli_runner().invoke(main, [command, "."])
    assert done.exit_code == code
    assert done.stderr.strip() == (str(error) or "Interrupted: dbt was stopped.")
    assert done.stdout == ""


def test_json_contains_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, PROBLEM)
    done = cli_runner().invoke(main, ["check", ".", "--json"])
    assert json.loads(done.stdout) == {
        "success": False,
        "error": "Cannot plan product 'p': 1 problem.\n  1. transforms.a: Twice. Rename one.",
        "problems": [{"path": "transforms.a", "found": "Twice.", "fix": "Rename one."}],
    }


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("a bug"))
    assert isinstance(cli_runner().invoke(main, ["check", "."]).exception, ZeroDivisionError)


def test_without_artifacts_the_error_names_the_command_that_creates_them(tmp_path: Path) -> None:
    done = cli_runner().invoke(main, ["check", str(tmp_path)])
    assert done.exit_code == 1
    assert "Create it with `floe platform compile" in done.stderr


@pytest.mark.parametrize(
    ("selection", "dagster"),
    [
        ("orders", False),
        ("+orders+", False),
        ("2+orders", False),
        ("@orders", False),
        ("stg_*", False),
        ("tag:daily", False),
        ("group:finance", False),
        ("path:models/marts", False),
        ("config.materialized:view", False),
        ("config.meta.owner:me", False),
        ("source:raw+", False),
        ("tag:daily,tag:big", False),
        ("orders_and_payments", False),
        ('dbt:key:"orders"', False),
        ("dagster:tag:daily", True),
        ('key:"orders"', True),
        ("key:orders+", True),
        ("kind:duckdb", True),
        ("owner:team@example.com", True),
        ("tag:a and tag:b", True),
        ("orders or customers", True),
        ("not tag:a", True),
        ("sinks(*)", True),
    ],
)
def test_a_selection_with_syntax_that_only_dagster_has_is_dagsters(
    selection: str, *, dagster: bool
) -> None:
    assert is_dagster(selection) is dagster


@pytest.mark.parametrize(
    ("done", "total", "seconds", "left"),
    [(0, 10, 5.0, None), (5, 10, 5.0, 5.0), (10, 10, 5.0, 0.0), (1, 4, 2.0, 6.0)],
)
def test_the_time_left_is_estimated_from_finished_nodes(
    done: int, total: int, seconds: float, left: float | None
) -> None:
    assert time_left(done, total, seconds) == left


def test_durations_look_like_a_clock() -> None:
    assert [clock(value) for value in (None, 0, 59.6, 61, 3661)] == [
        "-:--",
        "0:00",
        "1:00",
        "1:01",
        "1:01:01",
    ]


def test_a_finished_node_is_one_line_of_fields_two_spaces_apart() -> None:
    done = result("orders", "success", rows=1200, seconds=0.256)
    planned = {done.unique_id: done, "x": result("x")}
    line = Lines(planned).line(1, done).plain
    assert [field.strip() for field in line.split("  ") if field.strip()] == [
        "1/2",
        "success",
        "model",
        "duckdb",
        "orders",
        "1,200 rows",
        "0.26 s",
    ]


def test_a_plain_view_counts_a_retried_node_once() -> None:
    out = recording_console()
    view = PlainView(out, {"model.p.a": result("a"), "model.p.b": result("b")})
    view.started(result("a"))
    for status in ("error", "success"):
        view.finished(result("a", status))
    view.finished(result("b", "success"))
    lines = out.export_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1/2", "1/2", "2/2"]


def test_a_live_view_shows_running_nodes_and_progress() -> None:
    times = iter(range(100))
    out = Console(record=True, width=120, file=StringIO(), force_terminal=True)
    planned = {"model.p.a": result("a"), "model.p.b": result("b")}
    view = LiveView(out, planned, now=lambda: float(next(times)))
    view.started(result("a"))
    view.started(result("b"))
    view.finished(result("a", "success", rows=3))
    drawn = recording_console()
    drawn.print(view.render())
    view.close()
    output = drawn.export_text()
    assert "running  model  duckdb  b" in output
    assert "1/2" in output
    assert "left" in output
    assert "1 success" in output


def test_markup_in_names_and_messages_is_printed_literally(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from floe_orchestrator_dagster.cli.screen import console

    report = RunReport()
    odd = result("[bold]x[/bold]")
    report.begin({odd.unique_id: odd}, PlainView(console(), {}))
    report(NodeStarted(odd.unique_id, "duckdb"))
    report(NodeFinished(odd.unique_id, "duckdb", "error", message="[/nope] :smile:"))
    report(NodeFinished("function.p.f", "duckdb", "success"))
    summarize(console(), report, Ending(success=False, seconds=1.0))
    output = capsys.readouterr().out
    assert "error: model [bold]x[/bold]: [/nope] :smile:" in output
    assert "0 built, 1 failed, 0 skipped" in output


def test_hooks_and_functions_count_when_they_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from floe_orchestrator_dagster.cli.screen import console

    hook, function = "operation.p.p-on-run-end-0", "function.p.f"
    report, planned = RunReport(), result("a")
    report.begin({planned.unique_id: planned}, PlainView(console(), {"x": planned}))
    for event in (
        NodeFinished(planned.unique_id, "duckdb", "success"),
        NodeFinished(hook, "duckdb", "success", "p-on-run-end-0", "operation", invocation_id="1"),
        NodeFinished(hook, "pg", "error", "p-on-run-end-0", "operation", 0.1, "no such table"),
        NodeFinished(hook, "duckdb", "success", "p-on-run-end-0", "operation", invocation_id="3"),
        NodeFinished(function, "duckdb", "error", "f", "function", message="no such type"),
        # Only the last attempt at a function counts.
        NodeFinished("function.p.g", "duckdb", "error", "g", "function", invocation_id="1"),
        NodeFinished("function.p.g", "duckdb", "success", "g", "function", attempt=2),
    ):
        report(event)
    assert report.anything_failed
    summarize(console(), report, Ending(success=False, seconds=1.0))
    output = capsys.readouterr().out
    assert "error: hook p-on-run-end-0: no such table" in output
    assert "error: function f: no such type" in output
    assert "1 built, 2 failed, 0 skipped" in output
    assert [line.split()[:3] for line in output.splitlines() if " pg " in line] == [
        ["-", "error", "hook"]
    ]
    assert [(item.name, item.status) for item in report.all()] == [
        ("a", "success"),
        ("p-on-run-end-0", "error"),
        ("f", "error"),
    ]


def test_skipped_nodes_have_a_reason() -> None:
    report = RunReport()
    planned = {name: replace(result(name), unique_id=name) for name in "abc"}
    report.begin(planned, PlainView(recording_console(), planned))
    report(NodeFinished("a", "duckdb", "skipped"))
    report(NodeFinished("b", "duckdb", "success"))
    report.skip({"a": "model x failed", "b": "not so", "c": "dbt could not start", "z": "?"})
    assert [(item.status, item.message) for item in report.all()] == [
        ("skipped", "model x failed"),
        ("success", ""),
        ("skipped", "dbt could not start"),
    ]
