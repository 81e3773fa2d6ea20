"""Inside a run: builds a selection of a product wave by wave and tells Dagster as it happens.

Materializations and check evaluations are yielded as events, not as outputs: Dagster's handling
of a step's outputs is cubic in their number. Outputs go only to assets, and to checks that block,
that another step of the same run waits for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from uuid import UUID

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    Config,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DataVersion,
    EventLogRecord,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableSchema,
)
from pydantic import Field

from floe_orchestrator_dagster.dbt import DbtCommand, Relation, run_dbt, start_ahead, stop_ahead
from floe_orchestrator_dagster.errors import MAX_LISTED, DbtError, known
from floe_orchestrator_dagster.lineage.events import StepRun, run_id_of
from floe_orchestrator_dagster.lineage.recorder import (
    Recorder,
    now,
    open_lineage,
    source_code,
)
from floe_orchestrator_dagster.lineage.spool import spool_directory
from floe_orchestrator_dagster.plan import (
    QualityCheck,
    Wave,
    blocked_by_check,
    downstream,
    waves,
)
from floe_orchestrator_dagster.specs import Specs, code_version, quality_check_id
from floe_orchestrator_dagster.telemetry import (
    current_trace_ids,
    flushed,
    node_done,
    span,
    spool_depth,
)

if TYPE_CHECKING:
    from floe_orchestrator_dagster.product import Product

logger = logging.getLogger(__name__)

# See dagster_dbt's SUCCESSFUL_NODE_STATUSES for the reasons; a partial success is none.
BUILT = frozenset({"success", "warn", "no-op", "reused"})
RETRIED = frozenset({"error", "partial success", "runtime error"})
ADVICE: Mapping[str, str] = {
    "Could not set lock on file": "Another process has the DuckDB file open: let it end, or let "
    "one run at a time build this product.",
    "No space left on device": "Free some space on that disk.",
}
Event = AssetMaterialization | AssetCheckEvaluation | AssetCheckResult | MaterializeResult[Any]

RESUMED_TAG = "dagster/is_resume_retry"
PARENT_TAG = "dagster/parent_run_id"
SCHEDULED_TAG = ".dagster/scheduled_execution_time"
INITIAL_VERSION = "INITIAL"


class DbtRunConfig(Config):
    """What a launch may ask of dbt."""

    full_refresh: bool = Field(default=False, description="Rebuild incremental models and seeds.")
    empty: bool = Field(default=False, description="Build schemas only: read no rows (--empty).")
    variables: dict[str, Any] = Field(default_factory=dict, description="dbt --vars.")
    threads: int | None = Field(default=None, description="dbt --threads, else the profile's.")

    def flags(self, *, building: bool) -> tuple[str, ...]:
        """Return them as flags of `dbt build`, or of `dbt test` where nothing is built."""
        words: list[str] = []
        if building and self.full_refresh:
            words.append("--full-refresh")
        if building and self.empty:
            words.append("--empty")
        if self.threads is not None:
            words += ["--threads", str(self.threads)]
        return tuple(words)


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """dbt began to run a node."""

    unique_id: str
    compute: str


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """dbt finished a node; `status` is dbt's own word, `seconds` dbt's own measure."""

    unique_id: str
    compute: str
    status: str
    seconds: float = 0.0
    rows: int | None = None
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    attempt: int = 1
    invocation_id: str = ""
    name: str = ""
    kind: str = ""


Progress = NodeStarted | NodeFinished
Listener = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Consumed:
    """What another step of the run waits for: assets, and the checks on them that block."""

    assets: frozenset[AssetKey]
    checks: frozenset[AssetCheckKey]


@dataclass
class Launch:
    """What one step was asked to do, by unique id."""

    assets: list[str]
    checks: list[str]
    quality_checks: Mapping[str, tuple[QualityCheck, ...]]
    config: DbtRunConfig = field(default_factory=DbtRunConfig)
    variables: Mapping[str, Any] = field(default_factory=dict)


def build(
    context: AssetExecutionContext,
    product: Product,
    specs: Specs,
    config: DbtRunConfig,
    listener: Listener | None = None,
    echo: Callable[[str], None] | None = None,
) -> Iterator[Event]:
    """Build what the step selects; yields events as dbt finishes nodes.

    Raises:
        dagster.Failure: at the end, when nodes failed or were skipped; lists them.
    """
    _require_partition(context, specs)
    launch = _launch(context, specs, config)
    attributes = {
        "product_name": product.plan.name,
        "product_version": product.plan.version,
        "pipeline_id": context.run.run_id,
    }
    with (
        _nothing_left_ahead(),
        flushed(),
        span("floe.run", **attributes),
        _recording(context, product) as recorder,
    ):
        step = _Step(context, product, specs, launch, listener, echo or _print, recorder)
        yield from _build(context, step)


def _build(context: AssetExecutionContext, step: _Step) -> Iterator[Event]:
    launch = step.launch
    planned = waves(step.plan, launch.assets, launch.checks)
    step.waves = len(planned)
    runs = ", ".join(f"{len(wave.nodes)} nodes on {wave.compute}" for wave in planned)
    context.log.info(
        f"{len(launch.assets)} assets and {len(launch.checks)} tests in {len(planned)} dbt runs: "
        f"{runs or 'nothing to do'}"
    )
    for number, wave in enumerate(planned, 1):
        with span("floe.wave", compute=wave.compute, wave=number, nodes=len(wave.nodes)):
            yield from step.run(number, wave)
    step.finish()


@contextmanager
def _nothing_left_ahead() -> Iterator[None]:
    """End the dbt process that was started for a next wave, if none came."""
    try:
        yield
    finally:
        stop_ahead()


@contextmanager
def _recording(context: AssetExecutionContext, product: Product) -> Iterator[Recorder | None]:
    """Record the lineage of what happens inside, however that ends; None without a backend."""
    opened = open_lineage(
        product.lineage_backend,
        product.compiled.artifacts,
        spool_directory(product.target_dir, product.plan.name),
        required=product.config.lineage == "required",
    )
    if opened is None:
        yield None
        return
    delivery, namespace = opened
    recorder = Recorder(_step_run(context, product, namespace), product.plan, delivery)
    try:
        recorder.started()
        yield recorder
    except Exception as error:
        recorder.ended([], str(error))
        raise
    except BaseException as error:
        recorder.aborted(f"Cancelled ({type(error).__name__})")
        raise
    finally:
        with span("floe.lineage", product_name=product.plan.name):
            spool_depth(recorder.close().waiting)


def _step_run(context: AssetExecutionContext, product: Product, namespace: str) -> StepRun:
    """Return what lineage says of the run that this step is, or is a part of."""
    run, own = context.run, context.op_execution_context.op_handle.name
    job = product.plan.name
    try:
        run_id = str(UUID(run.run_id))
    except ValueError:
        run_id = run_id_of(run.run_id)
    root = None
    if product.config.isolation == "compute":
        root = (run_id, namespace, job)
        run_id, job = run_id_of(run_id, own), f"{job}.{own}"
    nominal = run.tags.get(SCHEDULED_TAG)
    return StepRun(
        namespace=namespace,
        job=job,
        run_id=run_id,
        started_at=now(),
        root=root,
        nominal_time=nominal,
        dagster={
            "version": version("dagster"),
            "run_id": run.run_id,
            "job": run.job_name,
            "step": own,
            "partitions": list(context.partition_keys) if _window(context) else [],
            **dict(zip(("trace_id", "span_id"), current_trace_ids() or (), strict=False)),
        },
        code=source_code(product.project_dir) if product.project_dir else None,
        dbt_version=version("dbt-core"),
        profile=product.profile,
        project_dir=str(product.project_dir or ""),
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _launch(context: AssetExecutionContext, specs: Specs, config: DbtRunConfig) -> Launch:
    plan = specs.plan
    chosen = {specs.unique_ids[key] for key in context.selected_asset_keys}
    by_key = {spec.key: uid for uid, spec in specs.checks.items()}
    wanted = [by_key[key] for key in context.selected_asset_check_keys if key in by_key]
    checks = [uid for uid in wanted if uid in plan.checks]
    if _resumed_from(context.run):
        chosen, checks = _missing(context, specs, chosen, checks)
    asked = set(wanted)
    quality = {
        uid: tuple(
            check
            for check in plan.nodes[uid].quality_checks
            if quality_check_id(uid, check) in asked
        )
        for uid in chosen
    }
    return Launch(
        assets=[uid for uid in plan.assets if uid in chosen],
        checks=checks,
        quality_checks={uid: found for uid, found in quality.items() if found},
        config=config,
        variables={**_window(context), **config.variables},
    )


def _require_partition(context: AssetExecutionContext, specs: Specs) -> None:
    """Refuse to build a partitioned asset without knowing which partition."""
    if context.has_partition_key or context.has_partition_key_range:
        return
    chosen = (specs.unique_ids[key] for key in context.selected_asset_keys)
    names = sorted(specs.plan.nodes[uid].name for uid in chosen if specs.partitions(uid))
    if names:
        raise Failure(
            description=f"Cannot build {known(names)} without a partition: they are partitioned. "
            "Launch a partition or a backfill.",
            allow_retries=False,
        )


def _window(context: AssetExecutionContext) -> dict[str, str]:
    """Return the time window of the run's partitions as dbt vars."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return {}
    window = context.partition_time_window
    return {
        "partition_start": window.start.isoformat(),
        "partition_end": window.end.isoformat(),
    }


def _missing(
    context: AssetExecutionContext, specs: Specs, chosen: set[str], checks: list[str]
) -> tuple[set[str], list[str]]:
    """Return what a re-execution from failure still has to do.

    Left out is what earlier attempts have built from the same code, and tests that passed or
    warned there; kept is what other steps of this run wait for.
    """
    built: dict[AssetKey, str | None] = {}
    settled: set[AssetCheckKey] = set()
    parent = _resumed_from(context.run)
    while parent:
        for entry in context.instance.all_logs(
            parent,
            of_type={
                DagsterEventType.ASSET_MATERIALIZATION,
                DagsterEventType.ASSET_CHECK_EVALUATION,
            },
        ):
            event = entry.dagster_event
            if event is None:
                continue
            if event.is_step_materialization:
                made = event.step_materialization_data.materialization
                built.setdefault(made.asset_key, (made.tags or {}).get("dagster/code_version"))
            else:
                seen = event.asset_check_evaluation_data
                if seen.passed or seen.severity == AssetCheckSeverity.WARN:
                    settled.add(seen.asset_check_key)
        run = context.instance.get_run_by_id(parent)
        parent = _resumed_from(run) if run else None
    consumed = _consumed(context).assets
    done = {
        uid
        for uid in chosen
        if specs.keys[uid] in built
        and built[specs.keys[uid]] == code_version(specs.plan.nodes[uid])
        and specs.keys[uid] not in consumed
    }
    # Below what is built again, everything is built again.
    done -= downstream(specs.plan, chosen - done)
    again = chosen - done
    kept = [
        uid
        for uid in checks
        if specs.checks[uid].key not in settled
        or again & {specs.plan.nodes[uid].on, *specs.plan.folded_parents[uid]}
    ]
    context.log.info(f"From failure: {len(done)} assets are built already, {len(again)} are left")
    return again, kept


def _resumed_from(run: DagsterRun) -> str | None:
    """Return the run that this one re-executes from failure, if it is such a run."""
    if run.tags.get(RESUMED_TAG) != "true":
        return None
    return run.parent_run_id or run.tags.get(PARENT_TAG)


def _consumed(context: AssetExecutionContext) -> Consumed:
    """Return what of this step's another step of the run waits for."""
    own = context.op_execution_context.op_handle.name
    outputs = {
        dependency.output
        for invocation, inputs in context.job_def.graph.dependencies.items()
        if (invocation.alias or invocation.name) != own
        for definition in inputs.values()
        for dependency in definition.get_node_dependencies()
        if dependency.node == own
    }
    if not outputs:
        return Consumed(frozenset(), frozenset())
    made = context.assets_def
    return Consumed(
        frozenset(key for name, key in made.keys_by_output_name.items() if name in outputs),
        frozenset(spec.key for spec in made.check_specs if spec.get_python_identifier() in outputs),
    )


class _Step:
    """The state of one running step."""

    def __init__(
        self,
        context: AssetExecutionContext,
        product: Product,
        specs: Specs,
        launch: Launch,
        listener: Listener | None,
        echo: Callable[[str], None],
        recorder: Recorder | None,
    ) -> None:
        self.context = context
        self.product = product
        self.plan = product.plan
        self.specs = specs
        self.launch = launch
        self.listener = listener
        self.echo = echo
        self.recorder = recorder
        self.waves = 0
        self.wave_number = 0
        self.consumed = _consumed(context)
        self.versions = _Versions(context.instance, specs)
        self.failed: dict[str, str] = {}
        self.blocked: set[str] = set()
        self.skipped: dict[str, None] = {}
        self.crashes: list[str] = []
        keys = context.partition_keys if _window(context) else []
        self.partition_keys: list[str] = list(keys)

    def run(self, number: int, wave: Wave) -> Iterator[Event]:
        """Run one wave, then again what errored in it, as often as the config allows."""
        self.wave_number = number
        nodes = [uid for uid in wave.nodes if uid not in self.blocked]
        self.skipped.update(dict.fromkeys(uid for uid in wave.nodes if uid in self.blocked))
        gone = {*self.failed, *self.blocked, *self.skipped} & self.plan.assets.keys()
        checks = [uid for uid in wave.checks if gone.isdisjoint(self._read_by(uid))]
        # `dbt build` runs a unit test only together with its model.
        built = set(nodes)
        alone = {
            uid
            for uid in checks
            if self.plan.nodes[uid].kind == "unit_test" and self.plan.nodes[uid].on not in built
        }
        together = [uid for uid in checks if uid not in alone]
        yield from self._try(f"{number}", wave, nodes, together)
        yield from self._try(f"{number}u", wave, [], sorted(alone))

    def _try(self, number: str, wave: Wave, nodes: list[str], checks: list[str]) -> Iterator[Event]:
        attempts = 1 + self.product.config.retries
        for attempt in range(1, attempts + 1):
            if not [*nodes, *checks]:
                return
            last = attempt == attempts
            results: dict[str, NodeFinished] = {}
            try:
                yield from self._run_once(number, wave, attempt, nodes, checks, results, last=last)
            except DbtError as error:
                # What was done before is still to be told with it.
                self.crashes.append(str(error))
            again = {uid for uid, result in results.items() if result.status in RETRIED}
            if last or not again:
                self._settle(wave, nodes, checks, results)
                return
            failed_checks = [uid for uid, result in results.items() if result.status == "fail"]
            hopeless = set().union(*(blocked_by_check(self.plan, uid) for uid in failed_checks))
            waiting = {uid for uid in (*nodes, *checks) if self._is_left(uid, results)} - hopeless
            names = ", ".join(sorted(self._name(uid) for uid in again))
            self.context.log.warning(
                f"Attempt {attempt} of {attempts} failed for {names}: retrying"
            )
            for uid in failed_checks:
                self._fail(uid, results[uid].message)
            self.blocked |= hopeless
            nodes = [uid for uid in nodes if uid in again or uid in waiting]
            checks = [uid for uid in checks if uid in again or uid in waiting]

    @staticmethod
    def _is_left(uid: str, results: Mapping[str, NodeFinished]) -> bool:
        return uid not in results or results[uid].status == "skipped"

    def _read_by(self, uid: str) -> tuple[str, ...]:
        """Return what a test reads; without it the test cannot run."""
        return (self.plan.nodes[uid].on, *self.plan.folded_parents[uid])

    def _run_once(
        self,
        number: str,
        wave: Wave,
        attempt: int,
        nodes: list[str],
        checks: list[str],
        results: dict[str, NodeFinished],
        *,
        last: bool,
    ) -> Iterator[Event]:
        command = self._command(number, wave, attempt, nodes, checks)
        said: list[str] = []
        recorder = self.recorder
        if recorder is not None:
            compute = self.plan.computes[wave.compute]
            recorder.wave(compute, self.wave_number, self.waves, len(nodes) + len(checks))
        with run_dbt(command) as run:
            if self.wave_number < self.waves:
                start_ahead()
            for message in run:
                info = message["info"]
                if recorder is not None:
                    recorder.heard(message, attempt, command.target_path)
                if info["name"] == "NodeStart":
                    self._tell(NodeStarted(message["data"]["node_info"]["unique_id"], wave.compute))
                elif info["name"] == "NodeFinished":
                    result = _finished(message, wave.compute, attempt)
                    results[result.unique_id] = result
                    _observe(result)
                    self._tell(result)
                    if last or result.status not in RETRIED:
                        yield from self._events(result, message)
                else:
                    self._log(info, said)
        if recorder is not None:
            recorder.wave_ended(success=run.success, message=run.exception or "\n".join(said))
        unreached = [uid for uid in (*nodes, *checks) if uid not in results]
        if unreached or (run.exception and not run.success):
            reason = (
                run.exception
                or self._renewed(unreached, command)
                or "\n".join(said)
                or "dbt gave no reason"
            )
            self.crashes.append(f"dbt on target '{wave.target}': {_advised(reason)}")

    def _log(self, info: Mapping[str, Any], said: list[str]) -> None:
        """Show one of dbt's lines, and keep it in `said` if it is an error."""
        if info["level"] == "debug":
            return
        self.echo(info["msg"])
        if info["level"] == "error":
            said.append(info["msg"])

    def _command(
        self, number: str, wave: Wave, attempt: int, nodes: list[str], checks: list[str]
    ) -> DbtCommand:
        step = self.context.op_execution_context.op_handle.name
        name = f"{self.context.run.run_id[:8]}-{step}-{number}-{attempt}"
        chosen = set(nodes)
        return self.product.command(
            "build" if nodes else "test",
            wave.target,
            self.product.new_run_dir(name, wave.target),
            select=(*nodes, *checks),
            flags=self.launch.config.flags(building=bool(nodes)),
            variables=self.launch.variables,
            row_counts=self.product.config.row_counts and not self.launch.config.empty,
            checks={
                uid: [_request(check) for check in found]
                for uid, found in self.launch.quality_checks.items()
                if uid in chosen
            },
            reads=self._reads(nodes) if self.recorder is not None else None,
            environment={} if self.recorder is None else self.recorder.environment(),
        )

    def _reads(self, nodes: list[str]) -> dict[str, list[Relation]]:
        """Return the relations that nodes read, for dbt to tell their columns."""
        found = {}
        for uid in nodes:
            parents = (self.plan.nodes[read] for read in self.plan.folded_parents.get(uid, ()))
            found[uid] = [
                (node.relation, node.dbt.database, node.dbt.schema, node.identifier)
                for node in parents
                if node.relation and node.dbt is not None
            ]
        return found

    def _renewed(self, unreached: list[str], command: DbtCommand) -> str:
        """Return what is planned and no longer in the project that dbt has just read, if any is."""
        present = command.parsed_ids()
        gone = [uid for uid in unreached if present and uid not in present]
        if not gone:
            return ""
        names = " and no ".join(self._name(uid) for uid in gone[:MAX_LISTED])
        return (
            f"the project on disk has no {names} any more: it was compiled anew while this run "
            "was going on. Reload the code location, then launch again."
        )

    def _settle(
        self,
        wave: Wave,
        nodes: list[str],
        checks: list[str],
        results: Mapping[str, NodeFinished],
    ) -> None:
        """Note what failed and what that stops in later waves."""
        for uid in (*nodes, *checks):
            result = results.get(uid)
            node = self.plan.nodes[uid]
            if result is None or result.status == "skipped":
                self.skipped[uid] = None
                if uid in self.plan.assets:
                    self.blocked |= {uid, *downstream(self.plan, [uid])}
            elif uid in self.plan.checks:
                if result.status not in {"pass", "success", "warn"}:
                    self._fail(uid, result.message)
                    self.blocked |= blocked_by_check(self.plan, uid)
            elif result.status not in BUILT and node.kind != "function":
                self._fail(uid, result.message)
                self.blocked |= downstream(self.plan, [uid])
        logger.debug("wave on %s settled: %d failed so far", wave.target, len(self.failed))

    def _fail(self, uid: str, message: str) -> None:
        self.failed[uid] = message
        self.context.log.error(f"{self._name(uid)}: {message}")

    def _name(self, uid: str) -> str:
        node = self.plan.nodes[uid]
        return f"{node.kind.replace('_', ' ')} {node.name}"

    def _tell(self, progress: Progress) -> None:
        if self.listener is not None:
            self.listener(progress)

    def _events(self, result: NodeFinished, message: Mapping[str, Any]) -> Iterator[Event]:
        uid = result.unique_id
        if uid in self.plan.checks:
            if result.status != "skipped":
                yield self._told(self._evaluation(uid, result, message))
        elif uid in self.plan.assets and result.status in BUILT:
            yield from self._materializations(uid, result, message)
            yield from self._quality(uid, message)

    def _materializations(
        self, uid: str, result: NodeFinished, message: Mapping[str, Any]
    ) -> Iterator[Event]:
        key = self.specs.keys[uid]
        metadata = _metadata(self.specs, result, message)
        version, tags = self.versions.of(uid)
        partitioned = self.specs.partitions(uid) is not None
        self.versions.forget(key)
        if key in self.consumed.assets:
            # An output of a partitioned run carries its partitions by itself.
            yield MaterializeResult(
                asset_key=key, metadata=metadata, data_version=DataVersion(version)
            )
            return
        partitions: list[str | None] = [*self.partition_keys] if partitioned else [None]
        for partition in partitions:
            yield AssetMaterialization(
                asset_key=key, metadata=metadata, tags=tags, partition=partition
            )

    def _told(self, found: AssetCheckEvaluation) -> AssetCheckEvaluation | AssetCheckResult:
        """Return an evaluation, as an output where another step waits for it to pass."""
        if found.asset_check_key not in self.consumed.checks:
            return found
        if not found.passed and found.severity == AssetCheckSeverity.ERROR:
            return found  # the step is going to fail, and nothing below it runs
        return AssetCheckResult(
            passed=found.passed,
            asset_key=found.asset_key,
            check_name=found.check_name,
            metadata=found.metadata,
            severity=found.severity,
            description=found.description,
        )

    def _evaluation(
        self, uid: str, result: NodeFinished, message: Mapping[str, Any]
    ) -> AssetCheckEvaluation:
        node = self.plan.nodes[uid]
        failures = message["data"].get("run_result", {}).get("num_failures")
        if failures is None and node.kind == "test" and result.status in {"pass", "warn", "fail"}:
            failures = 0  # which dbt's message leaves out
        key = self.specs.keys[node.on]
        return AssetCheckEvaluation(
            asset_key=key,
            check_name=node.name,
            passed=result.status in {"pass", "success"},
            severity=(
                AssetCheckSeverity.WARN if result.status == "warn" else AssetCheckSeverity.ERROR
            ),
            description=result.message or None,
            blocking=node.blocking,
            metadata={
                **_run_metadata(result, message),
                **({} if failures is None else {"dagster_dbt/failed_row_count": int(failures)}),
            },
            target_materialization_data=self.versions.target(key),
        )

    def _quality(self, uid: str, message: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the results of floe.yaml's own checks, evaluated in the dbt process."""
        found = {item["name"]: item for item in message.get("floe", {}).get("checks", ())}
        key = self.specs.keys[uid]
        for check in self.launch.quality_checks.get(uid, ()):
            item = found.get(check.name, {"problem": "dbt did not report it"})
            problem, failures = item.get("problem"), item.get("failures", 0)
            passed = problem is None and failures == 0
            said = problem or f"{failures} failing rows"
            yield AssetCheckEvaluation(
                asset_key=key,
                check_name=self.specs.checks[quality_check_id(uid, check)].name,
                passed=passed,
                severity=(
                    AssetCheckSeverity.ERROR
                    if check.severity == "error"
                    else AssetCheckSeverity.WARN
                ),
                description=None if passed else said,
                blocking=False,
                metadata={"floe/check_type": check.type, "floe/failed_row_count": failures},
                target_materialization_data=self.versions.target(key),
            )
            if not passed and check.severity == "error":
                self.failed[quality_check_id(uid, check)] = said
                self.context.log.error(f"quality check {check.name}: {said}")

    def finish(self) -> None:
        """Fail the step if anything in it failed, naming everything."""
        if not self.failed and not self.skipped and not self.crashes:
            if self.recorder is not None:
                self.recorder.ended([])
            return
        lines = [f"{len(self.failed)} failed, {len(self.skipped)} skipped."]
        for uid, message in self.failed.items():
            name = self._name(uid) if uid in self.plan.nodes else uid.rpartition("#")[2]
            lines.append(f"  failed: {name}: {message}")
        lines += [f"  {crash}" for crash in self.crashes]
        if self.skipped:
            lines.append("  skipped: " + ", ".join(sorted(self._name(uid) for uid in self.skipped)))
        lines.append('Re-execute "from failure" to build only what is missing.')
        if self.recorder is not None:
            self.recorder.ended(self.skipped, "\n".join(lines))
        raise Failure(
            description="\n".join(lines),
            metadata={
                "failed": [*self.failed],
                "skipped": [*self.skipped],
                "crashes": [*self.crashes],
            },
            # A retry of the step would be a retry of everything: `retries` retries nodes.
            allow_retries=False,
        )


class _Versions:
    """Data versions and provenance of assets, as Dagster writes them for outputs."""

    def __init__(self, instance: DagsterInstance, specs: Specs) -> None:
        self._instance = instance
        self._specs = specs
        self._records: dict[AssetKey, EventLogRecord | None] = {}

    def forget(self, key: AssetKey) -> None:
        """Drop what is known of an asset that is about to be materialized."""
        self._records.pop(key, None)

    def _record(self, key: AssetKey) -> EventLogRecord | None:
        if key not in self._records:
            found = self._instance.fetch_materializations(key, limit=1).records
            self._records[key] = found[0] if found else None
        return self._records[key]

    def of(self, uid: str) -> tuple[str, dict[str, str]]:
        """Return the data version of a node that was just built, and its provenance tags."""
        code = code_version(self._specs.plan.nodes[uid]) or ""
        tags = {"dagster/code_version": code}
        inputs: dict[str, str] = {}
        for parent in self._specs.plan.folded_parents[uid]:
            key = self._specs.keys[parent]
            record = self._record(key)
            made = record.asset_materialization if record else None
            version = (made.tags or {}).get("dagster/data_version") if made else None
            name = key.to_user_string()
            inputs[name] = version or INITIAL_VERSION
            tags[f"dagster/input_data_version/{name}"] = inputs[name]
            tags[f"dagster/input_event_pointer/{name}"] = (
                str(record.storage_id) if record else "NULL"
            )
        # Dagster's own rule: code version, then the versions of the inputs by key.
        ordered = "".join(inputs[name] for name in sorted(inputs))
        version = sha256(f"{code}{ordered}".encode()).hexdigest()
        tags["dagster/data_version"] = version
        return version, tags

    def target(self, key: AssetKey) -> Any:
        """Return the link from a check to the materialization that it looked at."""
        record = self._record(key)
        if record is None:
            return None
        return _TARGET(
            storage_id=record.storage_id,
            run_id=record.event_log_entry.run_id,
            timestamp=record.event_log_entry.timestamp,
        )


def _target_class() -> Any:
    """Return the class of a check's materialization link, which Dagster does not export."""
    hint = get_type_hints(AssetCheckEvaluation)["target_materialization_data"]
    return next(kind for kind in get_args(hint) if kind is not type(None))


_TARGET = _target_class()


def _request(check: QualityCheck) -> dict[str, Any]:
    kind, package = check.type.rpartition(".")[2], check.type.rpartition(".")[0]
    return {
        "name": check.name,
        "type": kind,
        "package": package or None,
        "arguments": dict(check.arguments),
    }


def _finished(message: Mapping[str, Any], compute: str, attempt: int) -> NodeFinished:
    node, result = message["data"]["node_info"], message["data"].get("run_result", {})
    return NodeFinished(
        unique_id=node["unique_id"],
        compute=compute,
        status=str(result.get("status") or node.get("node_status") or "error").lower(),
        # dbt subtracts wall clocks, which may be set back in between.
        seconds=max(0.0, float(result.get("execution_time") or 0.0)),
        rows=message.get("floe", {}).get("rows"),
        message=_advised(str(result.get("message") or "")),
        started_at=node.get("node_started_at", ""),
        finished_at=node.get("node_finished_at", ""),
        attempt=attempt,
        invocation_id=message["info"].get("invocation_id", ""),
    )


def _advised(message: str) -> str:
    """Return what dbt said, and what to do where that is known and dbt does not say it."""
    advice = [cure for sign, cure in ADVICE.items() if sign in message]
    return " ".join([message.strip(), *advice])


def _duration(result: NodeFinished) -> float:
    try:
        started = datetime.fromisoformat(result.started_at.rstrip("Z"))
        finished = datetime.fromisoformat(result.finished_at.rstrip("Z"))
    except ValueError:
        # A microbatch model has no times of its own.
        return result.seconds
    return max(0.0, (finished - started).total_seconds())


def _observe(result: NodeFinished) -> None:
    node_done(
        result.unique_id,
        result.compute,
        result.status,
        seconds=result.seconds,
        started_at=result.started_at,
        finished_at=result.finished_at,
        failure=result.message if result.status in {*RETRIED, "fail"} else "",
        attempt=result.attempt,
    )


def _run_metadata(result: NodeFinished, message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "unique_id": result.unique_id,
        "invocation_id": message["info"].get("invocation_id", ""),
        "Execution Duration": _duration(result),
        "status": result.status,
        "floe/compute": result.compute,
    }


def _metadata(specs: Specs, result: NodeFinished, message: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _run_metadata(result, message)
    metadata["dagster/storage_kind"] = specs.plan.computes[result.compute].adapter
    found = message.get("floe", {})
    if found.get("rows") is not None:
        metadata["dagster/row_count"] = int(found["rows"])
    if found.get("columns"):
        dbt = specs.plan.nodes[result.unique_id].dbt
        declared = {name.lower(): column for name, column in dbt.columns.items()} if dbt else {}
        metadata["dagster/column_schema"] = TableSchema(
            columns=[
                TableColumn(
                    name=name,
                    type=kind,
                    description=declared[name.lower()].description
                    if name.lower() in declared
                    else None,
                )
                for name, kind in found["columns"]
            ]
        )
    if found.get("problem"):
        metadata["floe/statistics_problem"] = MetadataValue.text(found["problem"])
    if result.message:
        metadata["floe/dbt_message"] = result.message
    affected = message["data"].get("run_result", {}).get("adapter_response", {})
    if "rows_affected" in affected:
        metadata["floe/rows_affected"] = int(affected["rows_affected"])
    return metadata


__all__ = ["DbtRunConfig", "NodeFinished", "NodeStarted", "build"]
