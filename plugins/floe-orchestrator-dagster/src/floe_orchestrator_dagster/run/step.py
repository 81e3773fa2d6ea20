"""One step of a Dagster run: builds a selection of a product, wave by wave, and reports it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeGuard
from uuid import UUID

import msgspec
from dagster import AssetExecutionContext, Failure

from floe_orchestrator_dagster.assets.specs import Specs, quality_check_id
from floe_orchestrator_dagster.dbt.environment import value_of
from floe_orchestrator_dagster.dbt.events import (
    Cancelled,
    Checked,
    Line,
    NodeFinished,
    NodeStarted,
    QualityResult,
    Relation,
)
from floe_orchestrator_dagster.dbt.process import run_dbt, start_ahead, stop_ahead
from floe_orchestrator_dagster.dbt.status import RETRIED, SKIPPED, is_failure
from floe_orchestrator_dagster.errors import DbtError, known
from floe_orchestrator_dagster.lineage.events import StepRun, run_id_of
from floe_orchestrator_dagster.lineage.recorder import (
    Recorder,
    now,
    open_lineage,
    source_code,
)
from floe_orchestrator_dagster.plan import QualityCheck, Wave, waves
from floe_orchestrator_dagster.product.launch_variables import with_launch_variables
from floe_orchestrator_dagster.product.layout import spool_directory
from floe_orchestrator_dagster.run.launch import (
    FAILED_HOOKS,
    MISSING_BATCHES,
    Batches,
    DbtRunConfig,
    Launch,
    consumed_by_others,
    covering,
    launch_of,
)
from floe_orchestrator_dagster.run.outcome import Attempt, Outcome
from floe_orchestrator_dagster.run.versions import Versions
from floe_orchestrator_dagster.run.yields import Event, Yields, is_elsewhere, quality_message
from floe_orchestrator_dagster.telemetry import (
    current_trace_ids,
    flushed,
    node_done,
    span,
    spool_depth,
)

if TYPE_CHECKING:
    from floe_orchestrator_dagster.dbt.command import DbtCommand
    from floe_orchestrator_dagster.dbt.events import Event as DbtEvent
    from floe_orchestrator_dagster.dbt.process import DbtRun
    from floe_orchestrator_dagster.product.product import Product

logger = logging.getLogger(__name__)

SCHEDULED_TAG = ".dagster/scheduled_execution_time"
# How Dagster begins to say that checks came as events and not as outputs, as ours do.
_NO_OUTPUTS = "did not yield or return expected outputs"

Progress = NodeStarted | NodeFinished
Listener = Callable[[Progress], None]


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
        ProductError: the vars of the launch make another graph than the one that was loaded.
    """
    launch = launch_of(context, specs, config)
    product = with_launch_variables(product, config.variables, context.log.info)
    context.log.addFilter(lambda record: _NO_OUTPUTS not in record.getMessage())
    attributes = {
        "product_name": product.plan.name,
        "product_version": product.plan.version,
        "pipeline_id": context.run.run_id,
    }
    with (
        _nothing_left_ahead(),
        flushed(),
        span("floe.run", **attributes),
        _recording(context, product, launch) as recorder,
    ):
        step = _Step(context, product, specs, launch, listener, echo or _print, recorder)
        yield from step.build()


@contextmanager
def _nothing_left_ahead() -> Iterator[None]:
    """End the dbt process that was started for a next wave, if none came."""
    try:
        yield
    finally:
        stop_ahead()


@contextmanager
def _recording(
    context: AssetExecutionContext, product: Product, launch: Launch
) -> Iterator[Recorder | None]:
    """Record the lineage of what happens inside, however that ends; None without a backend."""
    opened = open_lineage(
        product.lineage_backend,
        product.compiled.artifacts,
        spool_directory(product.layout, product.plan.name),
        required=product.config.lineage == "required",
    )
    if opened is None:
        yield None
        return
    delivery, namespace = opened
    facts = _step_run(context, product, launch, namespace)
    recorder = Recorder(facts, product.plan, delivery, context.log)
    try:
        recorder.started()
        yield recorder
    except Exception as error:
        recorder.ended({}, str(error))
        raise
    except BaseException as error:
        recorder.aborted(f"Cancelled ({type(error).__name__})")
        raise
    finally:
        with span("floe.lineage", product_name=product.plan.name):
            spool_depth(recorder.close().waiting)


def _step_run(
    context: AssetExecutionContext, product: Product, launch: Launch, namespace: str
) -> StepRun:
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
            "partitions": list(launch.partitions),
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


class _Step:
    """Runs the dbt commands of one step, and passes on what they say."""

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
        self.batches = dict(launch.batches)
        self.waves = 0
        self.wave_number = 0
        self.outcome = Outcome(product.plan)
        self.elsewhere: dict[str, str] = {}
        consumed = consumed_by_others(context)
        versions = Versions(context.instance, specs, launch.config.variables)
        self.yields = Yields(specs, versions, consumed, launch.partitions)

    def build(self) -> Iterator[Event]:
        """Run every wave, then what needs no wave; fail if anything did."""
        launch = self.launch
        planned = waves(self.plan, launch.assets, launch.checks, launch.lanes())
        self.waves = len(planned)
        runs = ", ".join(f"{len(wave.nodes)} nodes on {wave.compute}" for wave in planned)
        self.context.log.info(
            f"{len(launch.assets)} assets and {len(launch.checks)} tests in {len(planned)} dbt "
            f"runs: {runs or 'nothing to do'}"
        )
        for number, wave in enumerate(planned, 1):
            with span("floe.wave", compute=wave.compute, wave=number, nodes=len(wave.nodes)):
                yield from self._run(number, wave)
        yield from self._check_alone()
        self._finish()

    def _run(self, number: int, wave: Wave) -> Iterator[Event]:
        """Run one wave, then again what errored in it, as often as the config allows."""
        self.wave_number = number
        nodes, checks = self.outcome.ready(wave)
        # `dbt build` runs a unit test only together with its model.
        built = set(nodes)
        alone = {
            uid
            for uid in checks
            if self.plan.nodes[uid].kind == "unit_test" and self.plan.nodes[uid].on not in built
        }
        together = [uid for uid in checks if uid not in alone]
        yield from self._try(f"{number}", Attempt(wave, nodes, together))
        yield from self._try(f"{number}u", Attempt(wave, [], sorted(alone)))

    def _try(self, name: str, attempt: Attempt) -> Iterator[Event]:
        if not attempt.given:
            return
        outcome = self.outcome
        left = self.product.config.retries + 1 - attempt.number
        failed = len(outcome.failed)
        try:
            yield from self._run_once(f"{name}-{attempt.number}", attempt)
        except DbtError as error:
            # What was done before is still to be told with it.
            outcome.stop(attempt, str(error))
            return
        again = outcome.settle(attempt, retries_left=left)
        for uid, message in [*outcome.failed.items()][failed:]:
            self.context.log.error(f"{outcome.name(uid)}: {message}")
        for uid in attempt.checks:
            # An error of a check counts once it is final, and dbt itself did not cause it.
            result = attempt.results.get(uid)
            if uid not in again and uid in outcome.failed and result and result.status in RETRIED:
                yield from self.yields.of(result)
        if again:
            yield from self._try_again(name, attempt, again)

    def _try_again(self, name: str, attempt: Attempt, again: Sequence[str]) -> Iterator[Event]:
        errors = [uid for uid in again if _is_error(attempt.results.get(uid))]
        names = known(self.outcome.name(uid) for uid in errors)
        self.context.log.warning(
            f"Attempt {attempt.number} of {self.product.config.retries + 1} failed for {names}: "
            "retrying"
        )
        for uid in errors:
            result = attempt.results[uid]
            if result.batches_failed and result.batches_built:
                # A full refresh would drop the batches that are there.
                self.batches[uid] = Batches(covering(result.batches_failed))
        nodes = [uid for uid in attempt.nodes if uid in again]
        checks = [uid for uid in attempt.checks if uid in again]
        waiting = {uid: self.batches[uid] for uid in nodes if uid in self.batches}
        lanes = Launch(nodes, checks, config=self.launch.config, batches=waiting).lanes()
        if not lanes:
            yield from self._try(name, Attempt(attempt.wave, nodes, checks, attempt.number + 1))
            return
        assets = [uid for uid in nodes if uid in self.plan.assets]
        for number, wave in enumerate(waves(self.plan, assets, checks, lanes), 1):
            ready = self.outcome.ready(wave)
            yield from self._try(f"{name}.{number}", Attempt(wave, *ready, attempt.number + 1))

    def _run_once(self, name: str, attempt: Attempt) -> Iterator[Event]:
        """Run dbt once on an attempt."""
        wave, recorder = attempt.wave, self.recorder
        command = self._command(name, attempt)
        if recorder is not None:
            compute = self.plan.computes[wave.compute]
            recorder.wave(compute, self.wave_number, self.waves, len(attempt.given))
        with run_dbt(command) as run:
            if self.wave_number < self.waves:
                start_ahead()
            for event in run:
                if self._is_of_inlined(event):
                    self._hear_inlined(event, attempt)
                    continue
                if recorder is not None:
                    recorder.heard(event, command.target_path, run.scrubber)
                yield from self._hear(event, attempt)
        attempt.success, attempt.exception = run.success, run.exception
        yield from self._reconcile(run, attempt, command)
        for uid, result in attempt.results.items():
            # What was wrong with a hook stands in dbt's record alone.
            if uid not in self.plan.nodes:
                self._tell(result)
        if recorder is not None:
            problem = run.exception or "\n".join(attempt.errors)
            recorder.wave_ended(success=run.success, message=problem)
        if not attempt.results.keys() >= {*attempt.given}:
            attempt.present = command.parsed_ids()

    def _reconcile(self, run: DbtRun, attempt: Attempt, command: DbtCommand) -> Iterator[Event]:
        """Add what dbt recorded and did not report."""
        for result in self.outcome.reconcile(attempt, run.results, run.scrubber):
            if self.recorder is not None:
                self.recorder.heard(result, command.target_path, run.scrubber)
            yield from self._finished(result)

    def _hear(self, event: DbtEvent, attempt: Attempt) -> Iterator[Event]:
        """Take one event of dbt."""
        if isinstance(event, NodeFinished):
            attempt.results[event.unique_id] = event
            yield from self._finished(event)
        elif isinstance(event, NodeStarted):
            if event.unique_id in self.plan.nodes:
                self._tell(event)
        elif isinstance(event, Cancelled):
            attempt.cancelled.add(event.unique_id)
        elif isinstance(event, Line):
            self._log(event, attempt.errors)

    def _is_of_inlined(self, event: DbtEvent) -> TypeGuard[Progress]:
        """Tell whether an event is of an ephemeral model, which nobody plans, builds or records."""
        if not isinstance(event, NodeStarted | NodeFinished):
            return False
        node = self.plan.nodes.get(event.unique_id)
        return node is not None and node.kind == "ephemeral"

    def _hear_inlined(self, event: Progress, attempt: Attempt) -> None:
        """Keep that an ephemeral model does not compile: dbt then skips what inlines it."""
        if isinstance(event, NodeFinished) and is_failure(event.status):
            failed = msgspec.structs.replace(event, kind="ephemeral")
            attempt.results[event.unique_id] = failed
            self._tell(failed)

    def _finished(self, result: NodeFinished) -> Iterator[Event]:
        uid = result.unique_id
        node_done(
            uid,
            result.compute,
            result.status,
            seconds=result.seconds,
            started_at=result.started_at,
            finished_at=result.finished_at,
            failure=result.message if is_failure(result.status) else "",
            attempt=result.attempt,
        )
        node = self.plan.nodes.get(uid)
        if node is None:
            return
        self._tell(result)
        if result.status in RETRIED:
            return
        if is_elsewhere(node, result) and result.relation is not None:
            self.elsewhere[uid] = result.relation.name
        yield from self.yields.of(result)
        yield from self._quality(uid, result.observed.checks, self.launch.quality_checks)

    def _quality(
        self,
        uid: str,
        results: Sequence[QualityResult],
        asked: Mapping[str, tuple[QualityCheck, ...]],
    ) -> Iterator[Event]:
        """Yield the results of floe.yaml's own checks, evaluated in the dbt process."""
        if not results:
            return
        found = {result.name: result for result in results}
        for check in asked.get(uid, ()):
            result = found.get(check.name) or QualityResult(check.name, problem=_UNREPORTED)
            yield self.yields.quality(uid, check, result)
            message = quality_message(result)
            if message and check.severity == "error":
                self.outcome.fail_quality(quality_check_id(uid, check), check.name, message)
                self.context.log.error(f"quality check {check.name}: {message}")

    def _check_alone(self) -> Iterator[Event]:
        """Evaluate the quality checks of assets that this step does not build."""
        by_target: dict[str, list[str]] = {}
        for uid in self.launch.quality_checks_alone:
            by_target.setdefault(self.plan.target_of(uid), []).append(uid)
        for target, uids in by_target.items():
            left = {uid: self.launch.quality_checks_alone[uid] for uid in uids}
            name = f"{self._step_name}-checks-{target}"
            command = self.product.command(
                "parse",
                target,
                self.product.new_run_dir(name, target),
                variables=self.launch.variables,
                checks={uid: [_request(check) for check in found] for uid, found in left.items()},
            )
            errors: list[str] = []
            problem = ""
            try:
                with run_dbt(command) as run:
                    for event in run:
                        if isinstance(event, Checked):
                            uid = event.unique_id
                            yield from self._quality(uid, event.checks, left)
                            left.pop(uid, None)
                        elif isinstance(event, Line):
                            self._log(event, errors)
                problem = run.exception or "\n".join(errors)
            except DbtError as error:
                problem = str(error)
            for uid, checks in left.items():
                missing = [
                    QualityResult(one.name, problem=problem or _UNREPORTED) for one in checks
                ]
                yield from self._quality(uid, missing, left)

    def _log(self, line: Line, errors: list[str]) -> None:
        """Show one of dbt's lines, and keep it in `errors` if it is one."""
        if line.level == "debug":
            return
        self.echo(line.text)
        if line.level == "error":
            errors.append(line.text)

    @property
    def _step_name(self) -> str:
        step = self.context.op_execution_context.op_handle.name
        return f"{self.context.run.run_id[:8]}-{step}"

    def _command(self, name: str, attempt: Attempt) -> DbtCommand:
        wave, nodes, config = attempt.wave, attempt.nodes, self.launch.config
        chosen = set(nodes)
        usual = Batches(full_refresh=config.full_refresh)
        settings = next((self.batches[uid] for uid in nodes if uid in self.batches), usual)
        return self.product.command(
            "build" if nodes else "test",
            wave.target,
            self.product.new_run_dir(f"{self._step_name}-{name}", wave.target),
            select=(*attempt.given, *self._inlined(attempt)),
            flags=(
                *config.flags(building=bool(nodes), full_refresh=settings.full_refresh),
                *self._deferral(attempt),
            ),
            window=settings.window,
            variables=self.launch.variables,
            row_counts=self.product.config.row_counts and not config.empty,
            checks={
                uid: [_request(check) for check in found]
                for uid, found in self.launch.quality_checks.items()
                if uid in chosen
            },
            reads=self._reads(nodes) if self.recorder is not None else None,
            environment={} if self.recorder is None else self.recorder.environment(),
            compute=wave.compute,
            attempt=attempt.number,
        )

    def _inlined(self, attempt: Attempt) -> Sequence[str]:
        """Return the ephemeral models of an attempt, in a launch of everything.

        With them dbt's queue has the order of a bare build, and it skips what inlines a model that
        does not compile. A part of the product is built as dbt builds a selection without them.
        """
        whole = attempt.nodes and {*self.launch.assets} >= self.plan.assets.keys()
        return self.plan.ephemerals_of(attempt.given) if whole else ()

    def _deferral(self, attempt: Attempt) -> tuple[str, ...]:
        """Return flags that let a dbt run read what an earlier one of this step has built.

        To dbt that is not selected, and a state that is favoured would be read in its place.
        """
        later = self.wave_number > 1 or attempt.number > 1
        return ("--no-favor-state",) if later and value_of("DBT_FAVOR_STATE", os.environ) else ()

    def _reads(self, nodes: Sequence[str]) -> dict[str, list[Relation]]:
        """Return the relations that nodes read, for dbt to tell their columns."""
        found = {}
        for uid in nodes:
            parents = (self.plan.nodes[read] for read in self.plan.folded_parents.get(uid, ()))
            found[uid] = [
                Relation(node.relation, node.dbt.database, node.dbt.schema, node.identifier)
                for node in parents
                if node.relation and node.dbt is not None
            ]
        return found

    def _tell(self, progress: Progress) -> None:
        if self.listener is not None:
            self.listener(progress)

    def _finish(self) -> None:
        """Fail the step if anything in it failed, naming everything."""
        outcome = self.outcome
        if self.elsewhere:
            built = [
                f"{outcome.name(uid)} as {relation}, not {self.plan.nodes[uid].relation}"
                for uid, relation in self.elsewhere.items()
            ]
            self.context.log.warning(
                f"dbt built {known(built)}: the project was parsed with other settings than it "
                "ran with. Prepare it again with those of the run."
            )
        message = "" if outcome.is_good else outcome.message
        if self.recorder is not None:
            self.recorder.ended(outcome.skipped, message)
        if outcome.is_good:
            return
        raise Failure(
            description=message,
            metadata={
                "failed": [*outcome.failed],
                "skipped": outcome.skipped,
                "crashes": [*outcome.crashes],
                FAILED_HOOKS: outcome.failed_hooks,
                MISSING_BATCHES: {
                    uid: {
                        "code": self.specs.code_version(uid, self.launch.config.variables),
                        "missing": [*result.batches_failed],
                        "every": [*result.batches_failed, *result.batches_built],
                    }
                    for uid, result in outcome.partly_built.items()
                },
            },
            # A retry of the step would be a retry of everything: `retries` retries nodes.
            allow_retries=False,
        )


_UNREPORTED = "dbt's process did not report it"


def _is_error(result: NodeFinished | None) -> bool:
    return result is not None and result.status != SKIPPED


def _request(check: QualityCheck) -> dict[str, Any]:
    package, _, kind = check.type.rpartition(".")
    return {
        "name": check.name,
        "type": kind,
        "package": package or None,
        "arguments": dict(check.arguments),
    }


__all__ = ["DbtRunConfig", "Listener", "NodeFinished", "NodeStarted", "Progress", "build"]
