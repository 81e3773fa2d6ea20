"""Kubernetes resources of the three workload sizes (requirements FR-011 and FR-012)."""

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
SIZES = tuple(SERVICE_SIZES)

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTPE]|[KMGTPE]i)?")


def service_resources(size: str) -> Resources:
    """Return the resources of webserver and daemon.

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    if size not in SERVICE_SIZES:
        raise ValueError(f"Unknown workload size '{size}'. Sizes: {known(SERVICE_SIZES)}.")
    return SERVICE_SIZES[size]


def quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity as a number of cores or bytes.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(
            f"'{text}' is no Kubernetes quantity. Write cores as 250m or 2, memory as 512Mi or 4Gi."
        )
    number, unit = match.groups()
    return Decimal(number) * _FACTORS[unit or ""]


def run_resources(
    size: str, asked: Iterable[str | Mapping[str, Mapping[str, str]]]
) -> ResourceMap | None:
    """Return what a pod needs that runs all computes: the most of each; None if none asks.

    A run has one pod, in which dbt speaks to each compute in turn. The size's own resources are
    the least.

    Raises:
        ValueError: a quantity that is none.
    """
    wanted = [
        USER_CODE_SIZES[item].as_kubernetes() if isinstance(item, str) else item for item in asked
    ]
    if not wanted:
        return None
    most = USER_CODE_SIZES[size].as_kubernetes()
    for resources in wanted:
        for kind, amounts in resources.items():
            for name, amount in amounts.items():
                found = most.setdefault(kind, {}).get(name)
                if found is None or quantity(amount) > quantity(found):
                    most[kind][name] = amount
    # A limit that nobody raised must not be below a request that somebody did.
    for name, request in most["requests"].items():
        limit = most["limits"].get(name)
        if limit is not None and quantity(limit) < quantity(request):
            most["limits"][name] = request
    return most
