"""Measures the load of a product as a code location, against raw dagster-dbt's load."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.measure import Pairs, Row, Sample, in_pairs, measured, row

if TYPE_CHECKING:
    from benchmarks.projects import Project

COLD = {500: 0.33, 2000: 0.30, 10_000: 0.25}
TEN_THOUSAND = 10_000
SUBJECT = (sys.executable, "-m", "benchmarks.subjects")
ANCHOR = "raw dagster-dbt"


def load(project: Project, rounds: int) -> list[Row]:
    """Measure loads with a cold cache (without and with the job), then with a warm cache."""
    largest = project.models == TEN_THOUSAND

    def cold(job: str) -> Sample:
        project.cool()
        return _ours(project, job)

    name = f"load {project.models:,}"
    bare = in_pairs(lambda: cold("no"), lambda: _raw(project, "no"), rounds)
    floor = Pairs([_floor(project) for _ in bare.anchor], bare.anchor)
    same = Pairs([_same(project) for _ in bare.anchor], bare.anchor)
    full = in_pairs(lambda: cold("yes"), lambda: _raw(project, "yes"), rounds)
    _ours(project, "yes")
    warm = in_pairs(lambda: _ours(project, "no"), lambda: _raw(project, "no"), rounds)
    return [
        row(bare, f"{name}, cold cache", ANCHOR, "cpu", COLD.get(project.models)),
        row(bare, f"{name}, cold cache", ANCHOR, "wall"),
        row(floor, f"{name}, only keys and dependencies: the floor", ANCHOR, "cpu"),
        row(same, f"{name}, our specs, built beforehand: the floor with content", ANCHOR, "cpu"),
        row(warm, f"{name}, warm cache", ANCHOR, "cpu", 0.10 if largest else None),
        row(full, f"{name} with job, cold cache", ANCHOR, "cpu", 0.40 if largest else None),
        row(full, f"{name} with job, cold cache", ANCHOR, "memory", 0.50 if largest else None),
    ]


def _ours(project: Project, job: str) -> Sample:
    return measured([*SUBJECT, "load_ours", project.ours, job])


def _floor(project: Project) -> Sample:
    return measured([*SUBJECT, "load_floor", project.manifest])


def _same(project: Project) -> Sample:
    return measured([*SUBJECT, "load_same", project.ours])


def _raw(project: Project, job: str) -> Sample:
    return measured([*SUBJECT, "load_raw", project.bare, project.manifest, job])
