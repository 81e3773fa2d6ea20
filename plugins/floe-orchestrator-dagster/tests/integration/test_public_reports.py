"""Faults that users of dbt and of its orchestrators have reported: we do what bare dbt does.

docs/public-reports.md is the table of them. A folder of tests/cases is a product; its `builds.yaml`
lists the builds one after the other: what is written before (`files`), the words of the command
line (`options`: ours, `verb`: dbt's, where they differ), the environment, whether dbt fails, and
dbt's words for some nodes by name, so that a case cannot pass by doing nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from floe_orchestrator_dagster.testing import compile_product
from kit.dbt_server import Fork
from kit.oracle import Twins, named

CASES = Path(__file__).parents[1] / "cases"
# All of them take longer than `make test` may for this.
HEAVY = {
    "odd-names",
    "odd-paths",
    "same-alias",
    "seeds-only",
    "semantic-layer",
    "snapshot-settings",
}


class Build(msgspec.Struct, forbid_unknown_fields=True):
    """One build of a case."""

    files: dict[str, str | None] = {}
    words: list[str] = []
    verb: str = "build"
    options: list[str] | None = None
    env: dict[str, str] = {}
    fails: bool = False
    statuses: dict[str, str | None] = {}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(name, marks=[pytest.mark.heavy] if name in HEAVY else [])
        for name in sorted(path.name for path in CASES.iterdir())
    ],
)
def test_case(case: str, tmp_path: Path, forks: Fork) -> None:
    builds = msgspec.yaml.decode((CASES / case / "builds.yaml").read_bytes(), type=list[Build])
    twins = Twins(tmp_path / "twins", forks).copy(CASES / case)
    if (beside := CASES / case / "beside").is_dir():
        # What a project reads outside of itself.
        shutil.copytree(beside, tmp_path / "twins", dirs_exist_ok=True)
    compile_product(twins.ours)
    problems = []
    for number, build in enumerate(builds, start=1):
        done = twins.write(build.files).build(
            *build.words, verb=build.verb, options=build.options, env=build.env
        )
        problems += [f"build {number}: {line}" for line in done.mismatches]
        if done.bare.success is build.fails:
            problems.append(f"build {number} of dbt: {done.bare.words}")
        found = named(done.bare.statuses)
        problems += [
            f"build {number} of dbt: {name} is {found.get(name)}, not {status}"
            for name, status in build.statuses.items()
            if found.get(name) != status
        ]
    assert not problems, "\n".join(problems)
