"""The command line `floe-dagster`: check, prepare, run and deploy a compiled product."""

# Functions import rich, Dagster and floe-core themselves, so that `floe-dagster --help` is quick.
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
    DIFFERENT,
    EXIT_CODES,
    FAILED,
    HAS_PROBLEMS,
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
    "--lineage", is_flag=True, help="Print at the end what each node was built from."
)
VERBOSE = click.option(
    "--verbose", "-v", is_flag=True, help="Also print dbt's own log lines, on stderr."
)
JSON = click.option("as_json", "--json", is_flag=True, help="Print one JSON document on stdout.")


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="floe-orchestrator-dagster", prog_name="floe-dagster")
def main() -> None:
    """Check, prepare and run a floe data product on Dagster and dbt.

    DIR is the directory of the product: compiled_artifacts.json is in it, in its target folder or
    in a folder above it. The default is the current directory.
    """
    if not sys.warnoptions:
        # Dagster's notes on beta features are for authors of Definitions, not for users.
        warnings.simplefilter("ignore")


@main.command(
    epilog=f"Exit codes: 0 no problems; {HAS_PROBLEMS} the product has problems; 2 wrong usage; "
    f"{DBT_UNUSABLE} dbt could not run."
)
@DIRECTORY
@click.option(
    "--graph",
    "picture",
    metavar="FILE.svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a picture of the plan, colored by compute.",
)
@JSON
def check(directory: Path, picture: Path | None, *, as_json: bool) -> None:
    """Plan the product in DIR and report its problems.

    Shows the computes of the product and the dbt runs of a full build.
    """
    from floe_orchestrator_dagster.cli.check import show, validated_product
    from floe_orchestrator_dagster.cli.screen import Screen

    with reporting(as_json=as_json, product_wrong=HAS_PROBLEMS):
        screen = Screen.opened(as_json=as_json)
        product, warnings = validated_product(directory, picture, screen.progress)
        show(product, warnings, screen, as_json=as_json)


@main.command(
    epilog=f"Exit codes: 0 prepared; 2 wrong usage; {PRODUCT_WRONG} the product or its files are "
    f"wrong; {DBT_UNUSABLE} dbt could not run."
)
@DIRECTORY
@click.option("--force", is_flag=True, help="Rebuild the manifests even when they are fresh.")
@JSON
def prepare(directory: Path, *, force: bool, as_json: bool) -> None:
    """Build the dbt manifests of the product in DIR.

    There is one manifest per dbt target. When the manifests exist and FLOE_PREPARED=1 is set, a
    deployed code location starts without dbt.
    """
    from floe_orchestrator_dagster.cli.screen import Screen, collected_warnings
    from floe_orchestrator_dagster.product.opening import open_product

    with reporting(as_json=as_json):
        screen = Screen.opened(as_json=as_json)
        with collected_warnings() as collected:
            product = open_product(directory, progress=screen.progress, force_parse=force)
        screen.warn(*collected)
        manifests = {target: str(path) for target, path in product.manifest_paths.items()}
        if as_json:
            respond({"product": product.plan.name, "manifests": manifests})
            return
        for target, path in manifests.items():
            click.echo(f"target {target}: {path}")


@main.command(epilog=f"\b\n{EXIT_CODES}")
@DIRECTORY
@click.option(
    "--select",
    "-s",
    "select",
    metavar="SEL",
    multiple=True,
    help="What to build and test. Repeat it to add more. See above.",
)
@click.option(
    "--exclude", metavar="SEL", multiple=True, help="What to leave out, in the same syntax."
)
@click.option("--selector", metavar="NAME", help="Selector of selectors.yml to build and test.")
@click.option(
    "--state",
    metavar="STATE",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Directory of the artifacts that `state:`, `result:` and `source_status:` compare with.",
)
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds.")
@click.option("--empty", is_flag=True, help="Build schemas only, without reading rows.")
@click.option("variables", "--vars", metavar="JSON|YAML", help="Variables for dbt, as a mapping.")
@click.option("--partition", metavar="KEY", help="Partition to build of a partitioned product.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of dbt. Default: as in the profile."
)
@click.option("--job", metavar="NAME", help="Job to run, when the product has several.")
@click.option("--no-checks", is_flag=True, help="Build without running any test.")
@click.option("--from-failure", is_flag=True, help="Run what is left of the last run; see `retry`.")
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
    """Materialize the product in DIR through Dagster.

    The run needs no Dagster server.

    Without a selection, the run uses the default selector of selectors.yml. If there is none, it
    builds everything.

    If DAGSTER_HOME is set, Dagster records the run in that instance. Otherwise only the tables
    remain. On a terminal, the view is live. Elsewhere, each finished node is one line whose fields
    (number, status, kind, compute, name, rows, seconds) are at least two spaces apart. With
    --json, these lines go to stderr.

    SEL is in dbt's syntax (`orders`, `+orders`, `tag:daily`, `path:models/marts`,
    `config.materialized:view`, `source:raw+`, ...). dbt itself resolves it, as for `dbt build`.
    SEL is in Dagster's asset selection syntax if it begins with `dagster:`, or if it contains one
    of `key:`, `kind:`, `owner:`, `code_location:`, `table_name:`, `column:`, `column_tag:`, a
    double quote, a parenthesis, or the words `and`, `or`, `not`. `tag:` and `group:` alone are
    dbt's. The prefix `dbt:` marks any selection as dbt's.
    """
    from floe_orchestrator_dagster.dbt.process import DbtProcesses

    # dbt's process imports dbt while this one imports Dagster, below.
    processes = DbtProcesses()
    processes.start_spare()
    from floe_orchestrator_dagster.cli.run import run_product
    from floe_orchestrator_dagster.cli.todo import RunOptions

    run_options = RunOptions(
        variables=read_variables(variables), as_json=as_json, verbose=verbose, **options
    )
    with reporting(as_json=as_json), closing(processes):
        code = run_product(directory, run_options, processes)
    if code:
        sys.exit(code)


@main.command(epilog=f"\b\n{EXIT_CODES}")
@DIRECTORY
@LINEAGE
@VERBOSE
@JSON
def retry(directory: Path, *, as_json: bool, verbose: bool, lineage: bool) -> None:
    """Run what is left of the last run of the product in DIR.

    The last run is the newest one in the Dagster instance of DAGSTER_HOME, whether
    `floe-dagster run`, a schedule or Dagster's UI started it. The retry leaves out nodes that this
    run built from the same code, and tests that passed. It uses the selection, variables,
    partition and run config of that run. It is Dagster's "re-execute from failure". First, it
    prints what is left.
    """
    from floe_orchestrator_dagster.dbt.process import DbtProcesses

    processes = DbtProcesses()
    processes.start_spare()
    from floe_orchestrator_dagster.cli.run import run_product
    from floe_orchestrator_dagster.cli.todo import RunOptions

    options = RunOptions(from_failure=True, as_json=as_json, verbose=verbose, lineage=lineage)
    with reporting(as_json=as_json), closing(processes):
        code = run_product(directory, options, processes)
    if code:
        sys.exit(code)


@main.group()
def lineage() -> None:
    """Show or send lineage events that wait for their backend."""


@lineage.command(
    epilog=f"Exit codes: 0 shown; 2 wrong usage; {PRODUCT_WRONG} the product or its files are "
    "wrong."
)
@DIRECTORY
@JSON
def status(directory: Path, *, as_json: bool) -> None:
    """Count the lineage events in the spool of the product in DIR.

    Shows how many events wait, how many the backend refused and how many were dropped.
    """
    from floe_orchestrator_dagster.cli.lineage import status as show_status

    with reporting(as_json=as_json):
        show_status(directory, as_json=as_json)


@lineage.command(
    epilog=f"Exit codes: 0 no events wait; {FAILED} some events still wait; 2 wrong usage; "
    f"{PRODUCT_WRONG} the product has no usable backend, or it or its files are wrong."
)
@DIRECTORY
@click.option(
    "--deadline",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to try, even if the backend is unreachable.",
)
@JSON
def replay(directory: Path, deadline: float, *, as_json: bool) -> None:
    """Send the events that wait in the spool of the product in DIR.

    Earlier runs could not deliver these events. The backend's key comes from
    OPENLINEAGE_API_KEY, because floe keeps no secrets in artifacts.
    """
    from floe_orchestrator_dagster.cli.lineage import send

    with reporting(as_json=as_json):
        if not send(directory, deadline, as_json=as_json):
            sys.exit(FAILED)


@main.command(
    "helm-values",
    epilog=f"Exit codes: 0 printed, or equal to FILE; {DIFFERENT} different from FILE; 2 wrong "
    f"usage; {PRODUCT_WRONG} the product or a file is wrong.",
)
@OPTIONAL_DIRECTORY
@click.option("--size", type=click.Choice(SIZES), help="Workload size. Default: the product's.")
@click.option(
    "--chart",
    type=click.Choice(CHARTS),
    default=CHARTS[0],
    show_default=True,
    help="The chart of this project, or Dagster's official one.",
)
@click.option(
    "--image", metavar="IMAGE", help="Image of the product in DIR, with a tag or a digest."
)
@click.option("--database-host", metavar="HOST", help="Host of a PostgreSQL outside the chart.")
@click.option(
    "--database-secret",
    metavar="NAME",
    help="Secret with the password of that PostgreSQL, under the key postgresql-password.",
)
@click.option("--output", metavar="FILE", type=FILE, help="Write to FILE, whole or not at all.")
@click.option(
    "--diff", metavar="FILE", type=FILE, help="Show how the values differ from those in FILE."
)
@JSON
def helm_values(*, as_json: bool, **options: Any) -> None:
    """Print Helm values for a workload size or for a product.

    With DIR, size and resources come from the plugin's config in the compiled artifacts.
    """
    from floe_orchestrator_dagster.cli.helm import ValuesOptions, write_values

    with reporting(as_json=as_json, product_wrong=PRODUCT_WRONG):
        code = write_values(ValuesOptions(as_json=as_json, **options))
    if code:
        sys.exit(code)


@main.command(
    "build-context",
    epilog=f"Exit codes: 0 written; 2 wrong usage; {PRODUCT_WRONG} the product or its files are "
    f"wrong; {DBT_UNUSABLE} dbt could not run.",
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
    help="Install only from the wheels in this directory, without a package index.",
)
@JSON
def build_context(directory: Path, output: Path, wheels: Path | None, *, as_json: bool) -> None:
    """Write the files that an image of the product in DIR needs.

    Other files of the directory are left out. The same product gives the same bytes.
    """
    from floe_orchestrator_dagster.cli.context import write_context

    with reporting(as_json=as_json):
        write_context(directory, output, wheels, as_json=as_json)


@main.command(
    epilog=f"Exit codes: 0 Dagster answered; {FAILED} it did not; 2 wrong usage; {PRODUCT_WRONG} "
    "the product or its files are wrong."
)
@DIRECTORY
@click.option("--url", help="URL of the webserver, instead of the product's or DAGSTER_URL.")
@JSON
def connection(directory: Path, url: str | None, *, as_json: bool) -> None:
    """Check the Dagster webserver of the product in DIR.

    Prints the webserver's version, and warns of daemons and code locations in trouble. Takes at
    most 10 seconds.

    The URL is the first that is set: --url, the product's plugin config, DAGSTER_URL, or else
    localhost:3000. If DIR has no product, the plugin's defaults apply.
    """
    from floe_orchestrator_dagster.cli.connection import query, show

    with reporting(as_json=as_json):
        state = query(directory, url)
        show(state, as_json=as_json)
    if state.version is None:
        sys.exit(FAILED)
