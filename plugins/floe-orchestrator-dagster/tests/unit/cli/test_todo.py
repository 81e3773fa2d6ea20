"""The options of `floe-dagster run`, and what they make a run do."""

from __future__ import annotations

from typing import Any

import click
import pytest

from floe_orchestrator_dagster.cli.todo import RunOptions


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"select": ("a",)}, "--select"),
        ({"exclude": ("a",), "empty": True}, "--exclude, --empty"),
        ({"selector": "", "threads": 1}, "--selector, --threads"),
        ({"variables": {"a": 1}, "partition": "2026-01-01"}, "--vars, --partition"),
        ({"full_refresh": True, "job": "shop", "no_checks": True}, "--full-refresh, --job, --no-"),
    ],
)
def test_a_retry_refuses_options_that_say_what_to_run(given: dict[str, Any], named: str) -> None:
    with pytest.raises(click.UsageError) as error:
        RunOptions(from_failure=True, **given).refuse_for_a_retry()
    assert f"leave out {named}" in error.value.message


def test_a_retry_accepts_options_that_change_its_output() -> None:
    RunOptions(from_failure=True, verbose=True, lineage=True, as_json=True).refuse_for_a_retry()


def test_the_options_become_the_run_config_of_each_op() -> None:
    config = {"full_refresh": True, "empty": False, "variables": {"day": "2026-01-02"}}
    options = RunOptions(full_refresh=True, variables={"day": "2026-01-02"})
    assert options.op_config() == config
    assert RunOptions(threads=3).op_config()["threads"] == 3


def test_the_selection_contains_the_options_that_select_nodes() -> None:
    options = RunOptions(select=("a",), exclude=("b",), variables={"x": 1}, threads=2)
    assert str(options.selection) == "a --exclude b"
    assert not options.selection.is_default
    assert RunOptions(threads=2).selection.is_default
