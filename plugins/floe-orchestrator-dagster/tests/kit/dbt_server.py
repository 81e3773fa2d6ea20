"""A server that has imported dbt and runs each command in a separate fork.

The import of dbt takes four seconds, and the build of a small project then takes one. A fork shares
no state with earlier commands, so it behaves like a new dbt process.

`dbt_server()` starts the server and writes a program, `Fork.program`, which replaces
`sys.executable`: ``program -m MODULE ...`` runs one of our modules that call dbt, and ``program dbt
...`` runs dbt's own command line. Both run in a fork with the caller's standard streams,
environment and working directory. All other commands run in the real Python. A signal to the
program reaches the fork.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OURS = "floe_orchestrator_dagster.dbt"
PROGRAM = """#!{python} -IS
import array, json, os, signal, socket, sys
words = sys.argv[1:]
if words[:1] != ["dbt"] and not (words[:1] == ["-m"] and words[1].startswith("{ours}")):
    os.execv("{python}", ["{python}", *words])
server = socket.socket(socket.AF_UNIX)
server.connect("{address}")
request = json.dumps({{"words": words, "directory": os.getcwd(), "environment": dict(os.environ)}})
fds = array.array("i", [0, 1, 2])
server.sendmsg([b"-"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
answers = server.makefile("rw")
answers.write(request + "\\n")
answers.flush()
child = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
code = int(answers.readline() or -signal.SIGKILL)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Fork:
    """A running server; `program` runs a command in a fork of it."""

    program: Path

    def dbt(
        self, directory: Path, words: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[int, str]:
        """Run a dbt command in a directory; return its exit code and its output."""
        done = subprocess.run(
            [str(self.program), "dbt", *words],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout


@contextmanager
def dbt_server() -> Iterator[Fork]:
    """Run a server of forks until the block ends."""
    with tempfile.TemporaryDirectory(prefix="dbt-server-") as folder:
        address = str(Path(folder) / "socket")
        program = Path(folder) / "python"
        program.write_text(PROGRAM.format(python=sys.executable, ours=OURS, address=address))
        program.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            # A client that connects waits in the queue until dbt is imported.
            server = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
            )
        try:
            yield Fork(program)
        finally:
            server.kill()
            server.wait()


# --- in the server


def serve(listener: socket.socket) -> None:
    """Fork for each connection, forever."""
    # No process waits for the processes that watch a fork.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                _watch(connection)
            finally:
                os._exit(0)
        connection.close()


def _watch(connection: socket.socket) -> None:
    """Fork for one command; send its process id, then its exit code. End it with its caller."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    answers = connection.makefile("rw")
    request = json.loads(answers.readline())
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            code = _command(request["words"], request["directory"], request["environment"])
            # Exit as Python does, without the slow teardown of all imported modules.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    answers.write(f"{child}\n")
    answers.flush()
    process = os.pidfd_open(child)
    ready, _, _ = select.select([process, connection], [], [])
    if process not in ready:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
    answers.flush()


def _command(words: Sequence[str], directory: str, environment: Mapping[str, str]) -> int:
    """Run the command in this process; return its exit code."""
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = directory
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if words[0] == "dbt":
            sys.argv = [*words]
            cli()
        else:
            sys.argv = [*words[1:]]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  Python itself ends this way
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    # Import modules before the fork that dbt imports only when it runs.
    import dbt.adapters.duckdb
    import dbt.adapters.postgres
    import dbt.task.build  # noqa: F401
    from dbt.cli.main import cli

    serve(socket.socket(fileno=int(sys.argv[1])))
