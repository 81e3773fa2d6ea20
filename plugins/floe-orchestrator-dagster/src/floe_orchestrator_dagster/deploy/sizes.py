"""Kubernetes resources of the three workload sizes (requirements FR-011 and FR-012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import known

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits as Kubernetes quantities."""

    cpu_request: str
    memory_request: str
    cpu_limit: str
    memory_limit: str

    def as_kubernetes(self) -> dict[str, dict[str, str]]:
        """Return them in the shape of a container's `resources`."""
        return {
            "requests": {"cpu": self.cpu_request, "memory": self.memory_request},
            "limits": {"cpu": self.cpu_limit, "memory": self.memory_limit},
        }


# Webserver and daemon.
SERVICE_SIZES: Mapping[str, Resources] = {
    "small": Resources("100m", "256Mi", "500m", "512Mi"),
    "medium": Resources("250m", "512Mi", "1000m", "1Gi"),
    "large": Resources("500m", "1Gi", "2000m", "2Gi"),
}
# User code and what it launches.
USER_CODE_SIZES: Mapping[str, Resources] = {
    "small": Resources("250m", "512Mi", "1000m", "1Gi"),
    "medium": Resources("500m", "1Gi", "2000m", "4Gi"),
    "large": Resources("1000m", "2Gi", "4000m", "8Gi"),
}


def service_resources(size: str) -> Resources:
    """Return the resources of webserver and daemon.

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    if size not in SERVICE_SIZES:
        raise ValueError(f"Unknown workload size '{size}'. Sizes: {known(SERVICE_SIZES)}.")
    return SERVICE_SIZES[size]
