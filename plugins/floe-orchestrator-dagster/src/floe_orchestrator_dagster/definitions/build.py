"""Builds the Dagster Definitions of a planned product."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagster import BetaWarning, Definitions, PreviewWarning, in_process_executor

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.definitions.jobs import asset_job, job_contents
from floe_orchestrator_dagster.definitions.schedules import dagster_schedule, require_jobs
from floe_orchestrator_dagster.definitions.sensors import product_sensors
from floe_orchestrator_dagster.definitions.steps import Steps
from floe_orchestrator_dagster.plan import dagster_name
from floe_orchestrator_dagster.product.opening import uncollected
from floe_orchestrator_dagster.product.product import Product, load_all_manifests
from floe_orchestrator_dagster.run.step import Host
from floe_orchestrator_dagster.schedules import adding_schedule_problems, product_schedule
from floe_orchestrator_dagster.telemetry import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from floe_orchestrator_dagster.schedules import Schedule


def build_definitions(
    product: Product,
    *,
    schedules: Sequence[Schedule] = (),
    translator: Any = None,
    host: Host | None = None,
) -> Definitions:
    """Return the Definitions of a product.

    Args:
        product: the planned product.
        schedules: schedules in addition to the product's own, each for an existing job.
        translator: a user's `DagsterDbtTranslator`, used for every spec.
        host: receives the events of steps that run in this process.

    Raises:
        PlanError: partitions or schedules contradict the product.
    """
    if not product.plan.assets and not product.plan.checks:
        return Definitions()
    with span("floe.definitions", product_name=product.plan.name), loading():
        manifests = dict(load_all_manifests(product)) if translator is not None else None
        with adding_schedule_problems(product.plan.name, product.spec, product.config):
            specs = Specs(
                product.plan,
                project_dir=product.project_dir,
                translator=translator,
                manifests=manifests,
            )
        own = product_schedule(product.plan.name, product.spec, product.config)
        declared = frozenset(spec.key for spec in specs.sources)
        steps = Steps(product, specs, declared, host or Host()).all()
        contents = job_contents(specs)
        jobs = {name: asset_job(specs, name, content) for name, content in contents.items()}
        scheduled = {schedule.name: schedule for schedule in schedules}
        if own is not None:
            scheduled.setdefault(own.name, own)
        require_jobs(scheduled.values(), jobs)
        return Definitions(
            assets=[*steps, *specs.sources],
            jobs=[*jobs.values()],
            schedules=[
                dagster_schedule(schedule, jobs[job], contents[job].partitions)
                for schedule in scheduled.values()
                for job in (dagster_name(schedule.job_name),)
            ],
            sensors=product_sensors(product),
            # A single step needs no second process, which would load these Definitions again.
            executor=in_process_executor if product.config.isolation == "product" else None,
        )


@contextmanager
def loading() -> Iterator[None]:
    """Disable the garbage collector, and Dagster's warnings about beta features that we use."""
    with uncollected(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=BetaWarning)
        warnings.simplefilter("ignore", category=PreviewWarning)
        yield
