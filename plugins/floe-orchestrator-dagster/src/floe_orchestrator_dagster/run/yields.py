"""Dagster's events for a dbt result: materializations and check evaluations with their metadata.

They are events, not outputs, because the time that Dagster needs for the outputs of a step is
cubic in their number. Only assets and blocking checks that another step of the same run waits for
are outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetMaterialization,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableSchema,
)

from floe_orchestrator_dagster.dbt.status import BUILT, COUNTED, PASSED, SKIPPED, WARNED
from floe_orchestrator_dagster.plan.preflight import same_relation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.dbt.events import NodeFinished, QualityResult
    from floe_orchestrator_dagster.plan import Node
    from floe_orchestrator_dagster.run.consumed import Consumed
    from floe_orchestrator_dagster.run.versions import Versions

Event: TypeAlias = (
    AssetMaterialization | AssetCheckEvaluation | AssetCheckResult | MaterializeResult[Any]
)


class Yields:
    """Turns dbt's results into Dagster's events."""

    def __init__(
        self, specs: Specs, versions: Versions, consumed: Consumed, partitions: Sequence[str]
    ) -> None:
        self._specs = specs
        self._plan = specs.plan
        self._versions = versions
        self._consumed = consumed
        self._partitions = partitions

    def of(self, result: NodeFinished) -> Iterator[Event]:
        """Yield the events of a node that dbt finished; nothing if it was not built or not run."""
        uid = result.unique_id
        if uid in self._plan.checks:
            if result.status != SKIPPED:
                yield self._for_consumers(self._evaluation(uid, result))
        elif uid in self._plan.assets and result.status in BUILT:
            yield from self._materializations(uid, result)

    def _materializations(self, uid: str, result: NodeFinished) -> Iterator[Event]:
        key = self._specs.keys[uid]
        metadata = self._metadata(self._plan.nodes[uid], result)
        version, tags = self._versions.of(uid)
        self._versions.forget(key)
        if key in self._consumed.assets:
            # Dagster adds the partitions of the run to an output.
            yield MaterializeResult(
                asset_key=key, metadata=metadata, data_version=DataVersion(version)
            )
            return
        partitioned = self._specs.partitions(uid) is not None
        partitions: list[str | None] = [*self._partitions] if partitioned else [None]
        for partition in partitions:
            yield AssetMaterialization(
                asset_key=key, metadata=metadata, tags=tags, partition=partition
            )

    def _for_consumers(
        self, evaluation: AssetCheckEvaluation
    ) -> AssetCheckEvaluation | AssetCheckResult:
        """Return an evaluation, turned into an output if another step waits for it to pass."""
        if evaluation.asset_check_key not in self._consumed.checks:
            return evaluation
        if not evaluation.passed and evaluation.severity == AssetCheckSeverity.ERROR:
            return evaluation  # this step will fail, so the waiting step does not run
        return AssetCheckResult(
            passed=evaluation.passed,
            asset_key=evaluation.asset_key,
            check_name=evaluation.check_name,
            metadata=evaluation.metadata,
            severity=evaluation.severity,
            description=evaluation.description,
        )

    def _evaluation(self, uid: str, result: NodeFinished) -> AssetCheckEvaluation:
        node = self._plan.nodes[uid]
        failures = result.failures
        if failures is None and node.kind == "test" and result.status in COUNTED:
            failures = 0  # dbt's event omits a zero
        metadata = _run_metadata(result)
        if failures is not None:
            metadata["dagster_dbt/failed_row_count"] = failures
        if failures and result.relation is not None:
            metadata["floe/failed_rows_table"] = result.relation.name
        key = self._specs.keys[node.on]
        return AssetCheckEvaluation(
            asset_key=key,
            check_name=self._specs.checks[uid].name,
            passed=result.status in PASSED,
            severity=(
                AssetCheckSeverity.WARN if result.status == WARNED else AssetCheckSeverity.ERROR
            ),
            description=result.message or None,
            blocking=node.blocking,
            metadata=metadata,
            target_materialization_data=self._versions.target(key),
        )

    def of_quality(self, result: QualityResult) -> Iterator[Event]:
        """Yield the evaluation of a quality check of floe.yaml."""
        node = self._plan.nodes[result.unique_id]
        check = node.quality
        if check is None:
            return
        message = result.message
        key = self._specs.keys[node.on]
        yield AssetCheckEvaluation(
            asset_key=key,
            check_name=self._specs.checks[result.unique_id].name,
            passed=not message,
            severity=(
                AssetCheckSeverity.ERROR if check.severity == "error" else AssetCheckSeverity.WARN
            ),
            description=message or None,
            blocking=node.blocking,
            metadata={
                "floe/check_type": check.type,
                **({} if result.failures is None else {"floe/failed_row_count": result.failures}),
            },
            target_materialization_data=self._versions.target(key),
        )

    def _metadata(self, node: Node, result: NodeFinished) -> dict[str, Any]:
        metadata = _run_metadata(result)
        metadata["dagster/storage_kind"] = self._plan.computes[result.compute].adapter
        observed = result.observed
        if is_elsewhere(node, result) and result.relation is not None:
            relation = result.relation
            parts = (relation.database, relation.schema, relation.identifier)
            metadata["dagster/table_name"] = ".".join(filter(None, parts))
        if observed.rows is not None:
            metadata["dagster/row_count"] = observed.rows
        if observed.columns:
            declared = node.dbt.columns if node.dbt else {}
            described = {name.lower(): column.description for name, column in declared.items()}
            metadata["dagster/column_schema"] = TableSchema(
                columns=[
                    TableColumn(name=name, type=kind, description=described.get(name.lower()))
                    for name, kind in observed.columns
                ]
            )
        if observed.problem:
            metadata["floe/statistics_problem"] = MetadataValue.text(observed.problem)
        if result.message:
            metadata["floe/dbt_message"] = result.message
        if "rows_affected" in result.adapter_response:
            metadata["floe/rows_affected"] = int(result.adapter_response["rows_affected"])
        return metadata


def is_elsewhere(node: Node, result: NodeFinished) -> bool:
    """Return whether dbt built another relation than the planned one.

    The plan has the relation name of an earlier parse.
    """
    return (
        result.relation is not None
        # A result that comes only from dbt's record lacks the parts of the name.
        and result.relation.identifier is not None
        and node.relation is not None
        and same_relation(result.relation.name) != same_relation(node.relation)
    )


def _run_metadata(result: NodeFinished) -> dict[str, Any]:
    return {
        "unique_id": result.unique_id,
        "invocation_id": result.invocation_id,
        "Execution Duration": result.duration,
        "status": result.status,
        "floe/compute": result.compute,
    }
