"""What a user's `DagsterDbtTranslator` makes of the nodes of a plan."""

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
    """Specs by a user's translator, which reads the manifest of each node's own target."""

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
        # No project: dagster-dbt wants one only for code references, which are ours to add.
        return self._translator.get_asset_spec(self._manifest(uid), uid, None)

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes of the plan under the names that the translator gives them."""
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
        """Tell whether the translator gives a node another key than dagster-dbt's own."""
        dbt = self._plan.nodes[uid].dbt
        return dbt is not None and tuple(self._spec(uid).key.path) != asset_path(dbt)

    def spec(self, uid: str, keys: Mapping[str, AssetKey]) -> AssetSpec:
        """Return the translator's spec of a node, by keys that are told apart."""
        spec = self._spec(uid)
        read: dict[AssetKey, list[AssetKey]] = {spec.key: [keys[uid]]}
        for parent in self._plan.folded_parents[uid]:
            read.setdefault(self._spec(parent).key, []).append(keys[parent])
        if all(key == own for key, found in read.items() for own in found):
            return spec
        deps = [
            AssetDep(asset=key, partition_mapping=dep.partition_mapping)
            for dep in spec.deps
            for key in dict.fromkeys(read.get(dep.asset_key, [dep.asset_key]))
        ]
        return spec.replace_attributes(key=keys[uid], deps=deps)

    def has_stock_version(self, uid: str, spec: AssetSpec) -> bool:
        """Tell whether the code version of a spec is the one that dagster-dbt itself would give."""
        from dagster_dbt import DagsterDbtTranslator

        properties = self._manifest(uid)["nodes"][uid]
        return spec.code_version == DagsterDbtTranslator().get_code_version(properties)


def _is_chosen(node: Node) -> bool:
    """Tell whether somebody chose the key of a node: its meta does, or a translator did."""
    return has_meta_key(node) or (node.dbt is not None and node.key != asset_path(node.dbt))


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
