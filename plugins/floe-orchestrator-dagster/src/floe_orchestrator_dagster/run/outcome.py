"""The outcome of a step: takes what dbt says of each node, and says what is left, blocked, failed.

Pure: values in, values out. No Dagster and no process is needed to try a rule here.
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

# How dbt's record and ours say that fail_fast ended a run early.
FAIL_FAST = "fail_fast stopped the run after the first failure"
ADVICE: Mapping[str, str] = {
    "Could not set lock on file": "Another process has the DuckDB file open: let it end, or let "
    "one run at a time build this product.",
    "No space left on device": "Free some space on that disk.",
}


@dataclass
class Attempt:
    """One dbt command on (a part of) a wave: what it was given, and what came of it.

    `number` counts the attempts at one thing, `name` tells what is attempted apart in a step.
    `results` are by unique id, those of hooks too. `success` and `exception` are dbt's own words
    on the command, `errors` its lines of that level, `cancelled` the nodes whose queries it
    cancelled, `present` the nodes of the project as it read it, where that was asked for.
    """

    wave: Wave
    nodes: Sequence[str]
    checks: Sequence[str]
    number: int = 1
    wave_number: int = 1
    name: str = ""
    results: dict[str, NodeFinished] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    success: bool = False
    exception: str | None = None
    present: Collection[str] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """Everything that dbt was asked to run."""
        return (*self.nodes, *self.checks)

    def errors_among(self, uids: Iterable[str]) -> list[str]:
        """Return those of some nodes that have a result of their own: they were not skipped."""
        return [uid for uid in uids if not _is_left(self.results.get(uid))]

    def missing_batches(self, uids: Iterable[str]) -> dict[str, Batches]:
        """Return the batches that are left of microbatch models of which some are there."""
        results = ((uid, self.results[uid]) for uid in uids)
        return {
            # A full refresh would drop the batches that are there.
            uid: Batches(covering(result.batches_failed))
            for uid, result in results
            if result.batches_failed and result.batches_built
        }


@dataclass
class Outcome:
    """What became of a step so far.

    `failed` are messages and `skipped` reasons by unique id, in the order in which they came;
    `crashes` are sentences on dbt commands that did not end as they should. Hooks that failed
    are in `failed` by their dbt ids; `failed_hooks` says on which target. `partly_built` are
    microbatch models of which batches failed.
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
        """Yield the first attempts at what of the `number`th wave can still run."""
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
        """Yield the attempts that try again what `settle` has left of one.

        `lanes` tell what one command can no longer build together. Each attempt is to be settled
        before the next is asked for.
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
        """Return what of a wave can still run, nodes and checks; the rest is skipped."""
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
        """Return why a check has nothing to look at; empty if it has."""
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
        """Return results that dbt recorded and did not report; complete and correct `attempt`.

        dbt's events come as they happen; its record, run_results.json, is its last word. Where
        the one calls built what the other does not, nobody can know: that is a failure.
        """
        added = []
        self.fail_fast = self.fail_fast or record.fail_fast
        asked = set(attempt.given)
        for uid, written in record.by_id.items():
            reported = attempt.results.get(uid)
            if reported is None:
                if uid in asked or uid.startswith("operation."):
                    added.append(self._of_record(written, attempt, scrubber))
                    attempt.results[uid] = added[-1]
                continue
            check = uid in self.plan.checks
            status = written.status.lower()
            if self.fail_fast and status == SKIPPED and is_good(reported.status, check=check):
                # dbt had stopped waiting for this node, which went on to its end.
                continue
            if is_good(reported.status, check=check) != is_good(status, check=check):
                self.crashes.append(
                    f"dbt contradicts itself on {self.name(uid)}: its event says "
                    f"'{reported.status}', its run_results.json says '{status}'."
                )
                status = reported.status if is_failure(reported.status) else status
            attempt.results[uid] = msgspec.structs.replace(
                reported,
                status=status,
                message=reported.message or scrubber.text(written.message or ""),
                batches_failed=written.batch_results.failed,
                batches_built=written.batch_results.successful,
            )
        return added

    def _of_record(self, written: Result, attempt: Attempt, scrubber: Scrubber) -> NodeFinished:
        node = self.plan.nodes.get(written.unique_id)
        times = [*written.timing]
        kind = written.unique_id.partition(".")[0]
        return NodeFinished(
            unique_id=written.unique_id,
            compute=attempt.wave.compute.name,
            status=written.status.lower(),
            name=node.name if node else written.unique_id.rpartition(".")[2],
            kind=node.kind if node else kind,
            seconds=max(0.0, written.execution_time),
            message=scrubber.text(written.message or ""),
            failures=written.failures,
            started_at=(times[0].started_at or "") if times else "",
            finished_at=(times[-1].completed_at or "") if times else "",
            attempt=attempt.number,
            relation=Relation(written.relation_name) if written.relation_name else None,
            materialized=(node.materialized or "") if node else "",
            adapter_response=written.adapter_response,
            observed=Observed(),
            batches_failed=written.batch_results.failed,
            batches_built=written.batch_results.successful,
        )

    def settle(self, attempt: Attempt, retries_left: int = 0) -> list[str]:
        """Note what an attempt has come to; return what is to be tried again, if anything.

        Only errors are tried again, and what they kept from running; a failed test has given its
        answer.
        """
        again = [
            uid
            for uid, result in attempt.results.items()
            if result.status in RETRIED and uid in self.plan.nodes and uid not in attempt.cancelled
        ]
        retried = self._retry(attempt, again) if retries_left and again else []
        final = [uid for uid in attempt.given if uid not in set(retried)]
        first = self._first_failure(attempt)
        for uid in final:
            self._settle_node(uid, attempt, first)
        hooks = [one for uid, one in attempt.results.items() if uid.startswith("operation.")]
        if not retried:
            self._settle_inlined(attempt)
            self._settle_hooks(hooks, attempt.wave.compute.target)
            self._settle_ending(attempt, hooks)
        return retried

    def _retry(self, attempt: Attempt, again: Sequence[str]) -> list[str]:
        failed_checks = [
            uid for uid, result in attempt.results.items() if result.status == FAILED_TEST
        ]
        hopeless = set[str]().union(*(blocked_by_check(self.plan, uid) for uid in failed_checks))
        waiting = {uid for uid in attempt.given if _is_left(attempt.results.get(uid))} - hopeless
        return [uid for uid in attempt.given if uid in again or uid in waiting]

    def _settle_node(self, uid: str, attempt: Attempt, first: NodeFinished | None) -> None:
        result, check = attempt.results.get(uid), uid in self.plan.checks
        if result is None:
            self._skip(uid, _unreached(uid, attempt))
            return
        if uid in attempt.cancelled and self.fail_fast and result is not first:
            self._skip(uid, FAIL_FAST)
        elif result.status == SKIPPED:
            self._skip(uid, self._why_skipped(uid, result, attempt))
        elif not is_good(result.status, check=check):
            self._fail(uid, result.message or f"dbt says: {result.status}")
            if result.batches_failed:
                self.partly_built[uid] = result
            below = blocked_by_check(self.plan, uid) if check else downstream(self.plan, [uid])
            self._block(below, f"{self.name(uid)} failed")

    def _first_failure(self, attempt: Attempt) -> NodeFinished | None:
        bad = [
            one
            for uid, one in attempt.results.items()
            if uid in self.plan.nodes and is_failure(one.status)
        ]
        return min(bad, key=lambda one: one.finished_at, default=None)

    def _why_skipped(self, uid: str, result: NodeFinished, attempt: Attempt) -> str:
        if "fail_fast" in result.message:
            return FAIL_FAST
        if uid in self._blocked:
            return self._blocked[uid]
        above = [
            parent
            for parent in self.plan.nodes[uid].parents
            if parent in attempt.results
            and parent in self.plan.nodes
            and not is_good(attempt.results[parent].status, check=False)
        ]
        if above:
            return f"{self.name(above[0])} failed or was skipped"
        return result.message or "dbt skipped it"

    def _settle_inlined(self, attempt: Attempt) -> None:
        """Note which ephemeral models did not compile: nobody was to build them."""
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
        """Note what dbt says of the whole command, where its nodes do not explain it."""
        unreached = [uid for uid in attempt.given if uid not in attempt.results]
        explained = any(
            is_failure(one.status) or one.status == SKIPPED
            for one in (*attempt.results.values(), *hooks)
        )
        said = "\n".join(attempt.errors)
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
            reason = said or f"it did not run {names}, which its project has, and gave no reason."
        elif not attempt.success and not explained:
            reason = said or "it reports a failure and names no node that failed."
        if reason:
            self.crashes.append(f"dbt on target '{attempt.wave.compute.target}': {advised(reason)}")

    def stop(self, attempt: Attempt, message: str) -> None:
        """Note that a dbt command could not be run at all."""
        self.crashes.append(message)
        for uid in attempt.given:
            if uid not in attempt.results:
                self._skip(uid, "dbt could not start")

    # quality checks of floe.yaml

    def evaluated(self, result: QualityResult) -> None:
        """Note what a quality check has come to: a critical one that did not pass fails the run.

        It stops nothing that is below its model.
        """
        check = self.plan.nodes[result.unique_id].quality
        if check is not None and check.severity == "error" and result.message:
            self._fail(result.unique_id, result.message)

    # at the end

    @property
    def is_good(self) -> bool:
        """Whether nothing failed, was skipped or crashed."""
        return not (self.failed or self.skipped or self.crashes)

    @property
    def message(self) -> str:
        """The whole text of the failure: everything that failed and was skipped, and what to do."""
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
        """Return how a person would call a node, a hook or a quality check."""
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
        return "the project that dbt read has no such node"
    return "dbt ended before it ran" if attempt.results else "dbt could not start"


def _is_left(result: NodeFinished | None) -> bool:
    return result is None or result.status == SKIPPED


def advised(message: str) -> str:
    """Return dbt's message, and what to do where that is known and dbt does not say it."""
    advice = [cure for sign, cure in ADVICE.items() if sign in message]
    return " ".join([message.strip(), *advice])
