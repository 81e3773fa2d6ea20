"""Directories that are being used are told from those that are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from floe_orchestrator_dagster.files import in_use, is_in_use

HOLD = """
import sys
from pathlib import Path
from floe_orchestrator_dagster.files import in_use
with in_use(Path({directory!r})):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_is_in_use_until_the_end_of_the_block(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)
    with in_use(tmp_path), in_use(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
    assert not is_in_use(tmp_path / "missing")


def test_a_killed_process_uses_nothing_any_more(tmp_path: Path) -> None:
    script = HOLD.format(directory=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_in_use(tmp_path)
        process.kill()
    assert not is_in_use(tmp_path)
