"""Chaos for lineage: counts the events that survive each failure of a backend or a machine.

    python benchmarks/lineage_delivery.py [--events 10000] [--case NAME ...]

Each case runs a job in a separate process. The job sends events to a real HTTP server that
misbehaves. Then the server recovers, and the waiting events are replayed. `lost` counts the events
that the job handed over and that neither the backend nor the dead letters have. `dropped` counts
the events that the job itself reported as lost. `added` is the job's wall time minus the seconds
that it takes without lineage; best effort may add one second and the drain. The cases of a full
disk mount a small tmpfs, so they need root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parents[1] / "plugins" / "floe-orchestrator-dagster" / "tests"
sys.path.insert(0, str(TESTS))

from floe_orchestrator_dagster.lineage.delivery import replay  # noqa: E402
from floe_orchestrator_dagster.lineage.spool import spool_status  # noqa: E402
from kit.backends import OK, Backend, Reply, healthy  # noqa: E402
from kit.lineage_producer import outcome, start  # noqa: E402

DRAIN_SECONDS = 2.0
JOB_SECONDS = 4.0
BOUND_SECONDS = 1.0 + DRAIN_SECONDS
# The share of a case's events that fits on a small disk.
DISK_SHARE = 0.25

# The distance between the event numbers of two jobs.
FAR = 50_000

Script = Callable[[int, dict[str, Any]], Reply]


@dataclass(frozen=True)
class Case:
    """One kind of failure; `jobs` processes run at once."""

    name: str
    script: Script = healthy
    jobs: int = 1
    away: bool = False
    small_disk: bool = False
    kill: bool = False
    required: bool = False


def always(reply: Reply) -> Script:
    """Give every request the same answer."""
    return lambda *_: reply


def every(nth: int, reply: Reply) -> Script:
    """Answer every nth request with `reply`, and accept the others."""
    return lambda number, _: reply if number % nth == nth - 1 else OK


def until(requests: int, reply: Reply) -> Script:
    """Answer the first requests with `reply`, then accept all others."""
    return lambda number, _: reply if number < requests else OK


def comes_and_goes(_number: int, _event: dict[str, Any]) -> Reply:
    """Fail during every second half second."""
    return OK if int(time.monotonic() * 2) % 2 else Reply(status=503)


def poisoned(_number: int, event: dict[str, Any]) -> Reply:
    """Always fail on one event in a thousand."""
    return Reply(status=500) if int(event["job"]["name"]) % 1000 == 500 else OK  # noqa: PLR2004


def bad(_number: int, event: dict[str, Any]) -> Reply:
    """Reject one event in ten."""
    return Reply(status=400, body=b"bad event") if int(event["job"]["name"]) % 10 == 0 else OK


CUT, TAKEN_AND_CUT = Reply(status=0, takes=False), Reply(status=0, takes=True)

CASES = (
    Case("well"),
    Case("well, lineage required", required=True),
    Case("no server", away=True),
    Case("hangs", always(Reply(wait=3600, takes=False))),
    Case("drips", always(Reply(drip=0.05, takes=False))),
    Case("500 always", always(Reply(status=500))),
    Case("500 one in fifty", every(50, Reply(status=500))),
    Case(
        "503, Retry-After 1, then well", until(2, Reply(status=503, headers={"Retry-After": "1"}))
    ),
    Case(
        "429, Retry-After 1, then well", until(2, Reply(status=429, headers={"Retry-After": "1"}))
    ),
    Case("400 one event in ten", bad),
    Case("500 for one event in 1,000", poisoned),
    Case("cuts one in twenty, untaken", every(20, CUT)),
    Case("cuts one in twenty, taken", every(20, TAKEN_AND_CUT)),
    Case("well every other half second", comes_and_goes),
    Case("kill -9 half way", kill=True),
    Case("kill -9 half way, no server", away=True, kill=True),
    Case("disk full", small_disk=True),
    Case("disk full, 500 one in fifty", every(50, Reply(status=500)), small_disk=True),
    Case("disk full, required, no server", away=True, small_disk=True, required=True),
    Case("two runs at once", jobs=2),
    Case("two runs at once, cuts", every(20, CUT), jobs=2),
)


@contextmanager
def spool_of(case: Case, events: int) -> Iterator[Path]:
    """Yield a spool directory, on a separate small disk if the case needs one."""
    with tempfile.TemporaryDirectory() as name:
        if not case.small_disk:
            yield Path(name) / "spool"
            return
        size = f"size={int(events * 2400 * DISK_SHARE)},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", name], check=True)
        try:
            yield Path(name) / "spool"
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def run_case(case: Case, events: int) -> dict[str, Any]:
    """Run one case and return its row of the table."""
    each = events // case.jobs
    # On a small disk the backend must keep up, or the events do not fit.
    seconds = JOB_SECONDS * (5 if case.small_disk else 1)
    job_options: dict[str, Any] = {
        "count": each,
        "seconds": seconds,
        "drain_seconds": DRAIN_SECONDS,
        "required": case.required,
        "kill_at": each // 2 if case.kill else None,
    }
    with spool_of(case, events) as spool, Backend(case.script) as server:
        transport = server.transport | ({"url": "http://127.0.0.1:1/"} if case.away else {})
        firsts = [number * FAR for number in range(case.jobs)]
        jobs = [start(spool, transport, first=first, **job_options) for first in firsts]
        reports = [outcome(job, 600) for job in jobs]
        by_job = len(set(server.names))
        if case.script is not bad:
            server.script = healthy
        replay(server.transport, spool, 600)
        kept = [job.get("sent", job_options["kill_at"]) for job in reports]
        made = {
            f"{first + n:05d}"
            for first, n_kept in zip(firsts, kept, strict=True)
            for n in range(n_kept)
        }
        letters = spool / "dead_letters.jsonl"
        refused = {
            json.loads(line)["event"]["job"]["name"]
            for line in (letters.read_text().splitlines() if letters.exists() else ())
        }
        waiting, taken = spool_status(spool).waiting, list(dict.fromkeys(server.names))
        by_run = [[name for name in taken if int(name) // FAR == job] for job in range(case.jobs)]
        paid = [job["sending"] + job["draining"] - seconds for job in reports if "sent" in job]
        return {
            "made": len(made),
            "in the job": by_job,
            "delivered": len(made & set(taken)),
            "refused": len(refused),
            "twice": server.duplicates,
            "dropped": sum(job["report"]["dropped"] for job in reports if "sent" in job),
            "lost": len(made - set(taken) - refused) + waiting,
            "in order": "yes" if all(names == sorted(names) for names in by_run) else "no",
            "added s": f"{max(paid):.2f}" if paid and not reports[0]["error"] else "-",
            "CPU s": f"{sum(job['processor'] for job in reports if 'sent' in job):.2f}",
            "note": reports[0].get("error", "killed").partition(":")[2][-60:]
            if case.required
            else "",
        }


def main() -> None:
    """Run the requested cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--case", nargs="*", help="parts of case names; default: all")
    options = parser.parse_args()
    table = Table("case")
    failed = 0
    for case in CASES:
        if options.case and not any(part in case.name for part in options.case):
            continue
        row = run_case(case, options.events)
        if not table.rows:
            for head in row:
                table.add_column(head, justify="right")
        table.add_row(case.name, *map(str, row.values()))
        print(case.name, row, file=sys.stderr, flush=True)
        slow = not case.required and row["added s"] != "-" and float(row["added s"]) > BOUND_SECONDS
        failed += bool(row["lost"]) or slow
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    console.print(
        f"{options.events} events per case; the job itself takes {JOB_SECONDS:g} s, the drain "
        f"at most {DRAIN_SECONDS:g} s. Cases that lost events or added over {BOUND_SECONDS:g} s: "
        f"{failed}."
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
