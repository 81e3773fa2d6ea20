"""Faults that users of dbt and of its orchestrators reported: we do what bare dbt does.

docs/public-reports.md is the table of the reports. Each folder of tests/cases is a product. Its
`builds.yaml` lists consecutive builds: the files to write before (`files`), the words of the
command line (`options` replaces ours, `verb` replaces dbt's command), the environment, whether dbt
fails, and dbt's statuses of some nodes, so that a case cannot pass if nothing is built.
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
# These take too long for `make test`.
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
    if (outside := CASES / case / "beside").is_dir():
        # Files outside the project that it reads.
        shutil.copytree(outside, tmp_path / "twins", dirs_exist_ok=True)
    compile_product(twins.ours)
    problems = []
    for number, build in enumerate(builds, start=1):
        done = twins.write(build.files).build(
            *build.words, verb=build.verb, options=build.options, env=build.env
        )
        problems += [f"build {number}: {line}" for line in done.mismatches]
        if done.bare.success is build.fails:
            problems.append(f"build {number} of dbt: {done.bare.words}")
        statuses = named(done.bare.statuses)
        problems += [
            f"build {number} of dbt: {name} is {statuses.get(name)}, not {status}"
            for name, status in build.statuses.items()
            if statuses.get(name) != status
        ]
    assert not problems, "\n".join(problems)
