"""The names that the plan refuses are those that the installed Dagster refuses."""

from __future__ import annotations

import builtins
import inspect
import keyword

import dagster as dg

from floe_orchestrator_dagster.plan.names import RESERVED


def refused(name: str) -> bool:
    """Tell whether Dagster refuses an asset of this name in a step with several."""
    try:

        @dg.multi_asset(name="step", specs=[dg.AssetSpec(name)])
        def step() -> None: ...

    except dg.DagsterInvalidDefinitionError:
        return True
    return False


def vocabulary() -> set[str]:
    """Return words that Dagster may keep: Python's, its own public names, and its parameters."""
    words = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
    for name, thing in vars(dg).items():
        words.add(name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            try:
                words |= set(inspect.signature(thing).parameters)
            except ValueError:  # a class of C has no signature
                continue
    return {word for word in words if not word.startswith("_")}


def test_the_plan_refuses_the_names_that_dagster_refuses() -> None:
    words = vocabulary()
    assert len(words) > 500
    assert {word for word in words | RESERVED if refused(word)} == RESERVED
