"""Finds the git location of a project, for facets that link to its code."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.lineage.facets import Facet, facet
from floe_orchestrator_dagster.urls import repository_url

if TYPE_CHECKING:
    from pathlib import Path

GIT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SourceCode:
    """The location of the dbt project's code: a git repository at a version.

    Attributes:
        repository: an https URL without credentials.
        version: the commit.
        branch: the branch; "" if a commit is checked out without one.
        folder: the folder of the project in the repository; "" for the root.
    """

    repository: str
    version: str
    branch: str = ""
    folder: str = ""

    def locate(self, path: str) -> Facet:
        """Return the facet that locates a file of the project; `path` is relative to it."""
        inside = "/".join(filter(None, (self.folder, path)))
        web = self.repository.removesuffix(".git")
        return facet(
            "SourceCodeLocationJobFacet",
            type="git",
            url=f"{web}/blob/{self.version}/{inside}",
            repoUrl=self.repository,
            path=inside,
            version=self.version,
            branch=self.branch or None,
        )


def source_code(project_dir: Path) -> SourceCode | None:
    """Return the git location of a project; None if git or a usable remote is missing."""
    try:
        remote = _git(project_dir, "config", "--get", "remote.origin.url")
        version = _git(project_dir, "rev-parse", "HEAD")
        branch = _git(project_dir, "rev-parse", "--abbrev-ref", "HEAD")
        folder = _git(project_dir, "rev-parse", "--show-prefix").strip("/")
    except (OSError, subprocess.SubprocessError):
        return None
    repository = repository_url(remote)
    if repository is None:
        return None
    return SourceCode(repository, version, "" if branch == "HEAD" else branch, folder)


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(  # noqa: S603  fixed words and a folder
        ["git", "-C", str(folder), *words],  # noqa: S607  the user's own git
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_TIMEOUT_SECONDS,
    ).stdout.strip()
