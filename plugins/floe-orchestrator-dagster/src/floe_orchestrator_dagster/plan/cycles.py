"""Finds the cycles of a graph."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import MAX_LISTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def cycles(graph: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Yield up to `MAX_LISTED` cycles as paths; cycles do not share nodes.

    `graph` maps each node to its dependencies. In a path, each node depends on the next.
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
        # graphlib puts each node before the node that depends on it, and has the first one twice.
        ring: list[str] = error.args[1][:0:-1]
        return ring
    return []
