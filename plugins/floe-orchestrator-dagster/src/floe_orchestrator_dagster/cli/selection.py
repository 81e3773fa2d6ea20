"""What a run selects: from dbt's or Dagster's selection syntax to nodes of the plan."""

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


@dataclass(frozen=True, slots=True)
class Selection:
    """What a user selects by, and what dbt needs to know to understand it."""

    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    selector: str | None = None
    state: Path | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether a user has selected nothing in particular."""
        return not self.select and not self.exclude and self.selector is None

    def __str__(self) -> str:
        """Return it in words, for messages."""
        words = [*self.select, *(f"--exclude {word}" for word in self.exclude)]
        if self.selector is not None:
            words.append(f"--selector {self.selector}")
        return " ".join(words) or f"the default selector of {SELECTORS}"


def select_nodes(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    asked: Selection,
    warn: Callable[[str], None],
) -> tuple[list[str], list[str]]:
    """Return the assets and the checks that are selected, by unique id, in the plan's order.

    Without any selection it is everything, or what the default selector of selectors.yml says.
    Both are empty, with a warning, where dbt selects nothing, or nothing that is built, such as an
    exposure. A project with `warn_error` makes dbt refuse a selection of nothing.

    Raises:
        click.BadParameter: a selection cannot be read, or one of Dagster's selects nothing.
        click.UsageError: there is a selector beside another selection.
    """
    _refuse_what_is_no_selection(asked)
    if asked.select or asked.exclude:
        chosen = _by_words(product, specs, definitions, asked, warn)
    elif asked.selector is not None or has_default_selector(product):
        chosen = _by_dbt(product, (), (), warn, asked)
    else:
        return [*specs.plan.assets], [*specs.plan.checks]
    plan = specs.plan
    assets = [uid for uid in plan.assets if uid in chosen]
    # dbt does not know quality checks: they come with the model they are on.
    checks = [
        uid
        for uid, node in plan.checks.items()
        if (node.on if node.kind == QUALITY_CHECK else uid) in chosen
    ]
    if not assets and not checks:
        _explain_nothing(asked, chosen, warn)
    return assets, checks


def _by_words(
    product: Product,
    specs: Specs,
    definitions: Definitions,
    asked: Selection,
    warn: Callable[[str], None],
) -> set[str]:
    """Return what --select and --exclude mean, of dbt's syntax and of Dagster's."""
    select, exclude = asked.select, asked.exclude
    of_dagster = [word.removeprefix(DAGSTER) for word in select if is_dagster(word)]
    of_dbt = [word.removeprefix(DBT) for word in select if not is_dagster(word)]
    without = [word.removeprefix(DBT) for word in exclude if not is_dagster(word)]
    chosen: set[str] = set()
    if of_dbt or (without and not of_dagster):
        named = None if without or asked.variables else _by_name(product, of_dbt)
        chosen |= _by_dbt(product, of_dbt, without, warn, asked) if named is None else named
    elif not select:
        chosen |= {*specs.plan.assets, *specs.plan.checks}
    for word in of_dagster:
        chosen |= _by_dagster(specs, definitions, word, "--select")
    if of_dagster and without:
        chosen -= _by_dbt(product, without, (), warn, asked)
    for word in exclude:
        if is_dagster(word):
            chosen -= _by_dagster(specs, definitions, word.removeprefix(DAGSTER), "--exclude")
    return chosen


def has_default_selector(product: Product) -> bool:
    """Tell whether dbt may know a selector for commands without a selection.

    Whether it does is dbt's to say: what makes a selector the default may be a template.
    """
    path = (product.project_dir or Path()) / SELECTORS
    if product.project_dir is None or not path.is_file() or not path.stat().st_size:
        return False
    selectors = read_yaml(path, "Correct it.").get("selectors")
    return isinstance(selectors, list) and any(
        isinstance(item, dict) and item.get("default") for item in selectors
    )


def _refuse_what_is_no_selection(asked: Selection) -> None:
    if asked.selector is not None and (asked.select or asked.exclude):
        raise click.UsageError("--selector stands alone: leave out --select and --exclude.")
    given = {
        "--select": asked.select,
        "--exclude": asked.exclude,
        "--selector": () if asked.selector is None else (asked.selector,),
    }
    for option, words in given.items():
        for word in words:
            # dbt would take it for an option of its own.
            if not word.strip() or word.lstrip().startswith("-"):
                raise click.BadParameter(f"{word!r} is not a selection.", param_hint=option)


def _explain_nothing(
    asked: Selection, chosen: Collection[str], warn: Callable[[str], None]
) -> None:
    """Say why there is nothing to build, which to dbt is a warning and to Dagster an error."""
    message = f"'{asked}' selects no model, seed, snapshot or test of this product."
    if chosen:
        warn(f"{message} Only {known(chosen)} match, and there is nothing to build of these.")
    elif any(is_dagster(word) for word in (*asked.select, *asked.exclude)):
        raise click.BadParameter(
            f"{message} `floe-dagster check` shows what there is.", param_hint="--select"
        )
    else:
        warn(f"{message} `floe-dagster check` shows what there is.")


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
    asked: Selection | None = None,
) -> set[str]:
    """Ask dbt which nodes a selection means; returns unique ids of every resource type.

    What exists may differ by target, so each target is asked, and decides on its own nodes.
    """
    asked = asked or Selection(select, exclude)
    flags = [
        *("--output", "json", "--output-keys", "unique_id"),
        *(["--select", *select] if select else []),
        *(["--exclude", *exclude] if exclude else []),
        *(["--selector", asked.selector] if asked.selector is not None else []),
        *(["--state", str(asked.state)] if asked.state is not None else []),
    ]
    plan, found = product.plan, set[str]()
    unmatched: list[set[str]] = []
    targets = _targets_to_ask(plan)
    for target in targets:
        listed, lines = _listed(product, target, flags, asked)
        found |= {
            uid
            for uid in listed
            if uid not in plan.nodes
            or not plan.nodes[uid].compute
            or plan.target_of(uid) == target
            or (target == targets[0] and plan.target_of(uid) not in targets)
        }
        unmatched.append(lines)
    # What matches nothing on one target may do so on another.
    for line in sorted(set.intersection(*unmatched)):
        warn(line)
    return found


def _targets_to_ask(plan: ProductPlan) -> Sequence[str]:
    """Return the targets that dbt-core builds on, the default one first."""
    default = plan.computes[plan.default_compute].target
    others = {plan.target_of(uid) for uid in (*plan.assets, *plan.checks)}
    foreign = {place.target for place in plan.computes.values() if place.dbt_executable}
    return [default, *sorted(others - foreign - {default})]


def _listed(
    product: Product, target: str, flags: Sequence[str], asked: Selection
) -> tuple[set[str], set[str]]:
    """Return what `dbt ls` lists on a target, and what it says of words that match nothing."""
    run_dir = product.new_run_dir(f"select-{os.getpid()}", target)
    found: set[str] = set()
    unmatched: set[str] = set()
    said: list[str] = []
    try:
        command = product.command(
            "ls", target, run_dir, flags=tuple(flags), variables=asked.variables
        )
        with run_dbt(command) as run:
            for event in run:
                if not isinstance(event, Line):
                    continue
                # dbt has renamed this event before, so it is known by its text.
                if event.text.startswith('{"unique_id"'):
                    found.add(json.loads(event.text)["unique_id"])
                elif event.level == "error":
                    said.append(event.text)
                elif event.name == "NoNodesForSelectionCriteria":
                    unmatched.add(event.text)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    if run.success:
        return found, unmatched
    if said:
        reason = " ".join(said[0].removeprefix("Encountered an error:").split())
        raise click.BadParameter(
            f"dbt cannot read '{asked}': {reason}.", param_hint="--select / --exclude / --selector"
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
