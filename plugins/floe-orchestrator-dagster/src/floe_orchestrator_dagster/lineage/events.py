"""Turns dbt's events into OpenLineage run events, at dbt's own times.

The runs form a tree: the product's run is the root, its children are the dbt invocations, and
theirs the nodes. Nothing here reads a file or a clock: the content of an event comes from the plan,
from dbt's events and from the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from floe_orchestrator_dagster.dbt.status import SKIPPED, is_failure
from floe_orchestrator_dagster.lineage import facets
from floe_orchestrator_dagster.lineage.assertions import of_quality_check, of_test
from floe_orchestrator_dagster.lineage.columns import (
    ColumnLineage,
    column_lineage,
    snapshot_lineage,
)
from floe_orchestrator_dagster.lineage.datasets import TableName
from floe_orchestrator_dagster.lineage.facets import (
    PRODUCER,
    RUN_EVENT_SCHEMA,
    Facet,
    dbt_facet,
    facet,
    floe_run,
)
from floe_orchestrator_dagster.lineage.naming import dataset_name
from floe_orchestrator_dagster.lineage.node_facets import (
    built,
    descriptions,
    job_facets,
    job_type,
    statistics,
)
from floe_orchestrator_dagster.lineage.outside import reads_outside, source_name, with_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.dbt.events import NodeFinished, QualityResult, Relation
    from floe_orchestrator_dagster.lineage.datasets import DatasetName
    from floe_orchestrator_dagster.lineage.source_code import SourceCode
    from floe_orchestrator_dagster.plan import Compute, Node, ProductPlan, QualityCheck
    from floe_orchestrator_dagster.plan.manifest import DbtConfig

Event = dict[str, Any]
Columns = list[tuple[str, str]]

NOT_REACHED = "a node or test upstream of it failed"
_DATASET_KINDS = frozenset({"model", "seed", "snapshot", "source"})
_RUN_IDS = UUID("5b0f3a0e-5a0d-4c63-9f6c-0f6a2b7f1d3e")


@dataclass(frozen=True, slots=True)
class StepRun:
    """The content that all events of one Dagster step share.

    `started_at` and `nominal_time` are ISO 8601 with a zone. If the step is part of a larger run,
    `root` has run id, namespace and job of that run.
    """

    namespace: str
    job: str
    run_id: str
    started_at: str
    root: tuple[str, str, str] | None = None
    nominal_time: str | None = None
    dagster: Mapping[str, Any] = field(default_factory=dict)
    code: SourceCode | None = None
    dbt_version: str = ""
    profile: str = ""
    project_dir: str = ""


@dataclass(frozen=True, slots=True)
class WaveRun:
    """A dbt run of `nodes` nodes that is about to start on a compute: wave `number` of `waves`."""

    compute: Compute
    number: int
    waves: int
    nodes: int


def run_id_of(*parts: object) -> str:
    """Return the run id for `parts`; the same parts always give the same id."""
    return str(uuid5(_RUN_IDS, "\n".join(map(str, parts))))


class StepLineage:
    """The runs of one step: each method takes one happening and yields its events.

    `without_columns` has the reason for each model without column lineage, by unique id.
    """

    def __init__(self, step: StepRun, plan: ProductPlan) -> None:
        self._step = step
        self._plan = plan
        # As this run reports them: columns by relation name, relations by unique id.
        self._columns_of: dict[str, Columns] = {}
        self._relations: dict[str, Relation] = {}
        self._open: dict[str, Event] = {}
        self._ended: set[str] = set()
        self._wave: _Invocation | None = None
        # The last dbt invocation on each compute, and the dbt output that its adapter resolved.
        self._invocations: dict[str, _Invocation] = {}
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self.without_columns: dict[str, str] = {}
        self._common: dict[str, Facet] = {}
        if step.nominal_time:
            self._common["nominalTime"] = facet(
                "NominalTimeRunFacet", nominalStartTime=step.nominal_time
            )

    # the product's run

    @property
    def _root(self) -> tuple[str, str, str]:
        return self._step.root or (self._step.run_id, self._step.namespace, self._step.job)

    def start(self) -> Iterator[Event]:
        """Yield the start of the product's run."""
        yield self._product_event("START", self._step.started_at)

    def finish(self, at: str, message: str = "") -> Iterator[Event]:
        """Yield the end of the product's run: completed, or failed with `message`."""
        yield from self.invocation_ended(at, success=not message, message=message)
        ending = "FAIL" if message else "COMPLETE"
        yield self._product_event(ending, at, errorMessage=facets.error(message) if message else {})

    def abort(self, at: str, message: str) -> Iterator[Event]:
        """Yield the end of all runs that are still open, after a cancellation or a crash."""
        for uid in [*self._open]:
            yield from self._end_early(uid, at, message)
        yield from self.invocation_ended(at, success=False, message=message, ending="ABORT")
        yield self._product_event("ABORT", at, errorMessage=facets.error(message))

    def _end_early(self, uid: str, at: str, message: str) -> Iterator[Event]:
        started = self._open.pop(uid)
        self._ended.add(uid)
        run = {
            "runId": started["run"]["runId"],
            "facets": {**started["run"]["facets"], "errorMessage": facets.error(message)},
        }
        yield {**started, "eventType": "ABORT", "eventTime": at, "run": run}

    def _product_event(self, kind: str, at: str, **extra: Facet) -> Event:
        step, plan = self._step, self._plan
        run_facets = {
            **self._common,
            "processing_engine": facet(
                "ProcessingEngineRunFacet",
                name="Dagster",
                version=str(step.dagster.get("version", "")),
            ),
            "floe_run": self._floe(),
            **{name: value for name, value in extra.items() if value},
        }
        if step.root is not None:
            run_facets["parent"] = facets.parent(*step.root, root=step.root)
        of_job = {"jobType": job_type("DAGSTER", "JOB")}
        if plan.owner:
            of_job["ownership"] = facets.owners("OwnershipJobFacet", [plan.owner])
        run = {"runId": step.run_id, "facets": run_facets}
        return _event(kind, at, run, self._job(step.job, of_job))

    def _job(self, name: str, of_job: dict[str, Facet]) -> Facet:
        return {"namespace": self._step.namespace, "name": name, "facets": of_job}

    def _floe(self, **more: Any) -> Facet:
        step = self._step
        return floe_run(
            product=self._plan.name,
            productVersion=self._plan.version or None,
            dagsterRunId=step.dagster.get("run_id"),
            dagsterJob=step.dagster.get("job"),
            dagsterStep=step.dagster.get("step"),
            partitions=step.dagster.get("partitions") or None,
            traceId=step.dagster.get("trace_id"),
            spanId=step.dagster.get("span_id"),
            **more,
        )

    # a dbt invocation

    def invocation_started(
        self, invocation_id: str, at: str, wave: WaveRun, dbt_version: str = ""
    ) -> Iterator[Event]:
        """Yield an update of the product's run, and the start of a dbt invocation.

        `dbt_version` is the version that the invocation reports; "" means the installed one.
        """
        dbt_version = dbt_version or self._step.dbt_version
        compute = wave.compute
        self._wave = _Invocation(invocation_id, compute)
        floe = self._floe(
            compute=compute.name,
            target=compute.target,
            wave=wave.number,
            waves=wave.waves,
            nodes=wave.nodes,
        )
        running = self._product_event("RUNNING", at)
        running["run"]["facets"]["floe_run"] = floe
        yield running
        self._wave.facets = {
            **self._common,
            "processing_engine": facet("ProcessingEngineRunFacet", name="dbt", version=dbt_version),
            "dbt_version": dbt_facet("dbt-version-run-facet", version=dbt_version),
            "dbt_run": dbt_facet(
                "dbt-run-run-facet",
                invocation_id=invocation_id,
                project_name=self._plan.project_name,
                profile_name=self._step.profile or None,
            ),
        }
        self._wave.floe = floe
        self._wave.job = f"{self._plan.name}.dbt.{compute.target}"
        self._wave.parent = facets.parent(
            invocation_id, self._step.namespace, self._wave.job, self._root
        )
        self._invocations[compute.name] = self._wave
        yield self._invocation_event("START", at)

    def connected(self, output: Mapping[str, Any]) -> None:
        """Take the resolved dbt output of the invocation, from which its tables are named."""
        if self._wave is not None:
            self._outputs[self._wave.compute.name] = output

    def invocation_ended(
        self, at: str, *, success: bool, message: str = "", ending: str = "FAIL"
    ) -> Iterator[Event]:
        """Yield the end of the dbt invocation, and of nodes that it left open."""
        if self._wave is None:
            return
        for uid in [*self._open]:
            yield from self._end_early(uid, at, message or "dbt ended without a result")
        more = {} if success else {"errorMessage": facets.error(message or "dbt failed")}
        yield self._invocation_event("COMPLETE" if success else ending, at, **more)
        self._wave = None

    def _invocation_event(self, kind: str, at: str, **extra: Facet) -> Event:
        wave, step = self._current(), self._step
        root = (step.run_id, step.namespace, step.job)
        parent = facets.parent(*root, root=self._root)
        run_facets = {**wave.facets, "parent": parent, "floe_run": wave.floe, **extra}
        run = {"runId": wave.invocation_id, "facets": run_facets}
        return _event(kind, at, run, self._job(wave.job, {"jobType": job_type("DBT", "JOB")}))

    def _current(self) -> _Invocation:
        if self._wave is None:
            raise ValueError("no dbt invocation has started")
        return self._wave

    # a node

    def node_started(
        self, uid: str, at: str, attempt: int, relation: Relation | None = None
    ) -> Iterator[Event]:
        """Yield the start of a node; `relation` is its relation in this run."""
        node = self._plan.nodes.get(uid)
        if node is None:
            return
        if relation is not None:
            self._relations[uid] = relation
        event = self._node_event("START", at, node, attempt)
        self._open[uid] = event
        yield event

    def node_finished(self, result: NodeFinished, compiled: str | None = None) -> Iterator[Event]:
        """Yield the end of a node; `compiled` is the SQL that it ran."""
        uid, at = result.unique_id, result.finished_at
        node = self._plan.nodes.get(uid)
        if node is None:
            return
        observed = result.observed
        self._columns_of.update({name: list(columns) for name, columns in observed.inputs.items()})
        if uid not in self._open:
            # dbt reports no start of a node that it skips.
            started_at = result.started_at or at
            yield from self.node_started(uid, started_at, result.attempt, result.relation)
        relation = self._relation(node)
        if observed.columns and relation:
            self._columns_of[relation] = list(observed.columns)
        opened = self._open.pop(uid)
        self._ended.add(uid)
        ending = _ending(result.status)
        event = self._node_event(
            ending,
            at,
            node,
            result.attempt,
            status=result.status,
            seconds=result.seconds,
        )
        if ending != "COMPLETE":
            message = result.message or f"dbt reports the status {result.status}"
            event["run"]["facets"]["errorMessage"] = facets.error(message)
        if compiled:
            event["job"]["facets"]["sql"] = facet(
                "SQLJobFacet",
                query=facets.text(compiled),
                dialect=self._current().compute.adapter,
            )
        if node.kind in {"test", "unit_test"}:
            of_test(node, result).put_on(event)
        elif ending == "COMPLETE" and event["outputs"]:
            self._built(event, node, result, compiled)
        assert opened["run"]["runId"] == event["run"]["runId"]  # noqa: S101
        yield event
        yield from self._quality(node, at, result.attempt, observed.checks)

    def quality_checked(
        self, uid: str, at: str, attempt: int, results: Sequence[QualityResult]
    ) -> Iterator[Event]:
        """Yield the quality checks of floe.yaml on a node that this dbt run did not build."""
        node = self._plan.nodes.get(uid)
        if node is not None:
            yield from self._quality(node, at, attempt, results)

    def skipped(
        self, uids: Iterable[str], at: str, reasons: Mapping[str, str] | None = None
    ) -> Iterator[Event]:
        """Yield the nodes that dbt never reached; `reasons` has known reasons by unique id."""
        for uid in uids:
            node = self._plan.nodes.get(uid)
            # A quality check of floe.yaml has its run only together with its model's.
            if node is None or node.quality is not None or uid in self._ended:
                continue
            reason = (reasons or {}).get(uid) or NOT_REACHED
            self._ended.add(uid)
            for kind in ("START", "ABORT"):
                event = self._node_event(kind, at, node, 1)
                if kind == "ABORT":
                    message = f"Not run: {reason.rstrip('.')}."
                    event["run"]["facets"]["errorMessage"] = facets.error(message)
                yield event

    def _node_event(self, kind: str, at: str, node: Node, attempt: int, **more: Any) -> Event:
        """Return an event of a node; `more` are further fields of the facet `floe_run`."""
        step = self._step
        # After the last wave, a node that was never reached belongs to the last dbt run on its
        # compute.
        wave = self._wave or self._invocations.get(node.compute)
        compute = self._compute(node)
        above = wave.parent if wave else None
        run_facets = {
            **(wave.facets if wave else self._common),
            "parent": above or facets.parent(step.run_id, step.namespace, step.job, self._root),
            "floe_run": self._floe(
                compute=compute.name if compute else None,
                target=compute.target if compute else None,
                attempt=attempt,
                qualityTier=node.tier,
                **more,
            ),
        }
        run_id = run_id_of(step.run_id, wave.invocation_id if wave else "", node.unique_id, attempt)
        job = self._job(
            f"{self._plan.name}.{node.unique_id}", job_facets(self._plan, node, step.code)
        )
        return _event(kind, at, {"runId": run_id, "facets": run_facets}, job, self._datasets(node))

    # datasets

    def _datasets(self, node: Node) -> tuple[list[Event], list[Event]]:
        """Return the datasets that a node reads and those that it writes.

        Both are empty if dbt never reported the output of its compute: a guessed name could be
        that of another dataset.
        """
        compute = self._compute(node)
        if compute is None or compute.name not in self._outputs:
            return [], []
        # The node that a test is on comes first: its assertion goes there.
        folded = self._plan.folded_parents.get(node.unique_id, ())
        reads = sorted(folded, key=lambda uid: uid != node.on)
        inputs = [self._dataset(self._plan.nodes[uid], compute) for uid in reads]
        writes = node.kind in _DATASET_KINDS and node.relation
        outputs = [self._dataset(node, compute)] if writes else []
        return [item for item in inputs if item], [item for item in outputs if item]

    def _compute(self, node: Node) -> Compute | None:
        """Return the compute of this wave; after the last one, that of the node."""
        return self._wave.compute if self._wave else self._plan.computes.get(node.compute)

    def _relation(self, node: Node) -> str | None:
        """Return the relation of a node as dbt reports it in this run, else as planned."""
        reported = self._relations.get(node.unique_id)
        return reported.name if reported else node.relation

    def _name(self, node: Node, compute: Compute) -> DatasetName | None:
        """Return the dataset name of a node as `compute` sees it; None if it is not a dataset."""
        dbt, root = node.dbt, self._step.project_dir
        if dbt is None or node.kind not in _DATASET_KINDS:
            return None
        if reads_outside(node, compute.adapter):
            return source_name(node, root)
        output = self._outputs.get(compute.name, {})
        reported = self._relations.get(node.unique_id)
        named = dataset_name(
            compute.adapter,
            output,
            TableName(
                reported.database if reported else dbt.database,
                reported.schema if reported else dbt.schema,
                (reported.identifier if reported else None) or node.identifier,
            ),
            root=root,
            scope=self._plan.name,
        )
        return with_file(named, node, compute.adapter, output, root)

    def _dataset(self, node: Node, compute: Compute) -> Event | None:
        name = self._name(node, compute)
        if name is None:
            return None
        of_dataset: dict[str, Facet] = {
            "dataSource": facet("DatasourceDatasetFacet", name=name.namespace, uri=name.uri)
        }
        columns = self._columns(node)
        if columns:
            of_dataset["schema"] = facets.schema(columns, descriptions(node))
        if name.symlinks:
            of_dataset["symlinks"] = facets.symlinks(name.symlinks)
        if name.catalog is not None:
            of_dataset["catalog"] = facets.catalog(name.catalog, adapter=compute.adapter)
        return {"namespace": name.namespace, "name": name.name, "facets": of_dataset}

    def _columns(self, node: Node) -> Sequence[tuple[str, str | None]]:
        """Return the columns from the warehouse or the node's query, else the declared ones."""
        columns = self._columns_of.get(self._relation(node) or "")
        if columns:
            return columns
        declared = node.dbt.columns if node.dbt else {}
        return [(name, column.data_type) for name, column in declared.items()]

    def _built(self, event: Event, node: Node, result: NodeFinished, compiled: str | None) -> None:
        """Add the facets of a built dataset to the output of the event."""
        output = event["outputs"][0]
        of_dataset, compute = output["facets"], self._current().compute
        of_dataset |= built(self._plan, node, compute)
        if not compiled and result.status == "success" and _is_sql(node):
            self.without_columns[node.unique_id] = "dbt wrote no compiled SQL for it"
        lineage = self._column_lineage(node, compiled, compute)
        if lineage is not None:
            of_dataset["columnLineage"] = lineage
            of_dataset["schema"] = facets.schema(self._columns(node), descriptions(node))
        measured = statistics(result)
        if measured:
            output["outputFacets"] = {
                "outputStatistics": facet("OutputStatisticsOutputDatasetFacet", **measured)
            }

    def _column_lineage(self, node: Node, compiled: str | None, compute: Compute) -> Facet | None:
        if not compiled:
            return None
        names, known = self._read_by(node, compute)
        lineage, why = column_lineage(compiled, compute.adapter, known)
        if lineage is None:
            self.without_columns[node.unique_id] = why
            return None
        if node.kind == "snapshot" and node.dbt is not None:
            lineage = _of_snapshot(lineage, node.dbt.config)
        own_relation = self._relation(node)
        if own_relation and own_relation not in self._columns_of:
            # The table's columns were not read; the query names more columns than are declared.
            declared = {name.lower(): kind for name, kind in self._columns(node)}
            self._columns_of[own_relation] = [
                (name, declared.get(name.lower()) or "") for name in lineage.fields
            ]
        return facets.column_lineage(lineage, names)

    def _read_by(
        self, node: Node, compute: Compute
    ) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, str]]]:
        """Return names (namespace, name) and columns of the relations that a node's SQL reads."""
        names: dict[str, tuple[str, str]] = {}
        columns: dict[str, dict[str, str]] = {}
        own = [node.unique_id] if node.materialized == "incremental" else []
        for uid in (*self._plan.folded_parents.get(node.unique_id, ()), *own):
            parent = self._plan.nodes[uid]
            relation, name = self._relation(parent), self._name(parent, compute)
            if relation and name:
                names[relation] = (name.namespace, name.name)
                columns[relation] = {name: kind or "" for name, kind in self._columns(parent)}
        return names, columns

    # tests

    def _quality(
        self, node: Node, at: str, attempt: int, results: Sequence[QualityResult]
    ) -> Iterator[Event]:
        """Yield the quality checks of floe.yaml that ran on a node."""
        for result in results:
            planned = self._plan.nodes.get(result.unique_id)
            check = planned.quality if planned else None
            compute = self._compute(node)
            dataset = self._dataset(node, compute) if compute else None
            if check is None or dataset is None:
                continue
            for kind in ("START", "END"):
                event = self._node_event(kind, at, node, attempt)
                event["run"]["runId"] = run_id_of(event["run"]["runId"], check.name)
                event["job"]["name"] += f".{check.name}"
                event["job"]["facets"] = {"jobType": job_type("DBT", "TEST")}
                event["inputs"], event["outputs"] = [{**dataset}], []
                if kind == "END":
                    _end_of_check(event, check, result)
                yield event


def _end_of_check(event: Event, check: QualityCheck, result: QualityResult) -> None:
    """Turn an event into the end of a quality check; only severity error makes it a failure."""
    assertion = of_quality_check(check, result)
    assertion.put_on(event)
    is_failed = assertion.outcome != "pass" and check.severity == "error"
    event["eventType"] = "FAIL" if is_failed else "COMPLETE"
    if is_failed:
        message = result.problem or f"{result.failures} failing rows"
        event["run"]["facets"]["errorMessage"] = facets.error(message)


@dataclass
class _Invocation:
    """A dbt invocation and the facets that its events share."""

    invocation_id: str
    compute: Compute
    job: str = ""
    facets: dict[str, Facet] = field(default_factory=dict)
    floe: Facet = field(default_factory=dict)
    parent: Facet = field(default_factory=dict)


def _event(
    kind: str, at: str, run: Facet, job: Facet, datasets: tuple[list[Event], list[Event]] = ([], [])
) -> Event:
    """Return a run event with `run`, `job` and the pair (inputs, outputs) of `datasets`."""
    inputs, outputs = datasets
    return {
        "eventType": kind,
        "eventTime": at,
        "run": run,
        "job": job,
        "inputs": [*inputs],
        "outputs": [*outputs],
        "producer": PRODUCER,
        "schemaURL": RUN_EVENT_SCHEMA,
    }


def _ending(status: str) -> str:
    """Return the event type that ends the run of a node, by dbt's status."""
    if status == SKIPPED:
        return "ABORT"
    return "FAIL" if is_failure(status) else "COMPLETE"


def _of_snapshot(query: ColumnLineage, config: DbtConfig) -> ColumnLineage:
    """Return the lineage of a snapshot: that of its query and of the columns that dbt adds."""
    key, named = config.unique_key, config.snapshot_meta_column_names
    return snapshot_lineage(
        query,
        [str(part) for part in (key if isinstance(key, list) else [key] if key else [])],
        str(config.updated_at) if config.updated_at else None,
        {own: str(name) for own, name in named.items() if name} if isinstance(named, dict) else {},
    )


def _is_sql(node: Node) -> bool:
    python = node.dbt is not None and node.dbt.original_file_path.endswith(".py")
    return node.kind in {"model", "snapshot"} and not python
