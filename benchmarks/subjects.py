"""Measures a subject in this process: `python -m benchmarks.subjects NAME ARGUMENTS`."""

from __future__ import annotations

import cProfile
import os
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import print_measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def load_ours(directory: str, with_job: str) -> Callable[[], object]:
    """Load a compiled product as a code location does: repository and asset graph."""
    import dagster as dg
    import floe_core.schemas.compiled_artifacts  # noqa: F401  imported before the clock starts

    import floe_orchestrator_dagster.definitions.build
    import floe_orchestrator_dagster.product.opening  # noqa: F401
    from floe_orchestrator_dagster import load_product_definitions

    name = Path(directory).parent.name.partition("-v")[0]
    product = f"bench-{name}"

    def work() -> object:
        definitions = load_product_definitions(product, directory)
        if with_job == "no":
            definitions = dg.Definitions(assets=definitions.assets)
        return _opened(definitions, jobs=with_job == "yes")

    return work


def load_raw(directory: str, manifest: str, with_job: str) -> Callable[[], object]:
    """Load the same project as raw dagster-dbt does."""
    import dagster_dbt  # noqa: F401

    from benchmarks.raw import definitions

    job = with_job == "yes"
    return lambda: _opened(
        definitions(Path(manifest), with_job=job, project_dir=Path(directory)), jobs=job
    )


def load_floor(manifest: str) -> Callable[[], object]:
    """Load the same number of assets and checks with only keys and dependencies: Dagster's part."""
    import gc
    import json

    import dagster as dg

    import floe_orchestrator_dagster.definitions.build  # noqa: F401  imported before the clock starts

    nodes = json.loads(Path(manifest).read_bytes())
    sources = nodes.pop("sources")
    models = {uid: at for uid, at in nodes["nodes"].items() if at["resource_type"] == "model"}
    tests = [at for at in nodes["nodes"].values() if at["resource_type"] == "test"]

    def work() -> object:
        gc.disable()
        specs = [
            dg.AssetSpec(uid, deps=at["depends_on"]["nodes"], skippable=True)
            for uid, at in models.items()
        ]
        checks = [dg.AssetCheckSpec(at["name"], asset=at["attached_node"]) for at in tests]
        return _opened(_one_step(specs, checks, map(dg.AssetSpec, sources)), jobs=False)

    return work


def load_same(directory: str) -> Callable[[], object]:
    """Load our specs with their content built before the clock starts: Dagster's part."""
    import gc

    import dagster as dg

    from floe_orchestrator_dagster.definitions.build import build_definitions
    from floe_orchestrator_dagster.product.opening import open_product

    made = [*(build_definitions(open_product(Path(directory))).assets or ())]
    (step,) = (asset for asset in made if isinstance(asset, dg.AssetsDefinition))
    sources = [asset for asset in made if isinstance(asset, dg.AssetSpec)]
    specs, checks = [*step.specs], [*step.check_specs]

    def again(spec: dg.AssetSpec) -> dg.AssetSpec:
        return dg.AssetSpec(
            spec.key,
            deps=spec.deps,
            description=spec.description,
            metadata=spec.metadata,
            skippable=True,
            group_name=spec.group_name,
            code_version=spec.code_version,
            automation_condition=spec.automation_condition,
            owners=spec.owners,
            tags=spec.tags,
        )

    def work() -> object:
        gc.disable()
        check_specs = [
            dg.AssetCheckSpec(
                spec.name,
                asset=spec.asset_key,
                description=spec.description,
                additional_deps=spec.additional_deps,
                blocking=spec.blocking,
                metadata=spec.metadata,
            )
            for spec in checks
        ]
        return _opened(_one_step(map(again, specs), check_specs, map(again, sources)), jobs=False)

    return work


def _one_step(specs: Iterable[Any], checks: Iterable[Any], sources: Iterable[Any]) -> Any:
    """Return Definitions with one of our steps (with these assets and checks) and its sources."""
    import dagster as dg

    from floe_orchestrator_dagster.definitions.steps import StepDefinition

    specs = [*specs]
    outputs = {spec.key.to_python_identifier(): spec.key for spec in specs}
    checks_by_output = {spec.get_python_identifier(): spec for spec in checks}

    @dg.op(out=dict.fromkeys((*outputs, *checks_by_output), dg.Out(dg.Nothing, is_required=False)))
    def everything():  # type: ignore[no-untyped-def]  # noqa: ANN202  Dagster would read it
        """Never runs: the benchmark only loads it."""

    asset = StepDefinition(
        node_def=everything,
        keys_by_input_name={},
        keys_by_output_name=outputs,
        specs=specs,
        check_specs_by_output_name=checks_by_output,
        can_subset=True,
    )
    return dg.Definitions(assets=[asset, *sources])


def _opened(definitions: Any, *, jobs: bool) -> object:
    """Build the repository and its asset graph; with `jobs`, also all jobs."""
    repository = definitions.get_repository_def()
    keys = repository.asset_graph.get_all_asset_keys()
    return keys, repository.get_all_jobs() if jobs else None


def abc() -> Callable[[], object]:
    """Import the interface that every orchestrator plugin of floe imports."""

    def work() -> object:
        from floe_core.plugins.orchestrator import OrchestratorPlugin

        return OrchestratorPlugin

    return work


def discovery() -> Callable[[], object]:
    """Find the plugin as floe does, and create one."""

    def work() -> object:
        from importlib.metadata import entry_points

        (entry_point,) = entry_points(group="floe.orchestrators")
        return entry_point.load()()

    return work


def events_ours(directory: str, events: str) -> Callable[[], object]:
    """Run the product's job on recorded dbt events, without dbt."""
    from dagster import DagsterInstance

    job = _replayed(directory, events)
    instance = DagsterInstance.ephemeral()
    return lambda: _ran(job, instance)


def events_same(directory: str, events: str) -> Callable[[], object]:
    """Run the product's job with our events built before the clock starts: Dagster's part."""
    from dagster import DagsterInstance

    from floe_orchestrator_dagster.definitions import steps

    own, made = steps.build, []

    def noted(*arguments: Any) -> Iterator[Any]:
        for event in own(*arguments):
            made.append(event)
            yield event

    steps.build = noted  # type: ignore[assignment]
    job = _replayed(directory, events)
    _ran(job, DagsterInstance.ephemeral())

    def again(_context: object, *_others: object) -> Iterator[Any]:
        yield from made

    steps.build = again  # type: ignore[assignment]
    instance = DagsterInstance.ephemeral()
    return lambda: _ran(job, instance)


def events_floor(directory: str) -> Callable[[], object]:
    """Run the product's job with the same events, all empty: Dagster's part."""
    from dagster import AssetCheckEvaluation, AssetMaterialization, DagsterInstance

    from floe_orchestrator_dagster.definitions import steps

    def build(context: Any, _product: object, specs: Any, *_others: object) -> Iterator[Any]:
        for key in context.selected_asset_keys:
            yield AssetMaterialization(key)
        for spec in specs.checks.values():
            yield AssetCheckEvaluation(asset_key=spec.asset_key, check_name=spec.name, passed=True)

    steps.build = build  # type: ignore[assignment]
    job = _product_job(directory)
    instance = DagsterInstance.ephemeral()
    return lambda: _ran(job, instance)


def _replayed(directory: str, events: str) -> Any:
    """Return the product's job with recorded events in place of dbt."""
    from floe_orchestrator_dagster.dbt.events import EventReader
    from floe_orchestrator_dagster.dbt.process import DbtProcesses
    from floe_orchestrator_dagster.dbt.results import RunResults
    from floe_orchestrator_dagster.dbt.scrub import Scrubber

    class Replay:
        success = True
        exception = None
        results = RunResults()
        scrubber = Scrubber()

        def __init__(self, compute: str) -> None:
            self._reader = EventReader(compute)

        def __iter__(self) -> Iterator[Any]:
            with Path(events).open("rb") as lines:
                for line in lines:
                    yield from self._reader.read(line)

    @contextmanager
    def replayed(_: DbtProcesses, command: Any) -> Iterator[Replay]:
        yield Replay(command.compute)

    DbtProcesses.run = replayed  # type: ignore[assignment]
    return _product_job(directory)


def _product_job(directory: str) -> Any:
    from floe_orchestrator_dagster import load_product_definitions
    from floe_orchestrator_dagster.definitions.jobs import job_named

    name = Path(directory).parent.name.partition("-v")[0]
    return job_named(load_product_definitions(f"bench-{name}", directory), f"bench_{name}")


def events_raw(directory: str, manifest: str, events: str) -> Callable[[], object]:
    """Run raw dagster-dbt's job on the same events, which a program prints in place of dbt."""
    # dagster-dbt imports dbt's adapter. The import is a cost of dbt, not of the events.
    import dbt.adapters.duckdb
    import dbt.cli.main  # noqa: F401
    from dagster import DagsterInstance

    from benchmarks.raw import definitions
    from floe_orchestrator_dagster.definitions.jobs import job_named

    fake = Path(events).with_suffix(".sh")
    # dagster-dbt runs `--version` first.
    fake.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "installed: 1.11.0";; *) cat {events};; esac\n'
    )
    fake.chmod(0o755)
    made = definitions(
        Path(manifest), with_job=True, project_dir=Path(directory), dbt_executable=str(fake)
    )
    job = job_named(made, "everything")
    instance = DagsterInstance.ephemeral()
    return lambda: _ran(job, instance)


def _ran(job: Any, instance: Any) -> object:
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, run_config=quiet)
    materialized = len(result.get_asset_materialization_events())
    checked = len(result.get_asset_check_evaluations())
    sys.stdout.write(f"{materialized} materializations, {checked} checks\n")
    if not materialized or checked != 2 * materialized:
        raise SystemExit("The run did not report every model and test.")
    return result


SUBJECTS: dict[str, Callable[..., Callable[[], object]]] = {
    subject.__name__: subject
    for subject in (
        *(load_ours, load_raw, load_same, load_floor, abc, discovery),
        *(events_ours, events_raw, events_same, events_floor),
    )
}


def main() -> None:
    """Measure one subject, or profile it with BENCH_PROFILE=FILE."""
    warnings.simplefilter("ignore")
    work = SUBJECTS[sys.argv[1]](*sys.argv[2:])
    profile = os.environ.get("BENCH_PROFILE")
    if not profile:
        print_measured(work)
        return
    # CPU time, so that other users of the machine have no effect.
    with cProfile.Profile(time.process_time) as profiler:
        work()
    profiler.dump_stats(profile)


if __name__ == "__main__":
    main()
