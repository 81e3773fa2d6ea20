"""Decides whether a manifest is fresh, from a stamp next to it.

dbt parses again after a change of its own version, a variable, the profile, a file, or an
environment variable that it has read. The stamp contains all of these as digests, and the names of
the environment variables, so that the check needs no dbt.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from floe_orchestrator_dagster.dbt.environment import parsing_values
from floe_orchestrator_dagster.dbt.jinja import environment_names, texts
from floe_orchestrator_dagster.dbt.project import PROJECT_FILES
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_yaml, write_atomically
from floe_orchestrator_dagster.product.profiles import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from floe_orchestrator_dagster.dbt.project import DbtProject
    from floe_orchestrator_dagster.product.profiles import Profile

STAMP = "parsed.json"
# dbt's own cache of a project, for parsing only the changes.
PARTIAL_PARSE = "partial_parse.msgpack"


class Stamp(msgspec.Struct, frozen=True):
    """Digests of the inputs that a manifest was parsed from.

    `environment` maps each environment variable that dbt read to a digest of its value, or to None
    if it was not set. dbt itself does not notice changes of those in `unwatched`.
    """

    inputs: str
    salt: str
    environment: dict[str, str | None]
    unwatched: frozenset[str] = frozenset()

    def changed(self, environment: Mapping[str, str]) -> set[str]:
        """Return the variables whose values differ in this environment."""
        return {
            name
            for name, digest in self.environment.items()
            if _digest(environment.get(name), self.salt) != digest
        }


class _PartialParse(msgspec.Struct):
    env_vars: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The inputs that dbt parses a manifest from; `executable` is a dbt other than dbt-core."""

    project: DbtProject
    profile: Profile
    executable: str | None = None


def fingerprint(parsed: Parsed) -> str:
    """Return a digest of all that dbt parses from, without the environment variables.

    For files, it contains their names, sizes and times.
    """
    project, profile = parsed.project, parsed.profile
    digest = hashlib.sha256(str(project.root).encode())
    for part in (
        json.dumps([profile.name, dict(profile.outputs)], sort_keys=True, default=str),
        *_versions(profile),
        *_program(parsed.executable),
        json.dumps(dict(project.variables), sort_keys=True, default=str),
        *(f"{name}={value}" for name, value in parsing_values(project.environment)),
    ):
        digest.update(f"{part}\0".encode())
    for path in project.files():
        try:
            stat = os.stat(path)  # noqa: PTH116  a Path for each of 10,000 files takes longer
        except FileNotFoundError:
            # dbt itself reports a file that is gone, or a link that leads nowhere.
            continue
        # With the ctime, because an archive gives all files the same mtime.
        times = f"{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
        digest.update(os.fsencode(f"{path}\0{stat.st_size}\0{times}\n"))
    return digest.hexdigest()


def _versions(profile: Profile) -> Iterator[str]:
    names = {f"dbt-{adapter}" for adapter in profile.adapters.values() if adapter}
    for name in ("dbt-core", "dbt-adapters", *sorted(names)):
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _program(executable: str | None) -> Iterator[str]:
    path = shutil.which(executable) if executable else None
    if path is not None:
        stat = Path(path).stat()
        yield f"{path} {stat.st_size} {stat.st_mtime_ns}"


def read_stamp(folder: Path) -> Stamp | None:
    """Return the stamp of the manifest in a folder; None if it is missing or unreadable."""
    try:
        return msgspec.json.decode((folder / STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.DecodeError):
        return None


def write_stamp(folder: Path, parsed: Parsed, inputs: str, environment: Mapping[str, str]) -> None:
    """Write the stamp of the manifest that dbt has just written to a folder.

    `inputs` is the fingerprint and `environment` the environment from before the parse, so that a
    change during the parse causes another parse.
    """
    project = parsed.project
    settings = set(_names_in_settings(project, parsed.profile))
    watched = None if parsed.executable else _names_that_dbt_keeps(folder / PARTIAL_PARSE)
    if watched is None:
        # dbt does not report which variables it read, so take every name in the files.
        names = settings | _names_in_files(project.files())
        unwatched = frozenset(names)
    else:
        names = settings | watched
        unwatched = frozenset(names - watched)
    salt = secrets.token_hex(16)
    stamp = Stamp(
        inputs=inputs,
        salt=salt,
        environment={name: _digest(environment.get(name), salt) for name in sorted(names)},
        unwatched=unwatched,
    )
    write_atomically(folder / STAMP, msgspec.json.encode(stamp), mode=0o600)


def _digest(value: str | None, salt: str) -> str | None:
    if value is None:
        return None
    data = value.encode(errors="surrogateescape")
    return hashlib.blake2b(data, key=bytes.fromhex(salt), digest_size=16).hexdigest()


def _names_that_dbt_keeps(path: Path) -> set[str] | None:
    """Return the variables that dbt read for nodes, from its partial parse; None without one."""
    try:
        return {*msgspec.msgpack.decode(path.read_bytes(), type=_PartialParse).env_vars}
    except (OSError, msgspec.DecodeError):
        return None


def _names_in_settings(project: DbtProject, profile: Profile) -> Iterator[str]:
    """Yield the variables named in settings files and in the profile, except in its secrets.

    No template of dbt can use a profile's secrets, and they may change every hour.
    """
    for item in (project, *project.packages):
        yield from _names_in_files(str(item.root / name) for name in PROJECT_FILES)
    for path, text in texts({name: dict(output) for name, output in profile.outputs.items()}):
        if not any(part.lower().endswith(SECRETS) for part in path[1:]):
            yield from environment_names(text)


def _names_in_files(paths: Iterable[str]) -> set[str]:
    return {name for path in paths for name in _names_in_file(Path(path))}


def _names_in_file(path: Path) -> frozenset[str]:
    if path.suffix in {".yml", ".yaml"}:
        # YAML may escape the quotes of a template, so read the texts of the document.
        with suppress(ProductError):
            content = read_yaml(path, "")
            return frozenset().union(*(environment_names(text) for _, text in texts(content)))
    with suppress(OSError, UnicodeDecodeError):
        return environment_names(path.read_text(encoding="utf-8"))
    return frozenset()
