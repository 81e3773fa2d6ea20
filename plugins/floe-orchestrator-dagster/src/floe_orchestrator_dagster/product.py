"""The files of a product: finds, reads and prepares what planning and running need."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.cache import content_of, digest_of, remembered
from floe_orchestrator_dagster.config import PluginConfig, parse_config
from floe_orchestrator_dagster.dbt.command import DbtCommand
from floe_orchestrator_dagster.dbt.events import Line
from floe_orchestrator_dagster.dbt.process import run_dbt
from floe_orchestrator_dagster.errors import DbtError, PlanError, Problem, ProductError
from floe_orchestrator_dagster.files import (
    is_in_use,
    locked,
    mtime,
    read_bytes,
    read_text,
    read_yaml,
    writable_dir,
    write_atomically,
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
from floe_orchestrator_dagster.profiles import merged_outputs, write_profiles
from floe_orchestrator_dagster.telemetry import span, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from floe_core.plugins.lineage import LineageBackendPlugin

logger = logging.getLogger(__name__)

ARTIFACTS = "compiled_artifacts.json"
DBT_PROJECT = "dbt_project.yml"
COMPILE = (
    "floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json --generate-definitions"
)
PREPARE = "floe-dagster prepare"
# A product of 10,000 models compiles to about 5 MB of artifacts and 200 MB of manifest.
MAX_ARTIFACTS_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 4 * 2**30
RUNS_KEPT = 20
# Set where the manifests were built with the image and must not be built again.
PREPARED_ENV = "FLOE_PREPARED"
PROJECT_ENV = "FLOE_PROJECT_DIR"
_TARGET_NAME = re.compile(r"\w[\w.-]{0,99}")
PROJECT_FILES = (
    DBT_PROJECT,
    "packages.yml",
    "dependencies.yml",
    "package-lock.yml",
    "selectors.yml",
    ".env",
)
# dbt's settings of where a project's files are, with dbt's defaults.
PROJECT_PATHS: Mapping[str, Sequence[str]] = {
    "model-paths": ("models",),
    "seed-paths": ("seeds",),
    "snapshot-paths": ("snapshots",),
    "test-paths": ("tests",),
    "macro-paths": ("macros",),
    "analysis-paths": ("analyses",),
    "function-paths": ("functions",),
    "docs-paths": (),
}


@dataclass(frozen=True)
class Product:
    """A planned product and where its files are.

    `project_dir` is None when a product was planned from its artifacts alone: it has the right
    names, graph and computes, and cannot be materialized.
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

    @property
    def config(self) -> PluginConfig:
        """The plugin's configuration for this product."""
        return self.compiled.config

    def command(self, verb: str, target: str, run_dir: Path, **options: Any) -> DbtCommand:
        """Return a dbt command on this product, its artifacts going to `run_dir`.

        Raises:
            ProductError: if there is no dbt project.
        """
        if self.project_dir is None or self.profiles_dir is None:
            raise self._without_project()
        return DbtCommand(
            verb=verb,
            project_dir=self.project_dir,
            profiles_dir=self.profiles_dir,
            profile=self.profile,
            target=target,
            target_path=run_dir,
            executable=next(
                (
                    compute.dbt_executable
                    for compute in self.plan.computes.values()
                    if compute.target == target
                ),
                None,
            ),
            **options,
        )

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
                seed = self.manifest_paths[target].with_name("partial_parse.msgpack")
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
) -> Product:
    """Read, prepare and plan the product in `directory` (the one of definitions.py, or above).

    Parses the dbt project once per compute when its manifest is missing or stale, unless the
    environment says that it was prepared (``FLOE_PREPARED=1``).

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
        spec=read_spec(artifacts_path.parent, project_dir),
        progress=progress,
        force_parse=force_parse,
    )


@uncollected()
def load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    *,
    spec: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = logger.info,
    force_parse: bool = False,
) -> Product:
    """Plan a compiled product on its dbt project; see `open_product`."""
    start(compiled.artifacts)
    with span("floe.load", product_name=compiled.name, product_version=compiled.version):
        return _load_project(compiled, project_dir, spec, progress, force_parse=force_parse)


def _load_project(
    compiled: CompiledProduct,
    project_dir: Path,
    spec: Mapping[str, Any] | None,
    progress: Callable[[str], None],
    *,
    force_parse: bool,
) -> Product:
    dbt_project = read_yaml(project_dir / DBT_PROJECT, "Write one with `dbt init`.")
    target_dir = target_directory(project_dir, dbt_project)
    # An image's own files are read-only where it runs: what was prepared is in it all the same.
    dbt_target = project_dir / str(dbt_project.get("target-path") or "target")
    made_dir = dbt_target / "floe" if _is_prepared() and not force_parse else target_dir
    profile, outputs, default = merged_outputs(compiled, project_dir, dbt_project, target_dir)
    if not compiled.default_compute:
        compiled = _with_default(compiled, default)
    compiled = replace(compiled, owner=_owner(spec))
    adapters = {name: str(output.get("type", "")) for name, output in outputs.items()}
    computes, problems = resolve_computes(compiled, adapters)
    if problems:
        # Without every target there is no manifest to compare with, but the rest can be checked.
        plan_product(compiled, computes, problems=problems)
    for compute in computes.values():
        _require_file_name(compute.target)
    target = computes[compiled.default_compute].target
    profiles_dir = write_profiles(project_dir, profile, target, outputs)
    product = Product(
        plan=ProductPlan(compiled.name, {}, computes, compiled.default_compute),
        compiled=compiled,
        project_dir=project_dir,
        target_dir=target_dir,
        profiles_dir=profiles_dir,
        profile=profile,
        spec=spec or {},
    )
    paths: dict[str, Path] = {}
    contents: dict[str, bytes] = {}
    _install_packages(product, dbt_project, target, progress)
    fingerprint = _fingerprint(project_dir, dbt_project, profiles_dir)
    for name in dict.fromkeys(compute.target for compute in computes.values()):
        path = _ensure_manifest(
            product, made_dir / name, fingerprint, progress, force_parse=force_parse
        )
        paths[name] = path
        contents[name] = read_bytes(path, MAX_MANIFEST_BYTES, _MANIFEST_REMEDY)

    def make() -> ProductPlan:
        manifests = {name: parse_manifest(paths[name], data) for name, data in contents.items()}
        return plan_product(compiled, computes, manifests)

    key = digest_of(
        [
            LAYOUT,
            content_of(compiled),
            content_of(computes),
            *(part for name, data in contents.items() for part in (name, data)),
        ]
    )
    with span("floe.plan", product_name=compiled.name, product_version=compiled.version):
        plan = remembered(made_dir / "cache", ProductPlan, key, make)
    for warning in plan.warnings:
        logger.warning("%s", warning)
    return replace(product, plan=plan, manifest_paths=paths)


def target_directory(project_dir: Path, dbt_project: Mapping[str, Any] | None = None) -> Path:
    """Return where a product's own files go: below dbt's target path, if it can be written to."""
    if dbt_project is None:
        dbt_project = read_yaml(project_dir / DBT_PROJECT, "Write one with `dbt init`.")
    return writable_dir(project_dir / str(dbt_project.get("target-path") or "target")) / "floe"


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


def product_of_artifacts(artifacts: Mapping[str, Any], project_dir: Path | None = None) -> Product:
    """Plan a product from a dictionary of artifacts, on its dbt project if one is known.

    Without a project the plan has the right names, graph and computes, and no dbt behind it.

    Raises:
        PlanError: with every problem found.
    """
    compiled = compiled_product(artifacts)
    named = compiled.config.project_dir
    project = Path(named).absolute() if named else project_dir
    if project is not None:
        if not (project / DBT_PROJECT).is_file():
            raise ProductError(
                f"Cannot load product '{compiled.name}': there is no {DBT_PROJECT} in {project}. "
                "Correct project_dir."
            )
        return load_project(compiled, project.resolve(), spec=read_spec(project))
    return product_of_transforms(compiled)


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
    for folder in dict.fromkeys((folders[0], *folders[0].parents[:1], *folders[1:])):
        if (folder / "floe.yaml").is_file():
            content = read_yaml(folder / "floe.yaml", "Correct it and compile again.")
            return {key: content[key] for key in ("schedule", "metadata") if key in content}
    return {}


def _fingerprint(project_dir: Path, dbt_project: Mapping[str, Any], profiles_dir: Path) -> str:
    """Return a digest that changes with any file that dbt would parse, or with the profile."""
    digest = hashlib.sha256(profiles_dir.name.encode())
    roots = [project_dir / name for name in PROJECT_FILES]
    for setting, default in PROJECT_PATHS.items():
        roots += [project_dir / str(name) for name in dbt_project.get(setting) or default]
    packages = dbt_project.get("packages-install-path") or "dbt_packages"
    for path in (*files_below(roots), str(project_dir / str(packages))):
        with suppress(FileNotFoundError):
            found = os.stat(path)  # noqa: PTH116  a Path for each of 10,000 files takes longer
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def files_below(roots: Iterable[Path]) -> Iterator[str]:
    """Yield the files that `roots` are or hold, in order of name."""
    for root in roots:
        if root.is_file():
            yield str(root)
        for folder, folders, files in os.walk(root):
            folders.sort()
            yield from (f"{folder}{os.sep}{name}" for name in sorted(files))


def _is_prepared() -> bool:
    return os.environ.get(PREPARED_ENV, "").lower() in {"1", "true", "yes"}


def _ensure_manifest(
    product: Product,
    folder: Path,
    fingerprint: str,
    progress: Callable[[str], None],
    *,
    force_parse: bool,
) -> Path:
    """Return the manifest in a target's `folder`, parsing the project if it is missing or stale."""
    target = folder.name
    manifest, stamp = folder / "manifest.json", folder / "parsed.txt"

    def fresh() -> bool:
        if not manifest.is_file():
            return False
        return _is_prepared() or (stamp.is_file() and stamp.read_text() == fingerprint)

    if fresh() and not force_parse:
        return manifest
    if _is_prepared() and not force_parse:
        raise ProductError(
            f"Cannot find {manifest}: {PREPARED_ENV} is set, so it should have been built with the "
            f"image. Run `{PREPARE}` in the product's directory at build time."
        )
    with locked(folder.with_name(f"{target}.lock")):
        if fresh() and not force_parse:
            return manifest
        progress(f"Parsing the dbt project of '{product.plan.name}' for target '{target}' ...")
        folder.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        _run_quietly(product.command("parse", target, folder))
        write_atomically(stamp, fingerprint)
    return manifest


def _install_packages(
    product: Product,
    dbt_project: Mapping[str, Any],
    target: str,
    progress: Callable[[str], None],
) -> None:
    """Run `dbt deps` when the project asks for packages and has none installed."""
    project_dir, target_dir = product.project_dir, product.target_dir
    if project_dir is None or target_dir is None or _is_prepared():
        return
    installed = project_dir / str(dbt_project.get("packages-install-path") or "dbt_packages")
    wanted = any(
        read_yaml(project_dir / name, "Correct it.").get("packages")
        for name in ("packages.yml", "dependencies.yml")
        if (project_dir / name).is_file() and (project_dir / name).stat().st_size
    )
    if wanted and not installed.is_dir():
        with locked(target_dir / "deps.lock"):
            if not installed.is_dir():
                progress(f"Installing the dbt packages of '{product.plan.name}' ...")
                _run_quietly(product.command("deps", target, target_dir / target))


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
