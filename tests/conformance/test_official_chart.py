"""Our values for the official Dagster chart fit the chart's own data: `make conformance`.

The directory CHART_DATA contains values.yaml and values.schema.json of the chart and of its
subchart user-deployments. The schema accepts unknown keys in places, and the chart ignores them.
These tests reject them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.deploy.official import official_values
from floe_orchestrator_dagster.deploy.sizes import SIZES, service_resources
from floe_orchestrator_dagster.deploy.values import Database, DeployedProduct, Image

DATA = Path(os.environ["CHART_DATA"])
DEFAULTS = yaml.safe_load((DATA / "values.yaml").read_text())
SCHEMA = json.loads((DATA / "values.schema.json").read_text())
SUBCHART = yaml.safe_load((DATA / "user-deployments.values.yaml").read_text())
PRODUCTS = [
    DeployedProduct("shop", Image("example/shop", "1.4.0")),
    DeployedProduct("billing", Image("example/billing", digest="sha256:" + "a" * 64)),
]
COMPUTES = parse_config({"computes": {"spark": {"resources": "large"}}}).computes
EXPORTS = {
    **{size: official_values(size) for size in SIZES},
    **{f"{size}, products": official_values(size, COMPUTES, products=PRODUCTS) for size in SIZES},
    "database": official_values("small", database=Database("db", "secret"), products=PRODUCTS),
}
# Objects whose keys belong to the user or to Kubernetes.
FREE = {"resources"}
JSON_TYPES = {"list": "array", "dict": "object", "str": "string"}


def merged(base: Any, ours: Any) -> Any:
    """Merge values as Helm does: merge mappings key by key, and replace everything else."""
    if isinstance(base, dict) and isinstance(ours, dict):
        return {**base, **{key: merged(base.get(key), item) for key, item in ours.items()}}
    return ours


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def strangers(ours: Any, theirs: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield each of our keys that the chart does not have, or has with a different type.

    The chart has a key if its values.yaml or its schema has it.
    """
    schema = resolved(schema, ours)
    if path.rpartition(".")[2] in FREE:
        yield from checked_resources(ours, path)
    elif isinstance(ours, dict):
        named = schema.get("properties", {})
        for key, item in ours.items():
            here = f"{path}.{key}".lstrip(".")
            held = theirs.get(key) if isinstance(theirs, dict) else None
            if key not in named and not (isinstance(theirs, dict) and key in theirs):
                yield f"{here}: the chart has no such key"
                continue
            if held is not None and kind(held) != kind(item):
                yield f"{here}: {kind(item)}, where the chart has {kind(held)}"
            yield from strangers(item, held, named.get(key, {}), here)
    elif isinstance(ours, list):
        example = theirs[0] if isinstance(theirs, list) and theirs else None
        for number, item in enumerate(ours):
            yield from strangers(item, example, schema.get("items", {}), f"{path}[{number}]")


def checked_resources(ours: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the entries that are not valid `resources` of a container."""
    for section, amounts in ours.items():
        if section not in {"requests", "limits"} or not set(amounts) <= {"cpu", "memory"}:
            yield f"{path}.{section}: {amounts}"


def resolved(schema: Mapping[str, Any], value: Any = None) -> Mapping[str, Any]:
    """Follow references; of several alternatives, take the first that `value` can match."""
    if "$ref" in schema:
        place: Any = SCHEMA
        for step in schema["$ref"].removeprefix("#/").split("/"):
            place = place[step.replace("~1", "/").replace("~0", "~")]
        named = {**place.get("properties", {}), **schema.get("properties", {})}
        return resolved({**place, "properties": named}, value)
    for item in map(resolved, schema.get("anyOf", ())):
        if item.get("type") == JSON_TYPES.get(kind(value)):
            return item
    return schema


def problems(values: Mapping[str, Any]) -> list[str]:
    return list(strangers(values, DEFAULTS, SCHEMA, ""))


@pytest.mark.parametrize("name", EXPORTS)
def test_the_chart_has_every_key(name: str) -> None:
    assert problems(EXPORTS[name]) == []


@pytest.mark.parametrize("name", EXPORTS)
def test_values_pass_the_schema(name: str) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(merged(DEFAULTS, EXPORTS[name]))


@pytest.mark.parametrize("name", EXPORTS)
def test_deployments_match_the_subchart(name: str) -> None:
    known = SUBCHART["deployments"][0]
    schema = resolved(SCHEMA["$defs"]["UserDeployment"])["properties"]
    for deployment in EXPORTS[name]["dagster-user-deployments"]["deployments"]:
        assert set(deployment) <= set(schema)
        assert {key for key in deployment if key not in known} == set()
        for key, item in deployment.items():
            assert kind(item) == kind(known[key]), key


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_where_the_chart_reads_them(size: str) -> None:
    values = merged(DEFAULTS, EXPORTS[size])
    expected = service_resources(size).as_kubernetes()
    assert values["dagsterWebserver"]["resources"] == expected
    assert values["dagsterDaemon"]["resources"] == expected
    # The chart's example product is not deployed by default.
    assert values["dagster-user-deployments"]["deployments"] == []
    assert values["telemetry"]["enabled"] is False


def test_an_external_database_replaces_that_of_the_chart() -> None:
    values = merged(DEFAULTS, EXPORTS["database"])
    assert values["postgresql"]["enabled"] is False
    assert values["postgresql"]["postgresqlHost"] == "db"
    assert values["generatePostgresqlPasswordSecret"] is False
    assert values["global"]["postgresqlSecretName"] == "secret"


@pytest.mark.parametrize(
    ("values", "problem_start"),
    [
        ({"dagster-webserver": {}}, "dagster-webserver: the chart has no such key"),
        ({"dagsterWebserver": {"replicas": 1}}, "dagsterWebserver.replicas: the chart has no"),
        ({"dagsterDaemon": {"replicaCount": 1}}, "dagsterDaemon.replicaCount: the chart has no"),
        ({"postgresql": {"host": "db"}}, "postgresql.host: the chart has no such key"),
        (
            {"dagster-user-deployments": {"deployments": [{"imageName": "x"}]}},
            "dagster-user-deployments.deployments[0].imageName: the chart has no such key",
        ),
        ({"telemetry": {"enabled": "no"}}, "telemetry.enabled: str, where the chart has boolean"),
        ({"dagsterDaemon": {"resources": {"limit": {}}}}, "dagsterDaemon.resources.limit"),
    ],
)
def test_a_key_that_the_chart_would_ignore_is_reported(
    values: dict[str, Any], problem_start: str
) -> None:
    assert any(problem.startswith(problem_start) for problem in problems(values))
