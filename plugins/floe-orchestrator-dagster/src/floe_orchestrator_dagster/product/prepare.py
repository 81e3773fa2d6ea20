"""Prepares a dbt project for planning: its profile, its packages, a manifest for each target."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.events import Line
from floe_orchestrator_dagster.dbt.process import run_dbt
from floe_orchestrator_dagster.dbt.project import DbtProject, read_project
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import locked, mtime, read_bytes
from floe_orchestrator_dagster.plan import (
    CompiledProduct,
    DbtManifest,
    ProductPlan,
    decode_manifest,
    plan_product,
    resolve_computes,
)
from floe_orchestrator_dagster.product.cache import digest_of
from floe_orchestrator_dagster.product.freshness import (
    PARTIAL_PARSE,
    STAMP,
    Parsed,
    fingerprint,
    read_stamp,
    write_stamp,
)
from floe_orchestrator_dagster.product.layout import Layout, layout_of
from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.product.profiles import (
    Profile,
    merged_profile,
    on_disk,
    write_profiles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.dbt.command import DbtCommand

logger = logging.getLogger(__name__)

PREPARE = "floe-dagster prepare"
MAX_MANIFEST_BYTES = 4 * 2**30
# Set if the image contains the manifests, so that they must not be built again.
PREPARED_ENV = "FLOE_PREPARED"
_TARGET_NAME = re.compile(r"\w[\w.-]{0,99}")
# Sets of manifests for launches with their own vars, in addition to those of the product.
VARIANTS_KEPT = 4
_MANIFEST_REMEDY = f"Rebuild it with `{PREPARE} --force`."


@dataclass(frozen=True, slots=True)
class Preparation:
    """How to prepare a product.

    Attributes:
        progress: is called with one line before each long step.
        force_parse: parse even if the manifests are fresh, or the image contains them.
        variables: dbt vars to parse and run with; they override those of the plugin's config.
    """

    progress: Callable[[str], None] = logger.info
    force_parse: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outline:
    """A product before dbt has parsed its project: the plan has computes but no nodes."""

    product: Product
    layout: Layout
    project: DbtProject
    profile: Profile

    @property
    def target(self) -> str:
        """The target of the default compute."""
        plan = self.product.plan
        return plan.computes[plan.default_compute].target

    @property
    def targets(self) -> Sequence[str]:
        """The targets of all computes, each once."""
        computes = self.product.plan.computes.values()
        return tuple(dict.fromkeys(compute.target for compute in computes))


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of planning: the manifest of each target, and the cache of plans."""

    manifests: Mapping[str, Path]
    cache: Path


def outline_product(
    compiled: CompiledProduct,
    project_dir: Path,
    spec: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Outline:
    """Return the outline of a product, without parsing its project; see `open_product`."""
    variables = {**compiled.config.vars, **(variables or {})}
    project = read_project(project_dir, variables)
    profile = merged_profile(compiled, project)
    layout = layout_of(project)
    profile = on_disk(profile, layout.database(compiled.name))
    if not compiled.default_compute:
        compiled = _with_default(compiled, profile.default)
    compiled = replace(compiled, owner=_owner(spec))
    computes, problems = resolve_computes(compiled, profile.adapters, profile.preferred)
    if problems:
        # Raises, with all other problems that planning finds without a manifest.
        plan_product(compiled, computes, problems=problems)
    for compute in computes.values():
        _require_file_name(compute.target)
    target = computes[compiled.default_compute].target
    project = project.on(profile.target(target))
    flags = project.settings.get("flags") or profile.flags
    product = Product(
        plan=ProductPlan(compiled.name, {}, computes, compiled.default_compute),
        compiled=compiled,
        layout=layout,
        profiles_dir=write_profiles(layout, profile, target),
        profile=profile.name,
        spec=spec or {},
        variables=variables,
        project_flags=flags if isinstance(flags, dict) else {},
    )
    return Outline(product, layout, project, profile)


def prepare(outline: Outline, how: Preparation) -> Prepared:
    """Install dbt packages and build the manifest of each target, if missing or stale.

    Raises:
        ProductError: dbt cannot parse the project, or the image lacks a manifest.
    """
    product, layout = outline.product, outline.layout
    in_image = _is_prepared()
    if not in_image:
        install_packages(outline, how.progress)
    prepared = in_image and not how.force_parse
    # Read prepared files from the image, even if it is read-only where it runs.
    layout = layout.prepared if prepared else layout
    folder = layout.manifests
    if product.variables != product.config.vars:
        # No image contains manifests for the vars of a launch.
        prepared, folder = False, _variant(outline.layout, product.variables)
    parsing = _Parsing(outline, how, prepared=prepared)
    manifests = {target: parsing.manifest(folder / target) for target in outline.targets}
    return Prepared(manifests, layout.cache)


def _variant(layout: Layout, variables: Mapping[str, Any]) -> Path:
    """Return the folder of the manifests for these vars; remove the oldest other folders."""
    key = digest_of([json.dumps(dict(variables), sort_keys=True, default=str)])[:16]
    folder = layout.variants / key
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(layout.variants.iterdir(), key=mtime)[:-VARIANTS_KEPT]:
        if old != folder and old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _require_file_name(target: str) -> None:
    """Refuse an output whose name would lead out of the folder of manifests."""
    if not _TARGET_NAME.fullmatch(target):
        raise ProductError(
            f"Cannot use dbt output {target!r}: its manifest needs a directory with that name. Use "
            "at most 100 letters, digits, '-', '_' and '.', and no '-' or '.' at the start."
        )


def _owner(spec: Mapping[str, Any] | None) -> str | None:
    metadata = (spec or {}).get("metadata")
    owner = metadata.get("owner") if isinstance(metadata, dict) else None
    return owner if isinstance(owner, str) and owner else None


def _with_default(compiled: CompiledProduct, compute: str) -> CompiledProduct:
    """Put transforms without a compute on the profile's default output."""
    transforms = (
        item if item.compute else replace(item, compute=compute) for item in compiled.transforms
    )
    return replace(compiled, default_compute=compute, transforms=tuple(transforms))


def read_manifest(path: Path) -> bytes:
    """Return the bytes of dbt's manifest at `path`."""
    return read_bytes(path, MAX_MANIFEST_BYTES, _MANIFEST_REMEDY)


def parse_manifest(path: Path, content: bytes) -> DbtManifest:
    """Return the decoded `content` of dbt's manifest at `path`."""
    try:
        return decode_manifest(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProductError(f"Cannot read {path}: {error}. {_MANIFEST_REMEDY}") from error


def _is_prepared() -> bool:
    return os.environ.get(PREPARED_ENV, "").lower() in {"1", "true", "yes"}


def _is_fresh(manifest: Path, inputs: str) -> bool:
    stamp = read_stamp(manifest.parent) if manifest.is_file() else None
    return stamp is not None and stamp.inputs == inputs and not stamp.changed(os.environ)


@dataclass
class _Parsing:
    """Parses a project once per target, if the target's manifest is missing or stale.

    `prepared` is whether the image contains the manifests.
    """

    outline: Outline
    how: Preparation
    prepared: bool
    _inputs: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def manifest(self, folder: Path) -> Path:
        """Return the path of the manifest in a target's `folder`."""
        target, manifest = folder.name, folder / "manifest.json"
        if self.prepared:
            if manifest.is_file():
                return manifest
            raise ProductError(
                f"Cannot find {manifest}: {PREPARED_ENV} is set, so the image should contain it. "
                f"Run `{PREPARE}` in the product's directory when you build the image."
            )
        inputs = self._inputs_of(target)
        if not self.how.force_parse and _is_fresh(manifest, inputs):
            return manifest
        with locked(folder.with_name(f"{target}.lock")):
            if self.how.force_parse or not _is_fresh(manifest, inputs):
                self._parse(folder, inputs)
        return manifest

    def _inputs_of(self, target: str) -> str:
        """Return the fingerprint of the inputs of a target's manifest."""
        parsed = self._parsed(target)
        key = (target if parsed.project.depends_on_target else "", parsed.executable)
        if key not in self._inputs:
            self._inputs[key] = fingerprint(parsed)
        return self._inputs[key]

    def _parsed(self, target: str) -> Parsed:
        project, profile = self.outline.project, self.outline.profile
        if project.depends_on_target:
            project = project.on(profile.target(target))
        return Parsed(project, profile, self.outline.product.executable(target))

    def _parse(self, folder: Path, inputs: str) -> None:
        target = folder.name
        name = self.outline.product.plan.name
        self.how.progress(f"Parsing the dbt project of '{name}' for target '{target}' ...")
        folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        stamp = read_stamp(folder)
        if stamp is not None and stamp.unwatched & stamp.changed(environment):
            # dbt would not notice the change, and use its cached parse.
            (folder / PARTIAL_PARSE).unlink(missing_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        _run_quietly(self.outline.product.command("parse", target, folder))
        write_stamp(folder, self._parsed(target), inputs, environment)


def install_packages(outline: Outline, progress: Callable[[str], None]) -> None:
    """Run `dbt deps` if the project requires packages and none are installed."""
    product, project = outline.product, outline.project
    if not project.wants_packages or project.packages_path.is_dir():
        return
    layout, target = outline.layout, outline.target
    with locked(layout.packages_lock):
        if not project.packages_path.is_dir():
            progress(f"Installing the dbt packages of '{product.plan.name}' ...")
            _run_quietly(product.command("deps", target, layout.manifests / target))


def _run_quietly(command: DbtCommand) -> None:
    with run_dbt(command) as run:
        errors = [event.text for event in run if isinstance(event, Line) and event.level == "error"]
    if not run.success:
        reason = run.exception or "\n".join(errors) or "no reason given"
        raise ProductError(
            f"Cannot {command.verb} the dbt project {command.project_dir} for target "
            f"'{command.target}'. dbt reports: {reason.strip()}"
        )
