"""Checks the lineage events of a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.testing import RecordingBackend
from kit.openlineage_checks import Event, problems, spec_problems
from kit.support import run

TEST_PARTS = 4
Recorded = list[Event]


def sound(events: Recorded) -> dict[str, list[Event]]:
    """Return the events by the last part of their job's name; fail if an event is wrong."""
    assert events
    wrong = problems(events)
    assert not wrong, wrong
    folder = os.environ.get("OPENLINEAGE_SPEC")
    if folder:
        wrong = spec_problems(events, Path(folder))
        assert not wrong, wrong
    by_name: dict[str, list[Event]] = {}
    for event in events:
        parts = event["job"]["name"].split(".")
        # dbt ends the unique id of a generic test with a hash.
        name = parts[-2] if parts[1:2] == ["test"] and len(parts) > TEST_PARTS else parts[-1]
        by_name.setdefault(name, []).append(event)
    return by_name


def kinds(events: list[Event]) -> list[str]:
    return [event["eventType"] for event in events]


def build(
    product: Product,
    backend: RecordingBackend,
    instance: dg.DagsterInstance,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    return run(replace(product, lineage_backend=backend), instance, **options)
