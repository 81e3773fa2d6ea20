"""The outputs of one step that another step of the same run waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import AssetCheckKey, AssetKey, AssetsDefinition, JobDefinition


@dataclass(frozen=True, slots=True)
class Consumed:
    """Outputs that another step of the run waits for: assets, and the checks that block them."""

    assets: frozenset[AssetKey] = frozenset()
    checks: frozenset[AssetCheckKey] = frozenset()


def consumed_by_others(job: JobDefinition, assets: AssetsDefinition, step: str) -> Consumed:
    """Return the outputs of `assets`, which the step `step` builds, that other steps wait for."""
    outputs = {
        dependency.output
        for invocation, inputs in job.graph.dependencies.items()
        if (invocation.alias or invocation.name) != step
        for definition in inputs.values()
        for dependency in definition.get_node_dependencies()
        if dependency.node == step
    }
    if not outputs:
        return Consumed()
    return Consumed(
        frozenset(key for name, key in assets.keys_by_output_name.items() if name in outputs),
        frozenset(
            spec.key for name, spec in assets.check_specs_by_output_name.items() if name in outputs
        ),
    )
