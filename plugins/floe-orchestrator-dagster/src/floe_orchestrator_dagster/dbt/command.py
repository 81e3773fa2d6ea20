"""One dbt command: its command line, its selection, and the extra work of its process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from floe_orchestrator_dagster.dbt_json import decode_dbt_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from floe_orchestrator_dagster.dbt.events import Relation
    from floe_orchestrator_dagster.plan import Node

SELECTED = "success"


@dataclass(frozen=True, slots=True)
class DbtCommand:
    """One dbt command on one target.

    Attributes:
        select: the unique ids to run; None for everything.
        checks: quality checks (nodes of the plan, not in `select`) by the unique id of their model.
            They are evaluated as soon as dbt has built the model. A command that builds nothing
            (`parse`) evaluates them at its end.
        reads: the relations that each node reads, by unique id; None without lineage.
        window: the time window that microbatch models build: start and end in UTC, ISO 8601
            without an offset, the end excluded.
        environment: variables to add to the environment of this process.
        executable: a dbt to run in place of the installed dbt-core.
        compute: copied to the events.
        attempt: copied to the events.
    """

    verb: str
    project_dir: Path
    profiles_dir: Path
    profile: str
    target: str
    target_path: Path
    select: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    row_counts: bool = False
    checks: Mapping[str, Sequence[Node]] = field(default_factory=dict)
    reads: Mapping[str, Sequence[Relation]] | None = None
    window: tuple[str, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    executable: str | None = None
    compute: str = ""
    attempt: int = 1

    def arguments(self) -> list[str]:
        """Return dbt's command line; `write_selection` writes the selection that it refers to."""
        # dbt-core passes its events to our callback; another dbt writes them to its output.
        console = (
            ("--log-level", "none", "--no-use-colors")
            if self.executable is None
            # Without this flag dbt queries the network for its newest version.
            else ("--log-format", "json", "--no-version-check")
        )
        words = [
            self.verb,
            *console,
            "--log-level-file",
            "debug",
            "--no-send-anonymous-usage-stats",
            "--log-path",
            str(self.target_path),
            "--project-dir",
            str(self.project_dir),
            "--profiles-dir",
            str(self.profiles_dir),
            "--profile",
            self.profile,
            "--target",
            self.target,
            *self.flags,
        ]
        if self.verb != "deps":
            words += ["--target-path", str(self.target_path)]
        if self.variables:
            # dbt parses the value as YAML, which does not support surrogate pairs.
            words += ["--vars", json.dumps(dict(self.variables), ensure_ascii=False)]
        if self.window is not None:
            start, end = self.window
            words += ["--event-time-start", start, "--event-time-end", end]
        if self.select is not None:
            words += ["--select", f"result:{SELECTED}", "--state", str(self.selection_dir)]
            words += ["--indirect-selection", "empty"]
            # The step needs run_results.json, even if the environment turns it off.
            words += ["--write-json"]
        return words

    def evaluations(self) -> dict[str, list[dict[str, Any]]]:
        """Return `checks` as dbt's process evaluates them, by the model that they are on."""
        return {uid: [_evaluation(node) for node in nodes] for uid, nodes in self.checks.items()}

    @property
    def selection_dir(self) -> Path:
        """The directory of the state file that holds the selection."""
        return self.target_path / "selection"

    def parsed_ids(self) -> frozenset[str]:
        """Return the unique ids in the manifest that this command wrote; empty without one."""
        try:
            content = (self.target_path / "manifest.json").read_bytes()
            manifest = decode_dbt_json(msgspec.json.decode, content)
        except (OSError, msgspec.DecodeError):
            return frozenset()
        return frozenset([*manifest.get("nodes", ()), *manifest.get("unit_tests", ())])

    def write_selection(self) -> None:
        """Write the selection as the results of an earlier run, for dbt's `result:` method.

        This method selects by unique id, in one pass over the graph, and its length has no limit.
        Names on the command line would be ambiguous, dbt would check them one by one, and the
        system limits one argument to 128 KiB.
        """
        if self.select is None:
            return
        document = {
            "metadata": {
                "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
                "dbt_version": "1.8.0",
                "generated_at": "1970-01-01T00:00:00Z",
                "invocation_id": str(UUID(int=0)),
                "env": {},
            },
            "results": [
                {
                    "status": SELECTED,
                    "timing": [],
                    "thread_id": "",
                    "execution_time": 0,
                    "adapter_response": {},
                    "message": None,
                    "failures": None,
                    "unique_id": unique_id,
                    "compiled": None,
                    "compiled_code": None,
                    "relation_name": None,
                }
                for unique_id in self.select
            ],
            "elapsed_time": 0,
            # dbt 2 ignores a file without these, or whose invocation id is null.
            "args": {"command": "build", "which": "build"},
        }
        self.selection_dir.mkdir(parents=True, exist_ok=True)
        (self.selection_dir / "run_results.json").write_bytes(msgspec.json.encode(document))


def _evaluation(node: Node) -> dict[str, Any]:
    check = node.quality
    if check is None:
        raise ValueError(f"{node.unique_id} is not a quality check")
    package, _, kind = check.type.rpartition(".")
    return {
        "unique_id": node.unique_id,
        "type": kind,
        "package": package or None,
        "arguments": dict(check.arguments),
    }
