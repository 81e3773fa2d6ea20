"""The jobs of a product: one per partitioning, or one with only the chosen nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster import Definitions, define_asset_job

from floe_orchestrator_dagster.plan import dagster_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dagster import JobDefinition, TimeWindowPartitionsDefinition

    from floe_orchestrator_dagster.assets.specs import Specs


@dataclass(frozen=True, slots=True)
class JobContent:
    """The unique ids that a job builds and tests, and their partitions."""

    assets: Sequence[str]
    checks: Sequence[str]
    partitions: TimeWindowPartitionsDefinition | None = None


def job_contents(specs: Specs) -> Mapping[str, JobContent]:
    """Return the content of each job of a product, by the job's name.

    A Dagster job has one partitioning. So a product with several partitionings has one job for
    each, and one job for all nodes that are not partitioned.
    """
    name = dagster_name(specs.plan.name)
    partitioned: dict[TimeWindowPartitionsDefinition, list[str]] = {}
    for uid in specs.assets:
        partitions = specs.partitions(uid)
        if partitions is not None:
            partitioned.setdefault(partitions, []).append(uid)
    if len(partitioned) <= 1:
        return {name: JobContent([*specs.assets], [*specs.checks], next(iter(partitioned), None))}
    rest = [uid for uid in specs.assets if specs.partitions(uid) is None]
    # Sources have no partitions.
    tested = {*rest, *specs.plan.sources}
    contents = {name: JobContent(rest, specs.checks_on(tested))}
    for number, (partitions, uids) in enumerate(partitioned.items(), 1):
        checks = specs.checks_on({*uids})
        contents[f"{name}_partitioned_{number}"] = JobContent(uids, checks, partitions)
    return contents


def asset_job(specs: Specs, name: str, content: JobContent) -> Any:
    """Return an unresolved job with this content; Dagster resolves it together with the assets."""
    plan = specs.plan
    return define_asset_job(
        name,
        selection=specs.selection(content.assets, content.checks),
        description=f"Builds data product {plan.name} {plan.version}".strip(),
        tags={"floe/product": dagster_name(plan.name)},
    )


def job_named(definitions: Definitions, name: str) -> JobDefinition:
    """Return a resolved job of Definitions; the method for it depends on Dagster's version."""
    resolve: Callable[[str], JobDefinition] = getattr(definitions, "resolve_job_def", None) or (
        definitions.get_job_def  # until Dagster 1.10
    )
    return resolve(name)


def narrowed_job(
    definitions: Definitions, specs: Specs, name: str, content: JobContent
) -> JobDefinition:
    """Return a resolved job with this name and only this content.

    Raises:
        DagsterError: one job cannot contain all of it.
    """
    job = asset_job(specs, name, content)
    return job_named(Definitions(assets=definitions.assets, jobs=[job]), name)
