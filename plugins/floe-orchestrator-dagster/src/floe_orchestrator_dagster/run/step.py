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
    Cancelled,
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

# How Dagster begins to say that checks came as events and not as outputs, as ours do.
_NO_OUTPUTS = "did not yield or return expected outputs"
_UNREPORTED = "dbt's process did not report it"

Progress = NodeStarted | NodeFinished
Listener = Callable[[Progress], None]


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Host:
    """Who has a step run in its own process.

    `listener` is called with each node that dbt starts or finishes, `echo` with dbt's log lines,
    which else go to stdout. `processes` may have started dbt ahead; a step ends what is left ahead.
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
        closing(host.processes),
        flushed(),
        span("floe.run", **attributes),
        recording(context, product, launch) as recorder,
    ):
        yield from StepBuild(context, product, specs, launch, host, recorder).build()


@dataclass
class StepBuild:
    """The build of one step: runs its dbt commands, and passes on what they report."""

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
        """Run every wave, then what needs no wave; fail if anything did."""
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
        """Run an attempt, then again what errored in it, as often as the config allows."""
        outcome = self.outcome
        left = self.product.config.retries + 1 - attempt.number
        failed = len(outcome.failed)
        try:
            yield from self._run_once(attempt)
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
            recorder.wave(attempt.wave.compute, number, self.waves, len(attempt.given))
        with processes.run(command) as run:
            if attempt.wave_number < self.waves:
                processes.start_ahead()
            for event in run:
                if self._is_of_inlined(event):
                    self._hear_inlined(event, attempt)
                    continue
                if recorder is not None:
                    recorder.handle(event, command.target_path, run.scrubber)
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
                self.recorder.handle(result, command.target_path, run.scrubber)
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
        self._tell(result)
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
        """Show one of dbt's lines, and keep it in `errors` if it is one."""
        if line.level == "debug":
            return
        self.host.echo(line.text)
        if line.level == "error":
            errors.append(line.text)

    def _tell(self, progress: Progress) -> None:
        if self.host.listener is not None:
            self.host.listener(progress)

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
