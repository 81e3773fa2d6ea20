"""Builds OpenLineage facets as plain dictionaries, each with the URL of its schema.

The versions are the newest in the `facets` folder of the OpenLineage specification. dbt's facets
are those of `openlineage-integration-common`. `floe_run` is our own; its schema is in `schemas`.
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
# Backends limit the size of a facet; the whole text is in dbt's log.
MAX_TEXT = 256 * 1024


def facet(kind: str, **fields: Any) -> Facet:
    """Return a facet of the specification; fields that are None are left out."""
    url = f"{_SPEC}/{VERSIONS[kind]}/{kind}.json#/$defs/{kind}"
    return _facet(url, fields)


def dbt_facet(kind: str, **fields: Any) -> Facet:
    """Return a facet as `openlineage-dbt` sends it: `dbt-version-run-facet` and the like."""
    return _facet(f"{_DBT}/{kind}.json", fields)


def floe_run(**fields: Any) -> Facet:
    """Return our own run facet: product, compute, attempt and the ids of the run in Dagster."""
    return _facet(f"{_OURS}/FloeRunFacet.json#/$defs/RunFacetFloe", fields)


def _facet(url: str, fields: Mapping[str, Any]) -> Facet:
    present = {name: value for name, value in fields.items() if value is not None}
    return {"_producer": PRODUCER, "_schemaURL": url, **present}


def text(value: str) -> str:
    """Return a text, cut to `MAX_TEXT`."""
    return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} ... (cut)"


def parent(run_id: str, namespace: str, job: str, root: tuple[str, str, str]) -> Facet:
    """Return the parent facet; `root` is run id, namespace and job of the root run."""
    root_id, root_namespace, root_job = root
    return facet(
        "ParentRunFacet",
        run={"runId": run_id},
        job={"namespace": namespace, "name": job},
        root={"run": {"runId": root_id}, "job": {"namespace": root_namespace, "name": root_job}},
    )


def error(message: str) -> Facet:
    """Return the error facet with dbt's message."""
    return facet("ErrorMessageRunFacet", message=text(message), programmingLanguage="SQL")


def schema(columns: Iterable[Sequence[str | None]], descriptions: Mapping[str, str]) -> Facet:
    """Return the schema facet for columns of name and type; `descriptions` has lower-case keys."""
    fields = []
    for position, (name, kind) in enumerate(columns, 1):
        field: dict[str, Any] = {"name": name, "ordinal_position": position}
        if kind:
            field["type"] = kind
        if description := descriptions.get((name or "").lower()):
            field["description"] = description
        fields.append(field)
    return facet("SchemaDatasetFacet", fields=fields)


def catalog(held: Catalog, *, adapter: str) -> Facet:
    """Return the facet of the catalog that holds a dataset."""
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
    """Return the sources of columns; `names` has namespace and name of datasets by relation.

    Sources in other relations and columns without a source are left out.
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
    """Return each source column once, with all its transformations."""
    changes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for source in sources:
        if source.relation in names:
            column = (*names[source.relation], source.column)
            change = {"type": source.type, "subtype": source.subtype, "masking": source.masking}
            changes.setdefault(column, []).append(change)
    return [
        {"namespace": space, "name": name, "field": column, "transformations": transformations}
        for (space, name, column), transformations in changes.items()
    ]


def owners(kind: str, names: Iterable[str]) -> Facet:
    """Return the owners of a job or dataset."""
    return facet(kind, owners=[{"name": name, "type": "OWNER"} for name in names])


def tags(kind: str, names: Iterable[str]) -> Facet:
    """Return dbt's tags; a tag `key:value` is split, any other gets the value true."""
    entries = []
    for name in names:
        key, _, value = name.partition(":")
        entries.append({"key": key, "value": value or "true", "source": "DBT"})
    return facet(kind, tags=entries)
