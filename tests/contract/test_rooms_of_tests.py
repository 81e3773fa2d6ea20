"""Unit tests are in the same rooms as the code that they test."""

from __future__ import annotations

from floors import ROOT, rooms

UNIT = ROOT / "plugins" / "floe-orchestrator-dagster" / "tests" / "unit"
KIT = UNIT.parent / "kit"


def test_every_unit_test_is_named_after_what_it_tests() -> None:
    house = rooms()
    known = {
        **{name: {name, *room.modules} for name, room in house.items() if room.modules},
        ".": {name for name, room in house.items() if not room.modules},
        "kit": {path.stem for path in KIT.glob("*.py")},
    }
    misplaced = []
    for path in sorted(UNIT.rglob("test_*.py")):
        room = path.relative_to(UNIT).parent.as_posix()
        name = path.stem.removeprefix("test_")
        # A second file about a module adds a word: test_waves_properties.
        if not any(name == one or name.startswith(f"{one}_") for one in known.get(room, ())):
            misplaced.append(f"{room}/{path.name}")
    assert misplaced == []
