"""Keeps the deliveries of single events open between events, and closes them at the end."""

from __future__ import annotations

import atexit
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.delivery import open_delivery
from floe_orchestrator_dagster.lineage.sender import TIMING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from floe_orchestrator_dagster.lineage.delivery import Delivery
    from floe_orchestrator_dagster.lineage.sender import DeliveryTiming

# How long the end of the process may wait for single events.
EXIT_TIMING = replace(TIMING, drain_seconds=3.0)


class Deliveries:
    """Open deliveries, one per backend and spool; usable again after `close`."""

    def __init__(self, timing: DeliveryTiming = EXIT_TIMING) -> None:
        """Begin without any; `timing.drain_seconds` limits how long closing one takes."""
        self._timing = timing
        self._lock = threading.Lock()
        self._open: dict[tuple[str, Path], Delivery] = {}

    def to(self, transport: Mapping[str, Any], directory: Path) -> Delivery:
        """Return the delivery to a backend through a spool; the end of the process closes it."""
        key = (json.dumps(transport, sort_keys=True, default=repr), directory)
        with self._lock:
            if not self._open:
                atexit.unregister(self.close)
                atexit.register(self.close)
            if key not in self._open:
                self._open[key] = open_delivery(transport, directory, timing=self._timing)
            return self._open[key]

    def close(self) -> None:
        """Wait a few seconds for the events sent so far; a later run sends the rest."""
        with self._lock:
            ended = [*self._open.values()]
            self._open.clear()
        for delivery in ended:
            delivery.finish()


PROCESS = Deliveries()
"""The deliveries of this process, the only ones outside of runs.

They belong to the process and not to a plugin object: floe may create several plugin objects, and
the START that one sends must arrive before the COMPLETE that another sends. `shutdown` of a plugin
and the end of the process close them.
"""
