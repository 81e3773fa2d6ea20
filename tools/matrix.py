"""Runs the tests on every Python of this machine and three releases of Dagster; prints a table.

make test-matrix
make test-matrix MATRIX_PYTHONS="3.10 3.13" MATRIX_DAGSTERS="1.10.21" MATRIX_ARGS="tests/unit"
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "plugins" / "floe-orchestrator-dagster"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Each dagster-dbt pins its own dagster; the newest pair is the one in constraints.txt.
DAGSTERS = {"1.10.21": "0.26.21", "1.12.22": "0.28.22", "newest": ""}
# Tests that depend on the version of Dagster, a few minutes per cell; `make test` runs the rest.
RUNS = (
    "a_chain_is_built_in_order_by_one_dbt_run",
    "rows_columns_versions_and_times_reach_the_materialization",
    "a_check_points_at_the_materialization_that_it_checked",
    "from_failure_builds_only_what_is_missing",
    "a_partition_passes_its_window_to_dbt",
    "assets_of_another_op_downstream_run_in_the_same_run",
)
TESTS = (
    *("tests/unit", "../../tests/contract"),
    *("tests/integration/test_specs.py", "tests/integration/test_component.py"),
    *(f"tests/integration/test_execution.py::test_{name}" for name in RUNS),
    "tests/integration/test_plugin.py::test_create_definitions_on_a_project_runs",
)
HOMES = ROOT / ".venvs"
# Each cell writes the output of its tools here.
LOGS = HOMES / "logs"
# Resolves an old Dagster in seconds; pip tries one release after another for many minutes.
RESOLVER = HOMES / "uv" / "bin" / "uv"


def python_of(version: str) -> str | None:
    """Return an interpreter of this minor version from PATH or pyenv, or None."""
    candidates = [shutil.which(f"python{version}")]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        reported = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if reported.stdout.strip() == version:
            return candidate
    return None


def run(command: list[str], log: Path, cwd: Path = ROOT) -> bool:
    """Run a command and append its output to `log`; return whether it succeeded."""
    with log.open("a") as file:
        done = subprocess.run(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0


def resolver() -> None:
    """Install the resolver once."""
    if RESOLVER.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", RESOLVER.parents[1]], check=True)
    subprocess.run([RESOLVER.with_name("pip"), "install", "--quiet", "uv"], check=True)


def install(python: str, home: Path, dagster: str, log: Path) -> bool:
    """Install the plugin and this Dagster into the environment `home`, from wheels only."""
    libraries = DAGSTERS[dagster]
    if libraries:
        core = ("dagster", "dagster-graphql", "dagster-webserver")
        pins = [*(f"{name}=={dagster}" for name in core), f"dagster-dbt=={libraries}"]
    else:
        pins = ["--constraint", str(ROOT / "constraints.txt")]
    uv = [str(RESOLVER), "--quiet", "--no-config"]
    # dbt-metricflow needs halo, which has no wheel and is plain Python.
    wheels = ("--only-binary", ":all:", "--no-binary", "halo")
    return run([*uv, "venv", "--allow-existing", "--python", python, str(home)], log) and run(
        [*uv, "pip", "install", "--python", str(home), *wheels, "-e", f"{PLUGIN}[dev]", *pins], log
    )


def cell(version: str, dagster: str, arguments: list[str]) -> tuple[bool, str]:
    """Install one pair and run the tests; return whether all passed, and a short result."""
    python = python_of(version)
    if python is None:
        return False, "this Python is not installed"
    home = HOMES / f"{version}-{dagster}"
    log = LOGS / f"{version}-{dagster}.log"
    log.unlink(missing_ok=True)
    if not install(python, home, dagster, log):
        return False, f"cannot be installed (see {log.relative_to(ROOT)})"
    began = time.monotonic()
    good = run([str(home / "bin" / "python"), "-m", "pytest", *arguments], log, PLUGIN)
    seconds = time.monotonic() - began
    closing = log.read_text(errors="replace").rstrip().rsplit("\n", 1)[-1]
    counts = re.findall(r"\d+ (?:passed|failed|errors?)", closing)
    return good, f"{', '.join(counts) or closing} in {seconds:.0f} s"


def main() -> int:
    """Fill the table cell by cell and print it; return 1 unless every cell passed."""
    pythons = os.environ.get("MATRIX_PYTHONS", " ".join(PYTHONS)).split()
    dagsters = os.environ.get("MATRIX_DAGSTERS", " ".join(DAGSTERS)).split()
    arguments = shlex.split(os.environ.get("MATRIX_ARGS", "")) or [
        "-m",
        "not heavy and not charts",
        *TESTS,
    ]
    LOGS.mkdir(parents=True, exist_ok=True)
    resolver()
    results = {}
    for version in pythons:
        for dagster in dagsters:
            results[version, dagster] = cell(version, dagster, arguments)
            result = results[version, dagster][1]
            sys.stdout.write(f"Python {version}, Dagster {dagster}: {result}\n")
            sys.stdout.flush()
    sys.stdout.write("\n| Python | " + " | ".join(f"Dagster {name}" for name in dagsters) + " |\n")
    sys.stdout.write("|" + "---|" * (len(dagsters) + 1) + "\n")
    for version in pythons:
        cells = (results[version, name][1] for name in dagsters)
        sys.stdout.write(f"| {version} | " + " | ".join(cells) + " |\n")
    return 0 if all(good for good, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
