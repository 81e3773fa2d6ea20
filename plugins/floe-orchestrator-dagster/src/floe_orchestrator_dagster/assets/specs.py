"""Makes the asset and check specs of a plan, like those of dagster-dbt's default translator.

Only these attributes differ (`tests/integration/test_specs.py` checks this):

- Kinds, storage kind and table name are those of the model's compute.
- A node without a group in dbt is in the group of the product. Tags that Dagster refuses are in the
  metadata, ``key:value`` tags become Dagster tags with that key, and there are no owners that
  Dagster refuses.
- The code version is a digest of everything that decides the result (`plan/versions.py`), not only
  of the node's code.
- Each spec has metadata `floe/*` and code references, but not the whole manifest.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckKey,
    AssetCheckSpec,
    AssetDep,
    AssetKey,
    AssetSelection,
    AssetSpec,
    TimeWindowPartitionsDefinition,
)

from floe_orchestrator_dagster.assets.attributes import Attributes, automation, description, tags
from floe_orchestrator_dagster.assets.partitions import plan_partitions
from floe_orchestrator_dagster.assets.translated import Translated
from floe_orchestrator_dagster.plan import (
    Node,
    ProductPlan,
    has_meta_key,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from dagster_dbt import DagsterDbtTranslator

UNIQUE_ID = "dagster_dbt/unique_id"


class Specs:
    """The specs of a plan, which convert between dbt's unique ids and Dagster's keys.

    All other modules identify nodes by unique id.
    """

    def __init__(
        self,
        plan: ProductPlan,
        *,
        project_dir: Path | None = None,
        translator: DagsterDbtTranslator | None = None,
        manifests: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.plan = plan
        self._attributes = Attributes(plan, project_dir)
        self._translated = Translated(translator, plan, manifests or {}) if translator else None
        self._partitions = plan_partitions(plan)
        self._dep_of: dict[AssetKey, AssetDep] = {}

    @cached_property
    def keys(self) -> Mapping[str, AssetKey]:
        """Asset keys by unique id, of assets and sources."""
        return {
            uid: AssetKey(list(self._nodes[uid].key))
            for uid in (*self.plan.sources, *self.plan.assets)
        }

    @cached_property
    def _nodes(self) -> Mapping[str, Node]:
        """The nodes of the plan, with the names that they have in Dagster."""
        return self.plan.nodes if self._translated is None else self._translated.nodes()

    @cached_property
    def unique_ids(self) -> Mapping[AssetKey, str]:
        """Unique ids of assets by asset key."""
        return {self.keys[uid]: uid for uid in self.plan.assets}

    @cached_property
    def check_ids(self) -> Mapping[AssetCheckKey, str]:
        """Unique ids of checks by check key."""
        return {spec.key: uid for uid, spec in self.checks.items()}

    def selection(self, assets: Iterable[str], checks: Iterable[str]) -> AssetSelection:
        """Return Dagster's selection of only these assets and checks."""
        chosen = AssetSelection.assets(*(self.keys[uid] for uid in assets)).without_checks()
        return chosen | AssetSelection.checks(*(self.checks[uid].key for uid in checks))

    @cached_property
    def assets(self) -> Mapping[str, AssetSpec]:
        """Specs of models, seeds and snapshots by unique id, in dependency order."""
        return {uid: self._asset(uid, node) for uid, node in self.plan.assets.items()}

    @cached_property
    def sources(self) -> Sequence[AssetSpec]:
        """Specs of sources whose asset key has no other definition.

        Dagster accepts one definition of an asset. If a user sets `meta.dagster.asset_key` on a
        source, or the key comes from a translator, the asset is defined elsewhere.
        """
        keys, root = self.keys, self.plan.project_name
        elsewhere = {*self.unique_ids}
        source_of: dict[AssetKey, str] = {}
        for uid, node in self.plan.sources.items():
            if has_meta_key(node) or (self._translated and self._translated.chooses_key_of(uid)):
                elsewhere.add(keys[uid])
            # If two packages declare one table, the declaration of the project comes first.
            elif keys[uid] not in source_of or (node.dbt and node.dbt.package_name == root):
                source_of[keys[uid]] = uid
        return [
            self._source(uid, self.plan.nodes[uid])
            for key, uid in source_of.items()
            if key not in elsewhere
        ]

    @cached_property
    def checks(self) -> Mapping[str, AssetCheckSpec]:
        """Specs of dbt's tests and of floe.yaml's quality checks, by unique id."""
        return {uid: self._check(uid, node) for uid, node in self.plan.checks.items()}

    def checks_on(self, unique_ids: AbstractSet[str]) -> list[str]:
        """Return the checks of all kinds on these assets or sources."""
        return [uid for uid, node in self.plan.checks.items() if node.on in unique_ids]

    def partitions(self, uid: str) -> TimeWindowPartitionsDefinition | None:
        """Return the time-window partitions of a node, if it has any."""
        return self._partitions.get(uid)

    def code_version(self, uid: str, variables: Mapping[str, Any] | None = None) -> str | None:
        """Return the code version of an asset for the vars of a launch.

        A code version from a translator does not change.
        """
        node, shown = self.plan.nodes[uid], self.assets[uid].code_version
        return code_version(node, variables) if shown == code_version(node) else shown

    def _asset(self, uid: str, node: Node) -> AssetSpec:
        attributes = self._attributes
        if self._translated is not None:
            spec = self._translated.spec(uid, self.keys)
            if self._translated.has_stock_version(uid, spec):
                spec = spec.replace_attributes(code_version=code_version(node))
            return spec.merge_attributes(
                metadata=attributes.floe_metadata(node), kinds=attributes.kinds(node)
            )
        return AssetSpec(
            key=self.keys[uid],
            deps=self._deps(uid),
            description=description(node),
            metadata={
                **attributes.table_metadata(node),
                **attributes.floe_metadata(node),
                **({UNIQUE_ID: uid} if node.dbt else {}),
            },
            skippable=True,
            group_name=attributes.group(node),
            code_version=code_version(node),
            automation_condition=automation(node),
            owners=attributes.owners(node),
            tags=tags(node),
            kinds=attributes.kinds(node),
            partitions_def=self._partitions.get(uid),
        )

    def _source(self, uid: str, node: Node) -> AssetSpec:
        if self._translated is not None:
            return self._translated.spec(uid, self.keys)
        return AssetSpec(
            key=self.keys[uid],
            description=node.dbt.description or None if node.dbt else None,
            metadata={**self._attributes.table_metadata(node), UNIQUE_ID: uid},
            group_name=self._attributes.group(node),
            tags=tags(node),
            kinds={"dbt", "source"},
        )

    def _deps(self, uid: str) -> Sequence[AssetDep]:
        own, keys = self.keys[uid], self.keys
        parents = dict.fromkeys(keys[parent] for parent in self.plan.folded_parents[uid])
        return [self._dep(key) for key in parents if key != own]

    def _dep(self, key: AssetKey) -> AssetDep:
        # All readers of an asset share one object.
        dep = self._dep_of.get(key)
        if dep is None:
            dep = self._dep_of[key] = AssetDep(asset=key)
        return dep

    def _check(self, uid: str, node: Node) -> AssetCheckSpec:
        # Dagster 1.10 looks up names such as `check` in the frame that makes the first check, so no
        # variable here may have this name.
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
        # Most tests read only their own asset.
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


def code_version(node: Node, variables: Mapping[str, Any] | None = None) -> str | None:
    """Return the code version of a node; see `plan.version_of`."""
    return version_of(node, os.environ, variables)
