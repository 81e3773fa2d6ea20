"""The dbt vars of a launch: whether the graph that Dagster has is the one that they make."""

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
# YAML may double the quotes of what it quotes itself.
_CALL_BY_NAME = re.compile(r"""\bvar\s*\(\s*(['"]{1,2})[^'"]+\1\s*[,)]""")
# Of a seed nothing is rendered, of a documentation file nothing but descriptions.
_WITHOUT_GRAPH = (".csv", ".md")


def with_launch_variables(
    product: Product,
    variables: Mapping[str, Any],
    progress: Callable[[str], None] = logger.info,
) -> Product:
    """Return the product to run with a launch's vars; it has the same graph as `product`.

    Vars that do no more than appear in the SQL of models cannot change a graph. With any others
    the project is parsed, once for each set of vars, which dbt would do in the run anyway.

    Raises:
        ProductError: with these vars the project has another graph; says how to get that one.
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


def _other_graph(product: Product, variables: Mapping[str, Any], found: str) -> ProductError:
    return ProductError(
        f"Cannot run '{product.plan.name}' with these vars "
        f"({known(variables)}): they make another graph than the one that was loaded. {found} "
        "To get that graph, set these `vars` in plugins.orchestrator.config of manifest.yaml, "
        "compile and reload the code location; or run it without a server: "
        "`floe-dagster run --vars`, which parses with them."
    )


def graph_changes(plan: ProductPlan, other: ProductPlan) -> Iterator[str]:
    """Yield a sentence for each way in which the graph of `other` is not that of `plan`."""
    for said, one, two in (("Only with them", other, plan), ("Only without them", plan, other)):
        names = {one.nodes[uid].name or uid for uid in one.nodes.keys() - two.nodes.keys()}
        if names:
            yield f"{said}: {known(names)}."
    moved = {
        node.name or uid
        for uid, node in plan.nodes.items()
        if uid in other.nodes
        and any(
            getattr(node, field) != getattr(other.nodes[uid], field)
            for field in ("kind", "compute", "parents", "after", "key", "on")
        )
    }
    if moved:
        yield f"Otherwise placed or fed: {known(moved)}."


def decide_graph(project: DbtProject, names: Iterable[str]) -> bool:
    """Tell whether any of these vars may decide more than the text of a model's SQL.

    They do not where each use of them is printed by the body of a `.sql` file: what is printed,
    dbt only compiles. Everywhere else, and where a name is computed, they may.
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
            # A name that is put together while parsing may be any.
            return True
        if mentioned.search(text):
            body = path.endswith(".sql") and not path.startswith(macros)
            if not body or not _only_printed(text, {*names}):
                return True
    return False


def _macro_folders(project: DbtProject) -> tuple[str, ...]:
    """Return where macros are, generic tests included: what they print may be taken up."""
    return tuple(
        f"{item.root}{os.sep}{folder}{os.sep}"
        for item in (project, *project.packages)
        for folder in (
            *item.folders("macro-paths"),
            *(f"{tests}{os.sep}generic" for tests in item.folders("test-paths")),
        )
    )


def _only_printed(text: str, names: set[str]) -> bool:
    """Tell whether a template uses these vars in no other way than printing them."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment().parse(text)  # noqa: S701  never shown in a browser
    except TemplateSyntaxError:
        # A tag of dbt's own, such as a snapshot's.
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
    """Return the name that a call of `var` asks for; None if it is computed."""
    return getattr(call.args[0], "value", None) if call.args else None


def _is_var(node: Any) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == "var"
