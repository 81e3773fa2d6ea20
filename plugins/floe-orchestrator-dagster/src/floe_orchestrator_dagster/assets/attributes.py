"""Returns the attributes of an asset: metadata, group, owners, kinds, tags."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from dagster import (
    AutomationCondition,
    CodeReferencesMetadataValue,
    LocalFileCodeReference,
    TableColumn,
    TableSchema,
)

from floe_orchestrator_dagster.plan import dagster_name, is_owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.plan import Node, ProductPlan

_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_GROUP = re.compile(r"[A-Za-z0-9_]+")


class Attributes:
    """Attributes that depend on the product and the node."""

    def __init__(self, plan: ProductPlan, project_dir: Path | None = None) -> None:
        self._plan = plan
        self._root = str(project_dir or "")

    @cached_property
    def _exposures(self) -> Mapping[str, list[str]]:
        """Names of the exposures that use a node, by its unique id."""
        names: dict[str, list[str]] = {}
        for name, parents in self._plan.exposures.items():
            for parent in parents:
                names.setdefault(parent, []).append(name)
        return names

    def table_metadata(self, node: Node) -> dict[str, Any]:
        """Return the metadata of a node's table: columns, name, storage."""
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
        compute = self._plan.computes.get(node.compute)
        if compute is not None:
            metadata["dagster/storage_kind"] = compute.adapter
        return metadata

    def floe_metadata(self, node: Node) -> dict[str, Any]:
        """Return the metadata from floe: product, compute, quality tier, code, exposures."""
        metadata: dict[str, Any] = {"floe/product": self._plan.name, "floe/compute": node.compute}
        dbt = node.dbt
        if node.tier:
            metadata["floe/quality_tier"] = node.tier
        if dbt is not None:
            if dbt.schema:
                metadata["floe/schema"] = dbt.schema
            if not all(map(_is_tag, node.tags)):
                metadata["floe/dbt_tags"] = list(node.tags)
            if self._root and dbt.original_file_path:
                # `os.path` is faster than a Path for each of 10,000 nodes.
                path = os.path.join(self._root, dbt.original_file_path)  # noqa: PTH118
                metadata["dagster/code_references"] = CodeReferencesMetadataValue(
                    code_references=[LocalFileCodeReference(file_path=path)]
                )
            used_by = self._exposures.get(node.unique_id)
            if used_by:
                metadata["floe/exposures"] = used_by
        return metadata

    def group(self, node: Node) -> str:
        """Return the group of a node in dbt, else the group of the product."""
        name: str | None = None
        if node.dbt is not None:
            name = node.dbt.dagster_meta.get("group") or node.dbt.config.group
        return name if name and _GROUP.fullmatch(name) else dagster_name(name or self._plan.name)

    def owners(self, node: Node) -> Sequence[str]:
        """Return the owners of a node that Dagster accepts."""
        if node.dbt is None:
            return []
        owners = node.dbt.dagster_meta.get("owners")
        if not owners:
            owners = self._plan.owners_of_group.get(node.dbt.config.group or "", ())
        if not owners and self._plan.owner:
            owner = self._plan.owner
            owners = [owner if "@" in owner or owner.startswith("team:") else f"team:{owner}"]
        return [owner for owner in owners if is_owner(owner)]

    def kinds(self, node: Node) -> set[str]:
        """Return the kinds of a node: dbt, and the adapter of its compute."""
        compute = self._plan.computes.get(node.compute)
        return {"dbt", compute.adapter} if compute else {"dbt"}


def description(node: Node) -> str | None:
    """Return the description of a node with its code, as dagster-dbt writes it."""
    dbt = node.dbt
    if dbt is None:
        return None
    code = textwrap.indent(dbt.raw_code or "", "    ")
    text = dbt.description or f"dbt {dbt.resource_type} {dbt.name}"
    return f"{text}\n\n#### Raw SQL:\n```sql\n{code}\n```"


def automation(node: Node) -> AutomationCondition[Any] | None:
    """Return the automation condition in the meta of a node, with the keys of dagster-dbt."""
    policy = node.dbt.dagster_meta.get("auto_materialize_policy") if node.dbt else None
    kind = policy.get("type") if isinstance(policy, Mapping) else None
    if kind == "eager":
        return AutomationCondition.eager()
    return AutomationCondition.any_downstream_conditions() if kind == "lazy" else None


def tags(node: Node) -> dict[str, str]:
    """Return the tags of a node that Dagster accepts."""
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
