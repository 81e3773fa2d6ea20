"""Single events share a delivery until it is closed."""

from __future__ import annotations

from pathlib import Path

from floe_orchestrator_dagster.lineage.deliveries import Deliveries
from floe_orchestrator_dagster.lineage.sender import DeliveryTiming
from kit.backends import Backend, event
from kit.ports import free_port

QUICK = DeliveryTiming(first_pause=0.001, longest_pause=0.002, last_pause=0.001)


def test_single_events_share_a_delivery_until_it_is_closed(tmp_path: Path) -> None:
    transport = {"type": "http", "url": f"http://localhost:{free_port()}"}
    deliveries = Deliveries(QUICK)
    first = deliveries.to(transport, tmp_path / "spool")
    assert deliveries.to({**transport}, tmp_path / "spool") is first
    assert deliveries.to(transport, tmp_path / "other") is not first
    first.send(event(1))
    deliveries.close()
    assert first.finish().waiting == 1
    assert deliveries.to(transport, tmp_path / "spool") is not first
    deliveries.close()


def test_closing_sends_waiting_events(tmp_path: Path) -> None:
    with Backend() as server:
        deliveries = Deliveries()
        for number in range(3):
            deliveries.to(server.transport, tmp_path).send(event(number))
        deliveries.close()
        assert server.names == ["00000", "00001", "00002"]
