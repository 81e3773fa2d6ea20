"""A dbt project on disk: its settings as dbt renders them, and the files that dbt reads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.environment import value_of
from floe_orchestrator_dagster.dbt.jinja import needs_target, render
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

DBT_PROJECT = "dbt_project.yml"
IGNORED = ".dbtignore"
# Files that dbt reads in a project and in each of its packages, in addition to `PATHS`.
PROJECT_FILES = (
    DBT_PROJECT,
    "packages.yml",
    "dependencies.yml",
    "package-lock.yml",
    "selectors.yml",
    "catalogs.yml",
    "vars.yml",
    IGNORED,
    ".env",
)
# dbt's settings for the folders of a project: an older name of the setting, and dbt's default.
PATHS: Mapping[str, tuple[str | None, Sequence[str]]] = {
    "model-paths": ("source-paths", ("models",)),
    "seed-paths": ("data-paths", ("seeds",)),
    "snapshot-paths": (None, ("snapshots",)),
    "test-paths": (None, ("tests",)),
    "macro-paths": (None, ("macros",)),
    "analysis-paths": (None, ("analyses",)),
    "function-paths": (None, ("functions",)),
    "docs-paths": (None, ()),
}
# dbt ignores files with these prefixes, which are backup and temporary files of editors.
_IGNORED_PREFIXES = (".", "#", "~")
_REINSTALL = "Correct it, or install the package again with `dbt deps`."
_INITIALIZE = "Write one with `dbt init`."


@dataclass(frozen=True)
class DbtProject:
    """A dbt project.

    `settings` are the contents of dbt_project.yml, not rendered. dbt parses with `variables`.
    `target` is the current output, if it is known.
    """

    root: Path
    settings: Mapping[str, Any]
    variables: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None

    def on(self, target: Mapping[str, Any]) -> DbtProject:
        """Return the project on one output: its `name`, its `type` and its other known settings."""
        return replace(self, target=target)

    def setting(self, name: str) -> Any:
        """Return a setting as dbt renders it; None if it is missing."""
        return self._rendered(self.settings.get(name), name)

    @property
    def name(self) -> str:
        """The project's own name."""
        return str(self.settings.get("name") or "")

    @property
    def profile(self) -> str:
        """The name of the profile, from the environment or dbt_project.yml; may be empty."""
        return value_of("DBT_PROFILE", self.environment) or str(self.setting("profile") or "")

    @cached_property
    def target_path(self) -> Path:
        """The folder of dbt's artifacts, below which the plugin keeps its own files.

        A setting that depends on the target is not rendered. dbt's default replaces it.
        """
        path = value_of("DBT_TARGET_PATH", self.environment)
        if not path and not needs_target(self.settings.get("target-path")):
            path = self.setting("target-path")
        return self.root / str(path or "target")

    @cached_property
    def packages_path(self) -> Path:
        """The folder of installed packages."""
        return self.root / str(self.setting("packages-install-path") or "dbt_packages")

    @cached_property
    def paths(self) -> Sequence[str]:
        """The folders that dbt parses, as the project names them."""
        return tuple(dict.fromkeys(folder for name in PATHS for folder in self.folders(name)))

    def folders(self, name: str) -> Sequence[str]:
        """Return the folders that a setting of `PATHS` names, or dbt's default.

        Raises:
            ProductError: the setting is not a list.
        """
        older, default = PATHS[name]
        value = self.setting(name)
        if value is None and older is not None:
            value = self.setting(older)
        listed = default if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, (list, tuple)):
            raise ProductError(
                f"Cannot read {self.root / DBT_PROJECT}: {name} is not a list of folders. "
                "Correct it."
            )
        return tuple(str(self._rendered(item, name)) for item in listed)

    @property
    def depends_on_target(self) -> bool:
        """Whether the folders of the project depend on the target."""
        names = [*PATHS, "source-paths", "data-paths", "packages-install-path"]
        return any(needs_target(self.settings.get(name)) for name in names)

    @cached_property
    def packages(self) -> Sequence[DbtProject]:
        """The installed packages in order of name, linked ones included, as in dbt."""
        if not self.packages_path.is_dir():
            return ()
        folders = (
            path
            for path in sorted(self.packages_path.iterdir())
            if path.is_dir() and not path.name.startswith("__")
        )
        return tuple(
            replace(self, root=path, settings=read_yaml(path / DBT_PROJECT, _REINSTALL))
            for path in folders
            if (path / DBT_PROJECT).is_file()
        )

    @property
    def wants_packages(self) -> bool:
        """Whether the project names packages to install."""
        return any(
            read_yaml(self.root / name, "Correct it.").get("packages")
            for name in ("packages.yml", "dependencies.yml")
            if (self.root / name).is_file() and (self.root / name).stat().st_size
        )

    def files(self) -> Iterator[str]:
        """Yield the path of every file that dbt reads in the project and its packages.

        Paths begin with `root`; links may lead elsewhere. A file that is in two folders comes
        twice. Files that match `.dbtignore` are left out.
        """
        for project in (self, *self.packages):
            yield from project.own_files()

    def own_files(self) -> Iterator[str]:
        """Yield the files that dbt reads in the project, without its packages; see `files`."""
        root = str(self.root)
        for name in PROJECT_FILES:
            path = os.path.join(root, name)  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113
                yield path
        ignored = self._ignored()
        for relative in self.paths:
            top = os.path.join(root, relative)  # noqa: PTH118
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    if name.startswith(_IGNORED_PREFIXES):
                        continue
                    path = f"{folder}{os.sep}{name}"
                    if ignored is not None and ignored.match_file(
                        os.path.join(relative, os.path.relpath(path, top))  # noqa: PTH118
                    ):
                        continue
                    yield path

    def _ignored(self) -> Any:
        """Return the patterns of `.dbtignore`; None without that file."""
        path = self.root / IGNORED
        if not path.is_file():
            return None
        # dbt-core installs this library and reads the file with it.
        from pathspec import PathSpec

        return PathSpec.from_lines("gitwildmatch", path.read_text().splitlines())

    def _rendered(self, value: Any, name: str) -> Any:
        where = f"{name} of {self.root / DBT_PROJECT}"
        return render(value, where, self.variables, self.environment, self.target)


def read_project(
    root: Path,
    variables: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> DbtProject:
    """Return the dbt project in `root`.

    Raises:
        ProductError: dbt_project.yml is missing or cannot be read.
    """
    return DbtProject(
        root=root,
        settings=read_yaml(root / DBT_PROJECT, _INITIALIZE),
        variables=variables or {},
        environment=os.environ if environment is None else environment,
    )
