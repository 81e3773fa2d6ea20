"""The dbt profile of a product: outputs of the compiler, the project and the plugin's config."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import private_dir, read_yaml, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_orchestrator_dagster.plan import CompiledProduct

logger = logging.getLogger(__name__)


def merged_outputs(
    compiled: CompiledProduct,
    project_dir: Path,
    dbt_project: Mapping[str, Any],
    target_dir: Path,
) -> tuple[str, dict[str, dict[str, Any]], str]:
    """Return profile name, its outputs and the default one.

    Compiled outputs win over the project's own profiles.yml; the plugin's config adds further.
    """
    name = str(dbt_project.get("profile") or compiled.name)
    outputs: dict[str, dict[str, Any]] = {}
    default = ""
    for folder in (os.environ.get("DBT_PROFILES_DIR"), project_dir):
        path = Path(folder) / "profiles.yml" if folder else None
        if path is None or not path.is_file():
            continue
        profiles = read_yaml(path, "Correct it.")
        own = profiles.get(name) or profiles.get(compiled.name) or {}
        outputs |= _outputs_of(own, path, name)
        default = str(own.get("target") or default)
    for compute, setting in compiled.config.computes.items():
        if setting.output is not None:
            outputs[setting.target or compute] = setting.output
    profile: Mapping[str, Any] = compiled.profiles.get(compiled.name) or next(
        iter(compiled.profiles.values()), {}
    )
    outputs |= _outputs_of(
        profile, Path("compiled_artifacts.json"), f"dbt_profiles.{compiled.name}"
    )
    default = str(profile.get("target") or default)
    if not outputs:
        raise ProductError(
            f"Cannot load product '{compiled.name}': no dbt output is known. Configure a compute "
            f"plugin in manifest.yaml and compile again, or add profile '{name}' to "
            f"{project_dir / 'profiles.yml'}."
        )
    for key, output in outputs.items():
        if output.get("type") == "duckdb" and output.get("path", ":memory:") == ":memory:":
            file = target_dir.parent / f"{compiled.name}.duckdb"
            logger.warning(
                "Output '%s' keeps DuckDB in memory, where every dbt run starts empty: using %s. "
                "Set `path` in the compute's config to choose the file.",
                key,
                file,
            )
            outputs[key] = {**output, "path": str(file)}
    return name, outputs, default if default in outputs else next(iter(outputs))


def _outputs_of(profile: Any, path: Path, name: str) -> dict[str, dict[str, Any]]:
    outputs = profile.get("outputs") if isinstance(profile, dict) else None
    if profile and not isinstance(outputs, dict):
        raise ProductError(f"Cannot use profile '{name}' of {path}: it has no `outputs` mapping.")
    broken = [key for key, output in (outputs or {}).items() if not isinstance(output, dict)]
    if broken:
        raise ProductError(
            f"Cannot use profile '{name}' of {path}: outputs {broken} are no mappings."
        )
    return dict(outputs or {})


def write_profiles(
    project_dir: Path, profile: str, target: str, outputs: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write profiles.yml to a private directory, never into the project; return the directory."""
    content = yaml.safe_dump(
        {profile: {"target": target, "outputs": {k: dict(v) for k, v in outputs.items()}}}
    )
    # Content-addressed: a worker that holds an older profile keeps it through a new compile.
    folder = private_dir("profiles", f"{project_dir}\n{content}")
    path = folder / "profiles.yml"
    if not path.is_file() or path.read_text() != content:
        write_atomically(path, content, mode=0o600)
    return folder
