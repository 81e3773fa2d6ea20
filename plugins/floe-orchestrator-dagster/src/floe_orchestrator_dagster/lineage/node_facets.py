"""Builds the facets of a node's job and dataset from the plan and from dbt's result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from floe_orchestrator_dagster.lineage import facets
from floe_orchestrator_dagster.lineage.facets import Facet, dbt_facet, facet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floe_orchestrator_dagster.dbt.events import NodeFinished
    from floe_orchestrator_dagster.lineage.source_code import SourceCode
    from floe_orchestrator_dagster.plan import Compute, Node, ProductPlan


def job_facets(plan: ProductPlan, node: Node, code: SourceCode | None) -> dict[str, Facet]:
    """Return the facets of a node's job by name; `code` is the git location of the project."""
    by_name: dict[str, Facet] = {"jobType": job_type("DBT", node.kind.upper())}
    dbt = node.dbt
    if dbt is None:
        return by_name
    by_name |= described(plan, node, "Job")
    if code is not None and dbt.original_file_path:
        by_name["sourceCodeLocation"] = code.locate(dbt.original_file_path)
    is_test = node.kind == "test"
    by_name["dbt_node"] = dbt_facet(
        "dbt-node-job-facet",
        unique_id=node.unique_id,
        original_file_path=dbt.original_file_path or None,
        database=dbt.database,
        schema=dbt.schema,
        alias=dbt.alias,
        test_type=("generic" if dbt.test_metadata else "singular") if is_test else None,
    )
    return by_name


def job_type(integration: str, kind: str) -> Facet:
    """Return the facet of a job's type: the integration, Dagster or dbt, and the kind in it."""
    return facet("JobTypeJobFacet", processingType="BATCH", integration=integration, jobType=kind)


def described(plan: ProductPlan, node: Node, kind: Literal["Job", "Dataset"]) -> dict[str, Facet]:
    """Return description, owners and tags of a node as facets of its job or dataset."""
    by_name: dict[str, Facet] = {}
    if node.dbt is not None and node.dbt.description:
        by_name["documentation"] = facet(
            f"Documentation{kind}Facet",
            description=node.dbt.description,
            contentType="text/markdown",
        )
    owners = _owners(plan, node)
    if owners:
        by_name["ownership"] = facets.owners(f"Ownership{kind}Facet", owners)
    if node.tags:
        by_name["tags"] = facets.tags(f"Tags{kind}Facet", node.tags)
    return by_name


def _owners(plan: ProductPlan, node: Node) -> Sequence[str]:
    """Return the owners of a node, else those of its group, else the owner of the product."""
    dbt = node.dbt
    named = dbt.dagster_meta.get("owners") if dbt else None
    if isinstance(named, list) and named:
        return [str(owner) for owner in named]
    group = (dbt.config.group if dbt else None) or ""
    return plan.owners_of_group.get(group, ()) or ([plan.owner] if plan.owner else [])


def built(plan: ProductPlan, node: Node, compute: Compute) -> dict[str, Facet]:
    """Return the facets of a dataset that was built on a compute."""
    by_name = described(plan, node, "Dataset")
    is_view = (node.materialized or "").endswith("view")
    by_name["datasetType"] = facet(
        "DatasetTypeDatasetFacet",
        datasetType="VIEW" if is_view else "TABLE",
        subType="MATERIALIZED" if node.materialized == "materialized_view" else None,
    )
    file_format = node.dbt.config.file_format if node.dbt else None
    if file_format or compute.adapter == "duckdb":
        by_name["storage"] = facet(
            "StorageDatasetFacet", storageLayer=compute.adapter, fileFormat=file_format
        )
    exposures = [
        {"unique_id": f"exposure.{plan.project_name}.{name}", "name": name}
        for name, parents in plan.exposures.items()
        if node.unique_id in parents
    ]
    if exposures:
        by_name["dbt_exposures"] = dbt_facet("dbt-exposures-dataset-facet", exposures=exposures)
    return by_name


def descriptions(node: Node) -> dict[str, str]:
    """Return the descriptions of a node's columns, by their names in lower case."""
    declared = node.dbt.columns if node.dbt else {}
    return {
        name.lower(): column.description for name, column in declared.items() if column.description
    }


def statistics(result: NodeFinished) -> dict[str, int]:
    """Return the numbers of rows and bytes: counted in the warehouse, else from the adapter."""
    reported = result.adapter_response
    numbers = {}
    rows = reported.get("rows_affected") if result.rows is None else result.rows
    if rows is not None and int(float(rows)) >= 0:
        numbers["rowCount"] = int(float(rows))
    # BigQuery has no such number: its `bytes_processed` counts what it reads.
    size = reported.get("bytes_written")
    if size is not None:
        numbers["size"] = int(float(size))
    return numbers
