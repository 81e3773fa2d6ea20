"""The files of a product: finds, reads and prepares what planning and running need."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.config import PluginConfig, parse_config
from floe_orchestrator_dagster.dbt.command import DbtCommand
from floe_orchestrator_dagster.dbt.environment import (
    CHECK_TYPES,
    adjusted,
    overruled,
    types_left_out,
    value_of,
)
from floe_orchestrator_dagster.dbt.events import Line
from floe_orchestrator_dagster.dbt.process import run_dbt
from floe_orchestrator_dagster.dbt.project import DBT_PROJECT, DbtProject, read_project
from floe_orchestrator_dagster.errors import DbtError, PlanError, Problem, ProductError
from floe_orchestrator_dagster.files import (
    is_in_use,
    locked,
    mtime,
    read_bytes,
    read_text,
    read_yaml,
    writable_dir,
)
from floe_orchestrator_dagster.plan import (
    LAYOUT,
    CompiledProduct,
    DbtManifest,
    ProductPlan,
    QualityCheck,
    Transform,
    decode_manifest,
    plan_product,
    resolve_computes,
    unknown_dependencies,
)
from floe_orchestrator_dagster.product.cache import content_of, digest_of, remembered
from floe_orchestrator_dagster.product.freshness import (
    PARTIAL_PARSE,
    STAMP,
    fingerprint,
    read_stamp,
    write_stamp,
)
from floe_orchestrator_dagster.product.profiles import (
    Profile,
    merged_profile,
    on_disk,
    write_profiles,
)
from floe_orchestrator_dagster.product.surroundings import surroundings_of
from floe_orchestrator_dagster.schedules import schedule_checked_too
from floe_orchestrator_dagster.telemetry import span, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from floe_core.plugins.lineage import LineageBackendPlugin

logger = logging.getLogger(__name__)

ARTIFACTS = "compiled_artifacts.json"
COMPILE = (
    "floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json --generate-definitions"
)
PREPARE = "floe-dagster prepare"
# A product of 10,000 models compiles to about 5 MB of artifacts and 200 MB of manifest.
MAX_ARTIFACTS_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 4 * 2**30
SPEC = "floe.yaml"
RUNS_KEPT = 20
# Set where the manifests were built with the image and must not be built again.
PREPARED_ENV = "FLOE_PREPARED"
PROJECT_ENV = "FLOE_PROJECT_DIR"
_TARGET_NAME = re.compile(r"\w[\w.-]{0,99}")
# Manifests of launches with vars of their own, kept beside those of the product.
VARIANTS = "vars"
VARIANTS_KEPT = 4


@dataclass(frozen=True)
class Product:
    """A planned product and where its files are.

    `project_dir` is None when a product was planned from its artifacts alone: it has the right
    names, graph and computes, and cannot be materialized. `variables` are the dbt vars that it was
    parsed with, `project_flags` the project's own `flags`.
    """

    plan: ProductPlan
    compiled: CompiledProduct
    project_dir: Path | None = None
    target_dir: Path | None = None
    profiles_dir: Path | None = None
    profile: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    manifest_paths: Mapping[str, Path] = field(default_factory=dict)
    lineage_backend: LineageBackendPlugin | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    project_flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> PluginConfig:
        """The plugin's configuration for this product."""
        return self.compiled.config

    def command(
        self,
        verb: str,
        target: str,
        run_dir: Path,
        *,
        flags: Sequence[str] = (),
        variables: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> DbtCommand:
        """Return a dbt command on this product, its artifacts going to `run_dir`.

        `variables` are laid over those that the product was parsed with.

        Raises:
            ProductError: if there is no dbt project.
        """
        if self.project_dir is None or self.profiles_dir is None:
            raise self._without_project()
        executable = self.executable(target)
        dbts = adjusted(
            os.environ,
            self.project_flags,
            selects=options.get("select") is not None,
        )
        return DbtCommand(
            verb=verb,
            project_dir=self.project_dir,
            profiles_dir=self.profiles_dir,
            profile=self.profile,
            target=target,
            target_path=run_dir,
            executable=executable,
            flags=(*flags, *dbts.flags),
            variables={**self.variables, **(variables or {})},
            environment={**dbts.environment, **(environment or {})},
            **options,
        )

    def executable(self, target: str) -> str | None:
        """Return the other dbt that builds a target; None for dbt-core."""
        computes = self.plan.computes.values()
        return next((c.dbt_executable for c in computes if c.target == target), None)

    def new_run_dir(self, name: str, target: str) -> Path:
        """Return an empty directory for one dbt run, seeded for partial parsing; old ones go."""
        if self.target_dir is None:
            raise self._without_project()
        runs = self.target_dir / "runs"
        path = runs / name
        if runs.is_symlink():
            # Old runs are removed: those of a link would be somebody else's directories.
            raise ProductError(f"Cannot use {runs}: it is a link. Remove it.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if target in self.manifest_paths:
                seed = self.manifest_paths[target].with_name(PARTIAL_PARSE)
                if seed.is_file():
                    shutil.copyfile(seed, path / seed.name)
            # By age alone a long run would lose its directory, and after a jump of the clock
            # a new one would.
            for old in sorted(runs.iterdir(), key=mtime)[:-RUNS_KEPT]:
                if old != path and not is_in_use(old):
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise DbtError(f"Cannot prepare {path} for dbt: {error.strerror}.") from error
        return path

    def _without_project(self) -> ProductError:
        return ProductError(
            f"Cannot run dbt for product '{self.plan.name}': no dbt project is known. Set "
            f"{PROJECT_ENV} (or project_dir in plugins.orchestrator.config) to the directory "
            f"of {DBT_PROJECT}, or load the product with load_product_definitions()."
        )


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold off the garbage collector while much is made that is no garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@uncollected()
def open_product(
    directory: Path,
    *,
    product_name: str | None = None,
    progress: Callable[[str], None] = logger.info,
    force_parse: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Product:
    """Read, prepare and plan the product in `directory` (the one of definitions.py, or above).

    Parses the dbt project once per compute when its manifest is missing or stale, unless the
    environment says that it was prepared (``FLOE_PREPARED=1``). `variables` are dbt vars to parse
    and run with, laid over those of the plugin's config.

    Raises:
        ProductError: a file is missing or cannot be read; says which command makes it.
        PlanError: the product contradicts itself; lists every problem.
    """
    artifacts_path = find_artifacts(directory)
    compiled = read_compiled(artifacts_path, product_name)
    project_dir = find_project(compiled, artifacts_path.parent)
    if project_dir is None:
        raise ProductError(
            f"Cannot load product '{compiled.name}': no {DBT_PROJECT} in {artifacts_path.parent} "
            f"or above it. Compile into the dbt project (`{COMPILE}`), or set {PROJECT_ENV}."
        )
    return load_project(
        compiled,
        project_dir,
        spec=own_spec(compiled, project_dir, artifacts_path.parent),
        progress=progress,
        force_parse=force_parse,
        variables=variables,
    )


@uncollected()
def load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    *,
    spec: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = logger.info,
    force_parse: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Product:
    """Plan a compiled product on its dbt project; see `open_product`."""
    start(compiled.artifacts)
    with (
        span("floe.load", product_name=compiled.name, product_version=compiled.version),
        schedule_checked_too(compiled.name, spec or {}, compiled.config),
    ):
        return _load_project(
            compiled, project_dir, spec, progress, dict(variables or {}), force_parse=force_parse
        )


def _load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    spec: Mapping[str, Any] | None,
    progress: Callable[[str], None],
    variables: Mapping[str, Any],
    *,
    force_parse: bool,
) -> Product:
    outline = outline_product(compiled, project_dir, spec, variables)
    product, project, profile = outline.product, outline.project, outline.profile
    compiled, computes, target_dir = product.compiled, product.plan.computes, outline.target_dir
    target = computes[compiled.default_compute].target
    for warning in (
        *compiled.warnings,
        *overruled(os.environ, product.project_flags),
        *_other_target(target),
    ):
        logger.warning("%s", warning)
    # An image's own files are read-only where it runs: what was prepared is in it all the same.
    prepared = _is_prepared() and not force_parse
    made_dir = project.target_path / "floe" if prepared else target_dir
    manifests_dir = made_dir
    if product.variables != compiled.config.vars:
        # Nobody has prepared these.
        prepared, manifests_dir = False, _variant(target_dir, product.variables)
    if not _is_prepared():
        install_packages(outline, progress)
    parsing = _Parsing(product, project, profile, progress, prepared=prepared, force=force_parse)
    paths: dict[str, Path] = {}
    contents: dict[str, bytes] = {}
    for name in dict.fromkeys(compute.target for compute in computes.values()):
        paths[name] = parsing.manifest(manifests_dir / name)
        contents[name] = read_bytes(paths[name], MAX_MANIFEST_BYTES, _MANIFEST_REMEDY)
    left_out = types_left_out(os.environ) & CHECK_TYPES

    def make() -> ProductPlan:
        manifests = {
            name: without_types(parse_manifest(paths[name], data), left_out)
            for name, data in contents.items()
        }
        around = surroundings_of(project, product.variables)
        return plan_product(compiled, computes, manifests, surroundings=around)

    key = digest_of(
        [
            LAYOUT,
            content_of(compiled),
            content_of(computes),
            *sorted(left_out),
            *(part for name, data in contents.items() for part in (name, data)),
        ]
    )
    with span("floe.plan", product_name=compiled.name, product_version=compiled.version):
        plan = remembered(made_dir / "cache", ProductPlan, key, make)
    for warning in plan.warnings:
        logger.warning("%s", warning)
    return replace(product, plan=plan, manifest_paths=paths)


@dataclass(frozen=True)
class Outline:
    """A product whose project is yet to be parsed: its plan has computes and no nodes."""

    product: Product
    project: DbtProject
    profile: Profile
    target_dir: Path


def outline_product(
    compiled: CompiledProduct,
    project_dir: Path,
    spec: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Outline:
    """Return what is known of a product before its project is parsed; see `open_product`."""
    variables = {**compiled.config.vars, **(variables or {})}
    project = read_project(project_dir, variables)
    profile = merged_profile(compiled, project)
    target_dir = _own_directory(project)
    profile = on_disk(profile, target_dir.parent / f"{compiled.name}.duckdb")
    if not compiled.default_compute:
        compiled = _with_default(compiled, profile.default)
    compiled = replace(compiled, owner=_owner(spec))
    computes, problems = resolve_computes(compiled, profile.adapters, profile.preferred)
    if problems:
        # Without every target there is no manifest to compare with, but the rest can be checked.
        plan_product(compiled, computes, problems=problems)
    for compute in computes.values():
        _require_file_name(compute.target)
    target = computes[compiled.default_compute].target
    project = project.on(profile.target(target))
    flags = project.settings.get("flags") or profile.flags
    product = Product(
        plan=ProductPlan(compiled.name, {}, computes, compiled.default_compute),
        compiled=compiled,
        project_dir=project_dir,
        target_dir=target_dir,
        profiles_dir=write_profiles(project_dir, profile, target),
        profile=profile.name,
        spec=spec or {},
        variables=variables,
        project_flags=flags if isinstance(flags, dict) else {},
    )
    return Outline(product, project, profile, target_dir)


def _other_target(target: str) -> Iterator[str]:
    wanted = value_of("DBT_TARGET", os.environ)
    if wanted and wanted != target:
        yield (
            f"DBT_TARGET is '{wanted}', but the product's default compute names output "
            f"'{target}': that is built on. Name '{wanted}' under "
            "plugins.orchestrator.config.computes to change it."
        )


def without_types(manifest: DbtManifest, types: frozenset[str]) -> DbtManifest:
    """Return a manifest without the nodes of these resource types."""
    if not types:
        return manifest
    nodes = {uid: node for uid, node in manifest.nodes.items() if node.resource_type not in types}
    unit_tests = {} if "unit_test" in types else manifest.unit_tests
    return msgspec.structs.replace(manifest, nodes=nodes, unit_tests=unit_tests)


def _variant(target_dir: Path, variables: Mapping[str, Any]) -> Path:
    """Return where the manifests of these vars are; of other launches' only the newest stay."""
    key = digest_of([json.dumps(dict(variables), sort_keys=True, default=str)])[:16]
    folder = target_dir / VARIANTS / key
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.parent.iterdir(), key=mtime)[:-VARIANTS_KEPT]:
        if old != folder and old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def target_directory(project_dir: Path, variables: Mapping[str, Any] | None = None) -> Path:
    """Return where a product's own files go: below dbt's target path, if it can be written to."""
    return _own_directory(read_project(project_dir, variables))


def _own_directory(project: DbtProject) -> Path:
    return writable_dir(project.target_path) / "floe"


def _require_file_name(target: str) -> None:
    """Refuse an output whose name would lead out of the directory that keeps its manifest."""
    if not _TARGET_NAME.fullmatch(target):
        raise ProductError(
            f"Cannot use dbt output {target!r}: its manifest is kept in a directory of that name. "
            "Use letters, digits, '-', '_' and '.', beginning with a letter or digit, 100 at most."
        )


def _owner(spec: Mapping[str, Any] | None) -> str | None:
    metadata = (spec or {}).get("metadata")
    owner = metadata.get("owner") if isinstance(metadata, dict) else None
    return owner if isinstance(owner, str) and owner else None


def _with_default(compiled: CompiledProduct, compute: str) -> CompiledProduct:
    """Put what names no compute on the profile's default output."""
    transforms = (
        item if item.compute else replace(item, compute=compute) for item in compiled.transforms
    )
    return replace(compiled, default_compute=compute, transforms=tuple(transforms))


def product_of_artifacts(
    artifacts: Mapping[str, Any], project_dir: Path | None = None, *, guessed: bool = False
) -> Product:
    """Plan a product from a dictionary of artifacts, on its dbt project if one is known.

    Without a project the plan has the right names, graph and computes, and no dbt behind it.
    `guessed` tells that nobody has named `project_dir` for this product: it must show that it is
    the product's, by a floe.yaml, its own name, its profile's, or models for all transforms.

    Raises:
        PlanError: with every problem found.
        ProductError: the project is missing, or another product's.
    """
    compiled = compiled_product(artifacts)
    named = compiled.config.project_dir
    project = Path(named).absolute() if named else project_dir
    if project is None:
        return product_of_transforms(compiled)
    if not (project / DBT_PROJECT).is_file():
        raise ProductError(
            f"Cannot load product '{compiled.name}': there is no {DBT_PROJECT} in {project}. "
            "Correct project_dir."
        )
    project = project.resolve()
    spec = own_spec(compiled, project, project, named=not guessed)
    if guessed and not (
        spec or compiled.transforms or _is_named(compiled) or _bears_name(project, compiled.name)
    ):
        logger.warning(
            "Nothing tells that the dbt project in %s is that of product '%s', which names no "
            "model: it is left aside. Set %s to use it.",
            project,
            compiled.name,
            PROJECT_ENV,
        )
        return product_of_transforms(compiled)
    return load_project(compiled, project, spec=spec)


def product_of_transforms(compiled: CompiledProduct) -> Product:
    """Plan a product from its transforms alone."""
    outputs: dict[str, str] = {name: name for name in compiled.computes_named}
    for setting in compiled.config.computes.values():
        if setting.target is not None:
            outputs.setdefault(setting.target, setting.target)
    computes, problems = resolve_computes(compiled, outputs)
    plan = plan_product(compiled, computes, problems=[*problems, *unknown_dependencies(compiled)])
    return Product(plan=plan, compiled=compiled)


def find_artifacts(directory: Path) -> Path:
    """Return the compiled artifacts in `directory`, its `target` folder, or a parent of it."""
    directory = directory.absolute()
    found = artifacts_beside(directory)
    if found is not None:
        return found
    raise ProductError(
        f"Cannot find {ARTIFACTS} in {directory}, its target folder or its parents. "
        f"Make it with `{COMPILE}`."
    )


def artifacts_beside(directory: Path) -> Path | None:
    """Return what `find_artifacts` finds, or None."""
    directory = directory.absolute()
    folders = (directory, directory / "target", *directory.parents[:2])
    return next((f / ARTIFACTS for f in folders if (f / ARTIFACTS).is_file()), None)


def find_project(compiled: CompiledProduct, start: Path) -> Path | None:
    """Return the dbt project directory: configured, from the environment, `start` or above it."""
    named = compiled.config.project_dir or os.environ.get(PROJECT_ENV)
    if named:
        path = Path(named) if Path(named).is_absolute() else start / named
        if not (path / DBT_PROJECT).is_file():
            source = "project_dir" if compiled.config.project_dir else PROJECT_ENV
            raise ProductError(
                f"Cannot load product '{compiled.name}': {source} is {path}, where there is no "
                f"{DBT_PROJECT}. Correct it, or remove it to search beside the artifacts."
            )
        return path.resolve()
    for folder in (start, *start.parents):
        if (folder / DBT_PROJECT).is_file():
            return folder
    return None


def read_compiled(path: Path, product_name: str | None = None) -> CompiledProduct:
    """Return what the artifacts at `path` say, which must be of that product."""
    text = read_text(path, MAX_ARTIFACTS_BYTES, f"Compile again with `{COMPILE}`.")

    artifacts = _parsed(path, text)
    found = artifacts["metadata"]["product_name"]
    if product_name is not None and found != product_name:
        raise _other_product(path, product_name, found)
    # floe-core takes a second to import; who has its answer already does not need it. What may
    # hold a secret is not remembered.
    folder = (path.parent if path.parent.name == "target" else path.parent / "target") / "floe"
    key = digest_of([text, version("floe-core")])
    checked = remembered(folder / "cache", CompiledProduct, key, lambda: _checked(artifacts))
    return _with_settings(checked, artifacts)


def _other_product(path: Path, wanted: str, found: str | None) -> ProductError:
    return ProductError(
        f"Cannot load product '{wanted}': {path} is of product '{found}'. "
        f"Compile again with `{COMPILE}`."
    )


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


_MANIFEST_REMEDY = f"Make it again with `{PREPARE} --force`."


def parse_manifest(path: Path, content: bytes) -> DbtManifest:
    """Return the content of dbt's manifest at `path`, decoded."""
    try:
        return decode_manifest(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProductError(f"Cannot read {path}: {error}. {_MANIFEST_REMEDY}") from error


def compiled_product(artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Return what the artifacts say, checked by floe-core's own schema.

    Raises:
        PlanError: with every violation of the schema and its path.
        ConfigError: with everything wrong in the plugin's own configuration.
    """
    return _with_settings(_checked(artifacts), artifacts)


def _with_settings(compiled: CompiledProduct, artifacts: Mapping[str, Any]) -> CompiledProduct:
    """Add what checked artifacts say of everything but the transforms."""
    orchestrator = (artifacts.get("plugins") or {}).get("orchestrator") or {}
    return replace(
        compiled,
        profiles=artifacts.get("dbt_profiles") or {},
        config=parse_config(orchestrator.get("config")),
        # Everything but what is above already, and long.
        artifacts={
            key: value
            for key, value in artifacts.items()
            if key not in {"transforms", "dbt_profiles"}
        },
    )


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
                    ".".join(map(str, item["loc"])) or "compiled_artifacts.json",
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


def read_spec(*folders: Path) -> Mapping[str, Any]:
    """Return what is needed of floe.yaml beside the artifacts or the dbt project; {} without one.

    floe-core drops `schedule` and `metadata.owner` at compile time, so they are read here.
    """
    path = next((f / SPEC for f in _around(folders) if (f / SPEC).is_file()), None)
    return {} if path is None else _spec_at(path)


def own_spec(
    compiled: CompiledProduct, project_dir: Path, *folders: Path, named: bool = False
) -> Mapping[str, Any]:
    """Return what is needed of a product's own floe.yaml; see `read_spec`.

    A dbt project may have several products, each with a spec of its own (`floe*.yaml`), and the
    spec of a product may lie elsewhere. So the product's spec is the one of its name. Where there
    are only other products' specs, their schedule and owner are left aside; and the project is not
    this product's, unless it is `named` for it (in the configuration, the environment or by the
    caller), or bears its name, or has a profile of its name.

    Raises:
        ProductError: the project is another product's; says whose.
    """
    others: dict[Path, str] = {}
    for path in _specs_around((*folders, project_dir)):
        try:
            spec = _spec_at(path)
        except ProductError:
            if path.name == SPEC:
                raise
            # It need not be a spec, but for its name.
            continue
        metadata = spec.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if name == compiled.name or (name is None and path.name == SPEC):
            return spec
        if isinstance(name, str):
            others[path] = name
    if not others:
        return {}
    path, other = next(iter(others.items()))
    if not (named or _is_named(compiled) or _bears_name(project_dir, compiled.name)):
        raise ProductError(
            f"Cannot load product '{compiled.name}' on the dbt project in {project_dir}: that is "
            f"of product '{other}' ({path}). Compile '{compiled.name}' again with its own "
            f"floe.yaml; if it shares this project, set {PROJECT_ENV} (or project_dir in "
            "plugins.orchestrator.config) to it, or keep its spec there as floe-"
            f"{compiled.name}.yaml."
        )
    logger.warning(
        "%s is of product '%s': its schedule and owner are not used for '%s'. Keep the spec of "
        "'%s' beside it, as floe-%s.yaml, to use its own.",
        path,
        other,
        *[compiled.name] * 3,
    )
    return {}


def _is_named(compiled: CompiledProduct) -> bool:
    return bool(compiled.config.project_dir or os.environ.get(PROJECT_ENV))


def _bears_name(project_dir: Path, name: str) -> bool:
    project = read_project(project_dir)
    return name.replace("-", "_") in {
        str(found).replace("-", "_") for found in (project.name, project.settings.get("profile"))
    }


def _around(folders: Sequence[Path]) -> Iterable[Path]:
    """Return where a spec may be: beside the artifacts, above them, beside the project."""
    return dict.fromkeys((folders[0], *folders[0].parents[:1], *folders[1:]))


def _specs_around(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in _around(folders):
        if (folder / SPEC).is_file():
            yield folder / SPEC
    for folder in _around(folders):
        yield from (path for path in sorted(folder.glob("floe*.y*ml")) if path.name != SPEC)


def _spec_at(path: Path) -> Mapping[str, Any]:
    content = read_yaml(path, "Correct it and compile again.")
    return {key: content[key] for key in ("schedule", "metadata") if key in content}


def _is_prepared() -> bool:
    return os.environ.get(PREPARED_ENV, "").lower() in {"1", "true", "yes"}


def _is_fresh(manifest: Path, inputs: str) -> bool:
    stamp = read_stamp(manifest.parent) if manifest.is_file() else None
    return stamp is not None and stamp.inputs == inputs and not stamp.changed(os.environ)


@dataclass
class _Parsing:
    """Parses a project, once for each of its targets, where what was parsed is missing or stale."""

    product: Product
    project: DbtProject
    profile: Profile
    progress: Callable[[str], None]
    prepared: bool
    force: bool
    _inputs: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def manifest(self, folder: Path) -> Path:
        """Return the manifest in a target's `folder`."""
        target, manifest = folder.name, folder / "manifest.json"
        if self.prepared:
            if manifest.is_file():
                return manifest
            raise ProductError(
                f"Cannot find {manifest}: {PREPARED_ENV} is set, so it should have been built with "
                f"the image. Run `{PREPARE}` in the product's directory at build time."
            )
        inputs = self.inputs(target)
        if not self.force and _is_fresh(manifest, inputs):
            return manifest
        with locked(folder.with_name(f"{target}.lock")):
            if self.force or not _is_fresh(manifest, inputs):
                self._parse(folder, inputs)
        return manifest

    def inputs(self, target: str) -> str:
        """Return the fingerprint of what a target's manifest is parsed from."""
        project, executable = self._on(target), self.product.executable(target)
        key = (target if project.depends_on_target else "", executable)
        if key not in self._inputs:
            self._inputs[key] = fingerprint(project, self.profile, executable)
        return self._inputs[key]

    def _on(self, target: str) -> DbtProject:
        if not self.project.depends_on_target:
            return self.project
        return self.project.on(self.profile.target(target))

    def _parse(self, folder: Path, inputs: str) -> None:
        target = folder.name
        name = self.product.plan.name
        self.progress(f"Parsing the dbt project of '{name}' for target '{target}' ...")
        folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        stamp = read_stamp(folder)
        if stamp is not None and stamp.unwatched & stamp.changed(environment):
            # dbt would take what has not changed itself from its memory.
            (folder / PARTIAL_PARSE).unlink(missing_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        _run_quietly(self.product.command("parse", target, folder))
        write_stamp(
            folder,
            inputs,
            self._on(target),
            self.profile,
            environment,
            other_dbt=self.product.executable(target) is not None,
        )


def install_packages(outline: Outline, progress: Callable[[str], None]) -> None:
    """Run `dbt deps` when the project asks for packages and has none installed."""
    product, project = outline.product, outline.project
    if not project.wants_packages or project.packages_path.is_dir():
        return
    target = product.plan.computes[product.plan.default_compute].target
    with locked(outline.target_dir / "deps.lock"):
        if not project.packages_path.is_dir():
            progress(f"Installing the dbt packages of '{product.plan.name}' ...")
            _run_quietly(product.command("deps", target, outline.target_dir / target))


def _run_quietly(command: DbtCommand) -> None:
    with run_dbt(command) as run:
        errors = [event.text for event in run if isinstance(event, Line) and event.level == "error"]
    if not run.success:
        said = run.exception or "\n".join(errors) or "no reason given"
        raise ProductError(
            f"Cannot {command.verb} the dbt project {command.project_dir} for target "
            f"'{command.target}'. dbt says: {said.strip()}"
        )


def load_all_manifests(product: Product) -> Sequence[tuple[str, dict[str, Any]]]:
    """Return each target's raw manifest, for users' own translators."""
    return [
        (target, json.loads(path.read_bytes())) for target, path in product.manifest_paths.items()
    ]
