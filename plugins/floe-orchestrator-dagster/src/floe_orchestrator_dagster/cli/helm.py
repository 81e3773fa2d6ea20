"""`floe-dagster helm-values`: the values of a chart, or how they differ from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import click
import yaml

from floe_orchestrator_dagster.cli.exits import DIFFERENT
from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.deploy.official import official_values
from floe_orchestrator_dagster.deploy.values import Database, DeployedProduct, helm_values, image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXPORTERS = {"floe-dagster": helm_values, "dagster": official_values}
REMEDY = "Write it with `floe-dagster helm-values --output FILE`."


@dataclass(frozen=True, slots=True)
class ValuesOptions:
    """The options of `floe-dagster helm-values`."""

    directory: Path | None
    size: str | None
    chart: str
    image: str | None
    database_host: str | None
    database_secret: str | None
    output: Path | None
    diff: Path | None
    as_json: bool


def write_values(options: ValuesOptions) -> int:
    """Print, write or compare the requested values; return the exit code.

    Raises:
        FloeDagsterError: the product or a file cannot be read or written.
    """
    from floe_orchestrator_dagster.files import read_yaml, write_atomically

    values = _values(options)
    if options.diff is not None:
        lines = _difference(read_yaml(options.diff, REMEDY), values, str(options.diff))
        if options.as_json:
            respond({"equal": not lines, "diff": lines})
        else:
            click.echo(lines)
        return DIFFERENT if lines else 0
    text = json.dumps(values, indent=2) + "\n" if options.as_json else _as_yaml(values)
    if options.output is not None:
        write_atomically(options.output, text)
        click.echo(f"Wrote {options.output}.", err=True)
    elif not options.as_json:
        click.echo(text, nl=False)
    if options.as_json:
        respond(values if options.output is None else {"output": str(options.output)})
    return 0


def _values(options: ValuesOptions) -> dict[str, Any]:
    name, config = _product(options.directory)
    if options.image is not None and name is None:
        raise click.UsageError("--image needs a product: name its directory too.")
    if (options.database_host is None) != (options.database_secret is None):
        raise click.UsageError(
            "--database-host and --database-secret go together: name both or neither."
        )
    products = []
    if options.image is not None and name is not None:
        try:
            products = [DeployedProduct(name, image(options.image))]
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--image") from error
    database = None
    if options.database_host is not None and options.database_secret is not None:
        database = Database(options.database_host, options.database_secret)
    return EXPORTERS[options.chart](
        options.size or config.workload_size,
        config.computes,
        products=products,
        database=database,
    )


def _product(directory: Path | None) -> tuple[str | None, PluginConfig]:
    """Return a product's name and plugin config from its artifacts, without starting dbt."""
    if directory is None:
        return None, PluginConfig()
    from floe_orchestrator_dagster.product.artifacts import find_artifacts, read_compiled

    compiled = read_compiled(find_artifacts(directory))
    return compiled.name, compiled.config


def _as_yaml(values: Mapping[str, Any]) -> str:
    # Through JSON: YAML would write a mapping that occurs twice as an anchor and an alias.
    return yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> str:
    """Return a unified diff of values; it ignores the order of keys, and comments."""
    before, after = (
        yaml.safe_dump(json.loads(json.dumps(item))).splitlines(keepends=True)
        for item in (old, new)
    )
    return "".join(unified_diff(before, after, name, "floe-dagster helm-values"))
