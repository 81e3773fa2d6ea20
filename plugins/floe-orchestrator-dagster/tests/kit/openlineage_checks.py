"""Checks the rules of a stream of OpenLineage events that JSON schemas cannot express."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import attr
from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client import generated
from referencing import Registry, Resource

Event = dict[str, Any]
ENDINGS = {"COMPLETE", "FAIL", "ABORT"}
BASE = "https://openlineage.io/spec/"
# Namespaces of the specification that have no host.
BARE_NAMESPACES = {"file", "bigquery"}
OURS = files("floe_orchestrator_dagster") / "lineage" / "schemas" / "FloeRunFacet.json"

# The place of each facet in an event, by the specification.
PLACES = {
    "run": {
        *("parent", "processing_engine", "nominalTime", "errorMessage", "test"),
        *("dbt_version", "dbt_run", "floe_run"),
    },
    "job": {
        *("jobType", "sql", "documentation", "ownership", "tags", "sourceCodeLocation"),
        "dbt_node",
    },
    "dataset": {
        *("dataSource", "schema", "symlinks", "documentation", "ownership", "tags"),
        *("datasetType", "storage", "catalog", "columnLineage", "dbt_exposures"),
    },
    "input": {"dataQualityAssertions"},
    "output": {"outputStatistics"},
}
_FACET = re.compile(r"/facets/(?P<version>[0-9-]+)/(?P<name>\w+)\.json#/\$defs/(?P=name)$")


def facets_of(event: Event) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield place, name and content of each facet of an event."""
    yield from (("run", *item) for item in event["run"]["facets"].items())
    yield from (("job", *item) for item in event["job"]["facets"].items())
    for kind, side in (("input", "inputs"), ("output", "outputs")):
        for dataset in event[side]:
            yield from (("dataset", *item) for item in dataset["facets"].items())
            yield from ((kind, *item) for item in dataset.get(f"{kind}Facets", {}).items())


def problems(events: Sequence[Event]) -> list[str]:
    """Return all problems in the events of complete runs."""
    return [
        *(problem for event in events for problem in _event_problems(event)),
        *_pair_problems(events),
        *_tree_problems(events),
    ]


def _event_problems(event: Event) -> Iterator[str]:
    who = f"{event['eventType']} {event['job']['name']}"
    UUID(event["run"]["runId"])
    if datetime.fromisoformat(event["eventTime"].replace("Z", "+00:00")).tzinfo is None:
        yield f"{who}: no time zone in {event['eventTime']}"
    for place, name, facet in facets_of(event):
        yield from (f"{who}: {name}: {problem}" for problem in _facet_problems(place, name, facet))
    if event["eventType"] in {"FAIL", "ABORT"} and "errorMessage" not in event["run"]["facets"]:
        yield f"{who}: no errorMessage"
    for dataset in (*event["inputs"], *event["outputs"]):
        known = "://" in dataset["namespace"] or dataset["namespace"] in BARE_NAMESPACES
        if not known or not dataset["name"]:
            yield f"{who}: bad dataset {dataset['namespace']} {dataset['name']}"
        columns = {field["name"] for field in dataset["facets"].get("schema", {}).get("fields", ())}
        lineage = dataset["facets"].get("columnLineage", {}).get("fields", {})
        if columns and not lineage.keys() <= columns:
            yield f"{who}: column lineage of unknown columns {lineage.keys() - columns}"


def _facet_problems(place: str, name: str, facet: Mapping[str, Any]) -> Iterator[str]:
    if name not in PLACES[place]:
        yield f"does not belong on a {place}"
    if not facet.get("_producer", "").startswith("https://"):
        yield "has no producer"
    if None in facet.values():
        yield "has a null"
    try:
        _as_typed(facet)
    except (TypeError, ValueError) as error:
        yield str(error)


def _as_typed(facet: Mapping[str, Any]) -> None:
    """Build openlineage-python's own object of a facet, which rejects invalid content."""
    match = _FACET.search(facet["_schemaURL"])
    if match is None:
        return
    kind = _classes()[match["name"]]
    known = {item.name for item in attr.fields(kind)}
    fields = {key: value for key, value in facet.items() if not key.startswith("_")}
    unknown = fields.keys() - known
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    url = kind(**fields)._get_schema()
    if url != facet["_schemaURL"]:
        raise ValueError(f"schema {facet['_schemaURL']} is not {url}")


def _classes(classes: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006  filled once
    if not classes:
        for path in Path(next(iter(generated.__path__))).glob("*.py"):
            module = import_module(f"openlineage.client.generated.{path.stem}")
            classes |= {name: kind for name, kind in vars(module).items() if attr.has(kind)}
    return classes


def _pair_problems(events: Sequence[Event]) -> Iterator[str]:
    runs: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        runs[event["run"]["runId"]].append(event)
    for run_id, of_run in runs.items():
        kinds = [event["eventType"] for event in of_run]
        name = of_run[0]["job"]["name"]
        if len({event["job"]["name"] for event in of_run}) != 1:
            yield f"{run_id}: several jobs"
        if kinds[0] != "START" or kinds.count("START") != 1:
            yield f"{name}: begins with {kinds}"
        if kinds[-1] not in ENDINGS or sum(kind in ENDINGS for kind in kinds) != 1:
            yield f"{name}: ends with {kinds}"
        times = [event["eventTime"] for event in of_run]
        if times != sorted(times):
            yield f"{name}: times run backwards {times}"


def _tree_problems(events: Sequence[Event]) -> Iterator[str]:
    started = {event["run"]["runId"]: event for event in events if event["eventType"] == "START"}
    for event in started.values():
        name, below = event["job"]["name"], event
        seen = {event["run"]["runId"]}
        while "parent" in below["run"]["facets"]:
            parent = below["run"]["facets"]["parent"]
            above, root = parent["run"]["runId"], parent["root"]["run"]["runId"]
            if above in seen:
                yield f"{name}: its parents go in a circle"
                break
            seen.add(above)
            if above not in started:
                if above != root:
                    yield f"{name}: parent {above} never started"
                break
            below = started[above]
            if below["job"]["name"] != parent["job"]["name"]:
                yield f"{name}: parent {above} is called {parent['job']['name']}"


def spec_problems(events: Sequence[Event], folder: Path) -> list[str]:
    """Return the errors by the official schemas in `folder` and by our own."""
    registry: Registry[Any] = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in _schemas(folder)
    )
    errors = []
    core = _validator(f"{BASE}2-0-2/OpenLineage.json#/$defs/RunEvent", registry)
    for event in events:
        who = f"{event['eventType']} {event['job']['name']}"
        errors += [f"{who}: {error.message}" for error in core.iter_errors(event)]
        for _, name, facet in facets_of(event):
            url = facet["_schemaURL"]
            if "/integration/common/" in url:
                continue  # the specification has no schemas of dbt's facets
            whole = _validator(url.partition("#")[0], registry)
            for check, value in ((_validator(url, registry), facet), (whole, {name: facet})):
                errors += [f"{who}: {name}: {error.message}" for error in check.iter_errors(value)]
    return errors


def _schemas(folder: Path) -> Iterator[dict[str, Any]]:
    yield json.loads(OURS.read_text())
    yield json.loads((folder / "2-0-2" / "OpenLineage.json").read_text())
    for path in sorted(folder.glob("facets/*/*.json")):
        yield json.loads(path.read_text())


def _validator(
    url: str,
    registry: Registry[Any],
    validators: dict[str, Draft202012Validator] = {},  # noqa: B006  one per schema
) -> Draft202012Validator:
    if url not in validators:
        validators[url] = Draft202012Validator(
            {"$ref": url}, registry=registry, format_checker=FormatChecker()
        )
    return validators[url]
