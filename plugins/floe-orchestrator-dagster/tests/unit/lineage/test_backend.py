"""A backend that fails costs lineage, never the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.backend import lineage_destination, namespace_of
from floe_orchestrator_dagster.lineage.recorder import open_lineage
from floe_orchestrator_dagster.testing import RecordingBackend


class Broken(RecordingBackend):
    """A backend that cannot say where it is."""

    def get_transport_config(self) -> dict[str, Any]:
        raise KeyError("k3y-secret")


def test_a_backend_without_a_transport_config_fails_what_requires_lineage_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    with pytest.raises(LineageError, match=r"'recorder' gives no transport config \(KeyError\)"):
        lineage_destination({}, broken)
    with pytest.raises(LineageError):
        open_lineage(broken, {}, tmp_path, required=True)
    assert open_lineage(broken, {}, tmp_path, required=False) is None
    assert "The run goes on without lineage." in caplog.text
    assert "k3y-secret" not in caplog.text


class Nameless(RecordingBackend):
    """A backend that cannot say how jobs are named."""

    def get_namespace_strategy(self) -> dict[str, Any]:
        raise KeyError("strategy")


def test_a_backend_without_a_strategy_names_no_jobs_and_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert namespace_of(Nameless()) == ""
    assert "its strategy is not used" in caplog.text
    destination = lineage_destination({}, Nameless())
    assert destination is not None
    assert destination.namespace == "floe"
