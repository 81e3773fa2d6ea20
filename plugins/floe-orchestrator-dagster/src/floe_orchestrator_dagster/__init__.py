"""Dagster orchestrator plugin for the floe data platform."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floe_orchestrator_dagster.loader import load_product_definitions
    from floe_orchestrator_dagster.plugin import DagsterOrchestratorPlugin

__all__ = ["DagsterOrchestratorPlugin", "load_product_definitions"]

_HOMES = {
    "DagsterOrchestratorPlugin": "floe_orchestrator_dagster.plugin",
    "load_product_definitions": "floe_orchestrator_dagster.loader",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that a dbt process or a plugin listing does not pay for what it does not use.
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
