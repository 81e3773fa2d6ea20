"""Names: what a dbt node is called in Dagster, and how names that meet are kept apart."""

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
# Names of jobs, ops, outputs and inputs that Dagster keeps for itself.
RESERVED = frozenset(keyword.kwlist) | {
    *("arg_dict", "bool", "conf", "config", "context", "dict", "float", "input"),
    *("input_arg_dict", "int", "meta", "output", "output_arg_dict", "str", "type"),
}


def check_name(name: str) -> str:
    """Return `name` with an underscore for all but letters, digits and underscores of ASCII."""
    return _NOT_IN_NAME.sub("_", name)


def dagster_name(name: str) -> str:
    """Return `name` as Dagster takes it for jobs, schedules and ops.

    As `check_name`; a word that Dagster keeps for itself gets an underscore behind it.
    """
    mapped = check_name(name)
    return f"{mapped}_" if mapped in RESERVED else mapped


def with_mark(name: str, identity: str) -> str:
    """Return `name` with a short suffix that depends on `identity` alone, so it never changes."""
    return f"{name}_{sha256(identity.encode()).hexdigest()[:8]}"


class Ports:
    """Names of a step's inputs or outputs, which no user reads: any that Dagster takes will do."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """Return a name like `wanted` that was not given out before."""
        name = dagster_name(wanted)
        while name in self._taken:
            name = with_mark(name, wanted)
        self._taken.add(name)
        return name


def shown_name(dbt: DbtFacts) -> str:
    """Return how people call a node: the versions of a model are told apart, as in dbt's ref."""
    if dbt.resource_type != "model" or dbt.version is None:
        return dbt.name
    return f"{dbt.name}.v{dbt.version}"


def asset_path(dbt: DbtFacts) -> AssetPath:
    """Return the Dagster asset key of a dbt node, by dagster-dbt's rules.

    `meta.dagster.asset_key` if given; source and table name for a source; alias for a versioned
    model; else the configured schema, if any, and the name.
    """
    return asked_path(dbt) or default_path(dbt)


def is_asked(node: Node) -> bool:
    """Tell whether `meta.dagster.asset_key` gives a node its key."""
    return node.dbt is not None and bool(asked_path(node.dbt))


def asked_path(dbt: DbtFacts) -> AssetPath:
    """Return the asset key that `meta.dagster.asset_key` asks for; empty for none."""
    asked = dbt.dagster_meta.get("asset_key")
    if isinstance(asked, list):
        return tuple(map(str, asked))
    return (asked,) if isinstance(asked, str) and asked else ()


def default_path(dbt: DbtFacts) -> AssetPath:
    """Return the asset key of a node that asks for none."""
    if dbt.resource_type == "source":
        return (dbt.source_name or "", dbt.name)
    if dbt.version:
        return (dbt.alias or dbt.name,)
    if dbt.config.schema is not None:
        return (dbt.config.schema, dbt.name)
    return (dbt.name,)


# --- asset keys that meet


def keys_apart(
    nodes: Iterable[Node], root: str | None, asked: Callable[[Node], bool]
) -> dict[str, AssetPath]:
    """Return new asset keys, by unique id, for nodes whose key means something else, too.

    Sources that are one table, or that were `asked` to have one key, are one asset.
    Else a node of the product's own dbt project (`root`) keeps the key before one of a package,
    and an asset before a source. Who does not keep it gets its package in front, and a mark if
    that is no help. Where two have the same right to it, neither keeps it: which one did would
    depend on what else there is.
    """
    meeting: defaultdict[AssetPath, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.kind in ASSET_KINDS or node.kind == "source":
            meeting[node.key].append(node)
    apart: dict[str, AssetPath] = {}
    for members in [found for found in meeting.values() if len(found) > 1]:
        for table in _without_a_right(members, root, asked):
            wanted = _other_key(table[0], root)
            if wanted in meeting:
                wanted = (*wanted[:-1], with_mark(wanted[-1], table[0].unique_id))
            meeting[wanted] += table
            apart |= dict.fromkeys((node.unique_id for node in table), wanted)
    return apart


def _without_a_right(
    members: Sequence[Node], root: str | None, asked: Callable[[Node], bool]
) -> Iterator[Sequence[Node]]:
    """Yield the tables among nodes of one key that have to give it up, each as its nodes."""
    tables: list[list[Node]] = []
    table_of: dict[str, list[Node]] = {}
    asked_for = False
    for node in sorted(members, key=lambda node: node.kind == "source"):
        relation = same_relation(node.relation) if node.relation else node.unique_id
        if node.kind == "source" and asked(node):
            asked_for = True
        elif node.kind == "source" and relation in table_of:
            table_of[relation].append(node)
        else:
            table_of[relation] = [node]
            tables.append(table_of[relation])
    if asked_for and not any(node.kind in ASSET_KINDS for node in members):
        return

    def right(table: Sequence[Node]) -> tuple[bool, bool]:
        packages = {node.dbt.package_name for node in table if node.dbt is not None}
        return table[0].kind == "source", root not in packages

    best = min(map(right, tables))
    entitled = [table for table in tables if right(table) == best]
    for table in tables:
        if len(entitled) > 1 or table is not entitled[0]:
            yield table


def _other_key(node: Node, root: str | None) -> AssetPath:
    package = node.dbt.package_name if node.dbt is not None else root
    if not package or package == root:
        return (*node.key[:-1], with_mark(node.key[-1], node.unique_id))
    return (package, *node.key)


# --- checks that meet


def checks_apart(nodes: Mapping[str, Node], root: str | None) -> tuple[dict[str, Node], list[str]]:
    """Return the checks that need another name, with that, and a warning that says so.

    On one asset, a check whose name is fine as it is keeps it before one whose name had to be
    mapped, a test of the product's own dbt project (`root`) before one of a package, and a dbt
    test before a quality check of floe.yaml. All others get a mark; where two have the same right
    to a name, both do.
    """
    changed: dict[str, Node] = {}
    told: list[str] = []
    for (_, name), checks in _meeting(nodes).items():
        ranks = {check.unique_id: _rank(check, root) for check in checks}
        best = min(ranks.values())
        entitled = [check for check in checks if ranks[check.unique_id] == best]
        for check in checks:
            if len(entitled) == 1 and check is entitled[0]:
                continue
            new = with_mark(name, identity_of(check))
            changed[check.unique_id] = _renamed(check, new)
            quality_check = f"quality check of '{nodes[check.on].name}'"
            told.append(f"{new} ({quality_check if check.quality else check.unique_id})")
    return changed, [*_told("checks share a name with another check of their asset", told)]


def _meeting(nodes: Mapping[str, Node]) -> Mapping[tuple[AssetPath, str], Sequence[Node]]:
    """Return the checks whose names meet, by asset key and name: few or none of thousands."""
    seen: set[tuple[AssetPath, str]] = set()
    met: defaultdict[tuple[AssetPath, str], list[Node]] = defaultdict(list)
    checks = [node for node in nodes.values() if node.kind in CHECK_KINDS]
    for check in checks:
        key = nodes[check.on].key, check.name
        if key in seen:
            met[key] = []
        seen.add(key)
    for check in checks if met else ():
        key = nodes[check.on].key, check.name
        if key in met:
            met[key].append(check)
    return met


def _rank(check: Node, root: str | None) -> tuple[bool, bool, bool]:
    """Return (mapped, of a package, of floe.yaml): the lower, the better the right to a name."""
    dbt, quality = check.dbt, check.quality
    if quality is not None:
        return quality.name != check.name, False, True
    mapped = dbt is not None and dbt.name != check.name
    return mapped, dbt is not None and dbt.package_name != root, False


def identity_of(check: Node) -> str:
    """Return what the mark of a check depends on."""
    quality = check.quality
    if quality is None:
        return check.unique_id
    # Names in Dagster's history depend on this text.
    arguments = sorted(quality.arguments.items())
    return f"{check.on}#{quality.name}#{quality.type}#{arguments!r}"


def _renamed(check: Node, name: str) -> Node:
    if check.quality is None:
        return with_fields(check, name=name)
    return with_fields(check, name=name, quality=replace(check.quality, name=name))


def keys_told(keys: Mapping[str, AssetPath]) -> Iterator[str]:
    """Yield a warning that says which asset keys are not dagster-dbt's, if any are."""
    listed = [f"{'/'.join(key)} ({uid})" for uid, key in sorted(keys.items())]
    return _told("dbt nodes have an asset key that another node has as good a right to", listed)


def _told(what: str, listed: Iterable[str]) -> Iterator[str]:
    names = sorted(listed)
    if not names:
        return
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    yield (
        f"{len(names)} {what}. They are told apart in Dagster as: "
        f"{', '.join(names[:MAX_LISTED])}{more}."
    )
