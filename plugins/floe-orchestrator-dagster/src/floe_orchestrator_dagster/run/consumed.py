"""What another step of the same run waits for, among the outputs of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import AssetCheckKey, AssetKey, AssetsDefinition, JobDefinition


@dataclass(frozen=True, slots=True)
class Consumed:
    """What another step of the run waits for: assets, and the checks on them that block."""

    assets: frozenset[AssetKey] = frozenset()
    checks: frozenset[AssetCheckKey] = frozenset()


def consumed_by_others(job: JobDefinition, made: AssetsDefinition, step: str) -> Consumed:
    """Return what other steps of a job wait for of what the step of this name makes."""
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
        frozenset(key for name, key in made.keys_by_output_name.items() if name in outputs),
        frozenset(
            spec.key for name, spec in made.check_specs_by_output_name.items() if name in outputs
        ),
    )
