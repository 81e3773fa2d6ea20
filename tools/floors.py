"""The floors of the package: which room may import from which, and how each describes itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "floe_orchestrator_dagster"
SOURCE = ROOT / "plugins" / "floe-orchestrator-dagster" / "src" / PACKAGE

# From the bottom up. A room may import from lower floors and from itself.
FLOORS = (
    {"errors", "urls", "dbt_json"},
    {"telemetry", "config", "arguments"},
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


@dataclass(frozen=True)
class Room:
    """A package or a module at the top of the source."""

    name: str
    sentence: str
    modules: tuple[str, ...]
    uses: frozenset[str]


def modules() -> list[Path]:
    """Return every file of the source."""
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room of a source file."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the name of each module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def sentence_of(path: Path) -> str:
    """Return the opening sentence of a file on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def rooms() -> dict[str, Room]:
    """Return every room by its name."""
    files: dict[str, list[Path]] = {}
    for path in modules():
        if path.parent != SOURCE or path.stem != "__init__":
            files.setdefault(room_of(path), []).append(path)
    by_name = {}
    for name, paths in files.items():
        used = {
            module.split(".")[1]
            for path in paths
            for module in imports(path)
            if module.startswith(f"{PACKAGE}.")
        }
        opening = SOURCE / name / "__init__.py"
        alone = SOURCE / f"{name}.py"
        by_name[name] = Room(
            name,
            sentence_of(alone if alone.exists() else opening),
            tuple(path.stem for path in paths if path not in {opening, alone}),
            frozenset(used - {name}),
        )
    return by_name
