"""Everything that `dbt build` can do: we do the same. docs/dbt-build.md is the table of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt_build_cases import CASES, Case, Row
from dbt_server import Fork
from oracle import Build, Twins
from support import TinyProject

ROWS = [(case, row) for case in CASES for row in case.rows]
Builds = Callable[[Case], list[Build]]


def twins_of(case: Case, directory: Path, template: dict[str, Any], forks: Fork) -> Twins:
    twins = Twins(directory, forks)
    TinyProject(twins.ours, template).compile(
        case.transforms, config=case.config, outputs=case.outputs
    )
    return twins


@pytest.fixture(scope="module")
def builds(
    tmp_path_factory: pytest.TempPathFactory, compiled_template: dict[str, Any], forks: Fork
) -> Builds:
    """The builds of a case, which is run when its first row asks for it."""
    done: dict[str, list[Build]] = {}

    def built(case: Case) -> list[Build]:
        if case.name not in done:
            twins = twins_of(case, tmp_path_factory.mktemp("twins"), compiled_template, forks)
            done[case.name] = [
                twins.write(step.files).build(
                    *step.words, options=step.options, env=step.env, bare_builds=step.bare
                )
                for step in case.steps
            ]
        return done[case.name]

    return built


def is_about(row: Row, line: str) -> bool:
    """Tell whether a difference is about a row; the exit code is about each."""
    whole = line.startswith(("exit code", "run:", "events: Dagster has no run"))
    return whole or not row.about or any(name in line for name in row.about)


def named(statuses: Any) -> dict[str, str]:
    """Return statuses by the names of nodes; versions are `book.v1`."""
    found = {}
    for uid, status in statuses.items():
        kind, _, name, *rest = uid.split(".")
        if kind in {"test", "unit_test"}:
            name = rest[0] if kind == "unit_test" and rest else name
        elif rest:
            name = ".".join((name, *rest))
        found[name] = status
    return found


@pytest.mark.parametrize(("case", "row"), ROWS, ids=[row.name for _, row in ROWS])
def test_row(case: Case, row: Row, builds: Builds) -> None:
    step, build = case.steps[row.step], builds(case)[row.step]
    assert build.bare.success is not step.fails, build.bare.words
    assert step.says in build.bare.words
    assert {name: named(build.bare.statuses).get(name) for name in row.statuses} == row.statuses
    relations = {shown.partition(": ")[2]: rows for shown, rows in build.bare.relations.items()}
    for name, rows in row.tables.items():
        assert sorted(relations[name][1:]) == sorted(
            tuple(repr(value) for value in values) for values in rows
        )
    mismatches = [line for line in build.mismatches if is_about(row, line)]
    assert not mismatches, "\n".join(mismatches)
