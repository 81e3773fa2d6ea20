"""The dbt profile of a product, merged from the compiler, the project and the plugin's config."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from floe_orchestrator_dagster.dbt.environment import value_of
from floe_orchestrator_dagster.dbt.jinja import render
from floe_orchestrator_dagster.errors import ProductError, did_you_mean, known
from floe_orchestrator_dagster.files import read_yaml, write_atomically
from floe_orchestrator_dagster.product.artifacts import ARTIFACTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.dbt.project import DbtProject
    from floe_orchestrator_dagster.plan import CompiledProduct
    from floe_orchestrator_dagster.product.layout import Layout

logger = logging.getLogger(__name__)

PROFILES = "profiles.yml"
# Endings of the names of settings that contain a secret.
SECRETS = ("password", "pass", "token", "secret", "private_key", "api_key", "access_key", "dsn")


@dataclass(frozen=True)
class Profile:
    """A profile's outputs by name, unrendered.

    `preferred` are the profile's default outputs, best first. `flags` is the `config` section of an
    older project.
    """

    name: str
    outputs: Mapping[str, Mapping[str, Any]]
    preferred: Sequence[str] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> str:
        """The output that dbt builds on by default."""
        return next(iter(self.preferred), next(iter(self.outputs)))

    def target(self, name: str) -> dict[str, Any]:
        """Return the `target` variable of dbt when it builds on that output."""
        return {**self.outputs[name], "name": name, "target_name": name, "profile_name": self.name}

    @property
    def adapters(self) -> dict[str, str]:
        """The adapter type of each output."""
        return {name: str(output.get("type", "")) for name, output in self.outputs.items()}


def profiles_file(project: DbtProject) -> Path | None:
    """Return the path of the profiles.yml that dbt would read; None if there is none.

    dbt's order is DBT_PROFILES_DIR, then the working directory, which is the project's own, then
    ``~/.dbt``.
    """
    named = value_of("DBT_PROFILES_DIR", project.environment)
    if named:
        path = project.root / Path(named).expanduser() / PROFILES
        if not path.parent.is_dir():
            raise ProductError(
                f"Cannot read {path}: DBT_PROFILES_DIR is {named}, which is not a directory. "
                "Correct it, or unset it."
            )
        return path if path.is_file() else None
    home = project.environment.get("HOME")
    folders = [project.root, *([Path(home) / ".dbt"] if home else [])]
    return next((path for f in folders if (path := f / PROFILES).is_file()), None)


def merged_profile(compiled: CompiledProduct, project: DbtProject) -> Profile:
    """Return the profile that dbt builds a product with.

    Compiled outputs override those of profiles.yml, and the plugin's config adds more. But a
    compiled DuckDB in memory, which is only floe's default, does not override a DuckDB of that
    name in profiles.yml.

    Raises:
        ProductError: the profile has no outputs, or none with the name in DBT_TARGET.
    """
    name = project.profile or compiled.name
    path = profiles_file(project)
    own, flags = _own_profile(path, name, compiled.name) if path else ({}, {})
    outputs = _outputs_of(own, path or Path(PROFILES), name)
    for compute, setting in compiled.config.computes.items():
        if setting.output is not None:
            outputs[setting.target or compute] = setting.output
    profile: Mapping[str, Any] = compiled.profiles.get(compiled.name) or next(
        iter(compiled.profiles.values()), {}
    )
    for key, output in _outputs_of(
        profile, Path(ARTIFACTS), f"dbt_profiles.{compiled.name}"
    ).items():
        if not (_in_memory(output) and outputs.get(key, {}).get("type") == "duckdb"):
            outputs[key] = output
    if not outputs:
        raise ProductError(
            f"Cannot load product '{compiled.name}': it has no dbt output. Configure a compute "
            f"plugin in manifest.yaml and compile again, or add profile '{name}' to "
            f"{project.root / PROFILES}."
        )
    wanted = value_of("DBT_TARGET", project.environment)
    if wanted and wanted not in outputs:
        raise ProductError(
            f"Cannot load product '{compiled.name}': DBT_TARGET is '{wanted}', but profile "
            f"'{name}' has no such output.{did_you_mean(wanted, outputs)} Outputs: "
            f"{known(outputs)}. Correct it, or unset it."
        )
    targets = [
        wanted,
        render(
            own.get("target"),
            f"target of profile '{name}' in {path}",
            project.variables,
            project.environment,
        ),
        profile.get("target"),
    ]
    preferred = dict.fromkeys(str(target) for target in targets if target in outputs)
    return Profile(name, outputs, tuple(preferred), flags)


def on_disk(profile: Profile, database: Path) -> Profile:
    """Return a profile that uses the file `database` instead of a DuckDB in memory."""
    outputs = dict(profile.outputs)
    for key, output in outputs.items():
        if _in_memory(output):
            logger.warning(
                "Output '%s' keeps DuckDB in memory, where every dbt run starts empty. The plugin "
                "uses %s instead. To choose the file, set `path` in the compute's config.",
                key,
                database,
            )
            outputs[key] = {**output, "path": str(database)}
    return Profile(profile.name, outputs, profile.preferred, profile.flags)


def _in_memory(output: Mapping[str, Any]) -> bool:
    return output.get("type") == "duckdb" and output.get("path", ":memory:") == ":memory:"


def _own_profile(
    path: Path, name: str, product: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the profile in a profiles.yml, and the flags that an older project has there."""
    profiles = read_yaml(path, "Correct it.")
    flags = profiles.get("config")
    return (
        profiles.get(name) or profiles.get(product) or {},
        flags if isinstance(flags, dict) else {},
    )


def _outputs_of(profile: Any, path: Path, name: str) -> dict[str, dict[str, Any]]:
    outputs = profile.get("outputs") if isinstance(profile, dict) else None
    if profile and not isinstance(outputs, dict):
        raise ProductError(f"Cannot use profile '{name}' of {path}: it has no `outputs` mapping.")
    broken = [key for key, output in (outputs or {}).items() if not isinstance(output, dict)]
    if broken:
        raise ProductError(
            f"Cannot use profile '{name}' of {path}: outputs {broken} are not mappings."
        )
    return dict(outputs or {})


def write_profiles(layout: Layout, profile: Profile, target: str) -> Path:
    """Write profiles.yml to a private directory, never into the project; return the directory."""
    outputs = {name: dict(output) for name, output in profile.outputs.items()}
    document: dict[str, Any] = {profile.name: {"target": target, "outputs": outputs}}
    if profile.flags:
        document["config"] = dict(profile.flags)
    content = yaml.safe_dump(document)
    folder = layout.profiles(content)
    path = folder / PROFILES
    if not path.is_file() or path.read_text() != content:
        write_atomically(path, content, mode=0o600)
    return folder
