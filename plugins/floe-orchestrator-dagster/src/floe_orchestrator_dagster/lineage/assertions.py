"""Says what a test, or a quality check of floe.yaml, has shown of the dataset it is on."""

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
    """One test and its outcome; None for what it does not say.

    Attributes:
        kind: the name of the generic test, else `test` or `unit_test`.
        name: of the test.
        outcome: of OpenLineage's words; a test that only warned has failed.
        severity: error or warn.
        column: that it is on.
        description: by its author.
        expected: the number of failing rows that it allows, as text.
        actual: the number that it found.
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
        """Add the facets of a test's run event, and of the dataset it reads first."""
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
    """Return what a dbt test has shown."""
    dbt, status = node.dbt, result.status
    # dbt's message leaves out a number that is 0; a unit test counts nothing.
    counts = node.kind == "test" and status in HARMLESS | {FAILED_TEST}
    return Assertion(
        kind=dbt.test_metadata.name if dbt and dbt.test_metadata else node.kind,
        name=dbt.name if dbt else node.name,
        outcome="pass" if status in PASSED else "skip" if status == SKIPPED else "fail",
        severity=((dbt.config.severity if dbt else None) or "error").lower(),
        # What dbt inlines is no dataset: the column is not one of the tables that it reads.
        column=dbt.column_name if dbt and node.on in node.parents else None,
        description=(dbt.description if dbt else None) or None,
        expected="0" if counts else None,
        actual=str(result.failures or 0) if counts else None,
    )


def of_quality_check(check: QualityCheck, result: QualityResult) -> Assertion:
    """Return what a quality check of floe.yaml has shown; one that could not run has failed."""
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
