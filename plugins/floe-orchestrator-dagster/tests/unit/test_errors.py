"""An error lists every problem, known names and similar names."""

from __future__ import annotations

import pickle

import pytest

from floe_orchestrator_dagster import errors
from floe_orchestrator_dagster.errors import (
    FloeDagsterError,
    PlanError,
    Problem,
    did_you_mean,
    known,
)

A, B = Problem("x.y", "Found a.", "Do b."), Problem("z", "Found c.", "Do d.")


def test_a_plan_error_lists_every_problem_with_its_number() -> None:
    error = PlanError("Cannot plan product 'shop'", iter([A, B]))
    assert str(error) == (
        "Cannot plan product 'shop': 2 problems.\n  1. x.y: Found a. Do b.\n  2. z: Found c. Do d."
    )
    assert error.problems == (A, B)


def test_one_problem_is_counted_in_the_singular() -> None:
    assert str(PlanError("No", [A])).startswith("No: 1 problem.\n")


def test_a_plan_error_survives_pickling() -> None:
    # Dagster sends errors between processes.
    error = pickle.loads(pickle.dumps(PlanError("No", [A, B])))  # noqa: S301  our own bytes
    assert (type(error), str(error), error.problems) == (
        PlanError,
        str(PlanError("No", [A, B])),
        (A, B),
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "none"),
        (["b", "a"], "a, b"),
        (iter("cab"), "a, b, c"),
        ([f"n{n:02}" for n in range(20)], ", ".join(f"n{n:02}" for n in range(20))),
        ([f"n{n:02}" for n in range(22)], ", ".join(f"n{n:02}" for n in range(20)) + " and 2 more"),
    ],
)
def test_known_names_are_sorted_and_cut(names: list[str], words: str) -> None:
    assert known(names) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ordrs", " Did you mean 'orders'?"),
        ("ORDERS", " Did you mean 'orders'?"),
        ("customer", " Did you mean 'Customers'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_similar_names_are_suggested_in_any_case(name: str, words: str) -> None:
    assert did_you_mean(name, iter(["orders", "Customers"])) == words


def test_every_error_is_in_the_tree_in_the_docstring() -> None:
    names = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, FloeDagsterError)
    }
    assert all(name in (errors.__doc__ or "") for name in names)
    assert len(names) == 7
