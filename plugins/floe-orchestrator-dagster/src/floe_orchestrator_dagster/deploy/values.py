"""Helm values of the chart `charts/floe-dagster` for a workload size."""

from __future__ import annotations

from typing import Any

from floe_orchestrator_dagster.deploy.sizes import USER_CODE_SIZES, service_resources


def helm_values(size: str) -> dict[str, Any]:
    """Return chart values: a plain dictionary, keyed by service.

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    service = service_resources(size).as_kubernetes()
    return {
        "dagster-webserver": {"enabled": True, "replicaCount": 1, "resources": service},
        "dagster-daemon": {"enabled": True, "resources": service_resources(size).as_kubernetes()},
        "dagster-user-code": {
            "enabled": True,
            "replicaCount": 1,
            "resources": USER_CODE_SIZES[size].as_kubernetes(),
        },
        "postgresql": {"enabled": True},
    }
