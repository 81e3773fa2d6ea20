"""Returns Helm values of the official Dagster chart for a workload size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.deploy.sizes import USER_CODE_SIZES, service_resources
from floe_orchestrator_dagster.deploy.values import (
    WEBSERVERS,
    Database,
    DeployedProduct,
    database_for,
    resources_of_runs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.config import ComputeConfig

PORT = 3030
# The path at which the Dockerfile of `floe-dagster build-context` puts a product.
DEFINITIONS = "/app/target/definitions.py"


def official_values(
    size: str,
    computes: Mapping[str, ComputeConfig] | None = None,
    *,
    products: Sequence[DeployedProduct] = (),
    database: Database | None = None,
) -> dict[str, Any]:
    """Return values of the chart `dagster` of the Dagster project (1.12).

    The chart ignores keys that it does not know, so every key here is one that it reads. It has no
    replica count for the daemon, and a replica count of 0 switches the webserver off.

    Raises:
        ValueError: for an unknown size, listing the sizes.
    """
    service = service_resources(size)
    database = database or database_for(size)
    code = USER_CODE_SIZES[size].as_kubernetes()
    return {
        "dagsterWebserver": {
            "replicaCount": WEBSERVERS[size],
            "resources": service.as_kubernetes(),
        },
        "dagsterDaemon": {"enabled": True, "resources": service.as_kubernetes()},
        "dagster-user-deployments": {
            "enabled": True,
            "enableSubchart": True,
            "deployments": [_deployment(item, code) for item in products],
        },
        "runLauncher": {
            "type": "K8sRunLauncher",
            "config": {
                "k8sRunLauncher": {
                    "resources": resources_of_runs(size, computes or {})
                    or USER_CODE_SIZES[size].as_kubernetes()
                }
            },
        },
        "telemetry": {"enabled": False},
        **_database(database),
    }


def _deployment(product: DeployedProduct, resources: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {
        "name": product.name,
        "image": {"pullPolicy": "IfNotPresent", **product.image.as_values()},
        "dagsterApiGrpcArgs": ["--python-file", DEFINITIONS, "--location-name", product.name],
        "port": PORT,
        "includeConfigInLaunchedRuns": {"enabled": True},
        "env": [{"name": "FLOE_PREPARED", "value": "1"}],
        "resources": resources,
    }


def _database(database: Database | None) -> dict[str, Any]:
    # Without a driver name, SQLAlchemy 2.1 picks a driver that dagster-postgres does not install.
    scheme = {"postgresqlScheme": "postgresql+psycopg2"}
    if database is None:
        return {"postgresql": {"enabled": True, **scheme}}
    return {
        "postgresql": {"enabled": False, "postgresqlHost": database.host, **scheme},
        "generatePostgresqlPasswordSecret": False,
        "global": {"postgresqlSecretName": database.secret},
    }
