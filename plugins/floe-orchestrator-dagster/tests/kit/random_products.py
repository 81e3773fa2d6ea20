"""Random dbt projects on up to four computes, with a simple reference implementation of a plan."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hypothesis import strategies as st

from floe_orchestrator_dagster.plan import (
    ASSET_KINDS,
    Compute,
    ProductPlan,
    Transform,
    decode_manifest,
    plan_product,
)
from kit.plans import Json, manifest_of, product

KINDS = ["model"] * 6 + ["seed", "snapshot", "ephemeral", "ephemeral", "source", "source"]
TARGETS = ["duck", "pg", "spark", "trino"]


@dataclass(frozen=True)
class Case:
    """A random product: dbt's JSON, the compute of each node, the targets that disable a test."""

    nodes: dict[str, Json]
    computes: dict[str, str]
    disabled: dict[str, frozenset[str]]
    targets: list[str]
    seed: int

    def raw(self, target: str, *, shuffled: bool = False) -> bytes:
        """Return the manifest of a target."""
        items = [
            (uid, node)
            for uid, node in self.nodes.items()
            if target not in self.disabled.get(uid, ())
        ]
        if shuffled:
            random.Random(self.seed).shuffle(items)
        return json.dumps(manifest_of(dict(items))).encode()

    def plan(self, *, shuffled: bool = False) -> ProductPlan:
        """Return the plan of this product."""
        transforms = [
            Transform(self.nodes[uid]["name"], compute) for uid, compute in self.computes.items()
        ]
        if shuffled:
            random.Random(self.seed).shuffle(transforms)
        return plan_product(
            product(*transforms),
            {name: Compute(name, name, "duckdb") for name in self.targets},
            {name: decode_manifest(self.raw(name, shuffled=shuffled)) for name in self.targets},
        )

    # --- the reference: it reads only the JSON and uses no plan

    def is_asset(self, uid: str) -> bool:
        """Return whether a node builds a relation."""
        node = self.nodes[uid]
        return (
            node["resource_type"] in ASSET_KINDS
            and node["config"].get("materialized") != "ephemeral"
        )

    def reads(self, uid: str) -> set[str]:
        """Return the assets and sources that a node reads, with ephemerals folded."""
        read: set[str] = set()
        for parent in self.nodes[uid]["depends_on"]["nodes"]:
            if self.is_asset(parent) or self.nodes[parent]["resource_type"] == "source":
                read.add(parent)
            else:
                read |= self.reads(parent)
        return read

    def builder(self, source: str) -> str | None:
        """Return the asset that builds the table of a source."""
        relation = self.nodes[source]["relation_name"]
        for uid, node in self.nodes.items():
            if self.is_asset(uid) and node["relation_name"] == relation:
                return uid
        return None

    def direct(self, uid: str) -> Iterator[tuple[str, bool]]:
        """Yield each asset that a node needs, and whether an earlier dbt run must build it."""
        for parent in self.reads(uid):
            if self.is_asset(parent):
                yield parent, False
            elif (builder := self.builder(parent)) is not None and builder != uid:
                yield builder, True

    @cached_property
    def above(self) -> dict[str, dict[str, bool]]:
        """The ancestors of each node, and whether an earlier dbt run must build each."""
        ancestors: dict[str, dict[str, bool]] = {}

        def look(uid: str) -> dict[str, bool]:
            if uid not in ancestors:
                early_by_ancestor: dict[str, bool] = {}
                for parent, early in self.direct(uid):
                    early_by_ancestor[parent] = early_by_ancestor.get(parent, False) or early
                    for other, earlier in look(parent).items():
                        early_by_ancestor[other] = (
                            early_by_ancestor.get(other, False) or early or earlier
                        )
                ancestors[uid] = early_by_ancestor
            return ancestors[uid]

        return {uid: look(uid) for uid in self.nodes}


@st.composite
def cases(draw: st.DrawFn, most: int = 12) -> Case:
    """Draw a product of up to `most` nodes, with half as many tests, on up to four computes."""
    targets = TARGETS[: draw(st.integers(1, 4))]
    nodes: dict[str, Json] = {}
    computes: dict[str, str] = {}
    for number in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        # The order of names differs from the order of the graph, as in real projects.
        name = f"{draw(st.sampled_from('abcdef'))}{number}"
        resource = "model" if kind == "ephemeral" else kind
        uid = f"source.shop.raw.{name}" if kind == "source" else f"{resource}.shop.{name}"
        rootless = kind in {"seed", "source"}
        earlier = sorted(nodes)
        parents = (
            []
            if rootless or not earlier
            else draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True))
        )
        relation = None if kind == "ephemeral" else f'"db"."main"."{name}"'
        built = [n["relation_name"] for u, n in nodes.items() if not u.startswith("source")]
        if kind == "source" and any(built) and draw(st.booleans()):
            relation = draw(st.sampled_from([*filter(None, built)]))
        nodes[uid] = {
            "unique_id": uid,
            "name": name,
            "source_name": "raw",
            "resource_type": resource,
            "package_name": "shop",
            "relation_name": relation,
            "config": {"materialized": kind},
            "depends_on": {"nodes": parents},
        }
        if kind != "source" and draw(st.booleans()):
            computes[uid] = draw(st.sampled_from(targets))
    disabled = {}
    for number in range(draw(st.integers(0, most // 2))):
        uid = f"test.shop.t{number}"
        readable = [one for one in nodes if not one.startswith(("test", "unit"))]
        reads = draw(st.lists(st.sampled_from(sorted(readable)), min_size=1, max_size=3))
        nodes[uid] = reading(uid, "test", list(dict.fromkeys(reads)))
        disabled[uid] = draw(st.frozensets(st.sampled_from(targets), max_size=len(targets) - 1))
    models = [
        one
        for one, node in nodes.items()
        if node["resource_type"] == "model" and node["config"]["materialized"] == "model"
    ]
    unit_tested: bool = draw(st.booleans())
    if models and unit_tested:
        uid = "unit_test.shop.u"
        nodes[uid] = reading(uid, "unit_test", [draw(st.sampled_from(models))])
    return Case(nodes, computes, disabled, targets, draw(st.integers(0, 99)))


def reading(uid: str, kind: str, reads: list[str]) -> Json:
    return {
        "unique_id": uid,
        "name": uid.rpartition(".")[2],
        "resource_type": kind,
        "package_name": "shop",
        "relation_name": None,
        "config": {},
        "depends_on": {"nodes": reads},
    }
