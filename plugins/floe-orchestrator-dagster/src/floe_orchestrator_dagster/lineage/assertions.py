"""Turns the result of a test or a quality check into facets of the dataset that it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from floe_orchestrator_dagster.dbt.status import FAILED_TEST, HARMLESS, PASSED, SKIPPED
from floe_orchestrator_dagster.lineage.facets import facet

if TYPE_CHECKING:
    from floe_orchestrator_dagster.dbt.events import NodeFinished, QualityResult
    from floe_orchestrator_dagster.plan import Node, QualityCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """One test and its outcome; a value that is not known is None.

    Attributes:
        kind: the name of the generic test, else `test` or `unit_test`.
        name: the name of the test.
        outcome: the outcome in OpenLineage's terms; a test that only warns counts as failed.
        severity: error or warn.
        column: the column that the test is on.
        description: the description by its author.
        expected: the number of failing rows that it allows, as text.
        actual: the number of failing rows, as text.
    """

    kind: str
    name: str
    outcome: Literal["pass", "fail", "skip"]
    severity: str
    column: str | None = None
    description: str | None = None
    expected: str | None = None
    actual: str | None = None

    def put_on(self, event: dict[str, Any]) -> None:
        """Add the facets to the run event of a test and to the first dataset that it reads."""
        stated = {
            "name": self.name,
            "severity": self.severity,
            "description": self.description,
            "expected": self.expected,
            "actual": self.actual,
        }
        known = {name: value for name, value in stated.items() if value is not None}
        event["run"]["facets"]["test"] = facet(
            "TestRunFacet", tests=[{**known, "status": self.outcome, "type": self.kind}]
        )
        if self.outcome == "skip" or not event["inputs"]:
            return
        assertion = {"assertion": self.kind, "success": self.outcome == "pass", **known}
        if self.column:
            assertion["column"] = self.column
        event["inputs"][0]["inputFacets"] = {
            "dataQualityAssertions": facet(
                "DataQualityAssertionsDatasetFacet", assertions=[assertion]
            )
        }


def of_test(node: Node, result: NodeFinished) -> Assertion:
    """Return the assertion of a dbt test."""
    dbt, status = node.dbt, result.status
    # dbt's event has no number if it is 0; a unit test counts no rows.
    counts = node.kind == "test" and status in HARMLESS | {FAILED_TEST}
    return Assertion(
        kind=dbt.test_metadata.name if dbt and dbt.test_metadata else node.kind,
        name=dbt.name if dbt else node.name,
        outcome="pass" if status in PASSED else "skip" if status == SKIPPED else "fail",
        severity=((dbt.config.severity if dbt else None) or "error").lower(),
        # If dbt inlines the tested model, the column is not in the tables that the test reads.
        column=dbt.column_name if dbt and node.on in node.parents else None,
        description=(dbt.description if dbt else None) or None,
        expected="0" if counts else None,
        actual=str(result.failures or 0) if counts else None,
    )


def of_quality_check(check: QualityCheck, result: QualityResult) -> Assertion:
    """Return the assertion of a quality check of floe.yaml; one that could not run has failed."""
    counts = result.problem is None
    return Assertion(
        kind=check.type,
        name=check.name,
        outcome="pass" if counts and result.failures == 0 else "fail",
        severity=check.severity,
        column=check.arguments.get("column_name"),
        description=check.dimension or None,
        expected="0" if counts else None,
        actual=str(result.failures) if counts else None,
    )
