"""Returns Helm values of the chart `charts/floe-dagster` for a workload size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.deploy.sizes import (
    USER_CODE_SIZES,
    ResourceMap,
    run_resources,
    service_resources,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.config import ComputeConfig

# The size large has two webservers, so that one may fail.
WEBSERVERS = {"small": 1, "medium": 1, "large": 2}
# Names for a database in the cluster, used if no other is given.
DATABASE_HOST = "postgresql"
DATABASE_SECRET = "floe-dagster-postgresql"  # noqa: S105  the name of a Secret

_IMAGE = re.compile(
    r"(?P<repository>[a-z0-9][a-z0-9._/-]*(?::\d+/[a-z0-9._/-]+)?)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by tag, by digest, or both."""

    repository: str
    tag: str = ""
    digest: str = ""

    def as_values(self) -> dict[str, str]:
        """Return the keys that are set."""
        parts = {"repository": self.repository, "tag": self.tag, "digest": self.digest}
        return {key: value for key, value in parts.items() if value}


@dataclass(frozen=True, slots=True)
class DeployedProduct:
    """A product with the image of its code location."""

    name: str
    image: Image


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL outside the chart; `secret` holds the password as `postgresql-password`."""

    host: str = DATABASE_HOST
    secret: str = DATABASE_SECRET


def image(text: str) -> Image:
    """Return the parts of `repository:tag`, `repository@sha256:...` or both.

    Raises:
        ValueError: the text is not an image, or it has neither tag nor digest.
    """
    match = _IMAGE.fullmatch(text)
    if match is None or not (match["tag"] or match["digest"]):
        raise ValueError(
            f"'{text}' is not an image with a tag or a digest. Write shop:1.4.0 or shop@sha256:... "
            "so that a run uses exactly the code that its code server loaded."
        )
    return Image(match["repository"], match["tag"] or "", match["digest"] or "")


def database_for(size: str) -> Database | None:
    """Return the database of a size: None, the chart's own, for small; else an external one."""
    return None if size == "small" else Database()


def resources_of_runs(size: str, computes: Mapping[str, ComputeConfig]) -> ResourceMap | None:
    """Return the resources of run pods; None if no compute of the plugin's config requests any."""
    return run_resources(size, [item.resources for item in computes.values() if item.resources])


def helm_values(
    size: str,
    computes: Mapping[str, ComputeConfig] | None = None,
    *,
    products: Sequence[DeployedProduct] = (),
    database: Database | None = None,
) -> dict[str, Any]:
    """Return chart values: a plain dictionary, keyed by service.

    They have the key `runs` if a compute requests resources; otherwise run pods get those of the
    code server. Without `database`, the size decides (`database_for`).

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    service = service_resources(size)
    database = database or database_for(size)
    user_code: dict[str, Any] = {
        "enabled": True,
        "replicaCount": 1,
        "resources": USER_CODE_SIZES[size].as_kubernetes(),
    }
    if products:
        user_code["deployments"] = [
            {"name": item.name, "image": item.image.as_values()} for item in products
        ]
    values: dict[str, Any] = {
        "dagster-webserver": {
            "enabled": True,
            "replicaCount": WEBSERVERS[size],
            "resources": service.as_kubernetes(),
        },
        "dagster-daemon": {"enabled": True, "resources": service.as_kubernetes()},
        "dagster-user-code": user_code,
        "postgresql": {"enabled": True}
        if database is None
        else {
            "enabled": False,
            "external": {"host": database.host, "existingSecret": database.secret},
        },
    }
    requested = resources_of_runs(size, computes or {})
    if requested is not None:
        values["runs"] = {"resources": requested}
    return values
