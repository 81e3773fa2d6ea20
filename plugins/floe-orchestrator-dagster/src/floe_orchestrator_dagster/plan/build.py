"""Planning: a compiled product and dbt's manifests become a `ProductPlan`, or one full error."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.errors import PlanError, Problem, did_you_mean, known
from floe_orchestrator_dagster.plan.manifest import SUPPORTED_SCHEMAS, DbtManifest, DbtNode
from floe_orchestrator_dagster.plan.model import (
    ASSET_KINDS,
    AssetPath,
    Compute,
    Node,
    ProductPlan,
    QualityCheck,
)
from floe_orchestrator_dagster.plan.preflight import preflight, same_relation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# What Dagster takes in an asset key that is also an output name.
_KEY_PART = re.compile(r"[A-Za-z0-9_.-]+")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Transform:
    """A model of floe.yaml as the compiler left it."""

    name: str
    compute: str
    depends_on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tier: str | None = None
    quality_checks: tuple[QualityCheck, ...] = ()


@dataclass(frozen=True)
class CompiledProduct:
    """What compiled_artifacts.json says of a product."""

    name: str
    transforms: tuple[Transform, ...] = ()
    default_compute: str = ""
    version: str = ""
    owner: str | None = None
    profiles: Mapping[str, Any] = field(default_factory=dict)
    config: PluginConfig = field(default_factory=PluginConfig)
    artifacts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def computes_named(self) -> tuple[str, ...]:
        """Computes that the product names, the default first."""
        names = [self.default_compute, *(transform.compute for transform in self.transforms)]
        return tuple(dict.fromkeys(filter(None, names)))


def dagster_name(name: str) -> str:
    """Return `name` as Dagster takes it for jobs, schedules, ops and checks (``[A-Za-z0-9_]``)."""
    return _NOT_IN_NAME.sub("_", name)


def resolve_computes(
    product: CompiledProduct, outputs: Mapping[str, str]
) -> tuple[dict[str, Compute], list[Problem]]:
    """Find the dbt profile output of every compute.

    `outputs` maps output name to adapter type. In this order: the target that the plugin's config
    names, an output of the compute's name, the only output of that adapter type.
    """
    computes: dict[str, Compute] = {}
    problems: list[Problem] = []
    for name in sorted({*product.config.computes} - {*product.computes_named}):
        near = did_you_mean(name, product.computes_named)
        if near:
            problems.append(
                Problem(
                    f"plugins.orchestrator.config.computes.{name}",
                    f"No model runs on compute '{name}'.{near}",
                    f"Computes of this product: {known(product.computes_named)}.",
                )
            )
    for name in product.computes_named:
        setting = product.config.computes.get(name)
        found = _output_for(name, setting.target if setting else None, outputs)
        if isinstance(found, str):
            resources = setting.resources if setting else None
            computes[name] = Compute(
                name,
                found,
                outputs[found],
                pool=setting.pool if setting else None,
                pool_limit=setting.pool_limit if setting else None,
                resources={"size": {"name": resources}}
                if isinstance(resources, str)
                else resources,
            )
        else:
            users = [model.name for model in product.transforms if model.compute == name]
            where = (
                f"transforms.models[{users[0]}].compute" if users else "transforms.default_compute"
            )
            problems.append(replace(found, path=where))
    return computes, problems


def _output_for(name: str, target: str | None, outputs: Mapping[str, str]) -> str | Problem:
    listed = known(f"{output} ({adapter})" for output, adapter in outputs.items())
    fix = (
        f"Outputs of the dbt profile: {listed}. Name one under "
        f"plugins.orchestrator.config.computes.{name}.target, add an output '{name}' to "
        f"profiles.yml, or choose another compute in floe.yaml."
    )
    if target is not None:
        if target in outputs:
            return target
        return Problem("", f"Compute '{name}' is mapped to target '{target}', no such output.", fix)
    if name in outputs:
        return name
    of_type = sorted(output for output, adapter in outputs.items() if adapter == name)
    if len(of_type) == 1:
        return of_type[0]
    if of_type:
        return Problem(
            "", f"Compute '{name}' fits {len(of_type)} dbt outputs ({known(of_type)}).", fix
        )
    return Problem("", f"Compute '{name}' has no dbt output.{did_you_mean(name, outputs)}", fix)


def plan_product(
    product: CompiledProduct,
    computes: Mapping[str, Compute],
    manifests: Mapping[str, DbtManifest] | None = None,
    problems: Iterable[Problem] = (),
) -> ProductPlan:
    """Return the plan of a product.

    Args:
        product: the compiled product.
        computes: its computes, resolved (see `resolve_computes`).
        manifests: dbt's manifests by target. Without any, the plan is made of the transforms alone.
        problems: what was already found wrong, to be reported together with what is found here.

    Raises:
        PlanError: with every problem found.
    """
    found = [*problems, *_transform_problems(product)]
    warnings: list[str] = []
    if manifests:
        found += _manifest_problems(manifests)
        nodes = _Placer(product, computes, manifests, found, warnings).place()
        found += _odds(product, nodes, warnings)
        groups = {
            group.name: _emails(group.owner.email)
            for manifest in manifests.values()
            for group in manifest.groups.values()
        }
        exposures = {
            exposure.name: exposure.depends_on.nodes
            for manifest in manifests.values()
            for exposure in manifest.exposures.values()
        }
        project_name = next(iter(manifests.values())).metadata.project_name
    else:
        nodes = _nodes_of_transforms(product, computes)
        groups, exposures, project_name = {}, {}, None
    found += _name_problems(nodes)
    if not found:
        plan = ProductPlan(
            name=product.name,
            nodes=nodes,
            computes=dict(computes),
            default_compute=product.default_compute,
            version=product.version,
            owner=product.owner,
            owners_of_group={name: emails for name, emails in groups.items() if emails},
            exposures=exposures,
            project_name=project_name,
            warnings=tuple(warnings),
        )
        found += preflight(plan, manifests or {})
    if found:
        raise PlanError(f"Cannot plan product '{product.name}'", found)
    return plan


def _transform_problems(product: CompiledProduct) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, transform in enumerate(product.transforms):
        if transform.name in seen:
            yield Problem(
                f"transforms.models[{index}].name",
                f"Duplicate name '{transform.name}' (first at models[{seen[transform.name]}]).",
                "Keep one of them in floe.yaml.",
            )
        seen.setdefault(transform.name, index)
    graph: defaultdict[str, list[str]] = defaultdict(list)
    for transform in product.transforms:
        graph[transform.name] += transform.depends_on
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib gives each node before the one that needs it; floe.yaml reads the other way.
        cycle = " -> ".join(reversed(error.args[1]))
        yield Problem(
            "transforms.models",
            f"Circular dependency: {cycle}.",
            "Remove one of these dependsOn entries from floe.yaml.",
        )


def _nodes_of_transforms(
    product: CompiledProduct, computes: Mapping[str, Compute]
) -> dict[str, Node]:
    names = {transform.name for transform in product.transforms}
    return {
        transform.name: Node(
            unique_id=transform.name,
            compute=transform.compute,
            parents=tuple(parent for parent in transform.depends_on if parent in names),
            key=(transform.name,),
            name=transform.name,
            tags=transform.tags,
            tier=transform.tier,
            quality_checks=transform.quality_checks,
        )
        for transform in product.transforms
        if transform.compute in computes
    }


def unknown_dependencies(product: CompiledProduct) -> Iterator[Problem]:
    """Yield a problem for each `depends_on` that names no other transform.

    Only for a plan without manifests: with them, seeds and sources are known too.
    """
    names = {transform.name for transform in product.transforms}
    for index, transform in enumerate(product.transforms):
        for parent in transform.depends_on:
            if parent not in names:
                yield _unknown_dependency(index, transform, parent, names)


def _unknown_dependency(
    index: int, transform: Transform, parent: str, names: Iterable[str]
) -> Problem:
    names = list(names)
    return Problem(
        f"transforms.models[{index}].depends_on",
        f"'{transform.name}' depends on unknown '{parent}'.{did_you_mean(parent, names)}",
        f"Correct dependsOn in floe.yaml; known: {known(names)}.",
    )


def _manifest_problems(manifests: Mapping[str, DbtManifest]) -> Iterator[Problem]:
    for target, manifest in manifests.items():
        if manifest.metadata.dbt_schema_version not in SUPPORTED_SCHEMAS:
            yield Problem(
                f"manifest.json (target {target})",
                f"Written by dbt {manifest.metadata.dbt_version or 'of unknown version'} in schema "
                f"{manifest.metadata.dbt_schema_version or '(none)'}.",
                "Supported is manifest v12: install dbt-core 1.8 to 1.11 and run "
                "`floe-dagster prepare`.",
            )


def _emails(email: str | list[str] | None) -> tuple[str, ...]:
    return (email,) if isinstance(email, str) else tuple(email or ())


class _Placer:
    """Gives every dbt node its compute, key and boundary edges; collects what goes wrong."""

    def __init__(
        self,
        product: CompiledProduct,
        computes: Mapping[str, Compute],
        manifests: Mapping[str, DbtManifest],
        problems: list[Problem],
        warnings: list[str],
    ) -> None:
        self.product = product
        self.computes = computes
        self.manifests = manifests
        self.problems = problems
        self.warnings = warnings
        self.transforms = {transform.name: transform for transform in product.transforms}
        default = computes.get(product.default_compute)
        base = default.target if default and default.target in manifests else next(iter(manifests))
        self.base = manifests[base]
        self.project = self.base.metadata.project_name
        self.nodes: dict[str, Node] = {}

    def place(self) -> dict[str, Node]:
        every: dict[str, DbtNode] = {}
        for manifest in (*self.manifests.values(), self.base):
            every |= manifest.nodes
            every |= manifest.sources
            every |= manifest.functions
        for uid, dbt in every.items():
            if dbt.resource_type in {"model", "seed", "snapshot", "source", "function"}:
                self._place_node(uid, dbt)
        self._mark_boundaries()
        self._settle_ephemerals()
        position = self._positions()
        for uid, dbt in every.items():
            if dbt.resource_type == "test":
                self._place_check(uid, dbt, position)
        for manifest in (*self.manifests.values(), self.base):
            for uid, dbt in manifest.unit_tests.items():
                if uid not in self.nodes:
                    self._place_unit_test(uid, dbt)
        self._settle_quality_checks(every)
        return self.nodes

    def _settle_quality_checks(self, every: Mapping[str, DbtNode]) -> None:
        """Keep the quality checks that dbt has no test for and has a generic test to run with."""
        meanings: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for dbt in every.values():
            if dbt.test_metadata is not None and dbt.attached_node:
                meanings[dbt.attached_node].append(
                    _meaning(dbt.test_metadata.name, dbt.test_metadata.kwargs)
                )
        runnable = {uid.rpartition(".")[2] for uid in self.base.macros}
        for uid, node in self.nodes.items():
            kept = []
            for check in node.quality_checks:
                kind = check.type.rpartition(".")[2]
                if _meaning(kind, check.arguments) in meanings[uid]:
                    continue
                if f"test_{kind}" in runnable:
                    kept.append(check)
                else:
                    self.warnings.append(
                        f"quality check '{check.name}' of '{node.name}': dbt has no generic test "
                        f"'{check.type}', so it does not run. Install the dbt package that has it."
                    )
            if len(kept) != len(node.quality_checks):
                self.nodes[uid] = replace(node, quality_checks=tuple(kept))

    def _place_node(self, uid: str, dbt: DbtNode) -> None:
        transform = self._transform_of(dbt)
        compute = transform.compute if transform else self.product.default_compute
        kind: Literal["model", "seed", "snapshot", "ephemeral", "source", "function"]
        if dbt.resource_type == "source":
            kind, compute = "source", self.product.default_compute
        elif dbt.resource_type == "model" and dbt.config.materialized == "ephemeral":
            kind = "ephemeral"
        else:
            kind = dbt.resource_type  # type: ignore[assignment]  # narrowed by the caller
            own = self._manifest_of(compute)
            if own is not None and kind in ASSET_KINDS:
                if uid not in own.nodes:
                    target = self.computes[compute].target
                    self.problems.append(
                        Problem(
                            f"dbt {dbt.resource_type} '{dbt.name}'",
                            f"It does not exist on target '{target}', where compute '{compute}' "
                            f"would build it (enabled for another target only?).",
                            "Enable it for that target or choose another compute in floe.yaml.",
                        )
                    )
                dbt = own.nodes.get(uid, dbt)
        self.nodes[uid] = Node(
            unique_id=uid,
            kind=kind,
            compute=compute,
            parents=dbt.depends_on.nodes,
            key=asset_path(dbt),
            name=dbt.name,
            relation=dbt.relation_name,
            materialized=dbt.config.materialized,
            tags=tuple(dict.fromkeys((*dbt.tags, *(transform.tags if transform else ())))),
            tier=transform.tier if transform else None,
            quality_checks=transform.quality_checks if transform else (),
            dbt=dbt,
        )

    def _transform_of(self, dbt: DbtNode) -> Transform | None:
        """Return the transform that names this node; the root project's own nodes come first."""
        transform = self.transforms.get(dbt.name)
        if transform is None or dbt.resource_type not in ASSET_KINDS:
            return None
        if dbt.package_name != self.project:
            own = f"{dbt.resource_type}.{self.project}.{dbt.name}"
            if any(uid == own or uid.startswith(f"{own}.") for uid in self.base.nodes):
                return None
        return transform

    def _manifest_of(self, compute: str) -> DbtManifest | None:
        found = self.computes.get(compute)
        return self.manifests.get(found.target) if found else None

    def _mark_boundaries(self) -> None:
        """Note where a source is a table that the product itself builds: dbt does not know."""
        builders: dict[str, str] = {}
        for uid, node in self.nodes.items():
            if node.kind in ASSET_KINDS and node.relation:
                builders.setdefault(same_relation(node.relation), uid)
        fed = {
            uid: builders[same_relation(node.relation)]
            for uid, node in self.nodes.items()
            if node.kind == "source" and node.relation and same_relation(node.relation) in builders
        }
        if not fed:
            return
        for uid, builder in fed.items():
            self.nodes[uid] = replace(self.nodes[uid], after=(builder,))
        order = [*TopologicalSorter({u: n.parents for u, n in self.nodes.items()}).static_order()]
        through: dict[str, set[str]] = {uid: {builder} for uid, builder in fed.items()}
        for uid in order:
            node = self.nodes.get(uid)
            if node is None or node.kind == "source":
                continue
            feeders = {
                feeder
                for parent in node.parents
                if parent in fed or (parent in through and self.nodes[parent].kind == "ephemeral")
                for feeder in through[parent]
            } - {uid}
            if feeders:
                through[uid] = feeders
                self.nodes[uid] = replace(node, after=tuple(sorted(feeders)))
        self._refuse_boundary_cycles()

    def _refuse_boundary_cycles(self) -> None:
        graph = {uid: (*node.parents, *node.after) for uid, node in self.nodes.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle = " -> ".join(self.nodes[uid].name for uid in reversed(error.args[1]))
            self.problems.append(
                Problem(
                    "dbt sources",
                    f"A source is the table that a node below it builds: {cycle}.",
                    "Use ref() for it, or point the source at another table.",
                )
            )
            for uid, node in self.nodes.items():
                self.nodes[uid] = replace(node, after=())

    def _settle_ephemerals(self) -> None:
        """Give an ephemeral its consumers' compute; two dialects cannot share one."""
        users: defaultdict[str, set[str]] = defaultdict(set)
        children: defaultdict[str, list[str]] = defaultdict(list)
        for uid, node in self.nodes.items():
            for parent in node.parents:
                children[parent].append(uid)
        for uid, node in self.nodes.items():
            if node.kind != "ephemeral":
                continue
            queue, seen = [uid], {uid}
            while queue:
                for child in children[queue.pop()]:
                    if child in seen:
                        continue
                    seen.add(child)
                    if self.nodes[child].kind == "ephemeral":
                        queue.append(child)
                    elif self.nodes[child].compute in self.computes:
                        users[uid].add(self.nodes[child].compute)
        for uid, computes in users.items():
            adapters = {self.computes[name].adapter for name in computes}
            if len(adapters) > 1:
                self.problems.append(
                    Problem(
                        f"dbt model '{self.nodes[uid].name}'",
                        f"It is ephemeral and inlined on computes of {len(adapters)} SQL dialects "
                        f"({known(computes)}).",
                        "Materialize it as a view or table, or build its consumers on one compute.",
                    )
                )
            self.nodes[uid] = replace(self.nodes[uid], compute=sorted(computes)[0])

    def _positions(self) -> dict[str, int]:
        graph = {uid: node.parents for uid, node in self.nodes.items()}
        return {uid: at for at, uid in enumerate(TopologicalSorter(graph).static_order())}

    def _checked_parents(self, dbt: DbtNode) -> list[str]:
        """Return what a test reads, with ephemerals replaced by what they read, in dbt's order."""
        found: dict[str, None] = {}
        queue = list(dbt.depends_on.nodes)
        while queue:
            uid = queue.pop(0)
            node = self.nodes.get(uid)
            if node is None:
                continue
            if node.kind == "ephemeral":
                queue.extend(node.parents)
            elif node.kind in ASSET_KINDS or node.kind == "source":
                found[uid] = None
        return list(found)

    def _place_check(self, uid: str, dbt: DbtNode, position: Mapping[str, int]) -> None:
        parents = self._checked_parents(dbt)
        if not parents:
            self.warnings.append(
                f"dbt test '{dbt.name}' reads no model, seed, snapshot or source: it is no check "
                "of any asset and does not run. Give it a ref() or source()."
            )
            return
        on = self._asset_of_check(dbt, parents)
        built = [parent for parent in parents if self.nodes[parent].kind != "source"]
        last_first = sorted(built, key=lambda parent: position[parent], reverse=True)
        computes = list(dict.fromkeys(self.nodes[parent].compute for parent in last_first))
        if not computes:
            computes = [self._compute_of_source(on)]
        able = [name for name in computes if self._sees(name, built)] or computes[:1]
        severity = (dbt.config.severity or "error").lower()
        self.nodes[uid] = Node(
            unique_id=uid,
            kind="test",
            compute=able[0],
            also_on=tuple(able[1:]),
            parents=dbt.depends_on.nodes,
            after=tuple(
                sorted({feeder for parent in parents for feeder in self._feeders_of(parent)})
            ),
            name=dagster_name(dbt.name),
            on=on,
            blocking=severity == "error",
            tags=dbt.tags,
            dbt=dbt,
        )

    def _feeders_of(self, uid: str) -> tuple[str, ...]:
        return self.nodes[uid].after if self.nodes[uid].kind == "source" else ()

    def _asset_of_check(self, dbt: DbtNode, parents: Sequence[str]) -> str:
        """Choose the asset that shows a test, as dagster-dbt does; else the first that it reads."""
        ref = dbt.dagster_meta.get("ref")
        if isinstance(ref, dict):
            package = ref.get("package") or self.project
            for uid, node in self.nodes.items():
                if (
                    node.dbt is not None
                    and node.kind in ASSET_KINDS
                    and (node.name, node.dbt.package_name) == (ref.get("name"), package)
                    and str(node.dbt.version) == str(ref.get("version"))
                ):
                    return uid
            self.warnings.append(
                f"dbt test '{dbt.name}': meta.dagster.ref names no node "
                f"({ref.get('name')}); it is shown on '{self.nodes[parents[0]].name}' instead."
            )
        attached = dbt.attached_node
        return attached if attached in parents else parents[0]

    def _compute_of_source(self, source: str) -> str:
        for node in self.nodes.values():
            if source in node.parents and node.kind in ASSET_KINDS:
                return node.compute
        return self.product.default_compute

    def _sees(self, compute: str, parents: Iterable[str]) -> bool:
        manifest = self._manifest_of(compute)
        for parent in parents:
            node = self.nodes[parent]
            if node.compute == compute or manifest is None:
                continue
            here = manifest.nodes.get(parent)
            if here is None or not here.relation_name or not node.relation:
                return False
            if same_relation(here.relation_name) != same_relation(node.relation):
                return False
        return True

    def _place_unit_test(self, uid: str, dbt: DbtNode) -> None:
        model = next(
            (
                parent
                for parent in dbt.depends_on.nodes
                if parent in self.nodes
                and self.nodes[parent].name == dbt.model
                and self.nodes[parent].kind in ASSET_KINDS
            ),
            None,
        )
        if model is None:
            self.warnings.append(
                f"dbt unit test '{dbt.name}' tests '{dbt.model}', which is no asset: it does not "
                "run. Only models that are not ephemeral can carry checks."
            )
            return
        self.nodes[uid] = Node(
            unique_id=uid,
            kind="unit_test",
            compute=self.nodes[model].compute,
            parents=(model,),
            name=dagster_name(dbt.name),
            on=model,
            tags=dbt.tags,
            dbt=dbt,
        )


def _meaning(kind: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a generic test asserts: its name and arguments, the model aside."""
    column = str(arguments.get("column_name", "")).casefold()
    others = {key: arguments[key] for key in arguments if key not in {"model", "column_name"}}
    return {"test": kind, "column": column, **others}


def asset_path(dbt: DbtNode) -> AssetPath:
    """Return the Dagster asset key of a dbt node, by dagster-dbt's rules.

    `meta.dagster.asset_key` if given; source and table name for a source; alias for a versioned
    model; else the configured schema, if any, and the name.
    """
    configured = dbt.dagster_meta.get("asset_key")
    if isinstance(configured, list) and configured:
        return tuple(map(str, configured))
    if dbt.resource_type == "source":
        return (dbt.source_name or "", dbt.name)
    if dbt.version:
        return (dbt.alias or dbt.name,)
    if dbt.config.schema is not None:
        return (dbt.config.schema, dbt.name)
    return (dbt.name,)


def _odds(
    product: CompiledProduct, nodes: Mapping[str, Node], warnings: list[str]
) -> Iterator[Problem]:
    """Compare the artifacts with dbt: errors for what cannot run, warnings for what can."""
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for uid, node in nodes.items():
        if node.kind in ASSET_KINDS or node.kind == "ephemeral":
            by_name[node.name].append(uid)
    sources = {node.name for node in nodes.values() if node.kind == "source"}
    sources |= {".".join(node.key) for node in nodes.values() if node.kind == "source"}
    for index, transform in enumerate(product.transforms):
        if transform.name not in by_name:
            yield Problem(
                f"transforms.models[{index}].name",
                f"dbt has no model, seed or snapshot '{transform.name}'."
                f"{did_you_mean(transform.name, by_name)}",
                "Correct the name in floe.yaml, or add the model to the dbt project.",
            )
            continue
        above = {
            nodes[parent].name
            for uid in by_name[transform.name]
            for parent in nodes[uid].parents
            if parent in nodes
        }
        for parent in transform.depends_on:
            if parent not in by_name and parent not in sources:
                yield _unknown_dependency(index, transform, parent, {*by_name, *sources})
            elif parent not in above and parent.rpartition(".")[2] not in above:
                warnings.append(
                    f"transforms.models[{index}].depends_on: '{transform.name}' does not depend on "
                    f"'{parent}' in dbt. dbt's graph is used; correct dependsOn in floe.yaml."
                )


def _name_problems(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for uid, node in nodes.items():
        if node.kind not in ASSET_KINDS and node.kind != "source":
            continue
        label = node.dbt.original_file_path if node.dbt and node.dbt.original_file_path else uid
        if not all(_KEY_PART.fullmatch(part) for part in node.key) or not node.key:
            yield Problem(
                label,
                f"Dagster refuses the asset key {list(node.key)} of '{node.name}'.",
                "Use letters, digits, '_', '-' and '.' only, or set meta.dagster.asset_key.",
            )
            continue
        # Dagster folds these characters into one when it names an output after a key.
        folded = "__".join(re.sub(r"[-.]", "_", part) for part in node.key)
        other = taken.setdefault(folded, uid)
        if other == uid or _is_one_table(nodes[other], node):
            continue
        yield Problem(
            label,
            f"'{uid}' and '{other}' both map to the Dagster asset key {list(node.key)}.",
            "Rename one of them, or set meta.dagster.asset_key on it.",
        )
    yield from _check_name_problems(nodes)


def _is_one_table(one: Node, other: Node) -> bool:
    """Tell whether a source is but another name for what the other node builds."""
    return (
        "source" in {one.kind, other.kind}
        and one.key == other.key
        and one.relation is not None
        and other.relation is not None
        and same_relation(one.relation) == same_relation(other.relation)
    )


def _check_name_problems(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    taken: dict[tuple[str, str], str] = {}
    for uid, node in nodes.items():
        names = [node.name] if node.on else [check.name for check in node.quality_checks]
        on = node.on or uid
        for name in names:
            other = taken.setdefault((on, name), uid)
            if other != uid or names.count(name) > 1:
                yield Problem(
                    f"checks of '{nodes[on].name}'",
                    f"'{uid}' and '{other}' both map to the check name '{name}'.",
                    "Rename one of them.",
                )
