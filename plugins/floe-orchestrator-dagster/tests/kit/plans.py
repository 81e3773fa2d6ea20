"""Tiny builders of manifests and plans: `plan("a > b > c", on={"b": "pg"})`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pytest

from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.errors import PlanError
from floe_orchestrator_dagster.plan import (
    CompiledProduct,
    Compute,
    DbtManifest,
    ProductPlan,
    Transform,
    Wave,
    decode_manifest,
    plan_product,
    waves,
)

SCHEMA = "https://schemas.getdbt.com/dbt/manifest/v12.json"
ADAPTERS = {"duck": "duckdb", "pg": "postgres", "pg2": "postgres"}
Json = dict[str, Any]


def edges(graph: str) -> dict[str, list[str]]:
    """Read "a > b > c, a > d" as the parents of each name."""
    parents: dict[str, list[str]] = {}
    for path in filter(None, (part.strip() for part in graph.split(","))):
        above: list[str] = []
        for step in path.split(">"):
            names = step.split()
            for name in names:
                its_parents = parents.setdefault(name, [])
                its_parents += [parent for parent in above if parent not in its_parents]
            above = names
    return parents


def uid(name: str, kind: str = "model", package: str = "shop") -> str:
    """Return dbt's unique id; a dotted name is a source."""
    return f"source.{package}.{name}" if "." in name else f"{kind}.{package}.{name}"


def raw_manifest(
    graph: str = "",
    *,
    kinds: Mapping[str, str] | None = None,
    tests: Mapping[str, str | Mapping[str, Any]] | None = None,
    unit_tests: Mapping[str, str] | None = None,
    change: Mapping[str, Mapping[str, Any]] | None = None,
    without: Collection[str] = (),
    macros: Iterable[str] = (),
    adapter: str | None = None,
    schema: str = SCHEMA,
) -> Json:
    """Return the JSON of a manifest.

    `kinds` names the nodes that are not models, and `change` overrides fields of nodes. A test is
    the names that it reads ("a b"), or {"reads": "a b", and fields of the node}.
    """
    kinds, change = kinds or {}, change or {}
    parents = edges(graph)
    ids = {name: uid(name, _resource(kinds.get(name, "model"))) for name in parents}
    nodes: Json = {}
    for name, above in parents.items():
        kind = kinds.get(name, "model")
        node: Json = {
            "unique_id": ids[name],
            "name": name.rpartition(".")[2],
            "resource_type": "source" if "." in name else _resource(kind),
            "package_name": "shop",
            "relation_name": None if kind == "ephemeral" else f'"db"."main"."{name}"',
            "config": {"materialized": kind if kind == "ephemeral" else "table"},
            "depends_on": {"nodes": [ids[parent] for parent in above]},
        }
        if "." in name:
            node["source_name"] = name.partition(".")[0]
        if name not in without:
            nodes[ids[name]] = _merge(node, change.get(name, {}))
    for name, definition in (tests or {}).items():
        fields = {"reads": definition} if isinstance(definition, str) else dict(definition)
        if name in without:
            continue
        node = {
            "unique_id": uid(name, "test"),
            "name": name,
            "resource_type": "test",
            "package_name": "shop",
            "depends_on": {"nodes": [ids.get(n, n) for n in fields.pop("reads").split()]},
        }
        if "attached_node" in fields:
            attached = fields["attached_node"]
            fields["attached_node"] = ids.get(attached, attached)
        nodes[node["unique_id"]] = _merge(node, fields)
    for name, model in (unit_tests or {}).items():
        if name not in without:
            unique_id = f"unit_test.shop.{model}.{name}"
            nodes[unique_id] = {
                "unique_id": unique_id,
                "name": name,
                "resource_type": "unit_test",
                "package_name": "shop",
                "model": model,
                "depends_on": {"nodes": [ids[model]]},
            }
    return manifest_of(nodes, adapter=adapter, schema=schema, macros=macros)


def manifest_of(
    nodes: Mapping[str, Json],
    *,
    adapter: str | None = None,
    schema: str = SCHEMA,
    macros: Iterable[str] = (),
) -> Json:
    """Return the JSON of a manifest with these nodes, each in the section of its type."""
    places: Json = {"nodes": {}, "sources": {}, "functions": {}, "unit_tests": {}}
    for unique_id, node in nodes.items():
        place = f"{node['resource_type']}s"
        places[place if place in places else "nodes"][unique_id] = node
    return {
        "metadata": {
            "dbt_schema_version": schema,
            "dbt_version": "1.11.0",
            "project_name": "shop",
            "adapter_type": adapter,
        },
        **places,
        "macros": {f"macro.dbt.{name}": {} for name in macros},
    }


def manifest(graph: str = "", **fields: Any) -> DbtManifest:
    """Return a decoded manifest; see `raw_manifest`."""
    return decode_manifest(json.dumps(raw_manifest(graph, **fields)).encode())


def plan(
    graph: str = "",
    *,
    on: Mapping[str, str] | None = None,
    transforms: Sequence[Transform] | None = None,
    per_target: Mapping[str, Mapping[str, Any]] | None = None,
    computes: Iterable[str] = (),
    **fields: Any,
) -> ProductPlan:
    """Return the plan of a graph whose models run on "duck" unless `on` names another compute.

    Each compute has a target of the same name. `per_target` has more `fields` for its manifest.
    """
    on = on or {}
    named = list(transforms or (Transform(name, compute) for name, compute in on.items()))
    names = dict.fromkeys(["duck", *(transform.compute for transform in named), *computes])
    compute_of = {name: Compute(name, name, ADAPTERS.get(name, name)) for name in names}
    manifests = {
        name: manifest(graph, **{**fields, **(per_target or {}).get(name, {})}) for name in names
    }
    return plan_product(product(*named), compute_of, manifests)


def product(*transforms: Transform, config: Mapping[str, Any] | None = None) -> CompiledProduct:
    """Return a compiled product on the default compute "duck"."""
    return CompiledProduct("shop", transforms, default_compute="duck", config=parse_config(config))


def problems_of(graph: str = "", **fields: Any) -> list[str]:
    """Return the problems of a product as texts."""
    with pytest.raises(PlanError) as error:
        plan(graph, **fields)
    return [str(problem) for problem in error.value.problems]


def sentences(planned: ProductPlan, plan_waves: Iterable[Wave]) -> list[str]:
    """Return waves as sentences: "pg: a b (unique_b)"."""

    def names(uids: Iterable[str]) -> str:
        return " ".join(planned.nodes[one].name for one in uids)

    return [
        f"{wave.compute.name}: {names(wave.nodes)}"
        + (f" ({names(sorted(wave.checks))})" if wave.checks else "")
        for wave in plan_waves
    ]


def waves_of(
    planned: ProductPlan, select: str | None = None, checks: str | None = None
) -> list[str]:
    """Return the waves of a selection (default: everything) as sentences."""
    assets = [
        one for one, node in planned.assets.items() if select is None or node.name in select.split()
    ]
    tests = [
        one for one, node in planned.checks.items() if checks is None or node.name in checks.split()
    ]
    return sentences(planned, waves(planned, assets, tests))


def _resource(kind: str) -> str:
    return "model" if kind == "ephemeral" else kind


def _merge(node: Json, fields: Mapping[str, Any]) -> Json:
    config = {**node.get("config", {}), **fields.get("config", {})}
    return {**node, **fields, **({"config": config} if config else {})}
