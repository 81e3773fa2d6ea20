"""Asset and check specs of a plan, equal to those that dagster-dbt's stock translator makes.

Ours differ in what is listed here, and `tests/integration/test_specs.py` holds them to it:

- kinds, storage kind and table name are those of the model's own compute;
- the group is the product where dbt names none; tags that Dagster refuses are kept in metadata,
  and ``key:value`` tags become Dagster tags of that key; owners that Dagster refuses are left out;
- the code version is a digest of all that decides the result (`plan/versions.py`), not of the
  node's own code alone;
- metadata `floe/*` and code references are added; the whole manifest is not hung on each spec.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckSpec,
    AssetDep,
    AssetKey,
    AssetSpec,
    AutomationCondition,
    CodeReferencesMetadataValue,
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    LocalFileCodeReference,
    MonthlyPartitionsDefinition,
    TableColumn,
    TableSchema,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)
from msgspec.structs import replace

from floe_orchestrator_dagster.errors import PlanError, Problem
from floe_orchestrator_dagster.plan import (
    PARTITIONS_EXPECTED,
    Node,
    PartitionSettings,
    ProductPlan,
    asset_path,
    checks_apart,
    dagster_name,
    is_asked,
    is_owner,
    keys_apart,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dagster_dbt import DagsterDbtTranslator

logger = logging.getLogger(__name__)

UNIQUE_ID = "dagster_dbt/unique_id"
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_GROUP = re.compile(r"[A-Za-z0-9_]+")


def partitions_definition(settings: PartitionSettings) -> TimeWindowPartitionsDefinition:
    """Return Dagster's definition of the partitions that a model's meta asks for."""
    kinds: dict[str, type[TimeWindowPartitionsDefinition]] = {
        "hourly": HourlyPartitionsDefinition,
        "daily": DailyPartitionsDefinition,
        "weekly": WeeklyPartitionsDefinition,
        "monthly": MonthlyPartitionsDefinition,
    }
    start = settings.start
    if settings.type == "hourly" and "-" not in start[10:]:
        start += "-00:00"
    # The four share these arguments, which their common base does not declare.
    make: Any = kinds[settings.type]
    definition: TimeWindowPartitionsDefinition = make(
        start_date=start, end_date=settings.end, timezone=settings.timezone
    )
    return definition


class Specs:
    """The specs of a plan, and the way back from Dagster's keys to dbt's unique ids."""

    def __init__(
        self,
        plan: ProductPlan,
        *,
        project_dir: Path | None = None,
        translator: DagsterDbtTranslator | None = None,
        manifests: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.plan = plan
        self._root = str(project_dir or "")
        self._translator = translator
        self._manifests = manifests or {}
        if translator is not None:
            _use_checked_meta(self._manifests, plan)
        self._partitions: dict[str, TimeWindowPartitionsDefinition | None] = {}
        self._dep_of: dict[AssetKey, AssetDep] = {}
        self._check_partitions()

    @cached_property
    def keys(self) -> Mapping[str, AssetKey]:
        """Asset keys by unique id, of assets and sources."""
        return {
            uid: AssetKey(list(self._nodes[uid].key))
            for uid in (*self.plan.sources, *self.plan.assets)
        }

    @cached_property
    def _nodes(self) -> Mapping[str, Node]:
        """The nodes of the plan, by the names that the translator gives them."""
        if self._translator is None:
            return self.plan.nodes
        nodes = dict(self.plan.nodes)
        for uid in (*self.plan.sources, *self.plan.assets):
            nodes[uid] = replace(nodes[uid], key=tuple(self._translated(uid).key.path))
        for uid, key in keys_apart(nodes.values(), self.plan.project_name, _is_chosen).items():
            nodes[uid] = replace(nodes[uid], key=key)
        renamed, told = checks_apart(nodes, self.plan.project_name)
        for warning in told:
            logger.warning("%s", warning)
        return nodes | renamed

    @cached_property
    def unique_ids(self) -> Mapping[AssetKey, str]:
        """Unique ids of assets by asset key."""
        return {self.keys[uid]: uid for uid in self.plan.assets}

    @cached_property
    def assets(self) -> Mapping[str, AssetSpec]:
        """Specs of models, seeds and snapshots by unique id, in dependency order."""
        return {uid: self._asset(uid, node) for uid, node in self.plan.assets.items()}

    @cached_property
    def sources(self) -> Sequence[AssetSpec]:
        """Specs of sources that no node of the product builds under the same key, and nobody else.

        Dagster takes one definition of an asset. Who sets `meta.dagster.asset_key` on a source, or
        has a translator give it another key, means an asset that is defined elsewhere.
        """
        keys, root = self.keys, self.plan.project_name
        elsewhere = {*self.unique_ids}
        found: dict[AssetKey, str] = {}
        for uid, node in self.plan.sources.items():
            if is_asked(node) or self._is_chosen_by_translator(uid, node):
                elsewhere.add(keys[uid])
            # Where two packages declare one table, the project's own word on it comes first.
            elif keys[uid] not in found or (node.dbt and node.dbt.package_name == root):
                found[keys[uid]] = uid
        return [
            self._source(uid, self.plan.nodes[uid])
            for key, uid in found.items()
            if key not in elsewhere
        ]

    def _is_chosen_by_translator(self, uid: str, node: Node) -> bool:
        if self._translator is None or node.dbt is None:
            return False
        return tuple(self._translated(uid).key.path) != asset_path(node.dbt)

    @cached_property
    def checks(self) -> Mapping[str, AssetCheckSpec]:
        """Specs of dbt's tests and of floe.yaml's quality checks, by unique id."""
        return {uid: self._check(uid, node) for uid, node in self.plan.checks.items()}

    @cached_property
    def _exposures(self) -> Mapping[str, list[str]]:
        """Names of the exposures that use a node, by its unique id."""
        found: dict[str, list[str]] = {}
        for name, parents in self.plan.exposures.items():
            for parent in parents:
                found.setdefault(parent, []).append(name)
        return found

    def partitions(self, uid: str) -> TimeWindowPartitionsDefinition | None:
        """Return the time-window partitions of a node, if its meta asks for any."""
        return self._partitions.get(uid)

    def _check_partitions(self) -> None:
        problems = []
        for uid, node in self.plan.assets.items():
            asked = node.dbt.dagster_meta.get("partitions") if node.dbt else None
            if not asked:
                continue
            try:
                settings = PartitionSettings.model_validate(asked)
                self._partitions[uid] = partitions_definition(settings)
            except Exception as error:  # noqa: BLE001  Dagster raises many kinds for a bad date
                problems.append(self._partition_problem(node, "start", str(error)))
        if problems:
            raise PlanError(f"Cannot plan product '{self.plan.name}'", problems)

    @staticmethod
    def _partition_problem(node: Node, path: str, found: str) -> Problem:
        return Problem(
            f"dbt model '{node.name}' meta.dagster.partitions.{path}".rstrip("."),
            f"{found}.",
            PARTITIONS_EXPECTED,
        )

    def _manifest(self, uid: str) -> Mapping[str, Any]:
        target = self.plan.target_of(uid) if self.plan.nodes[uid].compute else ""
        return self._manifests.get(target) or next(iter(self._manifests.values()))

    def code_version(self, uid: str, variables: Mapping[str, Any] | None = None) -> str | None:
        """Return the code version of an asset that is built with these vars of a launch.

        A translator's own code versions are left as they are.
        """
        node, shown = self.plan.nodes[uid], self.assets[uid].code_version
        return code_version(node, variables) if shown == code_version(node) else shown

    def _translated(self, uid: str) -> AssetSpec:
        if self._translator is None:
            raise AssertionError("no translator")
        # No project: dagster-dbt wants one only for code references, which are ours to add.
        return self._translator.get_asset_spec(self._manifest(uid), uid, None)

    def _named(self, uid: str) -> AssetSpec:
        """Return the translator's spec of a node, with keys that are told apart."""
        spec = self._translated(uid)
        keys = self.keys
        read: dict[AssetKey, list[AssetKey]] = {spec.key: [keys[uid]]}
        for parent in self.plan.folded_parents[uid]:
            read.setdefault(self._translated(parent).key, []).append(keys[parent])
        if all(key == own for key, found in read.items() for own in found):
            return spec
        deps = [
            AssetDep(asset=key, partition_mapping=dep.partition_mapping)
            for dep in spec.deps
            for key in dict.fromkeys(read.get(dep.asset_key, [dep.asset_key]))
        ]
        return spec.replace_attributes(key=keys[uid], deps=deps)

    def _asset(self, uid: str, node: Node) -> AssetSpec:
        if self._translator is not None:
            spec = self._named(uid)
            if spec.code_version == _stock_code_version(self._manifest(uid)["nodes"][uid]):
                spec = spec.replace_attributes(code_version=code_version(node))
            return spec.merge_attributes(
                metadata=self._floe_metadata(node), kinds=_kinds(self, node)
            )
        dbt = node.dbt
        return AssetSpec(
            key=self.keys[uid],
            deps=self._deps(uid),
            description=_description(node),
            metadata={
                **self._table_metadata(node),
                **self._floe_metadata(node),
                **({UNIQUE_ID: uid} if dbt else {}),
            },
            skippable=True,
            group_name=self._group(node),
            code_version=code_version(node),
            automation_condition=_automation(node),
            owners=self._owners(node),
            tags=_tags(node),
            kinds=_kinds(self, node),
            partitions_def=self._partitions.get(uid),
        )

    def _source(self, uid: str, node: Node) -> AssetSpec:
        if self._translator is not None:
            return self._named(uid)
        return AssetSpec(
            key=self.keys[uid],
            description=node.dbt.description or None if node.dbt else None,
            metadata={**self._table_metadata(node), UNIQUE_ID: uid},
            group_name=self._group(node),
            tags=_tags(node),
            kinds={"dbt", "source"},
        )

    def _deps(self, uid: str) -> Sequence[AssetDep]:
        own, keys = self.keys[uid], self.keys
        found = dict.fromkeys(keys[parent] for parent in self.plan.folded_parents[uid])
        return [self._dep(key) for key in found if key != own]

    def _dep(self, key: AssetKey) -> AssetDep:
        # One serves all who read the asset.
        dep = self._dep_of.get(key)
        if dep is None:
            dep = self._dep_of[key] = AssetDep(asset=key)
        return dep

    def _table_metadata(self, node: Node) -> dict[str, Any]:
        dbt = node.dbt
        if dbt is None:
            return {}
        metadata: dict[str, Any] = {}
        if dbt.config.materialized:
            metadata["dagster-dbt/materialization_type"] = dbt.config.materialized
        if dbt.columns:
            metadata["dagster/column_schema"] = TableSchema(
                columns=[
                    TableColumn(
                        name=name,
                        type=column.data_type or "?",
                        description=column.description,
                        tags=dict.fromkeys(column.tags, ""),
                    )
                    for name, column in dbt.columns.items()
                ]
            )
        last = dbt.name if node.kind == "source" else dbt.alias
        relation = ".".join(filter(None, (dbt.database, dbt.schema, last)))
        if relation:
            metadata["dagster/table_name"] = relation
        compute = self.plan.computes.get(node.compute)
        if compute is not None:
            metadata["dagster/storage_kind"] = compute.adapter
        return metadata

    def _floe_metadata(self, node: Node) -> dict[str, Any]:
        metadata: dict[str, Any] = {"floe/product": self.plan.name, "floe/compute": node.compute}
        dbt = node.dbt
        if node.tier:
            metadata["floe/quality_tier"] = node.tier
        if dbt is not None:
            if dbt.schema:
                metadata["floe/schema"] = dbt.schema
            if not all(map(_is_tag, node.tags)):
                metadata["floe/dbt_tags"] = list(node.tags)
            if self._root and dbt.original_file_path:
                # A Path for each of 10,000 nodes takes longer.
                path = os.path.join(self._root, dbt.original_file_path)  # noqa: PTH118
                metadata["dagster/code_references"] = CodeReferencesMetadataValue(
                    code_references=[LocalFileCodeReference(file_path=path)]
                )
            used_by = self._exposures.get(node.unique_id)
            if used_by:
                metadata["floe/exposures"] = used_by
        return metadata

    def _group(self, node: Node) -> str:
        asked: str | None = None
        if node.dbt is not None:
            asked = node.dbt.dagster_meta.get("group") or node.dbt.config.group
        return asked if asked and _GROUP.fullmatch(asked) else dagster_name(asked or self.plan.name)

    def _owners(self, node: Node) -> Sequence[str]:
        if node.dbt is None:
            return []
        asked = node.dbt.dagster_meta.get("owners")
        if not asked:
            asked = self.plan.owners_of_group.get(node.dbt.config.group or "", ())
        if not asked and self.plan.owner:
            owner = self.plan.owner
            asked = [owner if "@" in owner or owner.startswith("team:") else f"team:{owner}"]
        return [owner for owner in asked if is_owner(owner)]

    def _check(self, uid: str, node: Node) -> AssetCheckSpec:
        # Dagster 1.10 looks names of its own up where the first check is made, `check` among them:
        # no variable may be called so here.
        quality = node.quality
        if quality is not None:
            return AssetCheckSpec(
                name=self._nodes[uid].name,
                asset=self.keys[node.on],
                description=f"floe quality check {quality.type} ({quality.dimension})",
                blocking=node.blocking,
                metadata={"floe/quality_check": quality.name, "floe/dimension": quality.dimension},
            )
        dbt = node.dbt
        on = self.keys[node.on]
        reads = self.plan.folded_parents[uid]
        # Most tests read nothing else.
        others = () if reads == (node.on,) else {self.keys[read] for read in reads} - {on}
        meta = (dbt.config.meta or dbt.meta) if dbt else {}
        described = meta.get("description")
        if not isinstance(described, str) or not described:
            described = dbt.description if dbt else None
        return AssetCheckSpec(
            name=self._nodes[uid].name,
            asset=on,
            description=described or None,
            additional_deps=sorted(others) or None,
            blocking=node.blocking,
            metadata={UNIQUE_ID: uid},
        )


def _is_chosen(node: Node) -> bool:
    """Tell whether somebody chose the key of a node: its meta does, or a translator did."""
    return is_asked(node) or (node.dbt is not None and node.key != asset_path(node.dbt))


def _use_checked_meta(manifests: Mapping[str, Mapping[str, Any]], plan: ProductPlan) -> None:
    """Leave out of raw manifests what a plan left out of `meta.dagster`.

    dagster-dbt, which reads them for a translator, ends at a value that it does not expect.
    """
    for manifest in manifests.values():
        for part in ("nodes", "sources", "unit_tests"):
            for uid, raw in (manifest.get(part) or {}).items():
                node = plan.nodes.get(uid)
                for meta in (raw.get("meta"), (raw.get("config") or {}).get("meta")):
                    if meta and "dagster" in meta and node is not None and node.dbt is not None:
                        meta["dagster"] = node.dbt.dagster_meta


def code_version(node: Node, variables: Mapping[str, Any] | None = None) -> str | None:
    """Return the digest of all that decides what a node builds; see `plan.version_of`."""
    return version_of(node, os.environ, variables)


def _stock_code_version(dbt_resource_props: Mapping[str, Any]) -> str | None:
    from dagster_dbt import DagsterDbtTranslator

    return DagsterDbtTranslator().get_code_version(dbt_resource_props)


def _description(node: Node) -> str | None:
    dbt = node.dbt
    if dbt is None:
        return None
    code = textwrap.indent(dbt.raw_code or "", "    ")
    said = dbt.description or f"dbt {dbt.resource_type} {dbt.name}"
    return f"{said}\n\n#### Raw SQL:\n```sql\n{code}\n```"


def _automation(node: Node) -> AutomationCondition[Any] | None:
    policy = node.dbt.dagster_meta.get("auto_materialize_policy") if node.dbt else None
    kind = policy.get("type") if isinstance(policy, Mapping) else None
    if kind == "eager":
        return AutomationCondition.eager()
    return AutomationCondition.any_downstream_conditions() if kind == "lazy" else None


def _kinds(specs: Specs, node: Node) -> set[str]:
    compute = specs.plan.computes.get(node.compute)
    return {"dbt", compute.adapter} if compute else {"dbt"}


def _tags(node: Node) -> dict[str, str]:
    return dict(_valid_tags(node.tags))


def _valid_tags(tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    for tag in tags:
        if _is_tag(tag):
            yield tag, ""
            continue
        key, colon, value = tag.partition(":")
        if colon and _is_tag(key) and _TAG_VALUE.fullmatch(value):
            yield key, value


# Thousands of assets share a few tags.
@lru_cache(maxsize=1024)
def _is_tag(tag: str) -> bool:
    return _TAG_KEY.fullmatch(tag) is not None
