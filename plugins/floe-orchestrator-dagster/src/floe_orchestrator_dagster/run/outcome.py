"""The outcome of a step: derives from dbt's results what failed, what is skipped and what is left.

This module is pure: its rules need neither Dagster nor a dbt process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from floe_orchestrator_dagster.dbt.events import NodeFinished, Observed, Relation
from floe_orchestrator_dagster.dbt.status import FAILED_TEST, RETRIED, SKIPPED, is_failure, is_good
from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.plan import blocked_by_check, downstream, read_by_check, waves
from floe_orchestrator_dagster.run.batches import Batches, covering

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.dbt.events import QualityResult
    from floe_orchestrator_dagster.dbt.results import Result, RunResults
    from floe_orchestrator_dagster.dbt.scrub import Scrubber
    from floe_orchestrator_dagster.plan import ProductPlan, Wave

# The reason for each node that did not run because of fail_fast.
FAIL_FAST = "fail_fast stopped the run after the first failure"
ADVICE: Mapping[str, str] = {
    "Could not set lock on file": "Another process has the DuckDB file open. Wait until it ends, "
    "and limit this product to one run at a time.",
    "No space left on device": "Free some space on that disk.",
}


@dataclass
class Attempt:
    """One dbt command for a wave or a part of it: the requested nodes, and their results.

    Attributes:
        number: 1 for the first attempt, one more for each retry.
        name: the name of the wave's part, unique in a step.
        results: by unique id, including results of hooks.
        errors: the lines of dbt's log at level error.
        canceled: the nodes whose queries dbt canceled.
        success: whether dbt reports that the command succeeded.
        exception: the exception that dbt reports for the command.
        present: the nodes of the project that dbt read; read only if results are missing.
    """

    wave: Wave
    nodes: Sequence[str]
    checks: Sequence[str]
    number: int = 1
    wave_number: int = 1
    name: str = ""
    results: dict[str, NodeFinished] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    canceled: set[str] = field(default_factory=set)
    success: bool = False
    exception: str | None = None
    present: Collection[str] = ()

    @property
    def requested(self) -> tuple[str, ...]:
        """All nodes and checks that dbt should run."""
        return (*self.nodes, *self.checks)

    def errors_among(self, uids: Iterable[str]) -> list[str]:
        """Return the nodes among `uids` that dbt ran: they have a result and are not skipped."""
        return [uid for uid in uids if not _not_run(self.results.get(uid))]

    def missing_batches(self, uids: Iterable[str]) -> dict[str, Batches]:
        """Return the missing batches of microbatch models that have other batches already."""
        results = ((uid, self.results[uid]) for uid in uids)
        return {
            # A full refresh would drop the existing batches.
            uid: Batches(covering(result.batches_failed))
            for uid, result in results
            if result.batches_failed and result.batches_built
        }


@dataclass
class Outcome:
    """The results of a step so far.

    Attributes:
        failed: error messages by unique id, in order of failure; failed hooks by dbt's ids.
        skipped: reasons by unique id.
        crashes: messages about dbt commands that ended without a regular result.
        failed_hooks: the target of each failed hook.
        partly_built: the results of microbatch models with failed batches.
    """

    plan: ProductPlan
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    failed_hooks: dict[str, str] = field(default_factory=dict)
    partly_built: dict[str, NodeFinished] = field(default_factory=dict)
    fail_fast: bool = False
    _blocked: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    # before a dbt command

    def attempts(self, wave: Wave, number: int) -> Iterator[Attempt]:
        """Yield the first attempts for the nodes of the `number`th wave that can still run."""
        nodes, checks = self.ready(wave)
        # `dbt build` runs a unit test only together with its model.
        built = set(nodes)
        alone = {
            uid
            for uid in checks
            if self.plan.nodes[uid].kind == "unit_test" and self.plan.nodes[uid].on not in built
        }
        together = [uid for uid in checks if uid not in alone]
        if nodes or together:
            yield Attempt(wave, nodes, together, wave_number=number, name=f"{number}")
        if alone:
            yield Attempt(wave, [], sorted(alone), wave_number=number, name=f"{number}u")

    def next_attempts(
        self, attempt: Attempt, again: Collection[str], lanes: Mapping[str, str]
    ) -> Iterator[Attempt]:
        """Yield the attempts that retry the nodes that `settle` returned.

        One command cannot build nodes of different `lanes` together. Settle each attempt before
        you request the next one.
        """
        nodes = [uid for uid in attempt.nodes if uid in again]
        checks = [uid for uid in attempt.checks if uid in again]
        number, wave_number = attempt.number + 1, attempt.wave_number
        if not lanes:
            yield Attempt(attempt.wave, nodes, checks, number, wave_number, attempt.name)
            return
        assets = [uid for uid in nodes if uid in self.plan.assets]
        for part, wave in enumerate(waves(self.plan, assets, checks, lanes), 1):
            ready = self.ready(wave)
            if any(ready):
                yield Attempt(wave, *ready, number, wave_number, f"{attempt.name}.{part}")

    def ready(self, wave: Wave) -> tuple[list[str], list[str]]:
        """Return the nodes and the checks of a wave that can still run; skip the others."""
        stopped = FAIL_FAST if self.fail_fast and self._any_failure else ""
        nodes = []
        for uid in wave.nodes:
            reason = stopped or self._blocked.get(uid)
            if reason:
                self._skip(uid, reason)
            else:
                nodes.append(uid)
        checks = []
        for uid in wave.checks:
            reason = stopped or self._missing(uid)
            if reason:
                self._skip(uid, reason)
            else:
                checks.append(uid)
        return nodes, checks

    def _missing(self, check: str) -> str:
        """Return why a check cannot run: which node that it reads is missing; "" if none is."""
        for uid in read_by_check(self.plan, check):
            if uid in self.failed:
                return f"{self.name(uid)} failed"
            if uid in self.skipped:
                return f"{self.name(uid)} was not built"
        return ""

    # after a dbt command

    def reconcile(
        self, attempt: Attempt, record: RunResults, scrubber: Scrubber
    ) -> list[NodeFinished]:
        """Complete and correct the results of an attempt from dbt's record; return added results.

        dbt sends events as they happen; its record, run_results.json, is final. If they disagree
        on whether a node is built, the truth is unknown, and that is a failure.
        """
        added = []
        self.fail_fast = self.fail_fast or record.fail_fast
        requested = set(attempt.requested)
        for uid, recorded in record.by_id.items():
            reported = attempt.results.get(uid)
            if reported is None:
                if uid in requested or uid.startswith("operation."):
                    added.append(self._of_record(recorded, attempt, scrubber))
                    attempt.results[uid] = added[-1]
                continue
            check = uid in self.plan.checks
            status = recorded.status.lower()
            if self.fail_fast and status == SKIPPED and is_good(reported.status, check=check):
                # dbt no longer waited for this node, but the node finished.
                continue
            if is_good(reported.status, check=check) != is_good(status, check=check):
                self.crashes.append(
                    f"dbt's results for {self.name(uid)} disagree: its event has the status "
                    f"'{reported.status}', its run_results.json has '{status}'."
                )
                status = reported.status if is_failure(reported.status) else status
            attempt.results[uid] = msgspec.structs.replace(
                reported,
                status=status,
                message=reported.message or scrubber.text(recorded.message or ""),
                batches_failed=recorded.batch_results.failed,
                batches_built=recorded.batch_results.successful,
            )
        return added

    def _of_record(self, recorded: Result, attempt: Attempt, scrubber: Scrubber) -> NodeFinished:
        node = self.plan.nodes.get(recorded.unique_id)
        times = [*recorded.timing]
        kind = recorded.unique_id.partition(".")[0]
        return NodeFinished(
            unique_id=recorded.unique_id,
            compute=attempt.wave.compute.name,
            status=recorded.status.lower(),
            name=node.name if node else recorded.unique_id.rpartition(".")[2],
            kind=node.kind if node else kind,
            seconds=max(0.0, recorded.execution_time),
            message=scrubber.text(recorded.message or ""),
            failures=recorded.failures,
            started_at=(times[0].started_at or "") if times else "",
            finished_at=(times[-1].completed_at or "") if times else "",
            attempt=attempt.number,
            relation=Relation(recorded.relation_name) if recorded.relation_name else None,
            materialized=(node.materialized or "") if node else "",
            adapter_response=recorded.adapter_response,
            observed=Observed(),
            batches_failed=recorded.batch_results.failed,
            batches_built=recorded.batch_results.successful,
        )

    def settle(self, attempt: Attempt, retries_left: int = 0) -> list[str]:
        """Record the results of an attempt; return the nodes and checks to retry.

        Retry only errors, and the nodes that did not run because of them. A failed test is a final
        result.
        """
        errored = [
            uid
            for uid, result in attempt.results.items()
            if result.status in RETRIED and uid in self.plan.nodes and uid not in attempt.canceled
        ]
        retried = self._retry(attempt, errored) if retries_left and errored else []
        final = [uid for uid in attempt.requested if uid not in set(retried)]
        first = self._first_failure(attempt)
        for uid in final:
            self._settle_node(uid, attempt, first)
        hooks = [result for uid, result in attempt.results.items() if uid.startswith("operation.")]
        if not retried:
            self._settle_inlined(attempt)
            self._settle_hooks(hooks, attempt.wave.compute.target)
            self._settle_ending(attempt, hooks)
        return retried

    def _retry(self, attempt: Attempt, errored: Sequence[str]) -> list[str]:
        failed_checks = [
            uid for uid, result in attempt.results.items() if result.status == FAILED_TEST
        ]
        hopeless = set[str]().union(*(blocked_by_check(self.plan, uid) for uid in failed_checks))
        waiting = {uid for uid in attempt.requested if _not_run(attempt.results.get(uid))}
        waiting -= hopeless
        return [uid for uid in attempt.requested if uid in errored or uid in waiting]

    def _settle_node(self, uid: str, attempt: Attempt, first: NodeFinished | None) -> None:
        result, check = attempt.results.get(uid), uid in self.plan.checks
        if result is None:
            self._skip(uid, _unreached(uid, attempt))
            return
        if uid in attempt.canceled and self.fail_fast and result is not first:
            self._skip(uid, FAIL_FAST)
        elif result.status == SKIPPED:
            self._skip(uid, self._why_skipped(uid, result, attempt))
        elif not is_good(result.status, check=check):
            self._fail(uid, result.message or f"dbt reported the status '{result.status}'")
            if result.batches_failed:
                self.partly_built[uid] = result
            below = blocked_by_check(self.plan, uid) if check else downstream(self.plan, [uid])
            self._block(below, f"{self.name(uid)} failed")

    def _first_failure(self, attempt: Attempt) -> NodeFinished | None:
        failures = [
            result
            for uid, result in attempt.results.items()
            if uid in self.plan.nodes and is_failure(result.status)
        ]
        # A result that dbt only recorded may have no time.
        return min(
            failures,
            key=lambda result: (not result.finished_at, result.finished_at),
            default=None,
        )

    def _why_skipped(self, uid: str, result: NodeFinished, attempt: Attempt) -> str:
        if "fail_fast" in result.message:
            return FAIL_FAST
        if uid in self._blocked:
            return self._blocked[uid]
        causes = [
            parent
            for parent in self.plan.nodes[uid].parents
            if parent in attempt.results
            and parent in self.plan.nodes
            and not is_good(attempt.results[parent].status, check=False)
        ]
        if causes:
            return f"{self.name(causes[0])} failed or was skipped"
        return result.message or "dbt skipped it"

    def _settle_inlined(self, attempt: Attempt) -> None:
        """Record the ephemeral models that did not compile; they are never among `requested`."""
        for uid, result in attempt.results.items():
            node = self.plan.nodes.get(uid)
            if node is not None and node.kind == "ephemeral":
                self._fail(uid, result.message)

    def _settle_hooks(self, hooks: Iterable[NodeFinished], target: str) -> None:
        for hook in hooks:
            if is_failure(hook.status):
                self._names[hook.unique_id] = f"hook {hook.name}"
                self._fail(hook.unique_id, hook.message or "dbt gave no reason")
                self.failed_hooks[hook.unique_id] = target

    def _settle_ending(self, attempt: Attempt, hooks: Sequence[NodeFinished]) -> None:
        """Record a failure of the whole command that the results of its nodes do not explain."""
        unreached = [uid for uid in attempt.requested if uid not in attempt.results]
        explained = any(
            is_failure(result.status) or result.status == SKIPPED
            for result in (*attempt.results.values(), *hooks)
        )
        errors = "\n".join(attempt.errors)
        reason = ""
        if attempt.exception and not attempt.success:
            reason = attempt.exception
        elif gone := [uid for uid in unreached if attempt.present and uid not in attempt.present]:
            names = known(self.name(uid) for uid in gone)
            reason = (
                f"the project on disk no longer has {names}: it was changed after this code "
                "location was loaded. Reload the code location, then launch again."
            )
        elif unreached:
            names = known(self.name(uid) for uid in unreached)
            reason = errors or f"it did not run {names} and gave no reason."
        elif not attempt.success and not explained:
            reason = errors or "it reported a failure, but no failed node."
        if reason:
            self.crashes.append(f"dbt on target '{attempt.wave.compute.target}': {advised(reason)}")

    def stop(self, attempt: Attempt, message: str) -> None:
        """Record that the dbt command of an attempt could not be run."""
        self.crashes.append(message)
        for uid in attempt.requested:
            if uid not in attempt.results:
                self._skip(uid, "dbt could not start")

    # quality checks of floe.yaml

    def evaluated(self, result: QualityResult) -> None:
        """Record the result of a quality check: a critical check that does not pass fails the run.

        It does not block nodes downstream of its model.
        """
        check = self.plan.nodes[result.unique_id].quality
        if check is not None and check.severity == "error" and result.message:
            self._fail(result.unique_id, result.message)

    # at the end

    @property
    def is_good(self) -> bool:
        """Whether the step has no failure, no skipped node and no crash."""
        return not (self.failed or self.skipped or self.crashes)

    @property
    def message(self) -> str:
        """The text of the failure: all failed and skipped nodes, all crashes, and what to do."""
        lines = [f"{len(self.failed)} failed, {len(self.skipped)} skipped."]
        lines += [f"  failed: {self.name(uid)}: {text}" for uid, text in self.failed.items()]
        lines += [f"  {crash}" for crash in self.crashes]
        if self.skipped:
            lines.append("  skipped: " + ", ".join(sorted(self.name(uid) for uid in self.skipped)))
        if FAIL_FAST in self.skipped.values():
            lines.append(f"  {FAIL_FAST}.")
        lines.append('Re-execute "from failure" to build only what is missing.')
        return "\n".join(lines)

    def name(self, uid: str) -> str:
        """Return the name of a node, a hook or a quality check for messages."""
        node = self.plan.nodes.get(uid)
        if node is None:
            return self._names.get(uid, uid)
        return f"{node.kind.replace('_', ' ')} {node.name}"

    @property
    def _any_failure(self) -> bool:
        return bool(self.failed or self.crashes)

    def _fail(self, uid: str, message: str) -> None:
        self.skipped.pop(uid, None)
        self.failed[uid] = advised(message)

    def _skip(self, uid: str, reason: str) -> None:
        if uid in self.failed:
            return
        self.skipped.setdefault(uid, reason)
        if uid not in self.plan.checks:
            self._block({uid, *downstream(self.plan, [uid])}, reason)

    def _block(self, uids: Iterable[str], reason: str) -> None:
        for uid in uids:
            self._blocked.setdefault(uid, reason)


def _unreached(uid: str, attempt: Attempt) -> str:
    if attempt.present and uid not in attempt.present:
        return "the project on disk has no such node"
    return "dbt ended before it ran" if attempt.results else "dbt could not start"


def _not_run(result: NodeFinished | None) -> bool:
    return result is None or result.status == SKIPPED


def advised(message: str) -> str:
    """Return dbt's message, with advice added if `ADVICE` has some for it."""
    advice = [text for sign, text in ADVICE.items() if sign in message]
    return " ".join([message.strip(), *advice])
