"""The steps of a product: Dagster ops that run dbt, one for everything or one for each segment."""

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
    """A step that Dagster need not copy, and whose keys it gathers once.

    A Dagster that asks for neither of the two members has just more to do.
    """

    def with_resources(self, resource_defs: Mapping[str, Any]) -> "StepDefinition":  # noqa: ARG002
        """Return this step, which uses no resource.

        Dagster would check and copy all of it to hand it an I/O manager, which its outputs ask for
        by name and never call. A job brings its own.
        """
        return self

    @cached_property
    def asset_and_check_keys(self) -> AbstractSet[AssetKey | AssetCheckKey]:
        """All keys; Dagster asks for them once for each output, and would build the set again."""
        return super().asset_and_check_keys


@dataclass(frozen=True, slots=True)
class StepContent:
    """What one step builds and tests.

    `name` is that of its op, `checks` are unique ids. `compute` is the one that all of it runs on,
    None where that may be several. `awaited` are assets of other steps that its checks need.
    """

    name: str
    assets: Mapping[str, AssetSpec]
    checks: Sequence[str]
    compute: Compute | None = None
    awaited: Sequence[AssetKey] = ()


@dataclass(frozen=True, slots=True)
class Steps:
    """Makes the steps of a product.

    Steps wait for no source of `declared`: nothing in Dagster loads those; and for each input of a
    step Dagster looks through all of its checks, which is half of the time that a job takes to
    load. `host` is who has the steps run in this process, if any.
    """

    product: Product
    specs: Specs
    declared: frozenset[AssetKey] = frozenset()
    host: Host = field(default_factory=Host)

    def all(self) -> list[AssetsDefinition]:
        """Return the steps of the whole product, each behind those that it waits for."""
        specs = self.specs
        made: list[AssetsDefinition] = []
        for name, wave in _segments(self.product):
            if wave is None:
                made.append(self.make(StepContent(name, specs.assets, [*specs.checks])))
                continue
            nodes = {uid: specs.assets[uid] for uid in wave.nodes if uid in specs.assets}
            checks = [*wave.checks, *wave.quality_checks]
            awaited = _awaited(specs, checks, made)
            made.append(self.make(StepContent(name, nodes, checks, wave.compute, awaited)))
        return made

    def make(self, content: StepContent) -> AssetsDefinition:
        """Return one step, as `@multi_asset` makes it, but for what it waits for.

        Made from the op, for `@multi_asset` checks the type of each output once more and copies
        the metadata of each asset to it: a third of its time, where there are thousands.
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
                # Sources have tests, too; whatever else a test of this step is on is built before.
                *(key for key in tested if key not in self.specs.unique_ids),
                *content.awaited,
            ]
        )
        # Bound here, so that a run does not hold on to the content.
        product, specs, host = self.product, self.specs, self.host

        @op(
            name=content.name,
            ins=dict.fromkeys(inputs, In(Nothing)),
            out=dict.fromkeys((*outputs, *check_specs), Out(Nothing, is_required=False)),
            pool=content.compute.pool if content.compute else None,
            tags={"floe/product": product.plan.name, **_compute_tags(content.compute)},
        )
        def step(context: OpExecutionContext, config: DbtRunConfig) -> Iterator[Any]:
            # Asked for by its name, Dagster refuses the context of assets to a step of checks
            # alone.
            assets = AssetExecutionContext(context)
            yield from build(assets, product, specs, config, host)

        partitioned = any(specs.partitions(uid) for uid in content.assets)
        return StepDefinition(
            node_def=step,
            keys_by_input_name=inputs,
            keys_by_output_name=outputs,
            specs=asset_specs,
            # dbt tests sources too, which are no outputs of this step.
            check_specs_by_output_name=check_specs,
            can_subset=True,
            backfill_policy=BackfillPolicy.single_run() if partitioned else None,
        )

    def _inputs(self, read: Iterable[AssetKey]) -> dict[str, AssetKey]:
        """Return the inputs of a step that reads these assets, by the names of its ports."""
        ports = Ports()
        return {
            ports.name("__".join(key.path)): key
            for key in dict.fromkeys(read)
            if key not in self.declared
        }


def _segments(product: Product) -> list[tuple[str, Wave | None]]:
    """Return the steps of a product by op name: one of everything, or one a wave."""
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
    """Return the assets of earlier steps that must be there before checks run."""
    if not earlier:
        return ()
    built = {key for step in earlier for key in step.keys}
    awaited: dict[AssetKey, None] = {}
    for uid in checks:
        node = specs.plan.nodes[uid]
        reads = {specs.keys[read] for read in (node.on, *specs.plan.folded_parents[uid])}
        awaited |= dict.fromkeys(sorted(reads & built))
        if not node.parents:
            # It reads nobody knows what, so it waits for everything.
            awaited |= {min(step.keys): None for step in earlier if step.keys}
    return [*awaited]


def _read_from_outside(asset_specs: Sequence[AssetSpec]) -> Iterator[AssetKey]:
    """Yield the keys that a step's assets read: what others build, and own earlier partitions."""
    own = {spec.key for spec in asset_specs}
    for spec in asset_specs:
        for dep in spec.deps:
            if dep.asset_key not in own or dep.partition_mapping is not None:
                yield dep.asset_key


def _compute_tags(compute: Compute | None) -> dict[str, Any]:
    """Return the tags of a step that runs on one compute: its name, and what its pod is given."""
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
