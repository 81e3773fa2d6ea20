"""Shows a run live: one line per finished node and, on a terminal, the running nodes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

MAX_RUNNING_SHOWN = 12
MAX_NAME_WIDTH = 60
STYLES = {
    "success": "green",
    "pass": "green",
    "warn": "yellow",
    "skipped": "bright_black",
    "error": "bold red",
    "fail": "bold red",
}


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The result of one planned node; `status` is dbt's own word."""

    unique_id: str
    name: str
    kind: str
    compute: str
    status: str
    rows: int | None = None
    seconds: float | None = None
    message: str = ""

    @property
    def shown_kind(self) -> str:
        """The kind to display; dbt calls its on-run hooks operations."""
        return "hook" if self.kind == "operation" else self.kind


class View(Protocol):
    """Shows the nodes of a run while they run."""

    def started(self, result: NodeResult) -> None:
        """Show that a node has started."""

    def finished(self, result: NodeResult) -> None:
        """Show that a node has finished."""

    def close(self) -> None:
        """End the view; printed lines stay."""


def time_left(done: int, total: int, seconds: float) -> float | None:
    """Return the estimated seconds left when `done` of `total` nodes took `seconds`."""
    if done <= 0 or total <= done:
        return None if total > done else 0.0
    return seconds / done * (total - done)


def clock(seconds: float | None) -> str:
    """Return seconds as m:ss or h:mm:ss, and None as dashes."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines:
    """Formats finished nodes as lines: the same fields in each, at least two spaces apart."""

    def __init__(self, planned: Mapping[str, NodeResult]) -> None:
        self._total = len(planned)
        longest = max((len(result.name) for result in planned.values()), default=0)
        self._name_width = min(longest, MAX_NAME_WIDTH)
        self._compute_width = max((len(result.compute) for result in planned.values()), default=0)

    def line(self, number: int | None, result: NodeResult) -> Text:
        """Return the line of a node; `number` counts finished nodes, None is one not planned."""
        # dbt also runs hooks and functions, which are not planned and not counted.
        count = "-" if number is None else f"{number}/{self._total}"
        rows = "-" if result.rows is None else f"{result.rows:,} rows"
        seconds = "-" if result.seconds is None else f"{result.seconds:.2f} s"
        width = len(str(self._total))
        return Text.assemble(
            f"{count:>{2 * width + 1}}  ",
            (f"{result.status:<8}", STYLES.get(result.status, "")),
            f"  {result.shown_kind:<13}  {result.compute:<{self._compute_width}}"
            f"  {result.name:<{self._name_width}}  {rows:>14}  {seconds:>9}",
            no_wrap=True,
            overflow="ignore",
        )


class PlainView:
    """Prints one line for each finished node."""

    def __init__(self, console: Console, planned: Mapping[str, NodeResult]) -> None:
        self._console = console
        self._planned = planned
        self._lines = Lines(planned)
        self._done: set[str] = set()

    def started(self, result: NodeResult) -> None:
        """Print nothing: the node gets its line when it has finished."""

    def finished(self, result: NodeResult) -> None:
        """Print the node's line."""
        if planned := result.unique_id in self._planned:
            self._done.add(result.unique_id)
        line = self._lines.line(len(self._done) if planned else None, result)
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Do nothing: the lines stay."""


class LiveView:
    """Prints a line for each finished node above a region of running nodes and progress."""

    def __init__(
        self,
        console: Console,
        planned: Mapping[str, NodeResult],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._planned = planned
        self._lines = Lines(planned)
        self._now = now
        self._opened = now()
        self._first: float | None = None
        self._running: dict[str, tuple[NodeResult, float]] = {}
        self._done: dict[str, str] = {}
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def started(self, result: NodeResult) -> None:
        """Add the node to the running ones."""
        now = self._now()
        self._first = self._first or now
        self._running[result.unique_id] = (result, now)

    def finished(self, result: NodeResult) -> None:
        """Print the node's line and count it."""
        self._running.pop(result.unique_id, None)
        if planned := result.unique_id in self._planned:
            self._done[result.unique_id] = result.status
        line = self._lines.line(len(self._done) if planned else None, result)
        self._live.console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def close(self) -> None:
        """Remove the live region."""
        self._live.stop()

    def render(self) -> RenderableType:
        """Return the live region.

        rich calls this from its refresh thread, so it works on copies.
        """
        running, done = tuple(self._running.values()), dict(self._done)
        now = self._now()
        table = Table.grid(padding=(0, 2))
        for result, since in running[:MAX_RUNNING_SHOWN]:
            table.add_row(
                Text("running", style="cyan"),
                Text(result.kind),
                Text(result.compute),
                Text(result.name, overflow="ellipsis", no_wrap=True),
                Text(f"{now - since:.0f} s"),
            )
        more = len(running) - MAX_RUNNING_SHOWN
        if more > 0:
            table.add_row(Text(f"and {more} more"))
        counts = Counter(done.values())
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        left = time_left(len(done), len(self._planned), now - (self._first or now))
        summary = Table.grid(padding=(0, 1))
        summary.add_row(
            ProgressBar(total=max(len(self._planned), 1), completed=len(done), width=30),
            Text(f"{len(done)}/{len(self._planned)}"),
            Text(f"{clock(now - self._opened)} elapsed, {clock(left)} left"),
            Text(statuses, style="dim"),
        )
        return Group(table, summary) if running else summary
