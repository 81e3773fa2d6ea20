"""Runs the tests on every Python of this machine and on three releases of Dagster; a table tells.

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
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "plugins" / "floe-orchestrator-dagster"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Each dagster-dbt pins its own dagster; an empty pair is the newest that the plugin allows.
DAGSTERS = {"1.10.21": "0.26.21", "1.12.22": "0.28.22", "newest": ""}
# A run writes its whole output here.
LOGS = ROOT / ".venvs" / "logs"


def python_of(version: str) -> str | None:
    """Return an interpreter of this minor version, from PATH or pyenv, if there is one."""
    candidates = [shutil.which(f"python{version}")]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        told = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if told.stdout.strip() == version:
            return candidate
    return None


def run(command: list[str], log: Path, cwd: Path = ROOT) -> tuple[int, str]:
    """Run a command with its output in `log`; return its exit code and that output."""
    with log.open("a") as file:
        code = subprocess.run(
            command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    return code, log.read_text(errors="replace")


def _pins(dagster: str) -> list[str]:
    """Return the versions that pip need not search for."""
    libraries = DAGSTERS[dagster]
    if not libraries:
        return ["-c", str(ROOT / "constraints.txt")]
    core = ("dagster", "dagster-graphql", "dagster-webserver")
    return [*(f"{name}=={dagster}" for name in core), f"dagster-dbt=={libraries}"]


def cell(version: str, dagster: str, arguments: list[str]) -> str:
    """Install one pair, run the tests, return what came of it in a few words."""
    python = python_of(version)
    if python is None:
        return "no such Python here"
    home = ROOT / ".venvs" / f"{version}-{dagster}"
    log = LOGS / f"{version}-{dagster}.log"
    log.unlink(missing_ok=True)
    if not (home / "bin" / "python").exists():
        run([python, "-m", "venv", str(home)], log)
    pins = _pins(dagster)
    code, _ = run(
        [
            str(home / "bin" / "pip"),
            *("install", "--quiet", "--disable-pip-version-check"),
            *("-e", f"{PLUGIN}[dev]", *pins),
        ],
        log,
    )
    if code != 0:
        return f"cannot be installed (see {log.relative_to(ROOT)})"
    code, said = run([str(home / "bin" / "python"), "-m", "pytest", *arguments], log, PLUGIN)
    counts = re.findall(r"\d+ (?:passed|failed|errors?)", said.rsplit("\n", 3)[-2])
    return ", ".join(counts) or f"exit code {code}"


def main() -> int:
    """Fill the table cell by cell and print it; exit 1 unless every cell passed."""
    pythons = os.environ.get("MATRIX_PYTHONS", " ".join(PYTHONS)).split()
    dagsters = os.environ.get("MATRIX_DAGSTERS", " ".join(DAGSTERS)).split()
    words = shlex.split(os.environ.get("MATRIX_ARGS", "-m 'not heavy and not charts'"))
    LOGS.mkdir(parents=True, exist_ok=True)
    results = {}
    for version in pythons:
        for dagster in dagsters:
            results[version, dagster] = cell(version, dagster, words)
            sys.stdout.write(f"Python {version}, Dagster {dagster}: {results[version, dagster]}\n")
            sys.stdout.flush()
    sys.stdout.write("\n| Python | " + " | ".join(f"Dagster {name}" for name in dagsters) + " |\n")
    sys.stdout.write("|" + "---|" * (len(dagsters) + 1) + "\n")
    for version in pythons:
        cells = (results[version, name] for name in dagsters)
        sys.stdout.write(f"| {version} | " + " | ".join(cells) + " |\n")
    good = all("passed" in text and "failed" not in text for text in results.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
