"""Gives each dbt node a unique name in Dagster."""

from __future__ import annotations

import keyword
import re
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec.structs import replace as with_fields

from floe_orchestrator_dagster.errors import MAX_LISTED
from floe_orchestrator_dagster.plan.model import ASSET_KINDS, CHECK_KINDS
from floe_orchestrator_dagster.plan.preflight import same_relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.plan.manifest import DbtFacts
    from floe_orchestrator_dagster.plan.model import AssetPath, Node

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")
# Dagster reserves these names of jobs, ops, outputs and inputs.
RESERVED = frozenset(keyword.kwlist) | {
    *("arg_dict", "bool", "conf", "config", "context", "dict", "float", "input"),
    *("input_arg_dict", "int", "meta", "output", "output_arg_dict", "str", "type"),
}


def check_name(name: str) -> str:
    """Return `name` with an underscore for each character that is not an ASCII letter or digit."""
    return _NOT_IN_NAME.sub("_", name)


def dagster_name(name: str) -> str:
    """Return `name` as Dagster accepts it for jobs, schedules and ops.

    The result is that of `check_name`, with an underscore at the end of a reserved name.
    """
    mapped = check_name(name)
    return f"{mapped}_" if mapped in RESERVED else mapped


def with_mark(name: str, identity: str) -> str:
    """Return `name` with a short suffix that depends only on `identity`, so it never changes."""
    return f"{name}_{sha256(identity.encode()).hexdigest()[:8]}"


class Ports:
    """Unique names of the inputs or outputs of a step. No user reads them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """Return a name like `wanted` that this object has not returned before."""
        name = dagster_name(wanted)
        while name in self._taken:
            name = with_mark(name, wanted)
        self._taken.add(name)
        return name


def shown_name(dbt: DbtFacts) -> str:
    """Return the name of a node for people, with the version of a versioned model."""
    if dbt.resource_type != "model" or dbt.version is None:
        return dbt.name
    return f"{dbt.name}.v{dbt.version}"


def asset_path(dbt: DbtFacts) -> AssetPath:
    """Return the Dagster asset key of a dbt node, by dagster-dbt's rules.

    The first of these that exists: `meta.dagster.asset_key`; source and table name for a source;
    alias for a versioned model; the configured schema, if any, with the name.
    """
    return meta_path(dbt) or default_path(dbt)


def has_meta_key(node: Node) -> bool:
    """Return whether `meta.dagster.asset_key` sets the key of a node."""
    return node.dbt is not None and bool(meta_path(node.dbt))


def meta_path(dbt: DbtFacts) -> AssetPath:
    """Return the asset key in `meta.dagster.asset_key`; empty without one."""
    key = dbt.dagster_meta.get("asset_key")
    if isinstance(key, list):
        return tuple(map(str, key))
    return (key,) if isinstance(key, str) and key else ()


def default_path(dbt: DbtFacts) -> AssetPath:
    """Return the asset key of a node without `meta.dagster.asset_key`."""
    if dbt.resource_type == "source":
        return (dbt.source_name or "", dbt.name)
    if dbt.version:
        return (dbt.alias or dbt.name,)
    if dbt.config.schema is not None:
        return (dbt.config.schema, dbt.name)
    return (dbt.name,)


# --- unique asset keys


def distinct_keys(
    nodes: Iterable[Node], root: str | None, is_chosen: Callable[[Node], bool]
) -> dict[str, AssetPath]:
    """Return new asset keys by unique id, for nodes that share their key with another asset.

    Sources are one asset if they are the same table, or if a user chose the key for them
    (`is_chosen`). Otherwise one node keeps the key: an asset before a source, and a node of the
    product's own dbt project (`root`) before a node of a package. The others get their package in
    front of the key, and a mark if another node has that key too. If two nodes have equal
    priority, both get a new key: otherwise their names would depend on which other nodes exist.
    """
    nodes_of: defaultdict[AssetPath, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.kind in ASSET_KINDS or node.kind == "source":
            nodes_of[node.key].append(node)
    new_keys: dict[str, AssetPath] = {}
    for members in [same_key for same_key in nodes_of.values() if len(same_key) > 1]:
        for table in _tables_to_rename(members, root, is_chosen):
            key = _other_key(table[0], root)
            if key in nodes_of:
                key = (*key[:-1], with_mark(key[-1], table[0].unique_id))
            nodes_of[key] += table
            new_keys |= dict.fromkeys((node.unique_id for node in table), key)
    return new_keys


def _tables_to_rename(
    members: Sequence[Node], root: str | None, is_chosen: Callable[[Node], bool]
) -> Iterator[Sequence[Node]]:
    """Yield each table that needs a new key, as its nodes; all `members` have the same key."""
    tables: list[list[Node]] = []
    table_of: dict[str, list[Node]] = {}
    has_chosen = False
    for node in sorted(members, key=lambda node: node.kind == "source"):
        relation = same_relation(node.relation) if node.relation else node.unique_id
        if node.kind == "source" and is_chosen(node):
            has_chosen = True
        elif node.kind == "source" and relation in table_of:
            table_of[relation].append(node)
        else:
            table_of[relation] = [node]
            tables.append(table_of[relation])
    if has_chosen and not any(node.kind in ASSET_KINDS for node in members):
        return

    def rank(table: Sequence[Node]) -> tuple[bool, bool]:
        packages = {node.dbt.package_name for node in table if node.dbt is not None}
        return table[0].kind == "source", root not in packages

    best = min(map(rank, tables))
    first = [table for table in tables if rank(table) == best]
    for table in tables:
        if len(first) > 1 or table is not first[0]:
            yield table


def _other_key(node: Node, root: str | None) -> AssetPath:
    package = node.dbt.package_name if node.dbt is not None else root
    if not package or package == root:
        return (*node.key[:-1], with_mark(node.key[-1], node.unique_id))
    return (package, *node.key)


# --- unique names of checks


def distinct_checks(
    nodes: Mapping[str, Node], root: str | None
) -> tuple[dict[str, Node], list[str]]:
    """Return the checks that need another name, renamed, and a warning that lists them.

    One check of an asset keeps a shared name: a check whose name Dagster accepts before one whose
    name was changed for Dagster, a test of the product's own dbt project (`root`) before one of a
    package, a dbt test before a quality check of floe.yaml. The others get a mark. If two checks
    have equal priority, both get a mark.
    """
    renamed: dict[str, Node] = {}
    listed: list[str] = []
    for (_, name), checks in _sharing_names(nodes).items():
        ranks = {check.unique_id: _rank(check, root) for check in checks}
        best = min(ranks.values())
        first = [check for check in checks if ranks[check.unique_id] == best]
        for check in checks:
            if len(first) == 1 and check is first[0]:
                continue
            new = with_mark(name, identity_of(check))
            renamed[check.unique_id] = _renamed(check, new)
            quality_check = f"quality check of '{nodes[check.on].name}'"
            listed.append(f"{new} ({quality_check if check.quality else check.unique_id})")
    return renamed, [*_warnings("checks share a name with another check of their asset", listed)]


def _sharing_names(nodes: Mapping[str, Node]) -> Mapping[tuple[AssetPath, str], Sequence[Node]]:
    """Return the checks that share a name, by asset key and name: few or none of thousands."""
    seen: set[tuple[AssetPath, str]] = set()
    shared: defaultdict[tuple[AssetPath, str], list[Node]] = defaultdict(list)
    checks = [node for node in nodes.values() if node.kind in CHECK_KINDS]
    for check in checks:
        key = nodes[check.on].key, check.name
        if key in seen:
            shared[key] = []
        seen.add(key)
    for check in checks if shared else ():
        key = nodes[check.on].key, check.name
        if key in shared:
            shared[key].append(check)
    return shared


def _rank(check: Node, root: str | None) -> tuple[bool, bool, bool]:
    """Return (mapped, of a package, of floe.yaml); the check with the lowest rank keeps a name."""
    dbt, quality = check.dbt, check.quality
    if quality is not None:
        return quality.name != check.name, False, True
    mapped = dbt is not None and dbt.name != check.name
    return mapped, dbt is not None and dbt.package_name != root, False


def identity_of(check: Node) -> str:
    """Return the text that the mark of a check depends on."""
    quality = check.quality
    if quality is None:
        return check.unique_id
    # A change of this text would rename checks that Dagster has a history of.
    arguments = sorted(quality.arguments.items())
    return f"{check.on}#{quality.name}#{quality.type}#{arguments!r}"


def _renamed(check: Node, name: str) -> Node:
    if check.quality is None:
        return with_fields(check, name=name)
    return with_fields(check, name=name, quality=replace(check.quality, name=name))


def key_warnings(keys: Mapping[str, AssetPath]) -> Iterator[str]:
    """Yield a warning that lists new asset keys, if there are any."""
    listed = [f"{'/'.join(key)} ({uid})" for uid, key in sorted(keys.items())]
    return _warnings("dbt nodes share an asset key with another node", listed)


def _warnings(what: str, listed: Iterable[str]) -> Iterator[str]:
    names = sorted(listed)
    if not names:
        return
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    yield (
        f"{len(names)} {what}. In Dagster they have the names: "
        f"{', '.join(names[:MAX_LISTED])}{more}."
    )
