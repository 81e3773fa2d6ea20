"""Runs one dbt command in its own process and yields what it tells, event by event."""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from floe_orchestrator_dagster.dbt_process import OTHER_DBT
from floe_orchestrator_dagster.errors import DbtError
from floe_orchestrator_dagster.files import in_use
from floe_orchestrator_dagster.telemetry import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

# dbt cancels its queries on SIGINT; a warehouse may take a while to answer that. Kubernetes kills
# a pod 30 s after it asked it to end.
INTERRUPT_TIMEOUT_SECONDS = 10.0
SELECTED = "success"
Relation = tuple[str, str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class DbtCommand:
    """One dbt command on one target.

    `select` are the unique ids to run (None: everything); `checks` are quality checks by the
    unique id of the model they are on. `reads` asks for lineage: by the unique id of a node, the
    relations it reads, each as name, database, schema and identifier. `environment` is added to
    that of this process. `executable` is another dbt than the dbt-core beside this plugin.
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
    checks: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    reads: Mapping[str, Sequence[Relation]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    executable: str | None = None

    def arguments(self) -> list[str]:
        """Return dbt's command line; a selection has been written by `write_selection`."""
        # dbt-core calls us back with its events; another dbt writes them to its output.
        console = (
            ("--log-level", "none", "--no-use-colors")
            if self.executable is None
            else ("--log-format", "json")
        )
        words = [
            self.verb,
            *console,
            "--log-level-file",
            "debug",
            "--no-send-anonymous-usage-stats",
            "--no-version-check",
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
            words += ["--vars", json.dumps(dict(self.variables))]
        if self.select is not None:
            words += ["--select", f"result:{SELECTED}", "--state", str(self.selection_dir)]
            words += ["--indirect-selection", "empty"]
        return words

    @property
    def selection_dir(self) -> Path:
        """Directory of the state file that carries the selection."""
        return self.target_path / "selection"

    def parsed_ids(self) -> frozenset[str]:
        """Return the unique ids of the project as this command found it; empty if it did not."""
        try:
            manifest = msgspec.json.decode((self.target_path / "manifest.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return frozenset()
        return frozenset([*manifest.get("nodes", ()), *manifest.get("unit_tests", ())])

    def write_selection(self) -> None:
        """Write the selection as the results of an earlier run, for dbt's `result:` method.

        It selects by unique id, in one pass over the graph and whatever its length. Names on the
        command line would be ambiguous, checked one by one, and end at 128 KiB.
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


class _Done(msgspec.Struct):
    success: bool
    exception: str | None


class _Info(msgspec.Struct):
    name: str
    msg: str
    level: str


class _Event(msgspec.Struct):
    info: _Info | None = None
    data: dict[str, Any] | None = None
    done: _Done | None = None
    problem: str | None = None


class _NodeInfo(msgspec.Struct):
    unique_id: str


class _NodeData(msgspec.Struct):
    node_info: _NodeInfo


def event_of(line: bytes) -> dict[str, Any]:
    """Return what a line of `dbt_process` says, checked to be what readers rely on.

    Raises:
        DbtError: it is not one of that program's.
    """
    try:
        message: dict[str, Any] = msgspec.json.decode(line)
        event = msgspec.convert(message, _Event)
        if event.done is None and event.problem is None:
            if event.info is None or event.data is None:
                raise msgspec.ValidationError("neither event nor result")
            if event.info.name in {"NodeStart", "NodeFinished"}:
                msgspec.convert(event.data, _NodeData)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DbtError(
            f"Cannot understand what dbt's process wrote ({error}): {line[:100]!r}. Is another "
            "program writing to its output?"
        ) from error
    return message


class DbtRun:
    """A running dbt command: iterate its events, then read `success` and `exception`."""

    def __init__(self, process: subprocess.Popen[bytes], command: DbtCommand) -> None:
        self._process = process
        self._command = command
        self.success = False
        self.exception: str | None = None
        self._done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield dbt's events as dictionaries with `info` and `data`."""
        if self._process.stdout is None:
            raise DbtError("dbt's output was not captured")
        for line in self._process.stdout:
            message = event_of(line)
            if message.get("done"):
                self._done = True
                self.success = bool(message["done"]["success"])
                self.exception = message["done"]["exception"]
            elif message.get("problem") is not None:
                logger.warning("Could not report a dbt event: %s", message["problem"])
            else:
                yield message
        code = self._process.wait()
        if not self._done:
            self.exception = (
                f"dbt {self._command.verb} on target '{self._command.target}' ended without a "
                f"result ({_ending(code)}). Its log: {self._command.target_path / 'dbt.log'}"
            )

    def stop(self) -> None:
        """End the process if it still runs: SIGINT, time to cancel its queries, then SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(INTERRUPT_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                logger.warning("dbt did not stop within %s s: killed", INTERRUPT_TIMEOUT_SECONDS)
        _end(self._process)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does when memory runs out"
    return f"killed by {signal.Signals(-code).name}"


# Processes that have imported dbt, or are about to have, and wait for a command.
_ahead: list[subprocess.Popen[bytes]] = []


def start_ahead() -> None:
    """Start a process for the next command now: dbt takes seconds to import, on another core."""
    if not _ahead:
        # Whoever needs it will start it, and say what is wrong.
        with suppress(OSError):
            _ahead.append(_spawn())
            atexit.register(stop_ahead)


def stop_ahead() -> None:
    """End the process that was started ahead and got no command."""
    atexit.unregister(stop_ahead)
    while _ahead:
        _end(_ahead.pop())


def _take() -> subprocess.Popen[bytes] | None:
    while _ahead:
        process = _ahead.pop()
        if process.poll() is None:
            return process
        _end(process)
    return None


def _spawn(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", "floe_orchestrator_dagster.dbt_process", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Only we signal it: Ctrl-C in a terminal would reach dbt twice.
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    # Also whatever it has started and left behind, such as a Spark JVM.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


@contextmanager
def run_dbt(command: DbtCommand) -> Iterator[DbtRun]:
    """Start a dbt command; whatever ends the block ends the process too.

    Raises:
        DbtError: if the process cannot be started.
    """
    try:
        command.target_path.mkdir(parents=True, exist_ok=True)
        command.write_selection()
    except OSError as error:
        raise DbtError(
            f"Cannot prepare {command.target_path} for dbt: {error.strerror}."
        ) from error
    environment = {
        **os.environ,
        **child_environment(),
        **command.environment,
        # The project may ask in Jinja who runs it, as with dagster-dbt.
        "DAGSTER_DBT_CLI": "true",
    }
    request = {
        "args": command.arguments(),
        "cwd": str(command.project_dir),
        "environment": environment,
        "row_counts": command.row_counts,
        "checks": command.checks,
        "reads": command.reads,
        "executable": command.executable,
        "profile": [str(command.profiles_dir), command.profile, command.target],
    }
    try:
        process = _spawn(OTHER_DBT) if command.executable else _take() or _spawn()
    except OSError as error:
        raise DbtError(f"Cannot start dbt in {command.project_dir}: {error}") from error
    run = DbtRun(process, command)
    try:
        if process.stdin is not None:
            # A process that has died already says so by its exit code.
            with suppress(BrokenPipeError):
                process.stdin.write(msgspec.json.encode(request) + b"\n")
                process.stdin.flush()
        with in_use(command.target_path):
            yield run
    finally:
        run.stop()
