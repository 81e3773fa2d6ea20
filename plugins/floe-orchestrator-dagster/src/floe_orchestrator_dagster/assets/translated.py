"""Applies a user's `DagsterDbtTranslator` to the nodes of a plan."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dagster import AssetDep
from msgspec.structs import replace

from floe_orchestrator_dagster.plan import asset_path, distinct_checks, distinct_keys, has_meta_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import AssetKey, AssetSpec
    from dagster_dbt import DagsterDbtTranslator

    from floe_orchestrator_dagster.plan import Node, ProductPlan

logger = logging.getLogger(__name__)


class Translated:
    """Specs from a user's translator, which reads the manifest of each node's target."""

    def __init__(
        self,
        translator: DagsterDbtTranslator,
        plan: ProductPlan,
        manifests: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._translator = translator
        self._plan = plan
        self._manifests = manifests
        _use_checked_meta(manifests, plan)

    def _manifest(self, uid: str) -> Mapping[str, Any]:
        target = self._plan.target_of(uid) if self._plan.nodes[uid].compute else ""
        return self._manifests.get(target) or next(iter(self._manifests.values()))

    def _spec(self, uid: str) -> AssetSpec:
        # dagster-dbt needs a project only for code references, which this plugin adds itself.
        return self._translator.get_asset_spec(self._manifest(uid), uid, None)

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes of the plan with the names from the translator."""
        plan = self._plan
        nodes = dict(plan.nodes)
        for uid in (*plan.sources, *plan.assets):
            nodes[uid] = replace(nodes[uid], key=tuple(self._spec(uid).key.path))
        for uid, key in distinct_keys(nodes.values(), plan.project_name, _is_chosen).items():
            nodes[uid] = replace(nodes[uid], key=key)
        renamed, warnings = distinct_checks(nodes, plan.project_name)
        for warning in warnings:
            logger.warning("%s", warning)
        return nodes | renamed

    def chooses_key_of(self, uid: str) -> bool:
        """Return whether the translator gives a node a different key than dagster-dbt."""
        dbt = self._plan.nodes[uid].dbt
        return dbt is not None and tuple(self._spec(uid).key.path) != asset_path(dbt)

    def spec(self, uid: str, keys: Mapping[str, AssetKey]) -> AssetSpec:
        """Return the translator's spec of a node, with the unique keys in `keys`."""
        spec = self._spec(uid)
        read: dict[AssetKey, list[AssetKey]] = {spec.key: [keys[uid]]}
        for parent in self._plan.folded_parents[uid]:
            read.setdefault(self._spec(parent).key, []).append(keys[parent])
        if all(key == unique for key, uniques in read.items() for unique in uniques):
            return spec
        deps = [
            AssetDep(asset=key, partition_mapping=dep.partition_mapping)
            for dep in spec.deps
            for key in dict.fromkeys(read.get(dep.asset_key, [dep.asset_key]))
        ]
        return spec.replace_attributes(key=keys[uid], deps=deps)

    def has_stock_version(self, uid: str, spec: AssetSpec) -> bool:
        """Return whether the code version of a spec is the one of dagster-dbt."""
        from dagster_dbt import DagsterDbtTranslator

        properties = self._manifest(uid)["nodes"][uid]
        return spec.code_version == DagsterDbtTranslator().get_code_version(properties)


def _is_chosen(node: Node) -> bool:
    """Return whether the meta of a node or a translator sets its key."""
    return has_meta_key(node) or (node.dbt is not None and node.key != asset_path(node.dbt))


def _use_checked_meta(manifests: Mapping[str, Mapping[str, Any]], plan: ProductPlan) -> None:
    """Remove from raw manifests the values of `meta.dagster` that the plan left out.

    dagster-dbt reads these manifests for a translator and fails on an unexpected value.
    """
    for manifest in manifests.values():
        for part in ("nodes", "sources", "unit_tests"):
            for uid, raw in (manifest.get(part) or {}).items():
                node = plan.nodes.get(uid)
                for meta in (raw.get("meta"), (raw.get("config") or {}).get("meta")):
                    if meta and "dagster" in meta and node is not None and node.dbt is not None:
                        meta["dagster"] = node.dbt.dagster_meta
