"""Names: how dbt nodes are called in Dagster, with what Dagster refuses."""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.errors import Problem
from floe_orchestrator_dagster.plan.model import CHECK_KINDS
from floe_orchestrator_dagster.plan.preflight import same_relation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floe_orchestrator_dagster.plan.manifest import DbtNode
    from floe_orchestrator_dagster.plan.model import AssetPath, Node, ProductPlan

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")
# What Dagster takes in an asset key that is also the name of an output or input of a step.
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_TO_OUTPUT = str.maketrans("-.", "__")
# Names of outputs and inputs that Dagster keeps for itself.
RESERVED = frozenset(keyword.kwlist) | {
    *("arg_dict", "bool", "conf", "config", "context", "dict", "float", "input"),
    *("input_arg_dict", "int", "meta", "output", "output_arg_dict", "str", "type"),
}


def dagster_name(name: str) -> str:
    """Return `name` as Dagster takes it for jobs, schedules, ops and checks (``[A-Za-z0-9_]``)."""
    return _NOT_IN_NAME.sub("_", name)


def asset_path(dbt: DbtNode) -> AssetPath:
    """Return the Dagster asset key of a dbt node, by dagster-dbt's rules.

    `meta.dagster.asset_key` if given; source and table name for a source; alias for a versioned
    model; else the configured schema, if any, and the name.
    """
    configured = dbt.dagster_meta.get("asset_key")
    if isinstance(configured, str) and configured:
        return (configured,)
    if isinstance(configured, list) and configured:
        return tuple(map(str, configured))
    if dbt.resource_type == "source":
        return (dbt.source_name or "", dbt.name)
    if dbt.version:
        return (dbt.alias or dbt.name,)
    if dbt.config.schema is not None:
        return (dbt.config.schema, dbt.name)
    return (dbt.name,)


def name_problems(plan: ProductPlan) -> Iterator[Problem]:
    """Yield a problem for each name that Dagster refuses, and for each two that map to one."""
    # Dagster never gets to see the name of a source that nothing reads.
    read = set[str]().union(*(plan.folded_parents[uid] for uid in (*plan.assets, *plan.checks)))
    sources = {uid: node for uid, node in plan.sources.items() if uid in read}
    owner_of_key: dict[AssetPath, str] = {}
    owner_of_output: dict[str, str] = {}
    for uid, node in {**plan.assets, **sources}.items():
        output = output_name(node.key)
        if not _KEY.fullmatch("".join(node.key)) or output in RESERVED:
            yield Problem(
                _where(node),
                f"Dagster refuses the asset key {list(node.key)} of '{node.name}'"
                f"{' (a reserved word)' if output in RESERVED else ''}.",
                "Use letters, digits, '_', '-' and '.' only, or set meta.dagster.asset_key.",
            )
            continue
        other = owner_of_key.setdefault(node.key, uid)
        if other != uid and not _is_one_table(plan.nodes[other], node):
            yield Problem(
                _where(node),
                f"'{uid}' and '{other}' both map to the Dagster asset key {list(node.key)}.",
                "Rename one of them, or set meta.dagster.asset_key on it.",
            )
        elif other == uid and uid not in sources:
            other = owner_of_output.setdefault(output, uid)
            if other != uid:
                yield Problem(
                    _where(node),
                    f"'{uid}' and '{other}' both map to the Dagster output name '{output}'.",
                    "Rename one of them, or set meta.dagster.asset_key on it.",
                )
    yield from _check_problems(plan, owner_of_output)


def output_name(key: AssetPath) -> str:
    """Return how Dagster calls the output of a step that makes this asset."""
    return "__".join(key).translate(_TO_OUTPUT)


def _where(node: Node) -> str:
    path = node.dbt.original_file_path if node.dbt else ""
    return path or f"{node.kind} '{node.name}'"


def _is_one_table(one: Node, other: Node) -> bool:
    """Tell whether a source is but another name for what the other node builds."""
    return (
        "source" in {one.kind, other.kind}
        and one.relation is not None
        and other.relation is not None
        and same_relation(one.relation) == same_relation(other.relation)
    )


def _check_problems(plan: ProductPlan, owner_of_output: Mapping[str, str]) -> Iterator[Problem]:
    # Dagster calls the output of a check after its asset and itself, beside those of the assets.
    outputs = {uid: output for output, uid in owner_of_output.items()}
    taken = dict(owner_of_output)
    for on, name, owner in _checks(plan):
        output = f"{outputs.get(on) or output_name(plan.nodes[on].key)}_{name}"
        other = taken.setdefault(output, owner)
        if other is not owner:
            found = " and ".join(f"'{one}'" if one in plan.nodes else one for one in (owner, other))
            yield Problem(
                f"checks of '{plan.nodes[on].name}'",
                f"{found} both map to the Dagster output name '{output}'.",
                "Rename one of them.",
            )


def _checks(plan: ProductPlan) -> Iterator[tuple[str, str, str]]:
    """Yield of each check what it is on, its name, and its unique id or what else tells of it."""
    for uid, node in plan.nodes.items():
        if node.kind in CHECK_KINDS:
            yield node.on, node.name, uid
        for check in node.quality_checks:
            yield uid, dagster_name(check.name), f"quality check '{check.name}' of '{node.name}'"
