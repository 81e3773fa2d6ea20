"""The Dagster instance that records a run, with the limits of its pools."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
from dagster import DagsterError, DagsterInstance

if TYPE_CHECKING:
    from floe_orchestrator_dagster.cli.screen import Screen
    from floe_orchestrator_dagster.product.product import Product


def is_home_set() -> bool:
    """Return whether DAGSTER_HOME names an instance that keeps records."""
    return bool(os.environ.get("DAGSTER_HOME"))


def open_instance() -> DagsterInstance:
    """Return the instance of DAGSTER_HOME, or one in memory if that is not set.

    Raises:
        click.UsageError: DAGSTER_HOME cannot be used.
    """
    if not is_home_set():
        return DagsterInstance.ephemeral()
    try:
        return DagsterInstance.get()
    except DagsterError as error:
        raise click.UsageError(f"Cannot use DAGSTER_HOME: {error}") from error


def apply_pool_limits(product: Product, instance: DagsterInstance, screen: Screen) -> None:
    """Set the configured pool limits through Dagster's own command line."""
    if product.config.isolation != "compute" or instance.is_ephemeral:
        return
    for compute in product.plan.computes.values():
        if compute.pool is None or compute.pool_limit is None:
            continue
        # Dagster has no public function for this.
        words = ["instance", "concurrency", "set", compute.pool, str(compute.pool_limit)]
        done = subprocess.run(  # noqa: S603  Dagster's own command
            [sys.executable, "-m", "dagster", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            screen.warn(f"cannot set the limit of pool '{compute.pool}': {' '.join(reason)}")
