"""Measures commands in new processes, in alternating pairs, and evaluates the pairs."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 900.0
Figure = Literal["cpu", "wall", "memory"]
UNITS = {"cpu": "s CPU", "wall": "s", "memory": "MiB"}


class MeasureError(Exception):
    """A measured command failed or took too long."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured command.

    `cpu` is the user and system time of the process and of its children that it waited for, in
    seconds. `memory` is the largest resident set of any of them, in MiB. `busy` is the machine's
    load average over the last minute, at the end.
    """

    cpu: float
    wall: float
    memory: float
    busy: float

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            self.cpu + other.cpu,
            self.wall + other.wall,
            max(self.memory, other.memory),
            max(self.busy, other.busy),
        )


Contender = Callable[[], Sample]


def measured(
    command: Sequence[str | Path],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Sample:
    """Run a command in a separate process and return its time and memory.

    A command that measures only a part of its work prints the result as its last line with
    `print_measured`.

    Raises:
        MeasureError: the command failed, or took more than `timeout` seconds and was killed.
    """
    # One log per process, because two benchmarks at once must not read each other's figures.
    log = log or ROOT / "benchmarks" / "work" / f"last-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    late = threading.Event()
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            # dagster-dbt looks for dbt on PATH.
            env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
    text = log.read_text(errors="replace")
    if late.is_set():
        raise MeasureError(f"not finished after {timeout:.0f} s")
    if process.returncode:
        raise MeasureError(f"{' '.join(words)} failed:\n{text[-3000:]}")
    last_line = text.strip().rpartition("\n")[2]
    if last_line.startswith('{"measured"'):
        return Sample(busy=os.getloadavg()[0], **json.loads(last_line)["measured"])
    return Sample(
        usage.ru_utime + usage.ru_stime, wall, _mebibytes(usage.ru_maxrss), os.getloadavg()[0]
    )


def print_measured(work: Callable[[], object]) -> None:
    """Do `work` in this process and print its time and memory; see `measured`."""
    import resource

    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    memory = _mebibytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    sys.stdout.write(
        "\n" + json.dumps({"measured": {"cpu": cpu, "wall": wall, "memory": memory}}) + "\n"
    )


def _mebibytes(maxrss: int) -> float:
    # Kibibytes on Linux, bytes on macOS.
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Pairs:
    """Two contenders measured in turns."""

    ours: list[Sample] = field(default_factory=list)
    anchor: list[Sample] = field(default_factory=list)

    def ratios(self, figure: Figure) -> list[float]:
        """Return ours divided by the anchor, pair by pair."""
        return [
            getattr(ours, figure) / getattr(anchor, figure)
            for ours, anchor in zip(self.ours, self.anchor, strict=True)
        ]

    def differences(self, figure: Figure) -> list[float]:
        """Return ours minus the anchor, pair by pair."""
        return [
            getattr(ours, figure) - getattr(anchor, figure)
            for ours, anchor in zip(self.ours, self.anchor, strict=True)
        ]


def in_pairs(ours: Contender, anchor: Contender, rounds: int) -> Pairs:
    """Measure both `rounds` times; they take turns at going first."""
    pairs = Pairs()
    for number in range(rounds):
        if number % 2:
            pairs.ours.append(ours())
            pairs.anchor.append(anchor())
        else:
            pairs.anchor.append(anchor())
            pairs.ours.append(ours())
    return pairs


@dataclass(frozen=True)
class Row:
    """One row of the table: a figure, its anchor and its result.

    `values` has the figures of the pairs in `unit`. The target is met if their median is at most
    `target`; a row without a target is informative. `problem` is the reason for missing values.
    """

    work: str
    anchor: str
    unit: str
    target: float | None = None
    values: Sequence[float] = ()
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    measure: str = ""
    busy: float = 0.0
    problem: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """MET, SHORT or NOT MEASURED; empty without a target."""
        if not self.values:
            return "NOT MEASURED"
        if self.target is None:
            return ""
        return "MET" if self.value <= self.target else "SHORT"


def row(pairs: Pairs, work: str, anchor: str, figure: Figure, target: float | None = None) -> Row:
    """Return the row of a ratio."""
    return Row(
        work=work,
        anchor=anchor,
        unit="x",
        target=target,
        values=pairs.ratios(figure),
        ours=[getattr(sample, figure) for sample in pairs.ours],
        theirs=[getattr(sample, figure) for sample in pairs.anchor],
        measure=UNITS[figure],
        busy=busy(pairs),
    )


def busy(pairs: Pairs) -> float:
    """Return the machine's median load average while the pairs were measured."""
    return statistics.median(sample.busy for sample in (*pairs.ours, *pairs.anchor))
