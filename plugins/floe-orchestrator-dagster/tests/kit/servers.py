"""Dagster's own servers, which tests start with a separate home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from floe_orchestrator_dagster.webserver import Address, ask_webserver
from kit.ports import free_port

STARTUP_SECONDS = 180
TELEMETRY_OFF = "telemetry:\n  enabled: false\n"


def dagster_home(directory: Path) -> dict[str, str]:
    """Create a Dagster home; return an environment that names it."""
    home = directory / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(TELEMETRY_OFF)
    return {**os.environ, "DAGSTER_HOME": str(home), "PYTHONUNBUFFERED": "1"}


@contextmanager
def process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run a server in its own process group, and end the group with the block."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield started.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextmanager
def webserver(definitions: Path, environment: dict[str, str]) -> Iterator[str]:
    """Serve a file of Definitions; yield the URL when the server answers."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", definitions.with_suffix(".webserver.log")
    command = [sys.executable, "-m", "dagster_webserver", "-f", str(definitions)]
    with process([*command, "-h", "127.0.0.1", "-p", str(port)], log, environment):
        until = time.monotonic() + STARTUP_SECONDS
        while ask_webserver(Address(url, "the test")).version is None:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield url
