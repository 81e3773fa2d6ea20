"""Defines the Kubernetes resources of the three workload sizes (FR-011 and FR-012)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ResourceMap = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits as Kubernetes quantities."""

    cpu_request: str
    memory_request: str
    cpu_limit: str
    memory_limit: str

    def as_kubernetes(self) -> ResourceMap:
        """Return the quantities in the shape of a container's `resources`."""
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
# User code and the runs that it launches.
USER_CODE_SIZES: Mapping[str, Resources] = {
    "small": Resources("250m", "512Mi", "1000m", "1Gi"),
    "medium": Resources("500m", "1Gi", "2000m", "4Gi"),
    "large": Resources("1000m", "2Gi", "4000m", "8Gi"),
}
SIZES = tuple(SERVICE_SIZES)

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTPE]|[KMGTPE]i)?")


def service_resources(size: str) -> Resources:
    """Return the resources of the webserver and the daemon.

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    if size not in SERVICE_SIZES:
        raise ValueError(f"Unknown workload size '{size}'. Sizes: {known(SERVICE_SIZES)}.")
    return SERVICE_SIZES[size]


def quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity as a number of cores or bytes.

    Raises:
        ValueError: the text is not a quantity.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(
            f"'{text}' is not a Kubernetes quantity. Write cores as 250m or 2, and memory as 512Mi "
            "or 4Gi."
        )
    number, unit = match.groups()
    return Decimal(number) * _FACTORS[unit or ""]


def run_resources(
    size: str, requested: Iterable[str | Mapping[str, Mapping[str, str]]]
) -> ResourceMap | None:
    """Return the resources of a run pod: the maximum over all computes; None if none requests any.

    A run has one pod, in which dbt uses each compute in turn. The resources of the size are the
    minimum.

    Raises:
        ValueError: a value is not a quantity.
    """
    requests = [
        USER_CODE_SIZES[item].as_kubernetes() if isinstance(item, str) else item
        for item in requested
    ]
    if not requests:
        return None
    most = USER_CODE_SIZES[size].as_kubernetes()
    for resources in requests:
        for kind, amounts in resources.items():
            for name, amount in amounts.items():
                current = most.setdefault(kind, {}).get(name)
                if current is None or quantity(amount) > quantity(current):
                    most[kind][name] = amount
    # A compute may raise a request and not its limit; Kubernetes rejects a limit below a request.
    for name, request in most["requests"].items():
        limit = most["limits"].get(name)
        if limit is not None and quantity(limit) < quantity(request):
            most["limits"][name] = request
    return most
