"""A job that sends lineage events; run as a program, it prints the delivery report as JSON."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.delivery import open_delivery
from floe_orchestrator_dagster.lineage.sender import DeliveryTiming
from kit.backends import event


def start(
    directory: Path, transport: dict[str, Any] | None, **options: Any
) -> subprocess.Popen[str]:
    """Start the job in its own process.

    Args:
        directory: the spool.
        transport: the transport config of the backend.
        options: `first` number and `count` of the events, `pad` bytes in each, `seconds` that the
            job itself takes, `required`, `drain_seconds`, `kill_at` (the number of events after
            which it kills itself), `file_bytes` (the limit of the size of a file).
    """
    arguments = {"directory": str(directory), "transport": transport, **options}
    return subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str], timeout: float = 120) -> dict[str, Any]:
    """Wait for the job; return its printed report, its exit code and its log."""
    out, err = process.communicate(timeout=timeout)
    return {"code": process.returncode, "log": err, **(json.loads(out) if out else {})}


def produce(
    directory: str,
    transport: dict[str, Any] | None,
    first: int = 0,
    count: int = 100,
    pad: int = 2000,
    seconds: float = 0.0,
    drain_seconds: float = 10.0,
    kill_at: int | None = None,
    file_bytes: int | None = None,
    *,
    required: bool = False,
) -> dict[str, Any]:
    """Send the events; see `start` for the arguments."""
    events = [json.dumps(event(first + n, pad=pad)).encode() for n in range(count)]
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    began, processor = time.perf_counter(), time.process_time()
    error = ""
    timing = DeliveryTiming(drain_seconds=drain_seconds)
    delivery = open_delivery(transport, Path(directory), required=required, timing=timing)
    sent = 0
    try:
        for number, item in enumerate(events):
            if kill_at == number:
                os.kill(os.getpid(), signal.SIGKILL)
            delivery.send(item)
            sent += 1
            if seconds and number % 20 == 0:
                rest = began + seconds * number / count - time.perf_counter()
                time.sleep(max(0.0, rest))
    except LineageError as caught:
        error = str(caught)
    ended = time.perf_counter()
    report = delivery.finish()
    return {
        "sent": sent,
        "report": asdict(report),
        "error": error,
        "sending": ended - began,
        "draining": time.perf_counter() - ended,
        "processor": time.process_time() - processor,
    }


if __name__ == "__main__":
    print(json.dumps(produce(**json.loads(sys.argv[1]))))  # noqa: T201
