"""The built wheel, installed alone, keeps the promises of tests/contract."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "floe-orchestrator-dagster"
SOURCE = PLUGIN / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make wheel` builds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(PLUGIN)]
    subprocess.run(command, check=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the libraries of this environment, without the source."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home)
    program = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = ["--python", str(program), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    [site] = home.glob("lib/python*/site-packages")
    # Python appends the path of a .pth file and does not read .pth files in it, so the editable
    # install of the package is not visible.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return program


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def test_the_wheel_contains_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "floe_orchestrator_dagster/py.typed" in held


def test_the_wheel_names_its_author_and_project(python: Path) -> None:
    code = (
        "from importlib.metadata import distribution, entry_points as points;"
        "import floe_orchestrator_dagster as package;"
        "dist = distribution('floe-orchestrator-dagster');"
        "print(package.__file__);"
        "print(dist.metadata['Author-email'], *dist.metadata.get_all('Project-URL'), sep='\\n');"
        "print(points(group='floe.orchestrators')['dagster'].load().__name__)"
    )
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    home, author, *urls, plugin = done.stdout.splitlines()
    assert Path(home).is_relative_to(python.parents[1])
    assert author == "Obsidian Owl <team@obsidianowl.dev>"
    assert [url.partition(", ")[0] for url in urls] == ["Homepage", "Repository", "Source"]
    assert plugin == "DagsterOrchestratorPlugin"


def test_the_wheel_installed_alone_passes_the_contract_tests(python: Path) -> None:
    done = subprocess.run(
        [
            *(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", "pyproject.toml", "../../tests/contract"),
        ],
        cwd=PLUGIN,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
