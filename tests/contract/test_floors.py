"""Rooms import only from lower floors, and only public names of Dagster."""

from __future__ import annotations

from pathlib import Path

import pytest

from floors import FLOORS, PACKAGE, SOURCE, imports, modules, room_of, rooms, sentence_of

FLOOR = {room: level for level, floor in enumerate(FLOORS) for room in floor}
MODULES = modules()


def test_every_room_has_a_floor() -> None:
    assert set(FLOOR) == set(rooms())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_import_only_from_lower_floors(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for module in imports(path):
        if module.startswith(f"{PACKAGE}."):
            used = module.split(".")[1]
            assert FLOOR[used] < FLOOR[room] or used == room, f"{room} imports {used}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_public_names_of_dagster_are_imported(path: Path) -> None:
    for module in imports(path):
        root = module.split(".")[0]
        if root.startswith("dagster"):
            assert module in {"dagster", "dagster_dbt"}, module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_opens_with_one_sentence(path: Path) -> None:
    assert sentence_of(path).endswith((".", ":"))


def test_the_pure_rooms_import_no_clock_file_environment_or_dagster() -> None:
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
    for room in ("plan", "deploy"):
        for path in (p for p in MODULES if room_of(p) == room):
            assert not {module.split(".")[0] for module in imports(path)} & impure, path
