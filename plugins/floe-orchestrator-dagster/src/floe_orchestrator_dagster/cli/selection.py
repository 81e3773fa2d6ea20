"""Resolves selections in dbt's or Dagster's syntax to nodes of the plan."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from floe_orchestrator_dagster.dbt.events import Line
from floe_orchestrator_dagster.dbt.process import run_dbt
from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import DbtError, known
from floe_orchestrator_dagster.files import read_yaml
from floe_orchestrator_dagster.plan import QUALITY_CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from dagster import Definitions

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.product.product import Product

SELECTORS = "selectors.yml"
DAGSTER, DBT = "dagster:", "dbt:"
# Only Dagster's syntax has these. `tag:` and `group:` are in both syntaxes, so they are dbt's.
_DAGSTER_MARKS = re.compile(
    r"""["()]|(?:^|\s)(?:and|or|not)(?:\s|$)
    |(?<![\w.])(?:key|kind|owner|code_location|table_name|column|column_tag):""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_]\w*")


def is_dagster(selection: str) -> bool:
    """Return whether a selection is in Dagster's syntax; `run --help` states the rule."""
    if selection.startswith(DAGSTER):
        return True
    return not selection.startswith(DBT) and _DAGSTER_MARKS.search(selection) is not None


@dataclass(frozen=True, slots=True)
class Selection:
    """The user's selection, with the state and the variables that dbt needs to resolve it."""

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    selector: str | None = None
    state: Path | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether the user has selected nothing in particular."""
        return not self.select and not self.exclude and self.selector is None

    def __str__(self) -> str:
        """Return the selection as a command line has it, for messages."""
        words = [*self.select, *(f"--exclude {word}" for word in self.exclude)]
        if self.selector is not None:
            words.append(f"--selector {self.selector}")
        return " ".join(words) or f"the default selector of {SELECTORS}"


def select_nodes(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    requested: Selection,
    warn: Callable[[str], None],
) -> tuple[list[str], list[str]]:
    """Return the unique ids of the selected assets and checks, in the plan's order.

    Without a selection, these are the nodes of the default selector of selectors.yml, or all nodes
    if there is none. Both lists are empty, with a warning, when dbt selects nothing, or only nodes
    that are not built, such as an exposure. In a project with `warn_error`, dbt refuses an empty
    selection.

    Raises:
        click.BadParameter: a selection cannot be read, or one in Dagster's syntax selects nothing.
        click.UsageError: a selector is combined with another selection.
    """
    _refuse_invalid(requested)
    if requested.select or requested.exclude:
        chosen = _by_words(product, specs, definitions, requested, warn)
    elif requested.selector is not None or has_default_selector(product):
        chosen = _by_dbt(product, (), (), warn, requested)
    else:
        return [*specs.plan.assets], [*specs.plan.checks]
    plan = specs.plan
    assets = [uid for uid in plan.assets if uid in chosen]
    # dbt does not know quality checks, so each is selected with its model.
    checks = [
        uid
        for uid, node in plan.checks.items()
        if (node.on if node.kind == QUALITY_CHECK else uid) in chosen
    ]
    if not assets and not checks:
        _explain_nothing(requested, chosen, warn)
    return assets, checks


def _by_words(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    requested: Selection,
    warn: Callable[[str], None],
) -> set[str]:
    """Return the nodes that --select and --exclude mean, in either syntax."""
    select, exclude = requested.select, requested.exclude
    of_dagster = [word.removeprefix(DAGSTER) for word in select if is_dagster(word)]
    of_dbt = [word.removeprefix(DBT) for word in select if not is_dagster(word)]
    without = [word.removeprefix(DBT) for word in exclude if not is_dagster(word)]
    chosen: set[str] = set()
    if of_dbt or (without and not of_dagster):
        named = None if without or requested.variables else _by_name(product, of_dbt)
        chosen |= _by_dbt(product, of_dbt, without, warn, requested) if named is None else named
    elif not select:
        chosen |= {*specs.plan.assets, *specs.plan.checks}
    for word in of_dagster:
        chosen |= _by_dagster(specs, definitions, word, "--select")
    if of_dagster and without:
        chosen -= _by_dbt(product, without, (), warn, requested)
    for word in exclude:
        if is_dagster(word):
            chosen -= _by_dagster(specs, definitions, word.removeprefix(DAGSTER), "--exclude")
    return chosen


def has_default_selector(product: Product) -> bool:
    """Return whether selectors.yml may have a default selector.

    Only dbt knows for certain, because the value of `default` may be a template.
    """
    path = (product.project_dir or Path()) / SELECTORS
    if product.project_dir is None or not path.is_file() or not path.stat().st_size:
        return False
    selectors = read_yaml(path, "Correct it.").get("selectors")
    return isinstance(selectors, list) and any(
        isinstance(item, dict) and item.get("default") for item in selectors
    )


def _refuse_invalid(requested: Selection) -> None:
    if requested.selector is not None and (requested.select or requested.exclude):
        raise click.UsageError(
            "--selector cannot be combined with --select or --exclude: leave out one or the other."
        )
    options = {
        "--select": requested.select,
        "--exclude": requested.exclude,
        "--selector": () if requested.selector is None else (requested.selector,),
    }
    for option, words in options.items():
        for word in words:
            # dbt would parse it as one of its own options.
            if not word.strip() or word.lstrip().startswith("-"):
                raise click.BadParameter(f"{word!r} is not a selection.", param_hint=option)


def _explain_nothing(
    requested: Selection, chosen: Collection[str], warn: Callable[[str], None]
) -> None:
    """Explain why there is nothing to build: a warning for dbt's syntax, an error for Dagster's."""
    message = f"'{requested}' selects no model, seed, snapshot or test of this product."
    remedy = "`floe-dagster check --json` lists its nodes."
    if chosen:
        warn(f"{message} It selects only {known(chosen)}, and there is nothing to build for these.")
    elif any(is_dagster(word) for word in (*requested.select, *requested.exclude)):
        raise click.BadParameter(f"{message} {remedy}", param_hint="--select / --exclude")
    else:
        warn(f"{message} {remedy}")


def _by_name(product: Product, select: Sequence[str]) -> set[str] | None:
    """Return the named nodes and their tests if each word can only mean one node; else None.

    This is dbt's `fqn` method with the default indirect selection, without starting dbt.
    """
    if not all(_NAME.fullmatch(word) for word in select) or _sets_indirect_selection(product):
        return None
    nodes = product.plan.nodes
    named: set[str] = set()
    for word in select:
        # A folder or package of that name would mean everything in it.
        matches = [
            uid
            for uid, node in nodes.items()
            if node.dbt and word in ".".join(node.dbt.fqn).split(".")
        ]
        if len(matches) != 1 or (last := nodes[matches[0]].dbt) is None or last.fqn[-1] != word:
            return None
        named.add(matches[0])
    tests = (
        uid
        for uid, node in nodes.items()
        if node.kind in {"test", "unit_test"} and not named.isdisjoint(node.parents)
    )
    return named.union(tests)


def _sets_indirect_selection(product: Product) -> bool:
    """Return whether the project or the environment sets which tests come with a node."""
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
    requested: Selection | None = None,
) -> set[str]:
    """Return the nodes that dbt selects, by unique id, of every resource type.

    The project's nodes may differ by target, so dbt lists them on each target. Each target decides
    about its own nodes.
    """
    requested = requested or Selection(select, exclude)
    flags = [
        *("--output", "json", "--output-keys", "unique_id"),
        *(["--select", *select] if select else []),
        *(["--exclude", *exclude] if exclude else []),
        *(["--selector", requested.selector] if requested.selector is not None else []),
        *(["--state", str(requested.state)] if requested.state is not None else []),
    ]
    plan, selected = product.plan, set[str]()
    unmatched: list[set[str]] = []
    targets = _targets_to_list(plan)
    for target in targets:
        listed, lines = _listed(product, target, flags, requested)
        selected |= {
            uid
            for uid in listed
            if uid not in plan.nodes
            or not plan.nodes[uid].compute
            or plan.target_of(uid) == target
            or (target == targets[0] and plan.target_of(uid) not in targets)
        }
        unmatched.append(lines)
    # A word that matches nothing on one target may match on another.
    for line in sorted(set.intersection(*unmatched)):
        warn(line)
    return selected


def _targets_to_list(plan: ProductPlan) -> Sequence[str]:
    """Return the targets that dbt-core builds on, the default one first."""
    default = plan.computes[plan.default_compute].target
    others = {plan.target_of(uid) for uid in (*plan.assets, *plan.checks)}
    foreign = {place.target for place in plan.computes.values() if place.dbt_executable}
    return [default, *sorted(others - foreign - {default})]


def _listed(
    product: Product, target: str, flags: Sequence[str], requested: Selection
) -> tuple[set[str], set[str]]:
    """Return what `dbt ls` lists on a target, and its messages about words without a match."""
    run_dir = product.new_run_dir(f"select-{os.getpid()}", target)
    listed: set[str] = set()
    unmatched: set[str] = set()
    errors: list[str] = []
    try:
        command = product.command(
            "ls", target, run_dir, flags=tuple(flags), variables=requested.variables
        )
        with run_dbt(command) as run:
            for event in run:
                if not isinstance(event, Line):
                    continue
                # dbt has renamed this event before, so its text identifies it.
                if event.text.startswith('{"unique_id"'):
                    listed.add(json.loads(event.text)["unique_id"])
                elif event.level == "error":
                    errors.append(event.text)
                elif event.name == "NoNodesForSelectionCriteria":
                    unmatched.add(event.text)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    if run.success:
        return listed, unmatched
    if errors:
        reason = " ".join(errors[0].removeprefix("Encountered an error:").split())
        raise click.BadParameter(
            f"dbt cannot read '{requested}': {reason}.",
            param_hint="--select / --exclude / --selector",
        )
    raise DbtError(f"Cannot select nodes: {run.exception or 'dbt gave no reason'}")


def _by_dagster(specs: Specs, definitions: Definitions, text: str, option: str) -> set[str]:
    """Return the assets that Dagster selects, with their checks."""
    from dagster import AssetsDefinition, AssetSelection, DagsterError

    try:
        selection = AssetSelection.from_string(text)
        # With the real assets: Dagster leaves out an asset that no step builds, as a source.
        known = [item for item in definitions.assets or () if isinstance(item, AssetsDefinition)]
        if specs.sources:
            known.append(AssetsDefinition(specs=specs.sources))
        keys = selection.resolve(known, allow_missing=True)
    except (DagsterError, ValueError) as error:
        raise click.BadParameter(
            f"Dagster cannot read '{text}': {str(error).splitlines()[0]}", param_hint=option
        ) from error
    selected = {uid for uid, key in specs.keys.items() if key in keys}
    plan = specs.plan
    return selected | {uid for uid, check in plan.checks.items() if check.on in selected}
