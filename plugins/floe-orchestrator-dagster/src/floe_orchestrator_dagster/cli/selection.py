"""`--select` and `--exclude`: from dbt's or Dagster's selection syntax to nodes of the plan."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

import click

from floe_orchestrator_dagster.dbt.events import Line
from floe_orchestrator_dagster.dbt.process import run_dbt
from floe_orchestrator_dagster.errors import DbtError
from floe_orchestrator_dagster.files import read_yaml
from floe_orchestrator_dagster.product import DBT_PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dagster import Definitions

    from floe_orchestrator_dagster.product import Product
    from floe_orchestrator_dagster.specs import Specs

DAGSTER, DBT = "dagster:", "dbt:"
# What Dagster's syntax has and dbt's has not. `tag:` and `group:` are in both, so they are dbt's.
_DAGSTER_MARKS = re.compile(
    r"""["()]|(?:^|\s)(?:and|or|not)(?:\s|$)
    |(?<![\w.])(?:key|kind|owner|code_location|table_name|column|column_tag):""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_]\w*")


def is_dagster(selection: str) -> bool:
    """Tell whether a selection is in Dagster's syntax; the rule is in `run --help`."""
    if selection.startswith(DAGSTER):
        return True
    return not selection.startswith(DBT) and _DAGSTER_MARKS.search(selection) is not None


def select_nodes(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    select: Sequence[str],
    exclude: Sequence[str],
    warn: Callable[[str], None],
) -> tuple[list[str], list[str]]:
    """Return the assets and the checks that are selected, by unique id, in the plan's order.

    Raises:
        click.BadParameter: nothing is selected, or a selection cannot be read.
    """
    for option, words in (("--select", select), ("--exclude", exclude)):
        for word in words:
            _refuse_flags(option, word)
    of_dagster = [word.removeprefix(DAGSTER) for word in select if is_dagster(word)]
    of_dbt = [word.removeprefix(DBT) for word in select if not is_dagster(word)]
    without = [word.removeprefix(DBT) for word in exclude if not is_dagster(word)]
    chosen: set[str] = set()
    if of_dbt or (without and not of_dagster):
        named = None if without else _by_name(product, of_dbt)
        chosen |= _by_dbt(product, of_dbt, without, warn) if named is None else named
    elif not select:
        chosen |= {*specs.plan.assets, *specs.plan.checks}
    for word in of_dagster:
        chosen |= _by_dagster(specs, definitions, word, "--select")
    if of_dagster and without:
        chosen -= _by_dbt(product, without, (), warn)
    for word in exclude:
        if is_dagster(word):
            chosen -= _by_dagster(specs, definitions, word.removeprefix(DAGSTER), "--exclude")
    assets = [uid for uid in specs.plan.assets if uid in chosen]
    checks = [uid for uid in specs.plan.checks if uid in chosen]
    if not assets and not checks:
        raise click.BadParameter(_nothing(select, exclude, chosen), param_hint="--select")
    return assets, checks


def _refuse_flags(option: str, word: str) -> None:
    if not word.strip() or word.lstrip().startswith("-"):
        raise click.BadParameter(f"{word!r} is no selection.", param_hint=option)


def _nothing(select: Sequence[str], exclude: Sequence[str], chosen: Iterable[str]) -> str:
    asked = " ".join([*select, *(f"--exclude {word}" for word in exclude)])
    others = sorted(chosen)
    found = f" Only {others[0]} and the like match, which Dagster does not build." if others else ""
    return (
        f"'{asked}' selects no model, seed, snapshot or test of this product.{found} "
        "`floe-dagster check` shows what there is."
    )


def _by_name(product: Product, select: Sequence[str]) -> set[str] | None:
    """Return nodes and their tests where each word can only mean one node; else None.

    As dbt's `fqn` method with the default of indirect selection has it; dbt need not be started.
    """
    if not all(_NAME.fullmatch(word) for word in select) or _is_asked_to_select_otherwise(product):
        return None
    nodes = product.plan.nodes
    found: set[str] = set()
    for word in select:
        # A folder or package of that name would mean all that is in it.
        meant = [
            uid
            for uid, node in nodes.items()
            if node.dbt and word in ".".join(node.dbt.fqn).split(".")
        ]
        if len(meant) != 1 or (last := nodes[meant[0]].dbt) is None or last.fqn[-1] != word:
            return None
        found.add(meant[0])
    tests = (
        uid
        for uid, node in nodes.items()
        if node.kind in {"test", "unit_test"} and not found.isdisjoint(node.parents)
    )
    return found.union(tests)


def _is_asked_to_select_otherwise(product: Product) -> bool:
    """Tell whether the project or the environment says which tests come with a node."""
    if any(name.startswith("DBT_") and "INDIRECT_SELECTION" in name for name in os.environ):
        return True
    if product.project_dir is None:
        return True
    project = read_yaml(product.project_dir / DBT_PROJECT, "Correct it.")
    return "indirect_selection" in (project.get("flags") or {})


def _by_dbt(
    product: Product,
    select: Sequence[str],
    exclude: Sequence[str],
    warn: Callable[[str], None],
) -> set[str]:
    """Ask dbt which nodes a selection means; returns unique ids of every resource type."""
    target = product.plan.computes[product.plan.default_compute].target
    flags = [
        *("--output", "json", "--output-keys", "unique_id"),
        *(["--select", *select] if select else []),
        *(["--exclude", *exclude] if exclude else []),
    ]
    run_dir = product.new_run_dir(f"select-{os.getpid()}", target)
    found: set[str] = set()
    said: list[str] = []
    try:
        with run_dbt(product.command("ls", target, run_dir, flags=tuple(flags))) as run:
            for event in run:
                if not isinstance(event, Line):
                    continue
                # dbt has renamed this event before, so it is known by its text.
                if event.text.startswith('{"unique_id"'):
                    found.add(json.loads(event.text)["unique_id"])
                elif event.level == "error":
                    said.append(event.text)
                elif event.name == "NoNodesForSelectionCriteria":
                    warn(event.text)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    if run.success:
        return found
    if said:
        reason = " ".join(said[0].removeprefix("Encountered an error:").split())
        words = " ".join([*select, *exclude])
        raise click.BadParameter(
            f"dbt cannot read '{words}': {reason}.", param_hint="--select / --exclude"
        )
    raise DbtError(f"Cannot select nodes: {run.exception or 'dbt gave no reason'}")


def _by_dagster(specs: Specs, definitions: Definitions, text: str, option: str) -> set[str]:
    """Ask Dagster which assets a selection means; their checks come with them."""
    from dagster import AssetsDefinition, AssetSelection, DagsterError

    try:
        selection = AssetSelection.from_string(text)
        # Of the real assets: what no step builds is a source to Dagster, and left out.
        known = [item for item in definitions.assets or () if isinstance(item, AssetsDefinition)]
        if specs.sources:
            known.append(AssetsDefinition(specs=specs.sources))
        keys = selection.resolve(known, allow_missing=True)
    except (DagsterError, ValueError) as error:
        raise click.BadParameter(
            f"Dagster cannot read '{text}': {str(error).splitlines()[0]}", param_hint=option
        ) from error
    found = {uid for uid, key in specs.keys.items() if key in keys}
    plan = specs.plan
    return found | {uid for uid, check in plan.checks.items() if check.on in found}
