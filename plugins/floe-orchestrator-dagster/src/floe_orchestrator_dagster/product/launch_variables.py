"""Checks whether a launch's dbt vars would change the graph that Dagster has loaded."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.errors import PlanError, ProductError, known
from floe_orchestrator_dagster.product.opening import load_project
from floe_orchestrator_dagster.product.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from floe_orchestrator_dagster.dbt.project import DbtProject
    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.product.product import Product

logger = logging.getLogger(__name__)

_VAR = re.compile(r"\bvar\b")
_CALL = re.compile(r"\bvar\s*\(")
# A YAML file may double the quotes inside a quoted text.
_CALL_BY_NAME = re.compile(r"""\bvar\s*\(\s*(['"]{1,2})[^'"]+\1\s*[,)]""")
# dbt does not render seeds, and renders only descriptions of documentation files.
_WITHOUT_GRAPH = (".csv", ".md")


def with_launch_variables(
    product: Product,
    variables: Mapping[str, Any],
    progress: Callable[[str], None] = logger.info,
) -> Product:
    """Return the product to run with a launch's vars; it has the same graph as `product`.

    Vars that only appear in the SQL of models cannot change the graph. For other vars, dbt parses
    the project once per set of vars. It would do that in the run anyway.

    Raises:
        ProductError: with these vars, the project has a different graph.
    """
    merged = {**product.variables, **variables}
    names = {
        name
        for name, value in merged.items()
        if name not in product.variables or product.variables[name] != value
    }
    if product.project_dir is None or not names:
        return product
    if not decide_graph(read_project(product.project_dir, merged), names):
        return product
    try:
        parsed = load_project(
            product.compiled,
            product.project_dir,
            spec=product.spec,
            how=Preparation(progress, variables=merged),
        )
    except PlanError as error:
        raise _other_graph(product, variables, str(error)) from error
    changes = [*graph_changes(product.plan, parsed.plan)]
    if changes:
        raise _other_graph(product, variables, " ".join(changes))
    return replace(parsed, lineage_backend=product.lineage_backend)


def _other_graph(product: Product, variables: Mapping[str, Any], reason: str) -> ProductError:
    return ProductError(
        f"Cannot run product '{product.plan.name}' with these vars "
        f"({known(variables)}): they change the graph that Dagster has loaded. {reason} "
        "To use these vars, set `vars` in plugins.orchestrator.config of manifest.yaml, compile "
        "again and reload the code location. Or run the product without a server, with "
        "`floe-dagster run --vars`."
    )


def graph_changes(plan: ProductPlan, other: ProductPlan) -> Iterator[str]:
    """Yield a sentence for each kind of difference between the graphs of `plan` and `other`."""
    for title, one, two in (
        ("Only with these vars", other, plan),
        ("Only without these vars", plan, other),
    ):
        names = {one.nodes[uid].name or uid for uid in one.nodes.keys() - two.nodes.keys()}
        if names:
            yield f"{title}: {known(names)}."
    changed = {
        node.name or uid
        for uid, node in plan.nodes.items()
        if uid in other.nodes
        and any(
            getattr(node, field) != getattr(other.nodes[uid], field)
            for field in ("kind", "compute", "parents", "after", "key", "on")
        )
    }
    if changed:
        yield f"With another kind, key, compute or input: {known(changed)}."


def decide_graph(project: DbtProject, names: Iterable[str]) -> bool:
    """Return whether any of these vars may decide more than the text of a model's SQL.

    They do not if the body of a `.sql` file prints each use of them, because dbt then only
    compiles them. In all other places, and if a name is computed, they may.
    """
    mentioned = re.compile("|".join(re.escape(name) for name in sorted(names)))
    macros = _macro_folders(project)
    for path in project.files():
        if path.endswith(_WITHOUT_GRAPH):
            continue
        text = ""
        with suppress(OSError, UnicodeDecodeError):
            text = Path(path).read_text(encoding="utf-8")
        if not _VAR.search(text):
            continue
        if len(_CALL.findall(text)) != len(_CALL_BY_NAME.findall(text)):
            # A computed name may be any of them.
            return True
        if mentioned.search(text):
            body = path.endswith(".sql") and not path.startswith(macros)
            if not body or not _only_printed(text, {*names}):
                return True
    return False


def _macro_folders(project: DbtProject) -> tuple[str, ...]:
    """Return the folders of macros and generic tests: their callers may use what they print."""
    return tuple(
        f"{item.root}{os.sep}{folder}{os.sep}"
        for item in (project, *project.packages)
        for folder in (
            *item.folders("macro-paths"),
            *(f"{tests}{os.sep}generic" for tests in item.folders("test-paths")),
        )
    )


def _only_printed(text: str, names: set[str]) -> bool:
    """Return whether a template only prints these vars."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment().parse(text)  # noqa: S701  never shown in a browser
    except TemplateSyntaxError:
        # It contains one of dbt's own tags, such as a snapshot's.
        return False
    captured = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)
    if any(True for kind in captured for _ in tree.find_all(kind)):
        return False
    calls = [call for call in tree.find_all(nodes.Call) if _is_var(call.node)]
    if len(calls) != sum(_is_var(name) for name in tree.find_all(nodes.Name)):
        return False
    printed = {id(item) for output in tree.find_all(nodes.Output) for item in output.nodes}
    return all(id(call) in printed or _named(call) not in {None, *names} for call in calls)


def _named(call: Any) -> Any:
    """Return the name in a call of `var`; None if it is computed."""
    return getattr(call.args[0], "value", None) if call.args else None


def _is_var(node: Any) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == "var"
