"""A broken backend costs the lineage, never the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.backend import lineage_destination, namespace_of
from floe_orchestrator_dagster.lineage.recorder import open_lineage
from floe_orchestrator_dagster.testing import RecordingBackend


class Broken(RecordingBackend):
    """A backend that fails to return its transport config."""

    def get_transport_config(self) -> dict[str, Any]:
        raise KeyError("k3y-secret")


def test_a_backend_without_a_transport_config_fails_only_where_lineage_is_required(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    with pytest.raises(
        LineageError, match=r"'recorder' fails to return its transport config \(KeyError\)"
    ):
        lineage_destination({}, broken)
    with pytest.raises(LineageError):
        open_lineage(broken, {}, tmp_path, required=True)
    assert open_lineage(broken, {}, tmp_path, required=False) is None
    assert "The run continues without lineage." in caplog.text
    assert "k3y-secret" not in caplog.text


class Nameless(RecordingBackend):
    """A backend without a namespace strategy."""

    def get_namespace_strategy(self) -> dict[str, Any]:
        raise KeyError("strategy")


def test_a_backend_without_a_namespace_strategy_is_still_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert namespace_of(Nameless()) == ""
    assert "The namespace strategy of lineage backend 'recorder' is not used" in caplog.text
    destination = lineage_destination({}, Nameless())
    assert destination is not None
    assert destination.namespace == "floe"
