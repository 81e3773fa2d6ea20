"""The plan of a product, as frozen values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping  # noqa: TC003  needed to decode a plan
from dataclasses import dataclass, field
from functools import cached_property, reduce
from graphlib import TopologicalSorter
from itertools import compress
from operator import and_, or_
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

# msgspec reads these annotations at run time to decode a plan.
from floe_orchestrator_dagster.plan.manifest import DbtConfig, DbtFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal[
    "model",
    "seed",
    "snapshot",
    "ephemeral",
    "function",
    "source",
    "test",
    "unit_test",
    "quality_check",
]
AssetPath = tuple[str, ...]

ASSET_KINDS = frozenset({"model", "seed", "snapshot"})
# The checks that dbt runs. A quality check of floe.yaml is not a dbt node.
TEST_KINDS = frozenset({"test", "unit_test"})
QUALITY_CHECK: Final = "quality_check"
CHECK_KINDS = TEST_KINDS | {QUALITY_CHECK}
# These have no relation of their own: a node that reads them in fact reads their parents.
INLINED_KINDS = frozenset({"ephemeral", "function"})


@dataclass(frozen=True, slots=True)
class Compute:
    """A place that builds models: one output of the product's dbt profile."""

    name: str
    target: str
    adapter: str
    pool: str | None = None
    pool_limit: int | None = None
    resources: str | Mapping[str, Mapping[str, str]] | None = None  # a size, or as in Kubernetes
    dbt_executable: str | None = None  # a different dbt than the dbt-core next to this plugin


@dataclass(frozen=True, slots=True)
class QualityCheck:
    """A check of a model in floe.yaml for which dbt has no test.

    `type` is the name of a dbt generic test, and `arguments` are the arguments of that test.
    """

    name: str
    type: str
    arguments: Mapping[str, Any]
    severity: Literal["error", "warn"] = "error"
    dimension: str = ""


class Reads(msgspec.Struct, frozen=True, array_like=True):
    """The vars and environment variables that a node's code reads.

    `variables` are the configured vars, with a digest of each value; `unset` are the other vars.
    `every` means that the code may read any var. `environment` are names of environment variables.
    """

    variables: dict[str, str] = {}
    unset: tuple[str, ...] = ()
    every: bool = False
    environment: tuple[str, ...] = ()


class Node(msgspec.Struct, frozen=True, array_like=True):
    """One dbt node, or a quality check of floe.yaml, with its compute.

    `parents` are those in dbt, with ephemerals. `after` are nodes whose relation this node reads
    through a source. dbt does not know of them, so an earlier dbt run must build them.
    `key` is the Dagster asset key of an asset or a source.
    A check has its name in Dagster as `name`, the unique id of its node as `on`, other computes
    that can read its parents as `also_on`, and the quality check of floe.yaml as `quality`.
    `code_version` is a digest of the inputs of an asset's result, without the values that its code
    `reads` at run time; see `versions.version_of`.
    """

    unique_id: str
    kind: Kind = "model"
    compute: str = ""
    parents: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    key: AssetPath = ()
    name: str = ""
    on: str = ""
    also_on: tuple[str, ...] = ()
    blocking: bool = True
    relation: str | None = None
    materialized: str | None = None
    tags: tuple[str, ...] = ()
    tier: str | None = None
    quality: QualityCheck | None = None
    dbt: DbtFacts | None = None
    code_version: str = ""
    reads: Reads | None = None

    @property
    def is_microbatch(self) -> bool:
        """Whether dbt builds the node in batches."""
        config = self.dbt.config if self.dbt else None
        strategy = config.incremental_strategy if config else None
        return self.materialized == "incremental" and strategy == "microbatch"

    @property
    def identifier(self) -> str:
        """The name of the node's relation within the schema."""
        dbt = self.dbt
        if dbt is None:
            return self.name
        return (dbt.identifier if self.kind == "source" else dbt.alias) or dbt.name


# Nodes are written by the position of their fields, so a plan can be read only with the same
# fields.
LAYOUT = " ".join(
    field for kind in (Node, Reads, DbtFacts, DbtConfig) for field in kind.__struct_fields__
)


@dataclass(frozen=True)
class ProductPlan:
    """Everything that Dagster and dbt need to know about a product, without files or clocks."""

    name: str
    nodes: Mapping[str, Node]
    computes: Mapping[str, Compute]
    default_compute: str
    version: str = ""
    owner: str | None = None
    owners_of_group: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exposures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    project_name: str | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def order(self) -> Sequence[str]:
        """Every node after its parents and after the nodes in `after`; checks come last."""
        graph = {
            uid: (*node.parents, *node.after)
            for uid, node in self.nodes.items()
            if node.kind not in CHECK_KINDS
        }
        if not _is_ordered(graph):
            order = TopologicalSorter(graph).static_order()
            graph = {uid: graph[uid] for uid in order if uid in graph}
        return [*graph, *self.checks]

    @cached_property
    def assets(self) -> Mapping[str, Node]:
        """Models, seeds and snapshots by unique id, in dependency order."""
        return {uid: self.nodes[uid] for uid in self.order if self.nodes[uid].kind in ASSET_KINDS}

    @cached_property
    def sources(self) -> Mapping[str, Node]:
        """Sources by unique id, sorted."""
        sources = (uid for uid, node in self.nodes.items() if node.kind == "source")
        return {uid: self.nodes[uid] for uid in sorted(sources)}

    @cached_property
    def checks(self) -> Mapping[str, Node]:
        """Data tests, unit tests and quality checks by unique id."""
        return {uid: node for uid, node in self.nodes.items() if node.kind in CHECK_KINDS}

    @cached_property
    def tests(self) -> Mapping[str, Node]:
        """The checks that dbt runs: data tests and unit tests by unique id."""
        return {uid: node for uid, node in self.checks.items() if node.kind in TEST_KINDS}

    @cached_property
    def quality_checks(self) -> Mapping[str, Node]:
        """Quality checks of floe.yaml by unique id; they are never part of a dbt command."""
        return {uid: node for uid, node in self.checks.items() if node.kind == QUALITY_CHECK}

    @cached_property
    def folded_parents(self) -> Mapping[str, tuple[str, ...]]:
        """Parents that are assets or sources, with inlined nodes resolved; sorted and unique."""
        return fold(self.nodes, self.order)

    @cached_property
    def checks_on(self) -> Mapping[str, tuple[str, ...]]:
        """Checks by the unique id of the node that shows them."""
        grouped: defaultdict[str, list[str]] = defaultdict(list)
        for uid, check in self.checks.items():
            grouped[check.on].append(uid)
        return {on: tuple(uids) for on, uids in grouped.items()}

    @cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """Assets by the asset or source that they read directly, also through boundary edges."""
        grouped: defaultdict[str, list[str]] = defaultdict(list)
        for uid, node in self.assets.items():
            for parent in {*self.folded_parents[uid], *node.after}:
                grouped[parent].append(uid)
        return {parent: tuple(uids) for parent, uids in grouped.items()}

    @cached_property
    def _below(self) -> Mapping[str, int]:
        """Assets below each node as bits, numbered as in `assets`.

        With bits, the assets below many nodes take a few operations on integers.
        """
        own = {uid: 1 << number for number, uid in enumerate(self.assets)}
        below = dict.fromkeys(self.nodes, 0)
        for uid in reversed(self.order):
            if self.nodes[uid].kind in CHECK_KINDS:
                continue
            reached = below[uid] | own.get(uid, 0)
            for parent in (*self.nodes[uid].parents, *self.nodes[uid].after):
                if parent in below:
                    below[parent] |= reached
        return below

    def below_any(self, unique_ids: Iterable[str]) -> set[str]:
        """Return the assets below at least one of the nodes."""
        return self._decode(reduce(or_, (self._below.get(uid, 0) for uid in unique_ids), 0))

    def below_all(self, unique_ids: Iterable[str]) -> set[str]:
        """Return the assets below every one of the nodes; no assets for no nodes."""
        below = [self._below[uid] for uid in unique_ids if uid in self._below]
        return self._decode(reduce(and_, below)) if below else set()

    def _decode(self, bits: int) -> set[str]:
        return set(compress(self.assets, map(int, reversed(f"{bits:b}"))))

    def target_of(self, unique_id: str) -> str:
        """Return the dbt target of a node."""
        return self.computes[self.nodes[unique_id].compute].target

    def functions_of(self, unique_ids: Iterable[str]) -> Sequence[str]:
        """Return the dbt functions that nodes call, also through inlined nodes."""
        return [uid for uid in self._inlined(unique_ids) if self.nodes[uid].kind == "function"]

    def ephemerals_of(self, unique_ids: Iterable[str]) -> Sequence[str]:
        """Return the ephemeral models that dbt inlines into nodes, also through inlined nodes."""
        return [uid for uid in self._inlined(unique_ids) if self.nodes[uid].kind == "ephemeral"]

    def _inlined(self, unique_ids: Iterable[str]) -> Sequence[str]:
        inlined: dict[str, None] = {}
        queue = list(unique_ids)
        while queue:
            uid = queue.pop()
            for parent in self.nodes[uid].parents if uid in self.nodes else ():
                node = self.nodes.get(parent)
                if parent not in inlined and node is not None and node.kind in INLINED_KINDS:
                    inlined[parent] = None
                    queue.append(parent)
        return tuple(inlined)


def _is_ordered(graph: Mapping[str, Sequence[str]]) -> bool:
    """Return whether every node comes after its parents in the graph."""
    passed: set[str] = set()
    for uid, parents in graph.items():
        if any(parent not in passed and parent in graph for parent in parents):
            return False
        passed.add(uid)
    return True


def fold(nodes: Mapping[str, Node], order: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the parents of each node, with each inlined node replaced by its own parents.

    `order` contains the nodes, each after its parents.
    """
    folded: dict[str, tuple[str, ...]] = {}
    for uid in order:
        parents: set[str] = set()
        for parent in nodes[uid].parents:
            node = nodes.get(parent)
            if node is None:
                continue
            if node.kind in INLINED_KINDS:
                parents.update(folded[parent])
            elif node.kind not in CHECK_KINDS:
                parents.add(parent)
        folded[uid] = tuple(sorted(parents))
    return folded
