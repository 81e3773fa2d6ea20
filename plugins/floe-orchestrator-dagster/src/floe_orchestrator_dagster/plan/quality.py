"""Makes nodes of the plan from the quality checks of floe.yaml."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from floe_orchestrator_dagster.plan.model import ASSET_KINDS, QUALITY_CHECK, Node
from floe_orchestrator_dagster.plan.names import check_name, identity_of, with_mark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from floe_orchestrator_dagster.plan.model import QualityCheck


def quality_nodes(checks: Iterable[tuple[str, Node, QualityCheck]]) -> dict[str, Node]:
    """Return quality checks as nodes, by unique id.

    `checks` are tuples of a package, a node of the package, and the check of the node. Unique ids
    have the form of dbt's, with a resource type that dbt does not have:
    `quality_check.<package>.<model>.<name>`. If two checks would have the same id, each gets a
    mark. Two equal checks are one check, with the stricter severity.
    """
    nodes_of: defaultdict[str, dict[str, Node]] = defaultdict(dict)
    for package, model, check in checks:
        own = model.unique_id.split(".", 2)[-1]
        node = Node(
            unique_id=f"{QUALITY_CHECK}.{package}.{own}.{check.name}",
            kind=QUALITY_CHECK,
            compute=model.compute,
            parents=(model.unique_id,),
            name=check_name(check.name),
            on=model.unique_id,
            # The check runs after its model is built. That is too late to stop the nodes below in
            # the same dbt run.
            blocking=False,
            quality=check,
        )
        alike, identity = nodes_of[node.unique_id], identity_of(node)
        if identity not in alike or check.severity == "error":
            alike[identity] = node
    nodes = (
        node if len(alike) == 1 else replace(node, unique_id=with_mark(node.unique_id, identity))
        for alike in nodes_of.values()
        for identity, node in alike.items()
    )
    return {node.unique_id: node for node in nodes}


def meaning(kind: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a generic test asserts: its name and arguments, without the model."""
    column = str(arguments.get("column_name", "")).casefold()
    others = {key: arguments[key] for key in arguments if key not in {"model", "column_name"}}
    return {"test": kind, "column": column, **others}


def meaning_of(check: QualityCheck) -> Mapping[str, Any]:
    """Return what a quality check asserts, comparable with `meaning` of a dbt test."""
    return meaning(check.type.rpartition(".")[2], check.arguments)


def why_not(
    model: Node, check: QualityCheck, tests: Collection[str], executable: str | None
) -> str:
    """Return why a quality check cannot run, with a remedy; "" if it can run.

    `tests` are the macros of the project. `executable` is the dbt that builds the model, if it is
    not dbt-core.
    """
    if model.kind not in ASSET_KINDS:
        return (
            f"the model is {model.kind}, so it cannot have checks and this check does not run. "
            "Materialize it as a view or table."
        )
    if executable is not None:
        return (
            f"it needs the connection of dbt-core, but {executable} builds on compute "
            f"'{model.compute}', so it does not run. Write it as a dbt test."
        )
    if f"test_{check.type.rpartition('.')[2]}" not in tests:
        return (
            f"dbt has no generic test '{check.type}', so it does not run. Install the dbt "
            "package that contains it."
        )
    return ""
