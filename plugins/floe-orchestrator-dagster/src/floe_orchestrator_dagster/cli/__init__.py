"""The command line `floe-dagster`: check, prepare and run a compiled product, send its lineage."""

# rich, Dagster and floe-core are imported inside functions: `floe-dagster --help` is to be quick.
from __future__ import annotations

import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from floe_orchestrator_dagster.cli.commands import Commands, reporting
from floe_orchestrator_dagster.cli.exits import (
    DBT_UNUSABLE,
    EXIT_CODES,
    FAILED,
    PROBLEMS_FOUND,
    PRODUCT_WRONG,
)
from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.variables import read_variables
from floe_orchestrator_dagster.deploy.sizes import SIZES

DIRECTORY = click.argument(
    "directory",
    metavar="[DIR]",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
OPTIONAL_DIRECTORY = click.argument(
    "directory",
    metavar="[DIR]",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
FILE = click.Path(dir_okay=False, path_type=Path)
CHARTS = ("floe-dagster", "dagster")
LINEAGE = click.option(
    "--lineage", is_flag=True, help="Tell at the end what each node was built from."
)
VERBOSE = click.option(
    "--verbose", "-v", is_flag=True, help="Print dbt's own log lines too, on stderr."
)
JSON = click.option("as_json", "--json", is_flag=True, help="Print one JSON document on stdout.")


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="floe-orchestrator-dagster", prog_name="floe-dagster")
def main() -> None:
    """Check, prepare and run a floe data product on Dagster and dbt.

    DIR is the product's directory: the one of compiled_artifacts.json, or of its target folder.
    """
    if not sys.warnoptions:
        # Dagster's notes on beta features are for whoever writes Definitions, not who runs them.
        warnings.simplefilter("ignore")


@main.command(epilog=f"Exit codes: 0 sound; {PROBLEMS_FOUND} problems found; 2 usage.")
@DIRECTORY
@click.option(
    "--graph",
    "picture",
    metavar="FILE.svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a picture of the plan, coloured by compute.",
)
@JSON
def check(directory: Path, picture: Path | None, *, as_json: bool) -> None:
    """Plan the product in DIR and show its computes, dbt runs and problems."""
    from floe_orchestrator_dagster.cli.check import show, validated_product
    from floe_orchestrator_dagster.cli.screen import Screen

    with reporting(as_json=as_json, product_wrong=PROBLEMS_FOUND):
        screen = Screen.opened(as_json=as_json)
        product, warnings = validated_product(directory, picture, screen.progress)
        show(product, warnings, screen, as_json=as_json)


@main.command(
    epilog=f"Exit codes: 0 prepared; 2 usage; {PRODUCT_WRONG} the product or its files are wrong; "
    f"{DBT_UNUSABLE} dbt could not run."
)
@DIRECTORY
@click.option("--force", is_flag=True, help="Make the manifests again also when they are fresh.")
@JSON
def prepare(directory: Path, *, force: bool, as_json: bool) -> None:
    """Build the dbt manifest of every compute of the product in DIR.

    With the manifests built and FLOE_PREPARED=1 set, a deployed code location starts without dbt.
    """
    from floe_orchestrator_dagster.cli.screen import Screen, collected_warnings
    from floe_orchestrator_dagster.product.opening import open_product

    with reporting(as_json=as_json):
        screen = Screen.opened(as_json=as_json)
        with collected_warnings() as collected:
            product = open_product(directory, progress=screen.progress, force_parse=force)
        screen.warn(*collected)
        made = {target: str(path) for target, path in product.manifest_paths.items()}
        if as_json:
            respond({"product": product.plan.name, "manifests": made})
            return
        for target, path in made.items():
            click.echo(f"target {target}: {path}")


@main.command(epilog=f"\b\n{EXIT_CODES}")
@DIRECTORY
@click.option(
    "--select",
    "-s",
    "select",
    metavar="SEL",
    multiple=True,
    help="What to build and test; several add up. Default: everything. See above.",
)
@click.option(
    "--exclude", metavar="SEL", multiple=True, help="What to leave out, in the same words."
)
@click.option("--selector", metavar="NAME", help="Selector of selectors.yml to build and test.")
@click.option(
    "--state",
    metavar="STATE",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Directory of the artifacts that `state:`, `result:` and `source_status:` compare with.",
)
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds.")
@click.option("--empty", is_flag=True, help="Build schemas only, reading no rows.")
@click.option("variables", "--vars", metavar="JSON|YAML", help="Variables for dbt: a mapping.")
@click.option("--partition", metavar="KEY", help="Partition to build, for partitioned products.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of dbt, else the profile's.")
@click.option("--job", metavar="NAME", help="Job to run, where the product has several.")
@click.option("--no-checks", is_flag=True, help="Build without running any test.")
@click.option("--from-failure", is_flag=True, help="Do what is left of the last run; see `retry`.")
@LINEAGE
@VERBOSE
@JSON
def run(
    directory: Path,
    variables: str | None,
    *,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Materialize the product in DIR through Dagster, without a server.

    All of it is built, or what the default selector of selectors.yml selects, where there is one.

    Where DAGSTER_HOME is set the results are kept in that Dagster instance; else only the tables
    stay. On a terminal the view is live; elsewhere each finished node is one line whose fields
    (number, status, kind, compute, name, rows, seconds) are at least two spaces apart. With
    --json these lines go to stderr.

    SEL is in dbt's syntax (`orders`, `+orders`, `tag:daily`, `path:models/marts`,
    `config.materialized:view`, `source:raw+`, ...), and dbt itself selects, as `dbt build` would.
    It is taken for Dagster's asset selection syntax where it begins with `dagster:`, and where it
    holds one of `key:`, `kind:`, `owner:`, `code_location:`, `table_name:`, `column:`,
    `column_tag:`, a double quote, a parenthesis, or the words `and`, `or`, `not`. `tag:` and
    `group:` alone are dbt's; `dbt:` in front makes any selection dbt's.
    """
    from floe_orchestrator_dagster.dbt.process import DbtProcesses

    # dbt's import and Dagster's below go on side by side.
    processes = DbtProcesses()
    processes.start_spare()
    from floe_orchestrator_dagster.cli.run import run_product
    from floe_orchestrator_dagster.cli.todo import RunOptions

    given = RunOptions(
        variables=read_variables(variables), as_json=as_json, verbose=verbose, **options
    )
    with reporting(as_json=as_json), closing(processes):
        code = run_product(directory, given, processes)
    if code:
        sys.exit(code)


@main.command(epilog=f"\b\n{EXIT_CODES}")
@DIRECTORY
@LINEAGE
@VERBOSE
@JSON
def retry(directory: Path, *, as_json: bool, verbose: bool, lineage: bool) -> None:
    """Do what is left of the last run of the product in DIR.

    That run is the last one in the Dagster instance of DAGSTER_HOME, whether `floe-dagster run`,
    a schedule or Dagster's UI has started it. What it has built from the same code is left out, and
    so are tests that passed; selection, variables, partition and run config are that run's. It is
    Dagster's "re-execute from failure", and says first what is left.
    """
    from floe_orchestrator_dagster.dbt.process import DbtProcesses

    processes = DbtProcesses()
    processes.start_spare()
    from floe_orchestrator_dagster.cli.run import run_product
    from floe_orchestrator_dagster.cli.todo import RunOptions

    given = RunOptions(from_failure=True, as_json=as_json, verbose=verbose, lineage=lineage)
    with reporting(as_json=as_json), closing(processes):
        code = run_product(directory, given, processes)
    if code:
        sys.exit(code)


@main.group()
def lineage() -> None:
    """Look at lineage events that wait for their backend, or send them."""


@lineage.command(epilog=f"Exit codes: 0 shown; 2 usage; {PRODUCT_WRONG} files are wrong.")
@DIRECTORY
@JSON
def status(directory: Path, *, as_json: bool) -> None:
    """Show what waits in the spool of the product in DIR, was refused or was dropped."""
    from floe_orchestrator_dagster.cli.lineage import status as show_status

    with reporting(as_json=as_json):
        show_status(directory, as_json=as_json)


@lineage.command(
    epilog=f"Exit codes: 0 nothing waits any more; {FAILED} something still waits; 2 usage; "
    f"{PRODUCT_WRONG} the product has no backend that can be used, or files are wrong."
)
@DIRECTORY
@click.option(
    "--deadline",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to go on, also while the backend is away.",
)
@JSON
def replay(directory: Path, deadline: float, *, as_json: bool) -> None:
    """Send what earlier runs of the product in DIR left in its spool.

    The key of the backend is read from OPENLINEAGE_API_KEY: floe keeps no secrets in artifacts.
    """
    from floe_orchestrator_dagster.cli.lineage import send

    with reporting(as_json=as_json):
        if not send(directory, deadline, as_json=as_json):
            sys.exit(FAILED)


@main.command(
    "helm-values",
    epilog=f"Exit codes: 0 printed, or equal to FILE; {PROBLEMS_FOUND} differs from FILE; 2 usage; "
    f"{PRODUCT_WRONG} the product or a file is wrong.",
)
@OPTIONAL_DIRECTORY
@click.option("--size", type=click.Choice(SIZES), help="Workload size, else the product's.")
@click.option(
    "--chart",
    type=click.Choice(CHARTS),
    default=CHARTS[0],
    show_default=True,
    help="The chart of this project, or the official one of Dagster.",
)
@click.option("--image", metavar="IMAGE", help="Image of the product in DIR, with tag or digest.")
@click.option("--database-host", metavar="HOST", help="PostgreSQL outside the chart.")
@click.option(
    "--database-secret", metavar="NAME", help="Secret with its password (postgresql-password)."
)
@click.option("--output", metavar="FILE", type=FILE, help="Write to FILE, whole or not at all.")
@click.option(
    "--diff", metavar="FILE", type=FILE, help="Show what differs from the values in FILE."
)
@JSON
def helm_values(*, as_json: bool, **options: Any) -> None:
    """Print Helm values for a workload size, or for the product in DIR.

    With DIR, size and resources come from the plugin's config in its compiled artifacts.
    """
    from floe_orchestrator_dagster.cli.helm import ValuesOptions, write_values

    with reporting(as_json=as_json, product_wrong=PRODUCT_WRONG):
        code = write_values(ValuesOptions(as_json=as_json, **options))
    if code:
        sys.exit(code)


@main.command(
    "build-context",
    epilog=f"Exit codes: 0 written; 2 usage; {PRODUCT_WRONG} the product or its files are wrong.",
)
@DIRECTORY
@click.option(
    "--output",
    metavar="DIR|FILE.tar",
    required=True,
    type=click.Path(path_type=Path),
    help="A new or empty directory, or a tar archive for `docker build - <FILE.tar`.",
)
@click.option(
    "--wheels",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Install from these wheels alone, without an index.",
)
@JSON
def build_context(directory: Path, output: Path, wheels: Path | None, *, as_json: bool) -> None:
    """Write what an image of the product in DIR is built from, and nothing else.

    The same product gives the same bytes.
    """
    from floe_orchestrator_dagster.cli.context import write_context

    with reporting(as_json=as_json):
        write_context(directory, output, wheels, as_json=as_json)


@main.command(epilog=f"Exit codes: 0 Dagster answered; {FAILED} it did not; 2 usage.")
@DIRECTORY
@click.option("--url", help="URL of the webserver, in place of the product's or DAGSTER_URL.")
@JSON
def connection(directory: Path, url: str | None, *, as_json: bool) -> None:
    """Ask the Dagster webserver of the product in DIR how it does, within 10 seconds.

    It is the one of --url, of the product's plugin config, of DAGSTER_URL, or localhost:3000.
    Where DIR holds no product, the plugin's defaults are taken.
    """
    from floe_orchestrator_dagster.cli.connection import ask, show

    with reporting(as_json=as_json):
        answer = ask(directory, url)
        show(answer, as_json=as_json)
    if answer.version is None:
        sys.exit(FAILED)
