"""The plan rejects the same names as the installed Dagster."""

from __future__ import annotations

import builtins
import inspect
import keyword

import dagster as dg

from floe_orchestrator_dagster.plan.names import RESERVED


def is_rejected(name: str) -> bool:
    """Return whether Dagster rejects an asset of this name in a step with several assets."""
    try:

        @dg.multi_asset(name="step", specs=[dg.AssetSpec(name)])
        def step() -> None: ...

    except dg.DagsterInvalidDefinitionError:
        return True
    return False


def vocabulary() -> set[str]:
    """Return words that Dagster may reserve: Python's, its public names and its parameters."""
    words = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
    for name, thing in vars(dg).items():
        words.add(name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            try:
                words |= set(inspect.signature(thing).parameters)
            except ValueError:  # a class written in C has no signature
                continue
    return {word for word in words if not word.startswith("_")}


def test_the_plan_rejects_the_names_that_dagster_rejects() -> None:
    words = vocabulary()
    assert len(words) > 500
    assert {word for word in words | RESERVED if is_rejected(word)} == RESERVED
