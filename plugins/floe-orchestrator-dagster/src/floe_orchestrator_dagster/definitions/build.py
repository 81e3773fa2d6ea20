"""A planned product becomes Dagster Definitions: assets, checks, jobs and schedules."""

# No `from __future__ import annotations` here: Dagster reads the annotations of the function that
# it decorates, and refuses `context: "OpExecutionContext"` as a string.
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckKey,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    BackfillPolicy,
    BetaWarning,
    Definitions,
    In,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    PreviewWarning,
    SensorDefinition,
    TimeWindowPartitionsDefinition,
    define_asset_job,
    in_process_executor,
    op,
)

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.definitions.sensors import NAME, lineage_drain
from floe_orchestrator_dagster.deploy.sizes import USER_CODE_SIZES
from floe_orchestrator_dagster.errors import PlanError, Problem
from floe_orchestrator_dagster.lineage.backend import lineage_destination, why_off
from floe_orchestrator_dagster.plan import (
    CompiledProduct,
    Ports,
    Transform,
    Wave,
    dagster_name,
    segments,
)
from floe_orchestrator_dagster.product.layout import spool_directory
from floe_orchestrator_dagster.product.opening import (
    load_project,
    product_of_transforms,
    uncollected,
)
from floe_orchestrator_dagster.product.product import Product, load_all_manifests
from floe_orchestrator_dagster.run.launch import DbtRunConfig
from floe_orchestrator_dagster.run.step import Listener, build
from floe_orchestrator_dagster.schedules import (
    Schedule,
    product_schedule,
    schedule_checked_too,
    to_dagster,
)
from floe_orchestrator_dagster.telemetry import span

if TYPE_CHECKING:
    # It takes a second to import, and only the type is wanted.
    from floe_core.plugins.orchestrator import TransformConfig


class Step(AssetsDefinition):
    """A step that Dagster need not copy, and whose keys it gathers once.

    A Dagster that asks for neither of the two members has just more to do.
    """

    def with_resources(self, resource_defs: Mapping[str, Any]) -> "Step":  # noqa: ARG002
        """Return this step, which uses no resource.

        Dagster would check and copy all of it to hand it an I/O manager, which its outputs ask for
        by name and never call. A job brings its own.
        """
        return self

    @cached_property
    def asset_and_check_keys(self) -> AbstractSet[AssetKey | AssetCheckKey]:
        """All keys; Dagster asks for them once for each output, and would build the set anew."""
        return super().asset_and_check_keys


def build_definitions(
    product: Product,
    *,
    schedules: Sequence[Schedule] = (),
    translator: Any = None,
    listener: Listener | None = None,
    echo: Callable[[str], None] | None = None,
) -> Definitions:
    """Return the Definitions of a product.

    Args:
        product: the planned product.
        schedules: more schedules than the product's own, each for a job that exists.
        translator: a user's `DagsterDbtTranslator`, honoured for every spec.
        listener: called with each node that dbt starts or finishes, in the same process.
        echo: takes dbt's log lines; by default they go to stdout, Dagster's compute log.

    Raises:
        PlanError: the partitions or schedules of the product contradict it.
    """
    if not product.plan.assets and not product.plan.checks:
        return Definitions()
    with span("floe.definitions", product_name=product.plan.name), _loading():
        manifests = dict(load_all_manifests(product)) if translator is not None else None
        with schedule_checked_too(product.plan.name, product.spec, product.config):
            specs = Specs(
                product.plan,
                project_dir=product.project_dir,
                translator=translator,
                manifests=manifests,
            )
        own = product_schedule(product.plan.name, product.spec, product.config)
        assets = _assets(product, specs, listener, echo)
        jobs, partitions = _jobs(product, specs)
        asked = {schedule.name: schedule for schedule in schedules}
        if own is not None:
            asked.setdefault(own.name, own)
        _require_jobs(asked.values(), jobs)
        scheduled = {schedule: dagster_name(schedule.job_name) for schedule in asked.values()}
        return Definitions(
            assets=[*assets, *specs.sources],
            jobs=list(jobs.values()),
            schedules=[
                to_dagster(schedule, jobs[job], partitions.get(job))
                for schedule, job in scheduled.items()
            ],
            sensors=_sensors(product),
            # One step needs no second process, and no second load of these Definitions.
            executor=in_process_executor if product.config.isolation == "product" else None,
        )


def _sensors(product: Product) -> list[SensorDefinition]:
    """Return the sensor that delivers lineage that waits, for a product that sends lineage."""
    artifacts = product.compiled.artifacts
    if why_off(artifacts, product.lineage_backend):
        return []

    def transport() -> Mapping[str, Any] | None:
        # Looked up when it ticks: a plugin that is missing is no reason to lose the assets.
        destination = lineage_destination(artifacts, product.lineage_backend)
        return destination.transport if destination else None

    directory = spool_directory(product.layout, product.plan.name)
    return [lineage_drain(transport, directory, f"{dagster_name(product.plan.name)}_{NAME}")]


def job_named(definitions: Definitions, name: str) -> JobDefinition:
    """Return a resolved job of Definitions, by the name that this Dagster has for that."""
    resolve: Callable[[str], JobDefinition] = getattr(definitions, "resolve_job_def", None) or (
        definitions.get_job_def  # until Dagster 1.10
    )
    return resolve(name)


def build_transform_assets(
    transforms: "Sequence[TransformConfig]", project_dir: Path | None, config: PluginConfig
) -> list[AssetsDefinition]:
    """Return one asset per transform, in their order; see the plugin's method of that name."""
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
        # What is no transform here is somebody else's asset, not an error.
        product = product_of_transforms(_without_foreign_parents(compiled))
    with _loading():
        return _transform_assets(product, transforms)


def _transform_assets(
    product: Product, transforms: "Sequence[TransformConfig]"
) -> list[AssetsDefinition]:
    specs = Specs(product.plan, project_dir=product.project_dir)
    by_name = _by_name(product)
    # Sources are the caller's to define: each step waits for whoever does.
    nowhere: frozenset[AssetKey] = frozenset()
    ops = Ports()
    assets = []
    for item in transforms:
        uid = by_name[item.name]
        foreign = [AssetKey(name) for name in item.depends_on if name not in by_name]
        described = {
            "floe/path": item.path,
            "floe/schema": item.schema_name,
            "dagster-dbt/materialization_type": item.materialization,
            **{f"floe/meta/{key}": str(value) for key, value in item.meta.items()},
        }
        spec = specs.assets[uid]
        if product.project_dir is None:
            spec = spec.merge_attributes(
                deps=foreign, metadata={key: value for key, value in described.items() if value}
            )
        checks = [check for check in specs.checks if _on(specs, check) == uid]
        name = ops.name(f"dbt_{item.name}")
        assets.append(_step(name, product, specs, {uid: spec}, checks, None, None, None, nowhere))
    return assets


def _by_name(product: Product) -> Mapping[str, str]:
    """Return the assets by their names in dbt; the project's own come before a package's."""
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


@contextmanager
def _loading() -> Iterator[None]:
    """Hold off the garbage collector, and Dagster's notes on beta features that we mean to use."""
    with uncollected(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=BetaWarning)
        warnings.simplefilter("ignore", category=PreviewWarning)
        yield


def _require_jobs(schedules: Iterable[Schedule], jobs: Mapping[str, Any]) -> None:
    unknown = [found for found in schedules if dagster_name(found.job_name) not in jobs]
    if unknown:
        raise PlanError(
            f"Cannot schedule job '{unknown[0].job_name}'"
            if len(unknown) == 1
            else f"Cannot schedule {len(unknown)} jobs",
            [
                Problem(
                    schedule.origin,
                    f"There is no job '{schedule.job_name}'.",
                    f"Jobs of this product: {', '.join(sorted(jobs))}.",
                )
                for schedule in unknown
            ],
        )


def _assets(
    product: Product,
    specs: Specs,
    listener: Listener | None,
    echo: Callable[[str], None] | None,
) -> list[AssetsDefinition]:
    declared = frozenset(spec.key for spec in specs.sources)
    steps: list[AssetsDefinition] = []
    for name, wave in _segments(product):
        if wave is None:
            nodes, checks = specs.assets, [*specs.checks]
        else:
            nodes = {uid: specs.assets[uid] for uid in wave.nodes if uid in specs.assets}
            quality = [uid for uid in specs.checks if "#" in uid and uid.partition("#")[0] in nodes]
            checks = [*wave.checks, *quality]
        awaited = _awaited(specs, checks, steps)
        steps.append(
            _step(name, product, specs, nodes, checks, listener, echo, wave, declared, awaited)
        )
    return steps


def _awaited(
    specs: Specs, checks: Iterable[str], earlier: Sequence[AssetsDefinition]
) -> Iterable[AssetKey]:
    """Return the assets of earlier steps that must be there before checks run."""
    if not earlier:
        return ()
    built = {key for step in earlier for key in step.keys}
    awaited: dict[AssetKey, None] = {}
    for uid in checks:
        node = specs.plan.nodes.get(uid)
        if node is None:
            continue
        reads = {specs.keys[read] for read in (node.on, *specs.plan.folded_parents[uid])}
        awaited |= dict.fromkeys(sorted(reads & built))
        if not node.parents:
            # It reads nobody knows what, so it waits for everything.
            awaited |= {min(step.keys): None for step in earlier if step.keys}
    return awaited


def _segments(product: Product) -> list[tuple[str, Wave | None]]:
    """Return the steps of a product by op name: one of everything, or one a wave."""
    name = f"{dagster_name(product.plan.name)}_dbt"
    if product.config.isolation == "product":
        return [(name, None)]
    return [
        (f"{name}_{number}_{dagster_name(wave.compute)}", wave)
        for number, wave in enumerate(segments(product.plan), 1)
    ]


def _step(
    name: str,
    product: Product,
    specs: Specs,
    nodes: Mapping[str, AssetSpec],
    checks: Sequence[str],
    listener: Listener | None,
    echo: Callable[[str], None] | None,
    segment: Wave | None,
    declared: frozenset[AssetKey],
    awaited: Iterable[AssetKey] = (),
) -> AssetsDefinition:
    """Return one step, as `@multi_asset` makes it, but that it waits for no `declared` source.

    Nothing in Dagster loads those, so there is nothing to wait for; and for each input of a step
    Dagster looks through all of its checks, which is half of the time that a job takes to load.
    Made from the op, for `@multi_asset` checks the type of each output once more and copies the
    metadata of each asset to it: a third of its time, where there are thousands.
    """
    asset_specs = [*nodes.values()]
    ports = Ports()
    outputs = {ports.name("__".join(spec.key.path)): spec.key for spec in asset_specs}
    check_specs = {
        ports.name(f"{'__'.join(spec.asset_key.path)}_{spec.name}"): spec
        for spec in (specs.checks[uid] for uid in checks)
    }
    tested = (spec.asset_key for spec in check_specs.values())
    read = [
        *_read_from_outside(asset_specs),
        # Sources have tests, too; whatever else a test of this step is on is built before it.
        *(key for key in tested if key not in specs.unique_ids),
        *awaited,
    ]
    inputs_of = Ports()
    inputs = {
        inputs_of.name("__".join(key.path)): key
        for key in dict.fromkeys(read)
        if key not in declared
    }
    partitioned = any(specs.partitions(uid) for uid in nodes)

    @op(
        name=name,
        ins=dict.fromkeys(inputs, In(Nothing)),
        out=dict.fromkeys((*outputs, *check_specs), Out(Nothing, is_required=False)),
        pool=product.plan.computes[segment.compute].pool if segment else None,
        tags=_op_tags(product, segment),
    )
    def step(context: OpExecutionContext, config: DbtRunConfig) -> Iterator[Any]:
        # Asked for by its name, Dagster refuses the context of assets to a step of checks alone.
        assets = AssetExecutionContext(context)
        yield from build(assets, product, specs, config, listener, echo)

    return Step(
        node_def=step,
        keys_by_input_name=inputs,
        keys_by_output_name=outputs,
        specs=asset_specs,
        # dbt tests sources too, which are no outputs of this step.
        check_specs_by_output_name=check_specs,
        can_subset=True,
        backfill_policy=BackfillPolicy.single_run() if partitioned else None,
    )


def _read_from_outside(asset_specs: Sequence[AssetSpec]) -> Iterator[AssetKey]:
    """Yield the keys that a step's assets read: what others build, and own earlier partitions."""
    own = {spec.key for spec in asset_specs}
    for spec in asset_specs:
        for dep in spec.deps:
            if dep.asset_key not in own or dep.partition_mapping is not None:
                yield dep.asset_key


def _op_tags(product: Product, segment: Wave | None) -> dict[str, Any]:
    tags: dict[str, Any] = {"floe/product": product.plan.name}
    if segment is None:
        return tags
    compute = product.plan.computes[segment.compute]
    tags["floe/compute"] = compute.name
    if compute.resources is not None:
        resources = (
            USER_CODE_SIZES[compute.resources].as_kubernetes()
            if isinstance(compute.resources, str)
            else compute.resources
        )
        tags["dagster-k8s/config"] = {"container_config": {"resources": resources}}
    return tags


def _jobs(
    product: Product, specs: Specs
) -> tuple[dict[str, Any], dict[str, TimeWindowPartitionsDefinition]]:
    """Return the product's jobs by name, and the partitions of those that have any.

    A Dagster job has one partitioning, so a product with several gets a job for each besides the
    one of everything that has none.
    """
    name = dagster_name(product.plan.name)
    by_definition: dict[TimeWindowPartitionsDefinition, list[str]] = {}
    for uid in specs.assets:
        found = specs.partitions(uid)
        if found is not None:
            by_definition.setdefault(found, []).append(uid)
    everything = [*specs.assets]
    groups: dict[str, list[str]] = {}
    partitions: dict[str, TimeWindowPartitionsDefinition] = {}
    if len(by_definition) <= 1:
        groups[name] = everything
        partitions = dict.fromkeys([name] if by_definition else [], *by_definition)
    else:
        partitioned = {uid for uids in by_definition.values() for uid in uids}
        groups[name] = [uid for uid in everything if uid not in partitioned]
        for number, (definition, uids) in enumerate(by_definition.items(), 1):
            job = f"{name}_partitioned_{number}"
            groups[job], partitions[job] = uids, definition
    jobs = {}
    for job, uids in groups.items():
        chosen = set(uids)
        checks = [
            spec.key
            for uid, spec in specs.checks.items()
            if len(groups) == 1  # of everything
            or _on(specs, uid) in chosen
            or (job == name and _on(specs, uid) in specs.plan.sources)
        ]
        jobs[job] = define_asset_job(
            job,
            selection=AssetSelection.assets(*(specs.keys[uid] for uid in uids)).without_checks()
            | AssetSelection.checks(*checks),
            description=f"Builds data product {product.plan.name} {product.plan.version}".strip(),
            tags={"floe/product": dagster_name(product.plan.name)},
        )
    return jobs, partitions


def _on(specs: Specs, check: str) -> str:
    return check.partition("#")[0] if "#" in check else specs.plan.nodes[check].on
