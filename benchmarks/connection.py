"""Prints the time and the message of the connection check against each hostile server.

Run from the root: ``.venv/bin/python benchmarks/connection.py``. Every case must end within 10 s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "floe-orchestrator-dagster" / "tests"))

from floe_orchestrator_dagster.webserver import Address, WebserverState, ask_webserver  # noqa: E402
from kit.hostile_server import CASES, SECRET, serving  # noqa: E402
from kit.ports import free_port  # noqa: E402

LIMIT_SECONDS = 10.0


def timed(url: str) -> tuple[float, WebserverState]:
    """Return the seconds that a check takes, and its result."""
    started = time.monotonic()
    answer = ask_webserver(Address(url, "--url"))
    return time.monotonic() - started, answer


def main() -> int:
    """Print the table; return 1 if a case took too long or revealed a secret."""
    rows: list[tuple[str, float, WebserverState]] = []
    for case in CASES:
        with serving(case.act) as port:
            rows.append((case.name, *timed(f"http://user:{SECRET}@127.0.0.1:{port}")))
    with serving(CASES[0].act) as port:
        rows.append(("TLS to a silent server", *timed(f"https://127.0.0.1:{port}")))
    port = free_port()
    rows += [
        ("refused", *timed(f"http://user:{SECRET}@127.0.0.1:{port}")),
        ("refused on IPv6", *timed(f"http://user:{SECRET}@[::1]:{port}")),
        ("unknown host", *timed(f"http://user:{SECRET}@dagster.invalid:3000")),
        ("packets dropped", *timed("http://192.0.2.1:3000")),
        ("no URL", *timed(f"user:{SECRET}@host")),
    ]
    write = sys.stdout.write
    write("| case | seconds | message |\n|---|---|---|\n")
    for name, seconds, answer in rows:
        write(f"| {name} | {seconds:.2f} | {answer.problem} |\n")
    worst = max(seconds for _, seconds, _ in rows)
    leaks = [name for name, _, answer in rows if SECRET in repr(answer)]
    missed = [name for name, _, answer in rows if not answer.problem]
    write(f"\n{len(rows)} cases, worst {worst:.2f} s, secrets revealed: {leaks or 'none'}\n")
    return 1 if worst > LIMIT_SECONDS or leaks or missed else 0


if __name__ == "__main__":
    sys.exit(main())
