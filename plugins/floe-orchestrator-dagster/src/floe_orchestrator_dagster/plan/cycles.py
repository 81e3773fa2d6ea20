"""Cycles of a graph, each as a path."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import MAX_LISTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def cycles(graph: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Yield cycles that share no node; in each path every node depends on the next.

    `graph` maps each node to what it depends on. No more than `MAX_LISTED` are found.
    """
    left = dict(graph)
    for _ in range(MAX_LISTED):
        ring = _cycle(left)
        if not ring:
            return
        start = ring.index(min(ring))
        yield [*ring[start:], *ring[: start + 1]]
        left.update((node, ()) for node in ring)


def _cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib gives each node before the one that depends on it, and the first one twice.
        ring: list[str] = error.args[1][:0:-1]
        return ring
    return []
