"""The git location of a project is found in real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from floe_orchestrator_dagster.lineage.source_code import SourceCode, source_code


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@example.com", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--initial-branch", "main")
    git(tmp_path, "commit", "--allow-empty", "--message", "first")
    (tmp_path / "shop").mkdir()
    return tmp_path


def test_a_project_in_a_folder_of_a_repository_is_located_without_the_password(
    repository: Path,
) -> None:
    git(repository, "remote", "add", "origin", "https://me:canary-pass@git.example/a/b.git")
    code = source_code(repository / "shop")
    commit = git(repository, "rev-parse", "HEAD")
    assert code == SourceCode("https://git.example/a/b.git", commit, "main", "shop")
    facet = code.locate("models/a.sql")
    assert facet["url"] == f"https://git.example/a/b/blob/{commit}/shop/models/a.sql"
    assert facet["branch"] == "main"


def test_a_commit_without_a_branch_has_none(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "git@git.example:a/b.git")
    git(repository, "checkout", "--detach")
    code = source_code(repository)
    assert code is not None
    assert (code.repository, code.branch, code.folder) == ("https://git.example/a/b.git", "", "")


def test_a_project_without_a_remote_has_no_location(repository: Path) -> None:
    assert source_code(repository) is None
