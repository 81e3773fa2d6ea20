"""Reads run_results.json, dbt's own record of the result of each node of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.events import Window  # noqa: TC001  needed to decode
from floe_orchestrator_dagster.dbt_json import decode_dbt_json

if TYPE_CHECKING:
    from pathlib import Path

RUN_RESULTS = "run_results.json"


class BatchResults(msgspec.Struct, frozen=True):
    """The windows of a microbatch model that were built, and those that failed."""

    successful: tuple[Window, ...] = ()
    failed: tuple[Window, ...] = ()


class Timing(msgspec.Struct, frozen=True):
    """When a phase of a node ran."""

    started_at: str | None = None
    completed_at: str | None = None


class Result(msgspec.Struct, frozen=True):
    """dbt's record of one node or hook."""

    unique_id: str
    status: str
    message: str | None = None
    failures: int | None = None
    execution_time: float = 0.0
    timing: tuple[Timing, ...] = ()
    adapter_response: dict[str, Any] = {}
    relation_name: str | None = None
    recorded_batches: BatchResults | None = msgspec.field(name="batch_results", default=None)

    @property
    def batch_results(self) -> BatchResults:
        """The windows of a microbatch model; empty for every other node."""
        return self.recorded_batches or BatchResults()


class _Metadata(msgspec.Struct):
    invocation_id: str | None = None


class _Args(msgspec.Struct):
    fail_fast: bool | None = None


class _File(msgspec.Struct):
    results: tuple[Result, ...]
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    args: _Args = msgspec.field(default_factory=_Args)


_decoder = msgspec.json.Decoder(_File)


class RunResults(msgspec.Struct, frozen=True):
    """dbt's record of a command; `by_id` is empty if dbt recorded nothing."""

    by_id: dict[str, Result] = {}
    fail_fast: bool = False


def read_results(folder: Path, invocation_id: str) -> RunResults:
    """Return dbt's record in a target folder; an empty one if another invocation wrote it."""
    try:
        file = decode_dbt_json(_decoder.decode, (folder / RUN_RESULTS).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return RunResults()
    if invocation_id and file.metadata.invocation_id != invocation_id:
        return RunResults()
    # A node can be in the file twice, for example after fail_fast canceled it.
    by_id: dict[str, Result] = {}
    for result in file.results:
        by_id.setdefault(result.unique_id, result)
    return RunResults(by_id, bool(file.args.fail_fast))
