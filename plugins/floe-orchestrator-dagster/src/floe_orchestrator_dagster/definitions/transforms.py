"""Assets from a list of transforms: one step per transform, without jobs or sources."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster import AssetKey

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.definitions.build import loading
from floe_orchestrator_dagster.definitions.steps import StepContent, Steps
from floe_orchestrator_dagster.plan import CompiledProduct, Ports, Transform
from floe_orchestrator_dagster.product.opening import load_project, product_of_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dagster import AssetsDefinition, AssetSpec

    # Only for its type, because floe-core takes a second to import.
    from floe_core.plugins.orchestrator import TransformConfig

    from floe_orchestrator_dagster.config import PluginConfig
    from floe_orchestrator_dagster.product.product import Product


def build_transform_assets(
    transforms: Sequence[TransformConfig], project_dir: Path | None, config: PluginConfig
) -> list[AssetsDefinition]:
    """Return one asset per transform, in order; see `create_assets_from_transforms`."""
    default = next((item.compute for item in transforms if item.compute), None)
    compiled = CompiledProduct(
        name="transforms",
        default_compute=default or ("" if project_dir else "default"),
        config=config,
        transforms=tuple(
            Transform(
                name=item.name,
                compute=item.compute or default or ("" if project_dir else "default"),
                depends_on=tuple(item.depends_on),
                tags=tuple(item.tags),
            )
            for item in transforms
        ),
    )
    if project_dir is not None:
        product = load_project(compiled, project_dir.resolve())
    else:
        # A parent that is not one of these transforms is another asset of the user's.
        product = product_of_transforms(_without_foreign_parents(compiled))
    with loading():
        return _assets(product, transforms)


def _assets(product: Product, transforms: Sequence[TransformConfig]) -> list[AssetsDefinition]:
    specs = Specs(product.plan, project_dir=product.project_dir)
    by_name = _by_name(product)
    # The caller defines the sources as assets, so each step waits for them.
    steps = Steps(product, specs)
    ports = Ports()
    assets = []
    for item in transforms:
        uid = by_name[item.name]
        spec = specs.assets[uid]
        if product.project_dir is None:
            spec = _described(spec, item, by_name)
        checks = specs.checks_on({uid})
        assets.append(steps.make(StepContent(ports.name(f"dbt_{item.name}"), {uid: spec}, checks)))
    return assets


def _described(spec: AssetSpec, item: TransformConfig, by_name: Mapping[str, str]) -> AssetSpec:
    """Return a spec with the metadata of its transform, which a dbt project would provide."""
    metadata = {
        "floe/path": item.path,
        "floe/schema": item.schema_name,
        "dagster-dbt/materialization_type": item.materialization,
        **{f"floe/meta/{key}": str(value) for key, value in item.meta.items()},
    }
    return spec.merge_attributes(
        deps=[AssetKey(name) for name in item.depends_on if name not in by_name],
        metadata={key: value for key, value in metadata.items() if value},
    )


def _by_name(product: Product) -> Mapping[str, str]:
    """Return unique ids by the names of assets in dbt; the project's own override a package's."""
    plan = product.plan
    own = {
        uid: node.dbt is None or node.dbt.package_name == plan.project_name
        for uid, node in plan.assets.items()
    }
    return {
        node.dbt.name if node.dbt else node.name: uid
        for uid, node in sorted(plan.assets.items(), key=lambda item: own[item[0]])
    }


def _without_foreign_parents(compiled: CompiledProduct) -> CompiledProduct:
    names = {transform.name for transform in compiled.transforms}
    return replace(
        compiled,
        transforms=tuple(
            replace(
                transform,
                depends_on=tuple(parent for parent in transform.depends_on if parent in names),
            )
            for transform in compiled.transforms
        ),
    )
