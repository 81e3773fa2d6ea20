"""Imports run downward only, and only from what other packages make public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "floe_orchestrator_dagster"
SOURCE = Path(__file__).parents[2] / "plugins" / "floe-orchestrator-dagster" / "src" / PACKAGE

# From the ground up; a room may import from floors below its own, and from its own.
FLOORS = (
    {"errors", "telemetry", "dbt_json"},
    {"config", "arguments"},
    {"plan", "deploy"},
    {"files", "webserver"},
    {"dbt", "schedules"},
    {"lineage"},
    {"product"},
    {"assets"},
    {"run"},
    {"definitions"},
    {"plugin", "loader", "component", "cli", "testing"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downward_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for module in imports(path):
        if module.startswith(f"{PACKAGE}."):
            used = module.split(".")[1]
            assert FLOOR[used] < FLOOR[room] or used == room, f"{room} imports {used}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_dagster_is_imported_from_its_public_top_only(path: Path) -> None:
    for module in imports(path):
        root = module.split(".")[0]
        if root.startswith("dagster"):
            assert module in {"dagster", "dagster_dbt"}, module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_opens_with_one_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    first = docstring.split("\n\n")[0]
    assert first.endswith((".", ":"))


def test_the_pure_rooms_know_no_clock_file_environment_or_dagster() -> None:
    impure = {
        "os",
        "pathlib",
        "time",
        "datetime",
        "dagster",
        "dagster_dbt",
        "dbt",
        "httpx",
        "logging",
    }
    for room in ("plan", "deploy", "graph"):
        for path in (p for p in MODULES if room_of(p) == room):
            assert not {module.split(".")[0] for module in imports(path)} & impure, path
