"""What each of dbt's statuses means; imports nothing, so that dbt's own process can use it."""

from __future__ import annotations

# See dagster_dbt's SUCCESSFUL_NODE_STATUSES for the reasons. A partial success is not one: some
# batches of the model are missing.
BUILT = frozenset({"success", "warn", "no-op", "reused"})
PASSED = frozenset({"pass", "success"})
# A test that warns has run, and stops nothing.
WARNED = "warn"
HARMLESS = PASSED | {WARNED}
SKIPPED = "skipped"
PARTIAL = "partial success"
# An error may go away when dbt runs the node again; a failed test has given its answer.
RETRIED = frozenset({"error", "runtime error", PARTIAL})
FAILED_TEST = "fail"
# A data test that ended so has counted its failing rows; dbt leaves the number out where it is 0.
COUNTED = frozenset({"pass", WARNED, FAILED_TEST})


def is_good(status: str, *, check: bool) -> bool:
    """Tell whether dbt calls a node built, or a check passed or only warned."""
    return status in (HARMLESS if check else BUILT)


def is_failure(status: str) -> bool:
    """Tell whether dbt exits with an error because of a node with this status."""
    # A status that nobody knows is a failure, too.
    return status not in BUILT | PASSED | {SKIPPED}
