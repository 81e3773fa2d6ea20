"""One step of a Dagster run: builds a selection of a product, wave by wave, and reports it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

import msgspec
from dagster import AssetExecutionContext, Failure

from floe_orchestrator_dagster.dbt.events import (
    Canceled,
    Checked,
    Line,
    NodeFinished,
    NodeStarted,
    QualityResult,
)
from floe_orchestrator_dagster.dbt.process import DbtProcesses
from floe_orchestrator_dagster.dbt.status import RETRIED, is_failure
from floe_orchestrator_dagster.errors import DbtError, known
from floe_orchestrator_dagster.plan import waves
from floe_orchestrator_dagster.product.launch_variables import with_launch_variables
from floe_orchestrator_dagster.run.commands import Commands
from floe_orchestrator_dagster.run.earlier import FAILED_HOOKS, MISSING_BATCHES
from floe_orchestrator_dagster.run.launch import DbtRunConfig, Launch, consumed_by_step, launch_of
from floe_orchestrator_dagster.run.outcome import Outcome
from floe_orchestrator_dagster.run.recording import recording
from floe_orchestrator_dagster.run.versions import Versions
from floe_orchestrator_dagster.run.yields import Event, Yields, is_elsewhere
from floe_orchestrator_dagster.telemetry import NodeRun, flushed, node_done, span

if TYPE_CHECKING:
    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.dbt.command import DbtCommand
    from floe_orchestrator_dagster.dbt.events import Event as DbtEvent
    from floe_orchestrator_dagster.dbt.process import DbtRun
    from floe_orchestrator_dagster.lineage.recorder import LineageRecorder
    from floe_orchestrator_dagster.plan import Node
    from floe_orchestrator_dagster.product.product import Product
    from floe_orchestrator_dagster.run.outcome import Attempt

# Part of Dagster's warning that checks came as events and not as outputs, as they do here.
_NO_OUTPUTS = "did not yield or return expected outputs"
_UNREPORTED = "dbt's process did not report it"

Progress = NodeStarted | NodeFinished
Listener = Callable[[Progress], None]


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Host:
    """The program that runs a step in its own process.

    A step calls `listener` with each node that dbt starts or finishes, and `echo` with each line
    of dbt's log. `processes` may hold a spare dbt process; the step closes it at its end.
    """

    listener: Listener | None = None
    echo: Callable[[str], None] = _print
    processes: DbtProcesses = field(default_factory=DbtProcesses)


def build(
    context: AssetExecutionContext,
    product: Product,
    specs: Specs,
    config: DbtRunConfig,
    host: Host,
) -> Iterator[Event]:
    """Build the nodes that the step selects; yield events as dbt finishes nodes.

    Raises:
        dagster.Failure: nodes failed or were skipped; raised at the end, with all of them.
        ProductError: the vars of the launch make a graph that differs from the loaded one.
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
        closing(host.processes),
        flushed(),
        span("floe.run", **attributes),
        recording(context, product, launch) as recorder,
    ):
        yield from StepBuild(context, product, specs, launch, host, recorder).build()


@dataclass
class StepBuild:
    """The build of one step: runs its dbt commands and turns their events into Dagster's."""

    context: AssetExecutionContext
    product: Product
    specs: Specs
    launch: Launch
    host: Host
    recorder: LineageRecorder | None

    def __post_init__(self) -> None:
        context, launch = self.context, self.launch
        self.plan = self.product.plan
        self.waves = 0
        self.outcome = Outcome(self.plan)
        self.elsewhere: dict[str, str] = {}
        step = context.op_execution_context.op_handle.name
        lineage = None if self.recorder is None else self.recorder.environment()
        self.commands = Commands(self.product, launch, f"{context.run.run_id[:8]}-{step}", lineage)
        versions = Versions(context.instance, self.specs, launch.config.variables)
        consumed = consumed_by_step(context)
        self.yields = Yields(self.specs, versions, consumed, launch.partitions)

    def build(self) -> Iterator[Event]:
        """Run every wave, then the checks that need no wave; raise `Failure` if anything failed."""
        launch = self.launch
        lanes = self.commands.lanes_of(launch.assets)
        planned = waves(self.plan, launch.assets, launch.checks, lanes)
        self.waves = len(planned)
        runs = ", ".join(f"{len(wave.nodes)} nodes on {wave.compute.name}" for wave in planned)
        self.context.log.info(
            f"{len(launch.assets)} assets and {len(launch.checks)} tests in {len(planned)} dbt "
            f"runs: {runs or 'nothing to do'}"
        )
        for number, wave in enumerate(planned, 1):
            with span("floe.wave", compute=wave.compute.name, wave=number, nodes=len(wave.nodes)):
                for attempt in self.outcome.attempts(wave, number):
                    yield from self._try(attempt)
        yield from self._check_alone()
        self._finish()

    def _try(self, attempt: Attempt) -> Iterator[Event]:
        """Run an attempt, then retry its errors as often as the config allows."""
        outcome = self.outcome
        left = self.product.config.retries + 1 - attempt.number
        failed = len(outcome.failed)
        try:
            yield from self._run_once(attempt)
        except DbtError as error:
            # Do not raise: the step must still report its earlier results.
            outcome.stop(attempt, str(error))
            return
        again = outcome.settle(attempt, retries_left=left)
        for uid, message in [*outcome.failed.items()][failed:]:
            self.context.log.error(f"{outcome.name(uid)}: {message}")
        for uid in attempt.checks:
            # Report an error of a check only if it is final: not retried, not canceled by dbt.
            result = attempt.results.get(uid)
            if uid not in again and uid in outcome.failed and result and result.status in RETRIED:
                yield from self.yields.of(result)
        if again:
            yield from self._try_again(attempt, again)

    def _try_again(self, attempt: Attempt, again: Sequence[str]) -> Iterator[Event]:
        errors = attempt.errors_among(again)
        names = known(self.outcome.name(uid) for uid in errors)
        self.context.log.warning(
            f"Attempt {attempt.number} of {self.product.config.retries + 1} failed for {names}: "
            "retrying"
        )
        self.commands.rebuild(attempt.missing_batches(errors))
        lanes = self.commands.lanes_of(uid for uid in attempt.nodes if uid in again)
        for following in self.outcome.next_attempts(attempt, again, lanes):
            yield from self._try(following)

    def _run_once(self, attempt: Attempt) -> Iterator[Event]:
        """Run dbt once on an attempt."""
        recorder, processes = self.recorder, self.host.processes
        command = self.commands.build(attempt)
        if recorder is not None:
            number = attempt.wave_number
            recorder.wave(attempt.wave.compute, number, self.waves, len(attempt.requested))
        with processes.run(command) as run:
            if attempt.wave_number < self.waves:
                processes.start_spare()
            for event in run:
                if self._is_of_inlined(event):
                    self._handle_inlined(event, attempt)
                    continue
                if recorder is not None:
                    recorder.handle(event, command.target_path, run.scrubber)
                yield from self._handle(event, attempt)
        attempt.success, attempt.exception = run.success, run.exception
        yield from self._reconcile(run, attempt, command)
        for uid, result in attempt.results.items():
            # Only dbt's record contains the error message of a hook.
            if uid not in self.plan.nodes:
                self._notify(result)
        if recorder is not None:
            problem = run.exception or "\n".join(attempt.errors)
            recorder.wave_ended(success=run.success, message=problem)
        if not attempt.results.keys() >= {*attempt.requested}:
            attempt.present = command.parsed_ids()

    def _reconcile(self, run: DbtRun, attempt: Attempt, command: DbtCommand) -> Iterator[Event]:
        """Add the results that dbt recorded but did not report."""
        for result in self.outcome.reconcile(attempt, run.results, run.scrubber):
            if self.recorder is not None:
                self.recorder.handle(result, command.target_path, run.scrubber)
            yield from self._finished(result)

    def _handle(self, event: DbtEvent, attempt: Attempt) -> Iterator[Event]:
        """Handle one event of dbt."""
        if isinstance(event, NodeFinished):
            attempt.results[event.unique_id] = event
            yield from self._finished(event)
        elif isinstance(event, NodeStarted):
            if event.unique_id in self.plan.nodes:
                self._notify(event)
        elif isinstance(event, Canceled):
            attempt.canceled.add(event.unique_id)
        elif isinstance(event, Line):
            self._log(event, attempt.errors)

    def _is_of_inlined(self, event: DbtEvent) -> TypeGuard[Progress]:
        """Return whether an event is of an ephemeral model, which the plan does not build."""
        if not isinstance(event, NodeStarted | NodeFinished):
            return False
        node = self.plan.nodes.get(event.unique_id)
        return node is not None and node.kind == "ephemeral"

    def _handle_inlined(self, event: Progress, attempt: Attempt) -> None:
        """Keep the result of an ephemeral model that fails: dbt skips the models that inline it."""
        if isinstance(event, NodeFinished) and is_failure(event.status):
            failed = msgspec.structs.replace(event, kind="ephemeral")
            attempt.results[event.unique_id] = failed
            self._notify(failed)

    def _finished(self, result: NodeFinished) -> Iterator[Event]:
        uid = result.unique_id
        node_done(
            NodeRun(
                unique_id=uid,
                compute=result.compute,
                status=result.status,
                seconds=result.seconds,
                started_at=result.started_at,
                finished_at=result.finished_at,
                failure=result.message if is_failure(result.status) else "",
                attempt=result.attempt,
            )
        )
        node = self.plan.nodes.get(uid)
        if node is None:
            return
        self._notify(result)
        if result.status in RETRIED:
            return
        if is_elsewhere(node, result) and result.relation is not None:
            self.elsewhere[uid] = result.relation.name
        yield from self.yields.of(result)
        if result.observed.checks:
            nodes = self.commands.quality_checks.get(uid, ())
            yield from self._evaluated(nodes, result.observed.checks)

    def _evaluated(
        self, nodes: Iterable[Node], results: Iterable[QualityResult]
    ) -> Iterator[Event]:
        """Yield the results of quality checks that were evaluated in the dbt process."""
        reported = {result.unique_id: result for result in results}
        for node in nodes:
            uid = node.unique_id
            result = reported.get(uid) or QualityResult(uid, problem=_UNREPORTED)
            yield from self.yields.of_quality(result)
            self.outcome.evaluated(result)
            if uid in self.outcome.failed:
                self.context.log.error(f"{self.outcome.name(uid)}: {result.message}")

    def _check_alone(self) -> Iterator[Event]:
        """Evaluate the quality checks on models that this step does not build."""
        for command in self.commands.evaluations():
            left = dict(command.checks)
            errors: list[str] = []
            problem = ""
            try:
                with self.host.processes.run(command) as run:
                    for event in run:
                        if isinstance(event, Checked):
                            nodes = left.pop(event.unique_id, [])
                            yield from self._evaluated(nodes, event.checks)
                        elif isinstance(event, Line):
                            self._log(event, errors)
                problem = run.exception or "\n".join(errors)
            except DbtError as error:
                problem = str(error)
            for nodes in left.values():
                missing = (
                    QualityResult(node.unique_id, problem=problem or _UNREPORTED) for node in nodes
                )
                yield from self._evaluated(nodes, missing)

    def _log(self, line: Line, errors: list[str]) -> None:
        """Show one line of dbt's log; add it to `errors` if it is an error."""
        if line.level == "debug":
            return
        self.host.echo(line.text)
        if line.level == "error":
            errors.append(line.text)

    def _notify(self, progress: Progress) -> None:
        if self.host.listener is not None:
            self.host.listener(progress)

    def _finish(self) -> None:
        """Raise one `Failure` with everything that failed in the step, if anything failed."""
        outcome = self.outcome
        if self.elsewhere:
            built = [
                f"{outcome.name(uid)} as {relation}, not {self.plan.nodes[uid].relation}"
                for uid, relation in self.elsewhere.items()
            ]
            self.context.log.warning(
                f"dbt built {known(built)}: the project was prepared with settings that differ "
                "from those of this run. Prepare it again with the settings of the run."
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
            # Dagster would retry the whole step. The plugin's `retries` option retries nodes.
            allow_retries=False,
        )
