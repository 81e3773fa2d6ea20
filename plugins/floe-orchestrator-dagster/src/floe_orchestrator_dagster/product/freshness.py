"""Whether what dbt parsed is still what it would parse: a stamp beside each manifest.

dbt parses again when its own version, a variable, the profile, a file, or an environment variable
that it has read has changed. The stamp holds all of that as digests, and the names of the
environment variables, so that it is asked again without starting dbt.
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
# dbt's own memory of a project, for parsing only what has changed.
PARTIAL_PARSE = "partial_parse.msgpack"


class Stamp(msgspec.Struct, frozen=True):
    """What a manifest was parsed from.

    `environment` maps each variable that dbt read to a digest of its value, or to None where it
    was not set. `unwatched` are those that dbt would not notice a change of.
    """

    inputs: str
    salt: str
    environment: dict[str, str | None]
    unwatched: frozenset[str] = frozenset()

    def changed(self, environment: Mapping[str, str]) -> set[str]:
        """Return the variables that have another value now."""
        return {
            name
            for name, digest in self.environment.items()
            if _digest(environment.get(name), self.salt) != digest
        }


class _PartialParse(msgspec.Struct):
    env_vars: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What dbt parses a manifest from; `executable` names a dbt that is not dbt-core."""

    project: DbtProject
    profile: Profile
    executable: str | None = None


def fingerprint(parsed: Parsed) -> str:
    """Return a digest of all that dbt parses from, but for what it reads of the environment.

    Only names, sizes and times of files are looked at.
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
            found = os.stat(path)  # noqa: PTH116  a Path for each of 10,000 files takes longer
        except FileNotFoundError:
            # What is no longer there, or never was behind its link, dbt will speak of.
            continue
        # An archive gives all files one time: when a file was changed tells of it all the same.
        times = f"{found.st_mtime_ns}\0{found.st_ctime_ns}"
        digest.update(os.fsencode(f"{path}\0{found.st_size}\0{times}\n"))
    return digest.hexdigest()


def _versions(profile: Profile) -> Iterator[str]:
    names = {f"dbt-{adapter}" for adapter in profile.adapters.values() if adapter}
    for name in ("dbt-core", "dbt-adapters", *sorted(names)):
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _program(executable: str | None) -> Iterator[str]:
    path = shutil.which(executable) if executable else None
    if path is not None:
        found = Path(path).stat()
        yield f"{path} {found.st_size} {found.st_mtime_ns}"


def read_stamp(folder: Path) -> Stamp | None:
    """Return the stamp of the manifest in a folder; None if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.DecodeError):
        return None


def write_stamp(folder: Path, parsed: Parsed, inputs: str, environment: Mapping[str, str]) -> None:
    """Write the stamp of a manifest that was just parsed into a folder.

    `inputs` is the fingerprint and `environment` the environment from before: what changes while
    dbt parses is to be parsed again.
    """
    project = parsed.project
    settings = set(_names_in_settings(project, parsed.profile))
    watched = None if parsed.executable else _names_that_dbt_keeps(folder / PARTIAL_PARSE)
    if watched is None:
        # It does not say what it has read: whatever is named may have been.
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
    """Return the variables that dbt read for nodes, as it remembers them; None if it does not."""
    try:
        return {*msgspec.msgpack.decode(path.read_bytes(), type=_PartialParse).env_vars}
    except (OSError, msgspec.DecodeError):
        return None


def _names_in_settings(project: DbtProject, profile: Profile) -> Iterator[str]:
    """Yield the variables named in the files that are not parsed for nodes, and in the profile.

    But for a profile's secrets: dbt shows them to no template, and they may change by the hour.
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
        # Quoted in YAML, a template's own quotes may be written otherwise.
        with suppress(ProductError):
            content = read_yaml(path, "")
            return frozenset().union(*(environment_names(text) for _, text in texts(content)))
    with suppress(OSError, UnicodeDecodeError):
        return environment_names(path.read_text(encoding="utf-8"))
    return frozenset()
