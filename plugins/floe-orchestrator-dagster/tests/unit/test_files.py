"""YAML is read or refused, and a process shows which directories it uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import in_use, is_in_use, read_yaml

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


def test_a_killed_process_no_longer_uses_its_directory(tmp_path: Path) -> None:
    script = HOLD.format(directory=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_in_use(tmp_path)
        process.kill()
    assert not is_in_use(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: {}\nmany: [1, 2\n", r"not YAML \(line 3\)\. Fix it\."),
        ("a: {}\nmany: !!python/name:os.system x\n", r"not YAML \(line 2\)\. Fix it\."),
        ("a: 2020-13-45\n", r": month must be in 1\.\.12\. Fix it\."),
        ("- a\n", r"it is not a mapping\. Fix it\."),
        ("", r"it is not a mapping\. Fix it\."),
    ],
)
def test_a_file_that_is_not_yaml_or_not_a_mapping_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "floe.yaml"
    file.write_text(content)
    with pytest.raises(ProductError, match=words):
        read_yaml(file, "Fix it.")
