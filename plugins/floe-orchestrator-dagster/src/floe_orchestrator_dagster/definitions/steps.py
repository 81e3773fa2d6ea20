"""The steps of a product: Dagster ops that run dbt, one for all nodes or one per segment."""

# No `from __future__ import annotations` here: Dagster reads the annotations of the function that
# it decorates, and refuses `context: "OpExecutionContext"` as a string.
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster import (
    AssetCheckKey,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    In,
    Nothing,
    OpExecutionContext,
    Out,
    op,
)

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.deploy.sizes import USER_CODE_SIZES
from floe_orchestrator_dagster.plan import Compute, Ports, Wave, dagster_name, segments
from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.run.launch import DbtRunConfig
from floe_orchestrator_dagster.run.step import Host, build


class StepDefinition(AssetsDefinition):
    """A step that Dagster does not copy, and whose keys Dagster collects once.

    Both only save time: a Dagster that does not use these two members works too.
    """

    def with_resources(self, resource_defs: Mapping[str, Any]) -> "StepDefinition":  # noqa: ARG002
        """Return this step unchanged, because it uses no resource.

        Dagster would check and copy the whole step to add an I/O manager, which the outputs name
        but never call. A job has its own.
        """
        return self

    @cached_property
    def asset_and_check_keys(self) -> AbstractSet[AssetKey | AssetCheckKey]:
        """All keys, cached, because Dagster reads the whole set once per output."""
        return super().asset_and_check_keys


@dataclass(frozen=True, slots=True)
class StepContent:
    """The assets that one step builds and the checks that it runs.

    `name` is the name of its op, and `checks` are unique ids. `compute` is the one that the whole
    step runs on, or None if there may be several. `awaited` are assets of other steps that its
    checks need.
    """

    name: str
    assets: Mapping[str, AssetSpec]
    checks: Sequence[str]
    compute: Compute | None = None
    awaited: Sequence[AssetKey] = ()


@dataclass(frozen=True, slots=True)
class Steps:
    """Creates the steps of a product.

    Steps have no inputs for the sources in `declared`. Nothing in Dagster loads these, and for each
    input of a step, Dagster searches all its checks, which takes half of a job's load time. `host`
    receives the events of steps that run in this process.
    """

    product: Product
    specs: Specs
    declared: frozenset[AssetKey] = frozenset()
    host: Host = field(default_factory=Host)

    def all(self) -> list[AssetsDefinition]:
        """Return the steps of the whole product, each after the steps that it waits for."""
        specs = self.specs
        steps: list[AssetsDefinition] = []
        for name, wave in _segments(self.product):
            if wave is None:
                steps.append(self.make(StepContent(name, specs.assets, [*specs.checks])))
                continue
            nodes = {uid: specs.assets[uid] for uid in wave.nodes if uid in specs.assets}
            checks = [*wave.checks, *wave.quality_checks]
            awaited = _awaited(specs, checks, steps)
            steps.append(self.make(StepContent(name, nodes, checks, wave.compute, awaited)))
        return steps

    def make(self, content: StepContent) -> AssetsDefinition:
        """Return one step, as `@multi_asset` would, except for its inputs.

        It starts from the op, because `@multi_asset` checks the type of each output again and
        copies each asset's metadata to it. With thousands of assets, that takes a third of its
        time.
        """
        asset_specs = [*content.assets.values()]
        ports = Ports()
        outputs = {ports.name("__".join(spec.key.path)): spec.key for spec in asset_specs}
        check_specs = {
            ports.name(f"{'__'.join(spec.asset_key.path)}_{spec.name}"): spec
            for spec in (self.specs.checks[uid] for uid in content.checks)
        }
        tested = (spec.asset_key for spec in check_specs.values())
        inputs = self._inputs(
            [
                *_read_from_outside(asset_specs),
                # Sources have tests too. All other tested assets are in this step or in `awaited`.
                *(key for key in tested if key not in self.specs.unique_ids),
                *content.awaited,
            ]
        )
        # Bound here, so that a run does not keep the content in memory.
        product, specs, host = self.product, self.specs, self.host

        @op(
            name=content.name,
            ins=dict.fromkeys(inputs, In(Nothing)),
            out=dict.fromkeys((*outputs, *check_specs), Out(Nothing, is_required=False)),
            pool=content.compute.pool if content.compute else None,
            tags={"floe/product": product.plan.name, **_compute_tags(content.compute)},
        )
        def step(context: OpExecutionContext, config: DbtRunConfig) -> Iterator[Any]:
            # Created here, because Dagster does not pass this context to a step with only checks.
            assets = AssetExecutionContext(context)
            yield from build(assets, product, specs, config, host)

        partitioned = any(specs.partitions(uid) for uid in content.assets)
        return StepDefinition(
            node_def=step,
            keys_by_input_name=inputs,
            keys_by_output_name=outputs,
            specs=asset_specs,
            # dbt also tests sources, which are not outputs of this step.
            check_specs_by_output_name=check_specs,
            can_subset=True,
            backfill_policy=BackfillPolicy.single_run() if partitioned else None,
        )

    def _inputs(self, read: Iterable[AssetKey]) -> dict[str, AssetKey]:
        """Return the inputs of a step that reads these assets, by port name."""
        ports = Ports()
        return {
            ports.name("__".join(key.path)): key
            for key in dict.fromkeys(read)
            if key not in self.declared
        }


def _segments(product: Product) -> list[tuple[str, Wave | None]]:
    """Return the op name of each step of a product, with its wave; None for a step of all nodes."""
    name = f"{dagster_name(product.plan.name)}_dbt"
    if product.config.isolation == "product":
        return [(name, None)]
    return [
        (f"{name}_{number}_{dagster_name(wave.compute.name)}", wave)
        for number, wave in enumerate(segments(product.plan), 1)
    ]


def _awaited(
    specs: Specs, checks: Iterable[str], earlier: Sequence[AssetsDefinition]
) -> Sequence[AssetKey]:
    """Return the assets of earlier steps that must exist before the checks run."""
    if not earlier:
        return ()
    built = {key for step in earlier for key in step.keys}
    awaited: dict[AssetKey, None] = {}
    for uid in checks:
        node = specs.plan.nodes[uid]
        reads = {specs.keys[read] for read in (node.on, *specs.plan.folded_parents[uid])}
        awaited |= dict.fromkeys(sorted(reads & built))
        if not node.parents:
            # It may read any relation, so it waits for all earlier steps.
            awaited |= {min(step.keys): None for step in earlier if step.keys}
    return [*awaited]


def _read_from_outside(asset_specs: Sequence[AssetSpec]) -> Iterator[AssetKey]:
    """Yield the keys that a step's assets read: of other steps, and of own earlier partitions."""
    own = {spec.key for spec in asset_specs}
    for spec in asset_specs:
        for dep in spec.deps:
            if dep.asset_key not in own or dep.partition_mapping is not None:
                yield dep.asset_key


def _compute_tags(compute: Compute | None) -> dict[str, Any]:
    """Return the tags of a step on one compute: the compute's name and the pod's resources."""
    if compute is None:
        return {}
    tags: dict[str, Any] = {"floe/compute": compute.name}
    if compute.resources is not None:
        resources = (
            USER_CODE_SIZES[compute.resources].as_kubernetes()
            if isinstance(compute.resources, str)
            else compute.resources
        )
        tags["dagster-k8s/config"] = {"container_config": {"resources": resources}}
    return tags
