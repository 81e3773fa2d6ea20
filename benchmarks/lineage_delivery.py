"""Chaos for lineage: how many events survive each way a backend or a machine can fail.

    python benchmarks/lineage_delivery.py [--events 10000] [--case NAME ...]

Each case runs a job that makes events, in a process of its own, against a real HTTP server that
misbehaves; then the server is well and what waits is replayed. `lost` is what neither the backend
nor the dead letters hold, of the events that the job was told were taken; `dropped` what the job
counted as lost itself. `added` is the job's
wall time over the seconds that it takes by itself; best effort may add a second and the drain.
The cases of a full disk mount a small tmpfs, which only root may.
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
# Of what the events of a case take, so much is the room on a small disk.
DISK_SHARE = 0.25

# Between the numbers of two jobs' events.
FAR = 50_000

Script = Callable[[int, dict[str, Any]], Reply]


@dataclass(frozen=True)
class Case:
    """One way to fail; `jobs` processes run at once."""

    name: str
    script: Script = healthy
    jobs: int = 1
    away: bool = False
    small_disk: bool = False
    kill: bool = False
    required: bool = False


def always(reply: Reply) -> Script:
    """Answer everything alike."""
    return lambda *_: reply


def every(nth: int, reply: Reply) -> Script:
    """Answer each nth request with `reply`, and take the others."""
    return lambda number, _: reply if number % nth == nth - 1 else OK


def until(requests: int, reply: Reply) -> Script:
    """Answer the first requests with `reply`, then be well."""
    return lambda number, _: reply if number < requests else OK


def comes_and_goes(_number: int, _event: dict[str, Any]) -> Reply:
    """Fail in every other half second."""
    return OK if int(time.monotonic() * 2) % 2 else Reply(status=503)


def poisoned(_number: int, event: dict[str, Any]) -> Reply:
    """Fail on one event in a thousand, always."""
    return Reply(status=500) if int(event["job"]["name"]) % 1000 == 500 else OK  # noqa: PLR2004


def bad(_number: int, event: dict[str, Any]) -> Reply:
    """Refuse one event in ten."""
    return Reply(status=400, body=b"bad event") if int(event["job"]["name"]) % 10 == 0 else OK


CUT, TAKEN_AND_CUT = Reply(status=0, takes=False), Reply(status=0, takes=True)

CASES = (
    Case("well"),
    Case("well, lineage required", required=True),
    Case("nobody listens", away=True),
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
    Case("kill -9 half way, nobody listens", away=True, kill=True),
    Case("disk full", small_disk=True),
    Case("disk full, 500 one in fifty", every(50, Reply(status=500)), small_disk=True),
    Case("disk full, required, nobody listens", away=True, small_disk=True, required=True),
    Case("two runs at once", jobs=2),
    Case("two runs at once, cuts", every(20, CUT), jobs=2),
)


@contextmanager
def spool_of(case: Case, events: int) -> Iterator[Path]:
    """Yield a spool directory, on a small disk of its own where the case asks for one."""
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
    # On a small disk the backend must keep up, or there is no place left for the events.
    seconds = JOB_SECONDS * (5 if case.small_disk else 1)
    asked: dict[str, Any] = {
        "count": each,
        "seconds": seconds,
        "drain_seconds": DRAIN_SECONDS,
        "required": case.required,
        "kill_at": each // 2 if case.kill else None,
    }
    with spool_of(case, events) as spool, Backend(case.script) as server:
        transport = server.transport | ({"url": "http://127.0.0.1:1/"} if case.away else {})
        firsts = [number * FAR for number in range(case.jobs)]
        jobs = [start(spool, transport, first=first, **asked) for first in firsts]
        found = [outcome(job, 600) for job in jobs]
        by_job = len(set(server.names))
        if case.script is not bad:
            server.script = healthy
        replay(server.transport, spool, 600)
        kept = [job.get("sent", asked["kill_at"]) for job in found]
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
        paid = [job["sending"] + job["draining"] - seconds for job in found if "sent" in job]
        return {
            "made": len(made),
            "in the job": by_job,
            "delivered": len(made & set(taken)),
            "refused": len(refused),
            "twice": server.duplicates,
            "dropped": sum(job["report"]["dropped"] for job in found if "sent" in job),
            "lost": len(made - set(taken) - refused) + waiting,
            "in order": "yes" if all(names == sorted(names) for names in by_run) else "no",
            "added s": f"{max(paid):.2f}" if paid and not found[0]["error"] else "-",
            "CPU s": f"{sum(job['processor'] for job in found if 'sent' in job):.2f}",
            "note": found[0].get("error", "killed").partition(":")[2][-60:]
            if case.required
            else "",
        }


def main() -> None:
    """Run the cases that were asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--case", nargs="*", help="parts of names of cases; default: all")
    asked = parser.parse_args()
    table = Table("case")
    failed = 0
    for case in CASES:
        if asked.case and not any(part in case.name for part in asked.case):
            continue
        row = run_case(case, asked.events)
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
        f"{asked.events} events a case; the job itself takes {JOB_SECONDS:g} s, the drain at most "
        f"{DRAIN_SECONDS:g} s. Cases that lost events or added over {BOUND_SECONDS:g} s: {failed}."
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
