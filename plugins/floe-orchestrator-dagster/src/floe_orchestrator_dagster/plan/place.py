"""Gives every node of dbt's manifests its compute, its key and its boundary edges."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from floe_orchestrator_dagster.errors import Problem, known
from floe_orchestrator_dagster.plan.compiled import Names, unknown_dependency
from floe_orchestrator_dagster.plan.cycles import cycles
from floe_orchestrator_dagster.plan.meta import with_usable_meta
from floe_orchestrator_dagster.plan.model import ASSET_KINDS, INLINED_KINDS, Node, fold
from floe_orchestrator_dagster.plan.names import (
    asset_path,
    check_name,
    default_path,
    distinct_keys,
    has_meta_key,
    key_warnings,
    shown_name,
    with_mark,
)
from floe_orchestrator_dagster.plan.preflight import same_relation
from floe_orchestrator_dagster.plan.quality import meaning, meaning_of, quality_nodes, why_not

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.plan.compiled import CompiledProduct, Transform
    from floe_orchestrator_dagster.plan.manifest import DbtManifest, DbtNode
    from floe_orchestrator_dagster.plan.model import AssetPath, Compute, Kind, QualityCheck

_PLACED = ASSET_KINDS | {"source", "function"}


class Placer:
    """Places the nodes of a product's manifests, and collects problems and warnings."""

    def __init__(
        self,
        product: CompiledProduct,
        computes: Mapping[str, Compute],
        manifests: Mapping[str, DbtManifest],
    ) -> None:
        self.product = product
        self.computes = computes
        self.manifests = manifests
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.nodes: dict[str, Node] = {}
        self._transforms = {transform.name: transform for transform in product.transforms}
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        default = computes.get(product.default_compute)
        self._base = (
            manifests[default.target]
            if default and default.target in manifests
            else next(iter(manifests.values()))
        )

    def place(self) -> Mapping[str, Node]:
        """Return every node with its compute, its key and its boundary edges."""
        for uid, dbt in self._every.items():
            if dbt.resource_type in _PLACED:
                self._place_node(uid, dbt)
        self._inline_by_target()
        self._settle_keys()
        self._settle_names()
        self._refuse_cycles()
        self._settle_ephemerals()
        self._mark_boundaries()
        self._cut_feedback()
        for uid, dbt in self._every.items():
            if dbt.resource_type == "test":
                self._place_test(uid)
            elif dbt.resource_type == "unit_test":
                self._place_unit_test(uid, dbt)
        self._place_quality_checks()
        self._compare_transforms()
        # Parents come first, so that a plan is usually in order; boundary edges may change that.
        return {uid: self.nodes[uid] for uid in dict.fromkeys((*self._position, *self.nodes))}

    @cached_property
    def _every(self) -> Mapping[str, DbtNode]:
        """Everything in any manifest; if manifests differ, as on the default compute."""
        every: dict[str, DbtNode] = {}
        for nodes in self._by_target.values():
            every |= nodes
        for target, manifest in self.manifests.items():
            if manifest is self._base:
                every |= self._by_target[target]
        # The plan must not depend on the order in which dbt wrote the nodes.
        return dict(sorted(every.items()))

    @cached_property
    def _by_target(self) -> Mapping[str, Mapping[str, DbtNode]]:
        """The nodes that dbt runs or reads on each target."""
        return {
            target: {
                uid: dbt
                for nodes in (one.nodes, one.sources, one.functions, one.unit_tests)
                for uid, dbt in nodes.items()
                if _is_run(dbt)
            }
            for target, one in self.manifests.items()
        }

    @cached_property
    def _position(self) -> Mapping[str, int]:
        """The position of each node in dependency order, without tests."""
        graph = {uid: node.parents for uid, node in self.nodes.items()}
        order = [uid for uid in TopologicalSorter(graph).static_order() if uid in self.nodes]
        return {uid: at for at, uid in enumerate(order)}

    @cached_property
    def _folded(self) -> Mapping[str, tuple[str, ...]]:
        return fold(self.nodes, self._position)

    @cached_property
    def _readers(self) -> Mapping[str, Sequence[str]]:
        """Computes of the assets that read each node, directly or through ephemerals."""
        readers: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for uid, node in self.nodes.items():
            if node.kind in ASSET_KINDS:
                for parent in self._folded[uid]:
                    readers[parent][node.compute] = None
        return {uid: tuple(computes) for uid, computes in readers.items()}

    @cached_property
    def _own_names(self) -> frozenset[str]:
        """Names of the models, seeds and snapshots of the root project."""
        return frozenset(
            dbt.name
            for dbt in self._every.values()
            if dbt.resource_type in ASSET_KINDS
            and dbt.package_name == self._base.metadata.project_name
        )

    def _on_compute(self, uid: str, compute: str) -> DbtNode | None:
        """Return a node as it is on the target of a compute; None if it is disabled there."""
        if len(self.manifests) == 1:
            return self._every.get(uid)
        known_compute = self.computes.get(compute)
        if known_compute is None or known_compute.target not in self._by_target:
            return self._every[uid]
        return self._by_target[known_compute.target].get(uid)

    # --- models, seeds, snapshots, sources, functions

    def _place_node(self, uid: str, dbt: DbtNode) -> None:
        transform = self._transform_of(dbt)
        compute = transform.compute if transform else self.product.default_compute
        here = self._on_compute(uid, compute)
        if here is None and transform is None:
            # floe.yaml does not name a compute, so a compute that has the node enabled builds it.
            compute = next(name for name in self.computes if self._on_compute(uid, name))
            here = self._on_compute(uid, compute)
        if transform is not None:
            self._named[transform.name].append(uid)
        if here is None:
            self.problems.append(
                Problem(
                    f"dbt {dbt.resource_type} '{dbt.name}'",
                    f"It does not exist on target '{self.computes[compute].target}', where compute "
                    f"'{compute}' would build it (enabled for another target only?).",
                    "Enable it for that target or choose another compute in floe.yaml.",
                )
            )
            here = dbt
        here = self._with_usable_meta(here)
        self.nodes[uid] = Node(
            unique_id=uid,
            kind=_kind(here),
            compute=compute,
            parents=here.depends_on.nodes,
            key=asset_path(here),
            name=shown_name(here),
            relation=here.relation_name,
            materialized=here.config.materialized,
            tags=tuple(dict.fromkeys((*here.tags, *(transform.tags if transform else ())))),
            tier=transform.tier if transform else None,
            dbt=here.facts(),
        )

    def _transform_of(self, dbt: DbtNode) -> Transform | None:
        """Return the transform that names this node; a node of the root project comes first."""
        if dbt.resource_type not in ASSET_KINDS:
            return None
        if dbt.package_name != self._base.metadata.project_name and dbt.name in self._own_names:
            return None
        return self._transforms.get(dbt.name)

    def _with_usable_meta(self, dbt: DbtNode) -> DbtNode:
        usable, warnings, problems = with_usable_meta(dbt)
        self.warnings += warnings
        self.problems += problems
        return usable

    # --- models that are inlined on one target and a relation on another

    def _inline_by_target(self) -> None:
        """Give each node the parents that it has on its own target."""
        if not self._two_faced:
            return
        left = [uid for uid, node in self.nodes.items() if node.kind in ASSET_KINDS]
        while left:
            uid = left.pop()
            node = self.nodes[uid]
            reads = self._really_read(node.parents, node.compute)
            self.nodes[uid] = replace(node, parents=reads)
            left += [
                parent
                for parent in reads
                if parent in self._two_faced and self._is_built_on(parent, node.compute)
            ]

    def _is_built_on(self, uid: str, compute: str) -> bool:
        """Return whether an ephemeral node is now built on the compute of its reader.

        The compute of the node inlines it, so no other compute builds the relation that the reader
        needs.
        """
        here, node = self._on_compute(uid, compute), self.nodes[uid]
        if node.kind != "ephemeral" or here is None or _kind(here) == "ephemeral":
            return False
        self.nodes[uid] = replace(
            node,
            kind=_kind(here),
            compute=compute,
            parents=here.depends_on.nodes,
            key=asset_path(here),
            relation=here.relation_name,
            materialized=here.config.materialized,
            dbt=self._with_usable_meta(here).facts(),
        )
        return True

    @cached_property
    def _two_faced(self) -> frozenset[str]:
        """Models that only some targets inline, or inline with different parents: few or none."""
        if len(self.manifests) == 1:
            return frozenset()
        inlined = {
            uid
            for nodes in self._by_target.values()
            for uid, dbt in nodes.items()
            if _is_ephemeral(dbt)
        }
        versions = {
            uid: [nodes[uid] for nodes in self._by_target.values() if uid in nodes]
            for uid in inlined
        }
        faced = {
            uid
            for uid, on_targets in versions.items()
            if len({(_kind(dbt), dbt.depends_on.nodes) for dbt in on_targets}) > 1
        }
        # A model that inlines one of them differs in the same way.
        has_changed = True
        while faced and has_changed:
            above = {
                uid
                for uid in inlined - faced
                if not faced.isdisjoint(versions[uid][0].depends_on.nodes)
            }
            faced |= above
            has_changed = bool(above)
        return frozenset(faced)

    def _really_read(self, uids: Sequence[str], compute: str) -> tuple[str, ...]:
        """Return what a node on a compute reads if it refers to `uids`, in order."""
        if self._two_faced.isdisjoint(uids):
            return tuple(uids)
        read: dict[str, None] = {}
        left = [*reversed(uids)]
        seen = set()
        while left:
            uid = left.pop()
            here = self._on_compute(uid, compute) if uid in self._two_faced else None
            if here is None or not _is_ephemeral(here):
                read[uid] = None
            elif uid not in seen:
                seen.add(uid)
                left += reversed(here.depends_on.nodes)
        return tuple(read)

    # --- asset keys

    def _settle_keys(self) -> None:
        apart = distinct_keys(self.nodes.values(), self._base.metadata.project_name, has_meta_key)
        for uid, key in apart.items():
            self.nodes[uid] = replace(self.nodes[uid], key=key)
        self.warnings += key_warnings(apart)

    def _settle_names(self) -> None:
        """Add the package to the name of a package's node if another node has the same name."""
        counted = Counter(node.name for node in self.nodes.values() if node.kind in ASSET_KINDS)
        if len(counted) == counted.total():
            return
        for uid, node in self.nodes.items():
            package = node.dbt.package_name if node.dbt else ""
            if counted[node.name] > 1 and package != self._base.metadata.project_name:
                self.nodes[uid] = replace(node, name=f"{package}.{node.name}")

    def _refuse_cycles(self) -> None:
        try:
            self._position  # noqa: B018  the property fails on cycles
        except CycleError:
            self._report_cycles()

    def _report_cycles(self) -> None:
        """Report every cycle, and remove all edges so that planning can continue."""
        self.problems += (
            Problem(
                "dbt models",
                f"Circular dependency: {self._path(ring)}.",
                "Remove one of these ref() calls.",
            )
            for ring in cycles({uid: node.parents for uid, node in self.nodes.items()})
        )
        for uid, node in self.nodes.items():
            self.nodes[uid] = replace(node, parents=())

    def _path(self, uids: Iterable[str]) -> str:
        return " -> ".join(self.nodes[uid].name for uid in uids)

    def _settle_ephemerals(self) -> None:
        """Give each ephemeral the compute of its consumers, which must have one SQL dialect."""
        if not any(node.kind == "ephemeral" for node in self.nodes.values()):
            return
        users: defaultdict[str, set[str]] = defaultdict(set)
        for uid in reversed([*self._position]):
            node = self.nodes[uid]
            own = {node.compute} if node.kind in ASSET_KINDS else users[uid]
            for parent in node.parents:
                users[parent] |= own
        for uid in self._position:
            node = self.nodes[uid]
            if node.kind != "ephemeral":
                continue
            computes = users[uid] & self.computes.keys()
            adapters = {self.computes[name].adapter for name in computes}
            if len(adapters) > 1:
                self.problems.append(
                    Problem(
                        f"dbt model '{node.name}'",
                        f"It is ephemeral and inlined on computes of {len(adapters)} SQL dialects "
                        f"({known(computes)}).",
                        "Materialize it as a view or table, or build its consumers on one compute.",
                    )
                )
            compute = min(computes, default=self._compute_of_unused(uid))
            if self._is_named(uid) and node.compute != compute:
                self.warnings.append(
                    f"dbt model '{node.name}' is ephemeral: it is inlined on '{compute}', where "
                    f"its consumers are built, not on '{node.compute}'."
                )
            self.nodes[uid] = replace(node, compute=compute)

    def _is_named(self, uid: str) -> bool:
        """Return whether floe.yaml names a node."""
        dbt = self.nodes[uid].dbt
        return dbt is not None and uid in self._named.get(dbt.name, ())

    def _compute_of_unused(self, uid: str) -> str:
        """Return the compute of an ephemeral that only tests read: the compute of its parents."""
        if self._is_named(uid):
            return self.nodes[uid].compute
        above = [parent for parent in self._folded[uid] if self.nodes[parent].kind in ASSET_KINDS]
        last = max(above, key=self._position.__getitem__, default=uid)
        return self.nodes[last].compute

    # --- sources that the product builds

    def _mark_boundaries(self) -> None:
        """Add edges to the builders of sources that the product builds; dbt does not know these."""
        if not self._built_sources:
            return
        for uid, node in [*self.nodes.items()]:
            if node.kind == "source":
                feeders = self._feeders([uid], node.compute)
            elif node.kind in ASSET_KINDS:
                feeders = self._feeders(self._folded[uid], node.compute)
            else:
                continue
            if feeders - {uid}:
                self.nodes[uid] = replace(node, after=tuple(sorted(feeders - {uid})))

    @cached_property
    def _builders(self) -> Mapping[str, str]:
        """Assets by the relation that they build."""
        builders: dict[str, str] = {}
        for uid, node in self.nodes.items():
            if node.kind in ASSET_KINDS and node.relation:
                builders.setdefault(same_relation(node.relation), uid)
        return builders

    @cached_property
    def _built_sources(self) -> frozenset[str]:
        """Sources whose table the product builds, on any compute: few or none."""
        return frozenset(
            uid
            for uid, node in self.nodes.items()
            if node.kind == "source"
            and (
                self._loader(uid) is not None
                or any(self._relation(uid, name) in self._builders for name in self.computes)
            )
        )

    def _loader(self, source: str) -> str | None:
        """Return the asset of the product that loads a source, according to the source's meta."""
        node = self.nodes[source]
        return self._assets_by_key.get(node.key) if has_meta_key(node) else None

    @cached_property
    def _assets_by_key(self) -> Mapping[AssetPath, str]:
        return {node.key: uid for uid, node in self.nodes.items() if node.kind in ASSET_KINDS}

    def _feeders(self, reads: Iterable[str], compute: str) -> set[str]:
        """Return the assets that build the tables behind the sources among `reads`."""
        feeders = set()
        for uid in self._built_sources.intersection(reads):
            relation = self._relation(uid, compute)
            builder = self._builders.get(relation) or self._loader(uid)
            if builder is not None:
                feeders.add(builder)
        return feeders

    def _relation(self, uid: str, compute: str) -> str:
        """Return the comparable name of a node's relation on a compute; '' without one."""
        here = self._on_compute(uid, compute)
        return same_relation(here.relation_name or "") if here else ""

    def _cut_feedback(self) -> None:
        """Remove boundary edges of cycles; the node then reads what the previous run wrote."""
        while any(node.after for node in self.nodes.values()):
            graph = {uid: (*node.parents, *node.after) for uid, node in self.nodes.items()}
            ring = next(cycles(graph), None)
            if ring is None:
                return
            for reader, builder in pairwise(ring):
                if builder in self.nodes[reader].after:
                    self._cut(reader, builder, self._path(ring))

    def _cut(self, reader: str, builder: str, path: str) -> None:
        node, built = self.nodes[reader], self.nodes[builder]
        left = tuple(uid for uid in node.after if uid != builder)
        self.nodes[reader] = replace(node, after=left)
        if node.kind == "source":
            return
        for uid in self._folded[reader]:
            if self.nodes[uid].key == built.key:
                self._leave_key(uid, builder)
        self.warnings.append(
            f"dbt {node.kind} '{node.name}' reads a source that is the table of '{built.name}', "
            f"which is built below it ({path}): it reads what the previous run wrote there."
        )

    def _leave_key(self, source: str, builder: str) -> None:
        """Give a source a different key than the asset that builds its table.

        The readers of the source are above this asset, so one key for both would be a cycle in
        Dagster.
        """
        node = self.nodes[source]
        key = default_path(node.dbt) if node.dbt is not None else node.key
        taken = {other.key for other in self.nodes.values() if other.kind in ASSET_KINDS}
        if key in taken:
            key = (*key[:-1], with_mark(key[-1], source))
        self.nodes[source] = replace(node, key=key)
        built = self.nodes[builder].name
        self.warnings.append(
            f"dbt source '{node.name}' has the asset key {'/'.join(key)} instead of the key of "
            f"'{built}'. The readers of the source are built before '{built}', so one key for both "
            "would be a cycle in Dagster."
        )

    # --- tests

    def _place_test(self, uid: str) -> None:
        settled = self._settled_test(uid)
        if settled is None:
            return
        dbt, able, reads = settled
        here = self._with_usable_meta(dbt)
        on = self._asset_of_test(here, reads) if reads else self._asset_for_unread(here, able[0])
        if on is None:
            self._warn_without_asset(here)
            return
        parents = self._really_read(here.depends_on.nodes, able[0])
        severe = (here.config.severity or "error").lower() == "error"
        self.nodes[uid] = Node(
            unique_id=uid,
            kind="test",
            compute=able[0],
            also_on=tuple(able[1:]),
            parents=parents,
            after=tuple(sorted(self._feeders(reads, able[0]))),
            name=check_name(here.name),
            on=on,
            # A test without parents has no nodes below it, so it cannot stop any.
            blocking=severe and bool(parents),
            tags=here.tags,
            dbt=here.facts(),
        )

    def _warn_without_asset(self, dbt: DbtNode) -> None:
        self.warnings.append(
            f"dbt {dbt.resource_type.replace('_', ' ')} '{dbt.name}' does not run: the product has "
            "no asset to show it on. Add a model."
        )

    def _settled_test(self, uid: str) -> tuple[DbtNode, Sequence[str], Sequence[str]] | None:
        """Return a test as it is on the target that runs it, the possible computes, and its reads.

        The reads of a test decide which target runs it, but may differ between targets. So this
        returns the first target that its own reads choose, starting with the default compute.
        """
        if len(self.manifests) == 1:
            dbt = self._every[uid]
            reads = self._reads(dbt, self.product.default_compute)
            return dbt, self._computes_for(uid, dbt, reads), reads
        enabled = [
            name
            for name in dict.fromkeys((self.product.default_compute, *self.computes))
            if self._on_compute(uid, name)
        ]
        for name in enabled:
            dbt = self._on_compute(uid, name) or self._every[uid]
            reads = self._reads(dbt, name)
            able = self._computes_for(uid, dbt, reads)
            alike = [other for other in able if self._is_alike(uid, dbt, other)]
            if alike and able[0] == alike[0]:
                return self._on_compute(uid, able[0]) or dbt, alike, reads
        self.warnings.append(
            f"dbt test '{self._every[uid].name}' is enabled only on computes that cannot read its "
            f"parents ({known(enabled)}): it is not a check and does not run."
        )
        return None

    def _is_alike(self, uid: str, dbt: DbtNode, compute: str) -> bool:
        """Return whether a test has the same parents and settings on a compute."""
        here = self._on_compute(uid, compute)
        return here is dbt or (
            here is not None
            and here.depends_on == dbt.depends_on
            and here.config.severity == dbt.config.severity
            and here.name == dbt.name
            and self._two_faced.isdisjoint(dbt.depends_on.nodes)
        )

    def _reads(self, dbt: DbtNode, compute: str) -> list[str]:
        """Return what a test reads on a compute, with inlined nodes resolved, in order."""
        reads: dict[str, None] = {}
        for uid in self._really_read(dbt.depends_on.nodes, compute):
            node = self.nodes.get(uid)
            if node is None:
                continue
            if node.kind in INLINED_KINDS:
                reads |= dict.fromkeys(self._folded[uid])
            else:
                reads[uid] = None
        return list(reads)

    def _computes_for(self, uid: str, dbt: DbtNode, reads: Sequence[str]) -> Sequence[str]:
        """Return the computes that can run a test, starting with the one that builds last."""
        if len(self.computes) == 1:
            return [*self.computes]
        direct = [self.nodes[parent] for parent in dbt.depends_on.nodes if parent in self.nodes]
        # dbt inlines an ephemeral in the test, in the dialect of the ephemeral's compute.
        inlined = [node for node in direct if node.kind in INLINED_KINDS]
        near = [node for node in inlined if node.kind == "ephemeral"] or [
            self.nodes[parent] for parent in reads if self.nodes[parent].kind in ASSET_KINDS
        ]
        near.sort(key=lambda node: self._position[node.unique_id], reverse=True)
        default = self.product.default_compute
        computes = [node.compute for node in near] or [
            *(compute for parent in reads for compute in self._readers.get(parent, ())),
            default,
        ]
        enabled = [name for name in dict.fromkeys(computes) if self._on_compute(uid, name)]
        able = [name for name in enabled if self._sees(name, reads, home=enabled[0])]
        if able or enabled:
            return able or enabled[:1]
        # The computes that build its parents have it disabled. Another one that can read them may
        # run it.
        others = [name for name in (default, *self.computes) if self._on_compute(uid, name)]
        return [name for name in dict.fromkeys(others) if self._sees(name, reads, home=default)]

    def _sees(self, compute: str, reads: Iterable[str], home: str) -> bool:
        """Return whether a compute has the same names for these tables; sources as on `home`."""
        for uid in reads:
            node = self.nodes[uid]
            written_on = home if node.kind == "source" else node.compute
            if written_on == compute:
                continue
            relation = self._relation(uid, compute)
            if not relation or relation != self._relation(uid, written_on):
                return False
        return True

    @cached_property
    def _by_reference(self) -> Mapping[tuple[str, str, str], str]:
        return {
            (node.dbt.name, node.dbt.package_name, str(node.dbt.version)): uid
            for uid, node in self.nodes.items()
            if node.kind in ASSET_KINDS and node.dbt is not None
        }

    def _asset_of_test(self, dbt: DbtNode, reads: Sequence[str]) -> str:
        """Choose the asset that shows a test, as dagster-dbt does; else the first of its reads."""
        fallback = self._attached(dbt, reads) or reads[0]
        named = self._asset_of_ref(dbt)
        if named is None or named in reads:
            return named or fallback
        self.warnings.append(
            f"dbt test '{dbt.name}': meta.dagster.ref names "
            f"'{dbt.dagster_meta['ref']['name']}', which the test does not read; it is shown on "
            f"'{self.nodes[fallback].name}' instead."
        )
        return fallback

    @staticmethod
    def _attached(dbt: DbtNode, reads: Sequence[str]) -> str | None:
        """Return the node for which a generic test is declared, if the test reads it."""
        attached = dbt.attached_node
        if attached is None or attached in reads:
            return attached
        # dbt names the model of a package even if the project overrides this model.
        same = [uid for uid in reads if uid.split(".")[2:] == attached.split(".")[2:]]
        return same[0] if same else None

    def _asset_of_ref(self, dbt: DbtNode) -> str | None:
        """Return the asset that `meta.dagster.ref` names; "" if it does not exist."""
        ref = dbt.dagster_meta.get("ref")
        if not ref:
            return None
        package = ref.get("package") or self._base.metadata.project_name
        named = (str(ref.get("name")), str(package), str(ref.get("version")))
        return self._by_reference.get(named, "")

    def _asset_for_unread(self, dbt: DbtNode, compute: str) -> str | None:
        """Choose the asset that shows a test which reads no asset; see docs/decisions/0012.

        This is the asset that `meta.dagster.ref` names, else the first asset that inlines a parent
        of the test, else the last asset of the compute that runs the test.
        """
        named = self._asset_of_ref(dbt)
        if named:
            return named
        inlined = {*dbt.depends_on.nodes}
        last = anywhere = None
        for uid in self._position:
            node = self.nodes[uid]
            if node.kind in INLINED_KINDS and not inlined.isdisjoint(node.parents):
                inlined.add(uid)
            elif node.kind in ASSET_KINDS:
                if not inlined.isdisjoint(node.parents):
                    return uid
                anywhere = uid
                last = uid if node.compute == compute else last
        return last or anywhere or next(iter(self._sources), None)

    @cached_property
    def _sources(self) -> Sequence[str]:
        return sorted(uid for uid, node in self.nodes.items() if node.kind == "source")

    def _place_unit_test(self, uid: str, dbt: DbtNode) -> None:
        # dbt also uses the first parent.
        model = next(iter(dbt.depends_on.nodes), "")
        node = self.nodes.get(model)
        if node is None:
            self.warnings.append(
                f"dbt unit test '{dbt.name}' tests '{dbt.model}', which dbt does not run: it is "
                "not a check and does not run."
            )
            return
        here = self._on_compute(uid, node.compute)
        if here is None:
            self.warnings.append(
                f"dbt unit test '{dbt.name}' is disabled on compute '{node.compute}', which builds "
                f"'{node.name}': it is not a check and does not run."
            )
            return
        here = self._with_usable_meta(here)
        on = model if node.kind in ASSET_KINDS else self._asset_for_unread(here, node.compute)
        if on is None:
            self._warn_without_asset(here)
            return
        self.nodes[uid] = Node(
            unique_id=uid,
            kind="unit_test",
            compute=node.compute,
            parents=(model,),
            name=check_name(here.name),
            on=on,
            tags=here.tags,
            dbt=here.facts(),
        )

    # --- the transforms and quality checks of floe.yaml

    def _place_quality_checks(self) -> None:
        """Add the quality checks that no dbt test covers and a generic test of dbt can run."""
        requested = {
            uid: transform.quality_checks
            for transform in self.product.transforms
            if transform.quality_checks
            for uid in self._named[transform.name]
        }
        if not requested:
            return
        meanings: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for uid, dbt in self._every.items():
            test = dbt.test_metadata
            if test and uid in self.nodes and (on := self.nodes[uid].on) in requested:
                meanings[on].append(meaning(test.name, test.kwargs))
        runnable = {uid.rpartition(".")[2] for uid in self._base.macros}
        kept: list[tuple[str, Node, QualityCheck]] = []
        for uid in self._position:
            node = self.nodes[uid]
            for check in requested.get(uid, ()):
                if meaning_of(check) in meanings[uid]:
                    continue
                other = self.computes[node.compute].dbt_executable
                reason = why_not(node, check, runnable, other)
                if reason:
                    about = f"quality check '{check.name}' of '{node.name}'"
                    self.warnings.append(f"{about}: {reason}")
                else:
                    kept.append((node.dbt.package_name if node.dbt else "", node, check))
        self.nodes |= quality_nodes(kept)

    def _compare_transforms(self) -> None:
        """Compare the transforms with dbt: a problem if one cannot run, a warning if it can."""
        models = {
            node.dbt.name
            for node in self.nodes.values()
            if node.kind in ASSET_KINDS | {"ephemeral"} and node.dbt is not None
        }
        names, feeders = Names(models), Names({*models, *self._source_names()})
        for index, transform in enumerate(self.product.transforms):
            uids = self._named[transform.name]
            if not uids and transform.name in self._idle_names:
                self.warnings.append(
                    f"transforms.models[{index}].name: '{transform.name}' is disabled or empty in "
                    "dbt: it is not built."
                )
                continue
            if not uids:
                self.problems.append(
                    Problem(
                        f"transforms.models[{index}].name",
                        f"dbt has no model, seed or snapshot '{transform.name}'."
                        f"{names.near(transform.name)}",
                        "Correct the name in floe.yaml, or add the model to the dbt project.",
                    )
                )
                continue
            if len(packages := self._packages(uids)) > 1:
                self.warnings.append(
                    f"transforms.models[{index}].name: the dbt packages {known(packages)} each "
                    f"contain a node '{transform.name}'. Compute '{transform.compute}' builds all "
                    "of them."
                )
            if not transform.depends_on:
                continue
            above = {
                dbt.name
                for uid in uids
                for parent in self.nodes[uid].parents
                if parent in self.nodes and (dbt := self.nodes[parent].dbt)
            }
            for parent in transform.depends_on:
                if parent in self._idle_names and parent not in feeders:
                    continue
                if parent not in feeders:
                    self.problems.append(unknown_dependency(index, transform, parent, feeders))
                elif parent not in above and parent.rpartition(".")[2] not in above:
                    self.warnings.append(
                        f"transforms.models[{index}].depends_on: '{transform.name}' does not "
                        f"depend on '{parent}' in dbt. The plan follows dbt's graph; correct "
                        "dependsOn in floe.yaml."
                    )

    @cached_property
    def _idle_names(self) -> Collection[str]:
        """Names of models, seeds and snapshots in dbt that do not run on any target."""
        uids = {uid for manifest in self.manifests.values() for uid in manifest.disabled}
        uids |= {uid for manifest in self.manifests.values() for uid in manifest.nodes}
        uids -= self._every.keys()
        return {uid.split(".")[2] for uid in uids if uid.split(".")[0] in ASSET_KINDS}

    def _packages(self, uids: Sequence[str]) -> Collection[str]:
        """Return the dbt packages of several nodes; one node needs no comparison."""
        if len(uids) == 1:
            return ()
        return {dbt.package_name for uid in uids if (dbt := self.nodes[uid].dbt)}

    def _source_names(self) -> Iterator[str]:
        for node in self.nodes.values():
            if node.kind == "source" and node.dbt is not None:
                yield node.name
                yield f"{node.dbt.source_name}.{node.name}"


def _is_run(dbt: DbtNode) -> bool:
    """Return whether dbt runs a node: it leaves out disabled nodes and files without code."""
    if not dbt.config.enabled:
        return False
    code = dbt.raw_code
    return not (
        code is not None
        and dbt.resource_type in {"model", "snapshot", "test"}
        and (not code or code.isspace())
    )


def _is_ephemeral(dbt: DbtNode) -> bool:
    return dbt.resource_type == "model" and dbt.config.materialized == "ephemeral"


def _kind(dbt: DbtNode) -> Kind:
    if _is_ephemeral(dbt):
        return "ephemeral"
    return dbt.resource_type  # type: ignore[return-value]  # its kind is in _PLACED
