"""Random projects with random faults and edits: we record the results of bare dbt."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from kit.dbt_server import Fork
from kit.oracle import Twins
from kit.random_builds import FAULTS, Edits, broken_build
from kit.support import TinyProject

FEW, MANY = range(4), range(4, 220)
FEW_EDITS, MANY_PROJECTS, EDITS = 4, range(22), 10
NewTwins = Callable[..., Twins]


@pytest.fixture
def new_twins(tmp_path: Path, compiled_template: dict[str, Any], forks: Fork) -> NewTwins:
    def new(**settings: Any) -> Twins:
        twins = Twins(tmp_path / "twins", forks)
        TinyProject(twins.ours, compiled_template).compile(
            settings.pop("transforms", []), **settings
        )
        return twins

    return new


def broken(seed: int, new_twins: NewTwins) -> list[str]:
    """Build a random project with its fault, then without; return the differences from bare dbt."""
    case = broken_build(seed)
    twins = new_twins(transforms=case.transforms, config=case.config, outputs=case.outputs)
    built = twins.write(case.files).write(case.fault).build()
    different = built.mismatches if case.is_ordered else built.mismatches_in_any_order()
    mismatches = [f"with the fault: {line}" for line in different]
    if built.run_id is not None:
        twins.write({path: case.files.get(path) for path in case.fault})
        mismatches += [f"from failure: {line}" for line in twins.resume(built)]
    return [f"seed {seed} ({case.name}): {line}" for line in mismatches]


def edited(seed: int, edits: int, new_twins: NewTwins) -> list[str]:
    """Build a random project after each of its edits; return the differences from bare dbt."""
    environment: dict[str, str] = {}
    twins, mismatches, done = new_twins(), [], []
    for edit in islice(Edits(seed), edits):
        environment.update(edit.environment)
        done.append(edit.name)
        built = twins.write(edit.files).build(env=environment)
        mismatches += [f"seed {seed} ({', '.join(done)}): {line}" for line in built.mismatches]
    return mismatches


@pytest.mark.parametrize("seed", FEW)
def test_a_random_fault(seed: int, new_twins: NewTwins, tally: Callable[..., None]) -> None:
    tally("random faults", 1, broken(seed, new_twins))


@pytest.mark.heavy
@pytest.mark.parametrize("seed", MANY)
def test_many_random_faults(seed: int, new_twins: NewTwins, tally: Callable[..., None]) -> None:
    tally("random faults", 1, broken(seed, new_twins))


def test_random_edits(new_twins: NewTwins, tally: Callable[..., None]) -> None:
    tally("random edits", FEW_EDITS, edited(0, FEW_EDITS, new_twins))


@pytest.mark.heavy
@pytest.mark.parametrize("seed", MANY_PROJECTS)
def test_many_random_edits(seed: int, new_twins: NewTwins, tally: Callable[..., None]) -> None:
    tally("random edits", EDITS, edited(seed, EDITS, new_twins))


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = [broken_build(seed) for seed in (*FEW, *MANY)]
    assert all(build.fault for build in drawn)
    assert len(FAULTS) == 10
    names = " ".join(build.name for build in drawn)
    for kind in ("table", "view", "ephemeral", "incremental", "microbatch", "seed", "snapshot"):
        assert f"broken {kind}" in names, kind
    for name in ("a batch", "a test", "unit test", "on-run-start", "on-run-end", "fail_fast"):
        assert name in names, name
    for hook in ("pre_hook", "post_hook", "warning"):
        assert hook in names, hook
    assert sum(any(node.compute == "heavy" for node in build.nodes) for build in drawn) > 10
