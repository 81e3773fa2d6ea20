"""OpenLineage facets as plain dictionaries, each with the schema that it follows.

The versions are the newest of the OpenLineage specification's `facets` folder; facets of dbt's
are those of `openlineage-integration-common`; `floe_run` is ours, its schema lies in `schemas`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from floe_orchestrator_dagster.lineage.columns import ColumnLineage, Source
    from floe_orchestrator_dagster.lineage.datasets import Catalog, Symlink

Facet = dict[str, Any]

PRODUCER = "https://github.com/Obsidian-Owl/floe/tree/main/plugins/floe-orchestrator-dagster"
RUN_EVENT_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_SPEC = "https://openlineage.io/spec/facets"
_DBT = "https://github.com/OpenLineage/OpenLineage/tree/main/integration/common/openlineage/schema"
_OURS = f"{PRODUCER}/src/floe_orchestrator_dagster/lineage/schemas"
VERSIONS = {
    "CatalogDatasetFacet": "1-1-0",
    "ColumnLineageDatasetFacet": "1-2-0",
    "DataQualityAssertionsDatasetFacet": "1-1-0",
    "DatasetTypeDatasetFacet": "1-0-1",
    "DatasourceDatasetFacet": "1-0-1",
    "DocumentationDatasetFacet": "1-1-0",
    "DocumentationJobFacet": "1-1-0",
    "ErrorMessageRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "NominalTimeRunFacet": "1-0-1",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "OwnershipDatasetFacet": "1-0-1",
    "OwnershipJobFacet": "1-0-1",
    "ParentRunFacet": "1-2-0",
    "ProcessingEngineRunFacet": "1-1-1",
    "SQLJobFacet": "1-1-0",
    "SchemaDatasetFacet": "1-2-0",
    "SourceCodeLocationJobFacet": "1-1-0",
    "StorageDatasetFacet": "1-0-1",
    "SymlinksDatasetFacet": "1-0-1",
    "TagsDatasetFacet": "1-0-0",
    "TagsJobFacet": "1-0-0",
    "TestRunFacet": "1-0-1",
}
# What a backend stores for one facet has its limits; dbt's whole text is in its log.
MAX_TEXT = 256 * 1024


def facet(kind: str, **fields: Any) -> Facet:
    """Return a facet of the specification; fields that are None are left out."""
    url = f"{_SPEC}/{VERSIONS[kind]}/{kind}.json#/$defs/{kind}"
    return _facet(url, fields)


def dbt_facet(kind: str, **fields: Any) -> Facet:
    """Return a facet as `openlineage-dbt` sends it: `dbt-version-run-facet` and the like."""
    return _facet(f"{_DBT}/{kind}.json", fields)


def floe_run(**fields: Any) -> Facet:
    """Return our own run facet: product, compute, attempt, and where Dagster shows the run."""
    return _facet(f"{_OURS}/FloeRunFacet.json#/$defs/RunFacetFloe", fields)


def _facet(url: str, fields: Mapping[str, Any]) -> Facet:
    made: Facet = {"_producer": PRODUCER, "_schemaURL": url}
    for name, value in fields.items():
        if value is not None:
            made[name] = value
    return made


def text(value: str) -> str:
    """Return a text cut to what a facet may carry."""
    return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} ... (cut)"


def parent(run_id: str, namespace: str, job: str, root: tuple[str, str, str]) -> Facet:
    """Return the parent facet; `root` is run id, namespace and job of the run on top."""
    root_id, root_namespace, root_job = root
    return facet(
        "ParentRunFacet",
        run={"runId": run_id},
        job={"namespace": namespace, "name": job},
        root={"run": {"runId": root_id}, "job": {"namespace": root_namespace, "name": root_job}},
    )


def error(message: str) -> Facet:
    """Return what went wrong, in dbt's own words."""
    return facet("ErrorMessageRunFacet", message=text(message), programmingLanguage="SQL")


def schema(columns: Iterable[Sequence[str | None]], said: Mapping[str, str]) -> Facet:
    """Return a dataset's columns; each is name and type, `said` has descriptions by lower name."""
    fields = []
    for position, (name, kind) in enumerate(columns, 1):
        field: dict[str, Any] = {"name": name, "ordinal_position": position}
        if kind:
            field["type"] = kind
        if said.get((name or "").lower()):
            field["description"] = said[(name or "").lower()]
        fields.append(field)
    return facet("SchemaDatasetFacet", fields=fields)


def catalog(held: Catalog, *, adapter: str) -> Facet:
    """Return the catalog that holds a dataset, as the compute's profile configures it."""
    return facet(
        "CatalogDatasetFacet",
        framework=held.framework,
        type=held.type,
        name=held.name,
        metadataUri=held.metadata_uri,
        warehouseUri=held.warehouse_uri,
        source=adapter,
    )


def symlinks(names: Iterable[Symlink]) -> Facet:
    """Return the other names of a dataset."""
    return facet(
        "SymlinksDatasetFacet",
        identifiers=[
            {"namespace": name.namespace, "name": name.name, "type": name.type} for name in names
        ],
    )


def column_lineage(lineage: ColumnLineage, names: Mapping[str, tuple[str, str]]) -> Facet:
    """Return what columns are made of; `names` are namespace and name of datasets by relation.

    Sources in other relations are left out, and so are columns without a source.
    """
    columns = {name: _inputs(sources, names) for name, sources in lineage.fields.items()}
    return facet(
        "ColumnLineageDatasetFacet",
        fields={name: {"inputFields": inputs} for name, inputs in columns.items() if inputs},
        dataset=_inputs(lineage.dataset, names) or None,
    )


def _inputs(
    sources: Iterable[Source], names: Mapping[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return each source column once, with all the ways in which it takes part."""
    changes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for source in sources:
        if source.relation in names:
            column = (*names[source.relation], source.column)
            change = {"type": source.type, "subtype": source.subtype, "masking": source.masking}
            changes.setdefault(column, []).append(change)
    return [
        {"namespace": space, "name": name, "field": column, "transformations": made}
        for (space, name, column), made in changes.items()
    ]


def owners(kind: str, names: Iterable[str]) -> Facet:
    """Return the owners of a job or dataset."""
    return facet(kind, owners=[{"name": name, "type": "OWNER"} for name in names])


def tags(kind: str, names: Iterable[str]) -> Facet:
    """Return dbt tags; `key:value` tags are split, others are true."""
    made = []
    for name in names:
        key, _, value = name.partition(":")
        made.append({"key": key, "value": value or "true", "source": "DBT"})
    return facet(kind, tags=made)
