"""Reads the compiled artifacts of a product: finds the file, decodes it, checks it."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.errors import PlanError, Problem, ProductError
from floe_orchestrator_dagster.files import read_text
from floe_orchestrator_dagster.plan import CompiledProduct, QualityCheck, Transform
from floe_orchestrator_dagster.product.cache import digest_of, remembered
from floe_orchestrator_dagster.product.layout import artifacts_cache, artifacts_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from floe_orchestrator_dagster.config import PluginConfig

ARTIFACTS = "compiled_artifacts.json"
COMPILE = (
    "floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json --generate-definitions"
)
# A product of 10,000 models compiles to about 5 MB of artifacts and 200 MB of manifest.
MAX_ARTIFACTS_BYTES = 256 * 2**20


def find_artifacts(directory: Path) -> Path:
    """Return the compiled artifacts in `directory`, its `target` folder, or a parent of it."""
    directory = directory.absolute()
    found = nearby_artifacts(directory)
    if found is not None:
        return found
    raise ProductError(
        f"Cannot find {ARTIFACTS} in {directory}, its target folder or its parents. "
        f"Make it with `{COMPILE}`."
    )


def nearby_artifacts(directory: Path) -> Path | None:
    """Return what `find_artifacts` finds, or None."""
    folders = artifacts_places(directory.absolute())
    return next((f / ARTIFACTS for f in folders if (f / ARTIFACTS).is_file()), None)


def read_compiled(path: Path, product_name: str | None = None) -> CompiledProduct:
    """Return what the artifacts at `path` say, which must be of that product."""
    text = read_text(path, MAX_ARTIFACTS_BYTES, f"Compile again with `{COMPILE}`.")

    artifacts = _parsed(path, text)
    found = artifacts["metadata"]["product_name"]
    if product_name is not None and found != product_name:
        raise ProductError(
            f"Cannot load product '{product_name}': {path} is of product '{found}'. "
            f"Compile again with `{COMPILE}`."
        )
    # floe-core takes a second to import; who has its answer already does not need it. What may
    # hold a secret is not remembered.
    key = digest_of([text, version("floe-core")])
    checked = remembered(artifacts_cache(path), CompiledProduct, key, lambda: _checked(artifacts))
    return _with_settings(checked, artifacts)


def read_artifacts(path: Path) -> dict[str, Any]:
    """Return the compiled artifacts at `path` as they are."""
    return _parsed(path, read_text(path, MAX_ARTIFACTS_BYTES, f"Compile again with `{COMPILE}`."))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """Return the compiled artifacts as a dictionary that has been checked to be JSON."""
    remedy = f"Compile again with `{COMPILE}`."
    try:
        artifacts = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProductError(
            f"Cannot read {path}: not JSON (line {error.lineno}, column {error.colno}: "
            f"{error.msg}); perhaps truncated. {remedy}"
        ) from error
    except RecursionError as error:
        raise ProductError(f"Cannot read {path}: nested too deeply. {remedy}") from error
    if not isinstance(artifacts, dict) or not isinstance(artifacts.get("metadata"), dict):
        raise ProductError(f"Cannot read {path}: no compiled artifacts of floe. {remedy}")
    artifacts["metadata"].setdefault("product_name", None)
    return artifacts


def compiled_product(artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Return what the artifacts say, checked by floe-core's own schema.

    Raises:
        PlanError: with every violation of the schema and its path.
        ConfigError: with everything wrong in the plugin's own configuration.
    """
    return _with_settings(_checked(artifacts), artifacts)


def _with_settings(compiled: CompiledProduct, artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Add what checked artifacts say of everything but the transforms."""
    return replace(
        compiled,
        profiles=artifacts.get("dbt_profiles") or {},
        config=plugin_config(artifacts),
        # Everything but what is above already, and long.
        artifacts={
            key: value
            for key, value in artifacts.items()
            if key not in {"transforms", "dbt_profiles"}
        },
    )


def plugin_config(artifacts: Mapping[str, Any]) -> PluginConfig:
    """Return the plugin's own configuration in checked artifacts.

    Raises:
        ConfigError: with everything that is wrong in it.
    """
    orchestrator = (artifacts.get("plugins") or {}).get("orchestrator") or {}
    return parse_config(orchestrator.get("config"))


def _checked(artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Return the transforms, checked by floe-core's own schema, and nothing that may be secret."""
    # floe-core takes a second to import; only who reads artifacts pays for it.
    from floe_core.schemas.compiled_artifacts import CompiledArtifacts
    from pydantic import ValidationError

    try:
        checked = CompiledArtifacts.model_validate(dict(artifacts))
    except ValidationError as error:
        name = _product_name(artifacts)
        raise PlanError(
            f"Cannot plan product '{name}'",
            [
                Problem(
                    ".".join(map(str, item["loc"])) or ARTIFACTS,
                    f"{item['msg']}.",
                    f"Compile again with `{COMPILE}`.",
                )
                for item in error.errors()
            ],
        ) from error
    default = checked.transforms.default_compute if checked.transforms else None
    if default is None and checked.plugins and checked.dbt_profiles:
        default = checked.plugins.compute.type
    return CompiledProduct(
        name=checked.metadata.product_name,
        version=checked.metadata.product_version,
        default_compute=default or "",
        warnings=tuple(_too_new(checked.version)),
        transforms=tuple(
            Transform(
                name=model.name,
                compute=model.compute,
                depends_on=tuple(model.depends_on or ()),
                tags=tuple(model.tags or ()),
                tier=model.quality_tier,
                quality_checks=tuple(
                    _quality_check(check) for check in model.quality_checks or () if check.enabled
                ),
            )
            for model in (checked.transforms.models if checked.transforms else ())
        ),
    )


def _too_new(found: str) -> Iterator[str]:
    """Yield a warning for artifacts of a newer version than floe-core here knows."""
    from floe_core.schemas.versions import COMPILED_ARTIFACTS_VERSION as KNOWN

    if [*map(int, found.split(".")[:2])] > [*map(int, KNOWN.split(".")[:2])]:
        yield (
            f"The compiled artifacts are of version {found}; floe-core {version('floe-core')} "
            f"knows them up to {KNOWN}. What is newer in them is not used: upgrade floe-core here, "
            "or compile with this one."
        )


def _product_name(artifacts: Mapping[str, Any]) -> str:
    metadata = artifacts.get("metadata")
    name = metadata.get("product_name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else "(unnamed)"


def _quality_check(check: Any) -> QualityCheck:
    arguments = dict(check.parameters)
    if check.column is not None:
        arguments["column_name"] = check.column
    return QualityCheck(
        name=check.name,
        type=check.type,
        arguments=arguments,
        severity="error" if check.severity.value == "critical" else "warn",
        dimension=check.dimension.value,
    )
