"""The timing gives the pauses of a sender; `test_delivery.py` tests a sender at work."""

from __future__ import annotations

import pytest

from floe_orchestrator_dagster.lineage.sender import DeliveryTiming


@pytest.mark.parametrize(
    ("failures", "requested", "least", "most"),
    [
        (1, None, 0.05, 0.1),
        (3, None, 0.2, 0.4),
        (10_000, None, 15.0, 30.0),
        (1, 2.0, 2.0, 2.0),
        (1, 86_400.0, 300.0, 300.0),
    ],
)
def test_a_pause_doubles_up_to_a_limit_unless_the_backend_requests_one(
    failures: int, requested: float | None, least: float, most: float
) -> None:
    assert least <= DeliveryTiming().pause(failures, requested) <= most
