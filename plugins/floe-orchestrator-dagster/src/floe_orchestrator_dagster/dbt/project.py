"""A dbt project on disk: its settings as dbt renders them, and every file that dbt reads of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.environment import value_of
from floe_orchestrator_dagster.dbt.jinja import asks_for_target, render
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

DBT_PROJECT = "dbt_project.yml"
IGNORED = ".dbtignore"
# What dbt reads of a project and of each of its packages, besides the folders of `PATHS`.
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
# dbt's settings of where a project's files are, with dbt's defaults. The second name is older.
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
# dbt passes over files whose name begins so: what editors leave beside the real ones.
_PASSED_OVER = (".", "#", "~")
_REINSTALL = "Correct it, or install the package again with `dbt deps`."
_INITIALIZE = "Write one with `dbt init`."


@dataclass(frozen=True)
class DbtProject:
    """A dbt project: `settings` is dbt_project.yml as it is written.

    `variables` are those that dbt parses with, `target` the output that is built on where one is
    known.
    """

    root: Path
    settings: Mapping[str, Any]
    variables: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None

    def on(self, target: Mapping[str, Any]) -> DbtProject:
        """Return the project as it is on one output: `name`, `type` and what else is known."""
        return replace(self, target=target)

    def setting(self, name: str) -> Any:
        """Return a setting as dbt renders it; None if it is not there."""
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
        """Where dbt's artifacts go.

        It is but the place of our own files, so that a path that depends on the target is not
        waited for: dbt's own name stands for it.
        """
        named = value_of("DBT_TARGET_PATH", self.environment)
        if not named and not asks_for_target(self.settings.get("target-path")):
            named = self.setting("target-path")
        return self.root / str(named or "target")

    @cached_property
    def packages_path(self) -> Path:
        """Where packages are installed."""
        return self.root / str(self.setting("packages-install-path") or "dbt_packages")

    @cached_property
    def paths(self) -> Sequence[str]:
        """The folders of what is parsed, as the project names them."""
        return tuple(dict.fromkeys(folder for name in PATHS for folder in self.folders(name)))

    def folders(self, name: str) -> Sequence[str]:
        """Return the folders that a setting of `PATHS` names, or dbt's own.

        Raises:
            ProductError: it is not a list.
        """
        older, default = PATHS[name]
        value = self.setting(name)
        if value is None and older is not None:
            value = self.setting(older)
        listed = default if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, (list, tuple)):
            raise ProductError(
                f"Cannot read {self.root / DBT_PROJECT}: {name} is not a list. Correct it."
            )
        return tuple(str(self._rendered(item, name)) for item in listed)

    @property
    def depends_on_target(self) -> bool:
        """Whether it has other files on another target."""
        named = [*PATHS, "source-paths", "data-paths", "packages-install-path"]
        return any(asks_for_target(self.settings.get(name)) for name in named)

    @cached_property
    def packages(self) -> Sequence[DbtProject]:
        """The packages that are installed, in order of name; links are followed, as dbt does."""
        if not self.packages_path.is_dir():
            return ()
        found = (
            path
            for path in sorted(self.packages_path.iterdir())
            if path.is_dir() and not path.name.startswith("__")
        )
        return tuple(
            replace(self, root=path, settings=read_yaml(path / DBT_PROJECT, _REINSTALL))
            for path in found
            if (path / DBT_PROJECT).is_file()
        )

    @property
    def wants_packages(self) -> bool:
        """Whether it names packages to be installed."""
        return any(
            read_yaml(self.root / name, "Correct it.").get("packages")
            for name in ("packages.yml", "dependencies.yml")
            if (self.root / name).is_file() and (self.root / name).stat().st_size
        )

    def files(self) -> Iterator[str]:
        """Yield the path of every file that dbt reads of the project and its packages.

        They are below `root` as far as names go; through links they may be anywhere. One that is
        in two folders comes twice. What `.dbtignore` names is left out.
        """
        for project in (self, *self.packages):
            yield from project.own_files()

    def own_files(self) -> Iterator[str]:
        """Yield the files that dbt reads of the project alone; see `files`."""
        root = str(self.root)
        for name in PROJECT_FILES:
            path = os.path.join(root, name)  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113
                yield path
        ignored = self._ignored()
        for named in self.paths:
            top = os.path.join(root, named)  # noqa: PTH118
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    if name.startswith(_PASSED_OVER):
                        continue
                    path = f"{folder}{os.sep}{name}"
                    if ignored is not None and ignored.match_file(
                        os.path.join(named, os.path.relpath(path, top))  # noqa: PTH118
                    ):
                        continue
                    yield path

    def _ignored(self) -> Any:
        """Return what `.dbtignore` says, as dbt reads it; None without one."""
        path = self.root / IGNORED
        if not path.is_file():
            return None
        # It comes with dbt-core, which reads the file by it.
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
