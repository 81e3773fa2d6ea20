"""Reads the compiled artifacts of a product."""

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
    """Return the path of the artifacts in `directory`, its `target` folder, or a folder above it.

    Raises:
        ProductError: none of these folders has the file.
    """
    directory = directory.absolute()
    path = nearby_artifacts(directory)
    if path is not None:
        return path
    raise ProductError(
        f"Cannot find {ARTIFACTS} in {directory}, its target folder or its parents. "
        f"Create it with `{COMPILE}`."
    )


def nearby_artifacts(directory: Path) -> Path | None:
    """Return the path of the artifacts as `find_artifacts` does; None if there are none."""
    folders = artifacts_places(directory.absolute())
    return next((f / ARTIFACTS for f in folders if (f / ARTIFACTS).is_file()), None)


def read_compiled(path: Path, product_name: str | None = None) -> CompiledProduct:
    """Return the product in the artifacts at `path`, checked by floe-core's own schema.

    Raises:
        ProductError: the file cannot be read, or belongs to a product other than `product_name`.
        PlanError: the artifacts violate the schema; lists every violation.
        ConfigError: the plugin's configuration in them is not valid.
    """
    text = read_text(path, MAX_ARTIFACTS_BYTES, f"Compile again with `{COMPILE}`.")

    artifacts = _parsed(path, text)
    name = artifacts["metadata"]["product_name"]
    if product_name is not None and name != product_name:
        raise ProductError(
            f"Cannot load product '{product_name}': {path} belongs to product '{name}'. "
            f"Compile again with `{COMPILE}`."
        )
    # The cache saves the import of floe-core, which takes a second. It does not keep settings,
    # which may contain secrets.
    key = digest_of([text, version("floe-core")])
    checked = remembered(artifacts_cache(path), CompiledProduct, key, lambda: _checked(artifacts))
    return _with_settings(checked, artifacts)


def read_artifacts(path: Path) -> dict[str, Any]:
    """Return the content of the artifacts at `path`, without checking it against the schema."""
    return _parsed(path, read_text(path, MAX_ARTIFACTS_BYTES, f"Compile again with `{COMPILE}`."))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """Return the JSON in `text` as a dictionary with `metadata.product_name`."""
    remedy = f"Compile again with `{COMPILE}`."
    try:
        artifacts = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProductError(
            f"Cannot read {path}: it is not JSON (line {error.lineno}, column {error.colno}: "
            f"{error.msg}); it may be truncated. {remedy}"
        ) from error
    except RecursionError as error:
        raise ProductError(f"Cannot read {path}: it is nested too deeply. {remedy}") from error
    if not isinstance(artifacts, dict) or not isinstance(artifacts.get("metadata"), dict):
        raise ProductError(
            f"Cannot read {path}: it does not contain floe's compiled artifacts. {remedy}"
        )
    artifacts["metadata"].setdefault("product_name", None)
    return artifacts


def compiled_product(artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Return the product in artifacts, checked by floe-core's own schema.

    Raises:
        PlanError: the artifacts violate the schema; lists every violation with its path.
        ConfigError: the plugin's own configuration is not valid; lists every problem.
    """
    return _with_settings(_checked(artifacts), artifacts)


def _with_settings(compiled: CompiledProduct, artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Add everything except the transforms from checked artifacts."""
    return replace(
        compiled,
        profiles=artifacts.get("dbt_profiles") or {},
        config=plugin_config(artifacts),
        # Without the long parts, which are in the other fields.
        artifacts={
            key: value
            for key, value in artifacts.items()
            if key not in {"transforms", "dbt_profiles"}
        },
    )


def plugin_config(artifacts: Mapping[str, Any]) -> PluginConfig:
    """Return the plugin's own configuration in checked artifacts.

    Raises:
        ConfigError: it is not valid; lists every problem.
    """
    orchestrator = (artifacts.get("plugins") or {}).get("orchestrator") or {}
    return parse_config(orchestrator.get("config"))


def _checked(artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Return the transforms, checked by floe-core's own schema, without anything secret."""
    # floe-core takes a second to import, so this is not at the top.
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


def _too_new(compiled: str) -> Iterator[str]:
    """Yield a warning if the version of the artifacts is newer than this floe-core knows."""
    from floe_core.schemas.versions import COMPILED_ARTIFACTS_VERSION as KNOWN

    if [*map(int, compiled.split(".")[:2])] > [*map(int, KNOWN.split(".")[:2])]:
        yield (
            f"The compiled artifacts have version {compiled}; floe-core {version('floe-core')} "
            f"knows versions up to {KNOWN} and ignores newer fields. Upgrade floe-core here, or "
            f"compile with floe-core {version('floe-core')}."
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
