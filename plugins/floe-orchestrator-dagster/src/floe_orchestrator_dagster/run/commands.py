"""The dbt commands of one step, made from its attempts."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.dbt.environment import value_of
from floe_orchestrator_dagster.dbt.events import Relation
from floe_orchestrator_dagster.run.batches import Batches, lanes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.dbt.command import DbtCommand
    from floe_orchestrator_dagster.plan import Node
    from floe_orchestrator_dagster.product.product import Product
    from floe_orchestrator_dagster.run.launch import Launch
    from floe_orchestrator_dagster.run.outcome import Attempt


class Commands:
    """Makes the dbt commands of one step.

    The names of their folders start with `name`. `lineage` is the environment that dbt needs for
    lineage; None without lineage. `quality_checks` are those of the launch, by their model.
    """

    def __init__(
        self, product: Product, launch: Launch, name: str, lineage: Mapping[str, str] | None
    ) -> None:
        self._product = product
        self._plan = product.plan
        self._launch = launch
        self._name = name
        self._lineage = lineage
        self._batches = dict(launch.batches)
        self.quality_checks: dict[str, list[Node]] = {}
        for uid in launch.quality_checks:
            check = product.plan.nodes[uid]
            self.quality_checks.setdefault(check.on, []).append(check)

    def build(self, attempt: Attempt) -> DbtCommand:
        """Return the command that builds and tests the nodes of an attempt."""
        launch, product, nodes = self._launch, self._product, attempt.nodes
        compute, config = attempt.wave.compute, launch.config
        usual = Batches(full_refresh=config.full_refresh)
        settings = next((self._batches[uid] for uid in nodes if uid in self._batches), usual)
        folder = f"{self._name}-{attempt.name}-{attempt.number}"
        checks = self.quality_checks
        return product.command(
            "build" if nodes else "test",
            compute.target,
            product.new_run_dir(folder, compute.target),
            select=(*attempt.requested, *self._inlined(attempt)),
            flags=(
                *config.flags(building=bool(nodes), full_refresh=settings.full_refresh),
                *_deferral(attempt),
            ),
            window=settings.window,
            variables=launch.variables,
            row_counts=product.config.row_counts and not config.empty,
            checks={uid: checks[uid] for uid in nodes if uid in checks},
            reads=self._reads(nodes) if self._lineage is not None else None,
            environment=self._lineage or {},
            compute=compute.name,
            attempt=attempt.number,
        )

    def evaluations(self) -> Iterator[DbtCommand]:
        """Yield one command per target that evaluates quality checks on models not built here."""
        built = {*self._launch.assets}
        by_target: defaultdict[str, dict[str, list[Node]]] = defaultdict(dict)
        for model, nodes in self.quality_checks.items():
            if model not in built:
                by_target[self._plan.target_of(model)][model] = nodes
        for target, checks in by_target.items():
            yield self._product.command(
                "parse",
                target,
                self._product.new_run_dir(f"{self._name}-checks-{target}", target),
                variables=self._launch.variables,
                checks=checks,
            )

    def rebuild(self, windows: Mapping[str, Batches]) -> None:
        """Use these windows for microbatch models in all later commands."""
        self._batches |= windows

    def lanes_of(self, nodes: Iterable[str]) -> Mapping[str, str]:
        """Return the lanes of nodes that one command cannot build together."""
        batches = {uid: self._batches[uid] for uid in nodes if uid in self._batches}
        return lanes_of(batches, full_refresh=self._launch.config.full_refresh)

    def _inlined(self, attempt: Attempt) -> Sequence[str]:
        """Return the ephemeral models of an attempt if the launch builds the whole product.

        With them dbt's queue has the same order as a bare build, and dbt skips models that inline
        an ephemeral model that does not compile. A launch of some assets selects only these, as a
        dbt user would.
        """
        whole = attempt.nodes and {*self._launch.assets} >= self._plan.assets.keys()
        return self._plan.ephemerals_of(attempt.requested) if whole else ()

    def _reads(self, nodes: Sequence[str]) -> dict[str, list[Relation]]:
        """Return the relations that each node reads; dbt's process reports their columns."""
        relations = {}
        for uid in nodes:
            parents = (self._plan.nodes[read] for read in self._plan.folded_parents.get(uid, ()))
            relations[uid] = [
                Relation(node.relation, node.dbt.database, node.dbt.schema, node.identifier)
                for node in parents
                if node.relation and node.dbt is not None
            ]
        return relations


def _deferral(attempt: Attempt) -> tuple[str, ...]:
    """Return the flags that a dbt run needs to read relations of an earlier dbt run of this step.

    dbt does not select these nodes again, so with `favor_state` it would read the state instead.
    """
    later = attempt.wave_number > 1 or attempt.number > 1
    return ("--no-favor-state",) if later and value_of("DBT_FAVOR_STATE", os.environ) else ()
