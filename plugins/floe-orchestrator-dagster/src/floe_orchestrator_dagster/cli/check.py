"""`floe-dagster check`: the plan of a product as tables or as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.screen import Screen, collected_warnings
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.plan import waves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.table import Table

    from floe_orchestrator_dagster.plan import ProductPlan, Wave
    from floe_orchestrator_dagster.product.product import Product

KINDS = ("model", "seed", "snapshot")


def validated_product(
    directory: Path, picture: Path | None, progress: Callable[[str], None]
) -> tuple[Product, Sequence[str]]:
    """Return the product and the warnings of its planning; write the plan's picture if requested.

    Raises:
        FloeDagsterError: Dagster could not load the product.
    """
    from dagster import DagsterError, Definitions

    from floe_orchestrator_dagster.definitions.build import build_definitions
    from floe_orchestrator_dagster.files import write_atomically
    from floe_orchestrator_dagster.plan.drawing import draw
    from floe_orchestrator_dagster.product.opening import open_product

    with collected_warnings() as warnings:
        product = open_product(directory, progress=progress)
        if picture is not None:
            # Before validation, so that a product with a wrong schedule has a picture too.
            write_atomically(picture, draw(product.plan))
        try:
            Definitions.validate_loadable(build_definitions(product))
        except DagsterError as error:
            raise ProductError(
                f"Cannot load product '{product.plan.name}' in Dagster: {error}"
            ) from error
    return product, warnings


def show(product: Product, warnings: Sequence[str], screen: Screen, *, as_json: bool) -> None:
    """Print the plan of a product, or respond with it as JSON."""
    plan = product.plan
    runs = waves(plan, [*plan.assets], [*plan.checks])
    if as_json:
        respond(_document(product, runs, warnings))
        return
    out = screen.out
    out.print(f"Data product {plan.name} {plan.version}".rstrip())
    if not plan.assets:
        out.print("It has no models, seeds or snapshots, so there is nothing to build.")
    else:
        out.print(_computes_table(plan, runs))
        out.print(_runs_table(runs))
    for line in warnings:
        out.print(f"warning: {line}", style="yellow")
    out.print("No problems found.", style="green")


def _counts(plan: ProductPlan, compute: str, runs: Sequence[Wave]) -> dict[str, Any]:
    kinds: list[str] = [node.kind for node in plan.assets.values() if node.compute == compute]
    place = plan.computes[compute]
    return {
        "compute": compute,
        "target": place.target,
        "adapter": place.adapter,
        **{f"{kind}s": kinds.count(kind) for kind in KINDS},
        "tests": sum(check.compute == compute for check in plan.checks.values()),
        "dbt_runs": sum(wave.compute.target == place.target for wave in runs),
    }


def _document(product: Product, runs: Sequence[Wave], warnings: Sequence[str]) -> dict[str, Any]:
    plan = product.plan
    return {
        "product": plan.name,
        "version": plan.version,
        "success": True,
        "project_dir": str(product.project_dir),
        "computes": [_counts(plan, compute, runs) for compute in plan.computes],
        "waves": [
            {
                "number": number,
                "compute": wave.compute.name,
                "target": wave.compute.target,
                "nodes": list(wave.nodes),
                "tests": [*wave.checks, *wave.quality_checks],
            }
            for number, wave in enumerate(runs, 1)
        ],
        "warnings": list(warnings),
        "problems": [],
    }


def _computes_table(plan: ProductPlan, runs: Sequence[Wave]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Computes", title_justify="left")
    for header in ("compute", "target", "adapter"):
        table.add_column(header, overflow="fold")
    for header in ("models", "seeds", "snapshots", "tests", "dbt runs"):
        table.add_column(header, justify="right")
    for compute in plan.computes:
        table.add_row(*(Text(str(value)) for value in _counts(plan, compute, runs).values()))
    return table


def _runs_table(runs: Sequence[Wave]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="dbt runs of a full build, in order", title_justify="left")
    table.add_column("number", justify="right")
    table.add_column("compute", overflow="fold")
    for header in ("nodes", "tests"):
        table.add_column(header, justify="right")
    for number, wave in enumerate(runs, 1):
        tests = len(wave.checks) + len(wave.quality_checks)
        table.add_row(str(number), Text(wave.compute.name), str(len(wave.nodes)), str(tests))
    return table
