"""Runs one dbt command in a separate process and yields its events as they happen."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.dbt.child import OTHER_DBT
from floe_orchestrator_dagster.dbt.events import Done, EventReader, Secrets, Started, Trouble
from floe_orchestrator_dagster.dbt.results import RunResults, read_results
from floe_orchestrator_dagster.dbt.scrub import Scrubber, environment_secrets
from floe_orchestrator_dagster.errors import DbtError
from floe_orchestrator_dagster.files import in_use
from floe_orchestrator_dagster.telemetry import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from floe_orchestrator_dagster.dbt.command import DbtCommand
    from floe_orchestrator_dagster.dbt.events import Event

logger = logging.getLogger(__name__)

# dbt cancels its queries on SIGINT, and a warehouse may need some seconds for that. Kubernetes
# kills a pod 30 s after the request to end.
INTERRUPT_TIMEOUT_SECONDS = 10.0


class DbtRun:
    """A running dbt command: iterate over its events, then read how it ended.

    `success` is dbt's own verdict, `exception` is why the command ended without a regular result,
    and `results` is dbt's record of each node (see `dbt.results`). `scrubber` masks secrets in
    text from other sources, such as compiled SQL; texts of events are masked already.
    """

    def __init__(self, process: subprocess.Popen[bytes], command: DbtCommand) -> None:
        self._process = process
        self._command = command
        self._reader = EventReader(command.compute, command.attempt)
        self._invocation_id = ""
        self.scrubber = Scrubber(environment_secrets(os.environ))
        self.success = False
        self.exception: str | None = None
        self._done = False

    def __iter__(self) -> Iterator[Event]:
        """Yield dbt's events as they happen."""
        if self._process.stdout is None:
            raise DbtError("dbt's output was not captured")
        for line in self._process.stdout:
            for event in self._reader.read(line):
                if isinstance(event, Done):
                    self._done = True
                    self.success, self.exception = event.success, event.exception
                elif isinstance(event, Trouble):
                    logger.warning("dbt's process could not report an event: %s", event.text)
                elif isinstance(event, Secrets):
                    self.scrubber = Scrubber(event.values)
                else:
                    if isinstance(event, Started):
                        self._invocation_id = event.invocation_id
                    yield event
        code = self._process.wait()
        if not self._done:
            self.exception = (
                f"dbt {self._command.verb} on target '{self._command.target}' ended without a "
                f"result ({_ending(code)}). Its log: {self._command.target_path / 'dbt.log'}"
            )

    @property
    def results(self) -> RunResults:
        """The record that dbt wrote for this command."""
        return read_results(self._command.target_path, self._invocation_id)

    def stop(self) -> None:
        """End the process: send SIGINT, give dbt time to cancel its queries, then send SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(INTERRUPT_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                logger.warning(
                    "dbt did not stop within %s s after SIGINT, so it is killed",
                    INTERRUPT_TIMEOUT_SECONDS,
                )
        _end(self._process)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does when memory runs out"
    return f"killed by {signal.Signals(-code).name}"


class DbtProcesses:
    """Starts dbt processes for one owner, and keeps a spare one that waits for the next command.

    The owner must call `close`, and may use the object again afterwards.
    """

    def __init__(self) -> None:
        # It imports dbt, then waits for a command.
        self._spare: subprocess.Popen[bytes] | None = None

    def start_spare(self) -> None:
        """Start a process for the next command; it imports dbt meanwhile, on another core."""
        if self._spare is None:
            # `run` starts a process if there is no spare one, and reports the error.
            with suppress(OSError):
                self._spare = _spawn()
                atexit.register(self.close)

    def close(self) -> None:
        """End the spare process."""
        atexit.unregister(self.close)
        spare, self._spare = self._spare, None
        if spare is not None:
            _end(spare)

    @contextmanager
    def run(self, command: DbtCommand) -> Iterator[DbtRun]:
        """Start a dbt command, and end its process together with the block.

        Raises:
            DbtError: the folder of the command cannot be written, or the process cannot be started.
        """
        request = _request(command)
        try:
            process = self._start(command)
        except OSError as error:
            raise DbtError(f"Cannot start dbt in {command.project_dir}: {error}.") from error
        run = DbtRun(process, command)
        try:
            if process.stdin is not None:
                # If the process has died, its exit code shows why.
                with suppress(BrokenPipeError):
                    process.stdin.write(msgspec.json.encode(request) + b"\n")
                    process.stdin.flush()
            with in_use(command.target_path):
                yield run
        finally:
            run.stop()

    def _start(self, command: DbtCommand) -> subprocess.Popen[bytes]:
        if command.executable:
            return _spawn(OTHER_DBT)
        spare, self._spare = self._spare, None
        if spare is not None:
            atexit.unregister(self.close)
            if spare.poll() is None:
                return spare
            _end(spare)
        return _spawn()


@contextmanager
def run_dbt(command: DbtCommand) -> Iterator[DbtRun]:
    """Run a dbt command in a separate process; see `DbtProcesses.run`."""
    with DbtProcesses().run(command) as run:
        yield run


def _request(command: DbtCommand) -> dict[str, Any]:
    """Prepare the folder of a command; return the request to its process.

    Raises:
        DbtError: the folder cannot be written.
    """
    try:
        command.target_path.mkdir(parents=True, exist_ok=True)
        command.write_selection()
    except OSError as error:
        raise DbtError(
            f"Cannot prepare {command.target_path} for dbt: {error.strerror}. Make the folder "
            "writable, and free some space if its disk is full."
        ) from error
    environment = {
        **os.environ,
        **child_environment(),
        **command.environment,
        # dagster-dbt sets this too: Jinja in a project may read it.
        "DAGSTER_DBT_CLI": "true",
    }
    return {
        "args": command.arguments(),
        "cwd": str(command.project_dir),
        "environment": environment,
        "row_counts": command.row_counts,
        "checks": command.evaluations(),
        "reads": command.reads,
        "executable": command.executable,
        "profile": [str(command.profiles_dir), command.profile, command.target],
    }


def _spawn(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", "floe_orchestrator_dagster.dbt.child", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # In the same session, Ctrl-C in a terminal would reach dbt twice.
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    # The group includes processes that dbt left behind, such as a Spark JVM.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
