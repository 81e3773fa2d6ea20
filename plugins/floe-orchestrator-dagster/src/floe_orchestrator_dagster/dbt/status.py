"""The meaning of each of dbt's statuses; imports nothing, so that dbt's own process can use it."""

from __future__ import annotations

# See dagster_dbt's SUCCESSFUL_NODE_STATUSES for the reasons. A partial success is not one: some
# batches of the model are missing.
BUILT = frozenset({"success", "warn", "no-op", "reused"})
PASSED = frozenset({"pass", "success"})
# A test that warns blocks nothing.
WARNED = "warn"
HARMLESS = PASSED | {WARNED}
SKIPPED = "skipped"
PARTIAL = "partial success"
# An error may disappear if dbt runs the node again. A failed test is a final result.
RETRIED = frozenset({"error", "runtime error", PARTIAL})
FAILED_TEST = "fail"
# With these statuses a data test has counted its failing rows; dbt's event omits a zero.
COUNTED = frozenset({"pass", WARNED, FAILED_TEST})


def is_good(status: str, *, check: bool) -> bool:
    """Return whether a status means that a node is built, or that a check passed or warned."""
    return status in (HARMLESS if check else BUILT)


def is_failure(status: str) -> bool:
    """Return whether dbt exits with an error because of a node with this status."""
    # An unknown status counts as a failure.
    return status not in BUILT | PASSED | {SKIPPED}
