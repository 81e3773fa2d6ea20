"""The errors that this package raises, each with the next step for the user.

FloeDagsterError
├── PlanError        the product is inconsistent; carries every problem (also a ValueError)
├── ConfigError      the plugin's configuration is wrong (also a ValueError)
├── ScheduleError    Dagster cannot run this schedule (also a ValueError)
├── ProductError     a file of the product is missing, unreadable or unwritable
├── DbtError         dbt did not start, crashed, or nodes failed
└── LineageError     lineage that is required cannot be kept, or its backend cannot be used
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_LISTED = 20


class FloeDagsterError(Exception):
    """Root of the errors of this package."""


class ConfigError(FloeDagsterError, ValueError):
    """The plugin's configuration is wrong."""


class ScheduleError(FloeDagsterError, ValueError):
    """Dagster cannot run a schedule."""


class ProductError(FloeDagsterError):
    """A file of the product is missing, unreadable or unwritable."""


class DbtError(FloeDagsterError):
    """dbt did not start, crashed, or some of its nodes failed."""


class LineageError(FloeDagsterError):
    """Lineage that is required cannot be kept, or its backend cannot be used."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: the path of the wrong value, what is wrong with it, and how to fix it."""

    path: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message} {self.fix}"


class PlanError(FloeDagsterError, ValueError):
    """The product is inconsistent; `problems` holds every problem, not only the first."""

    def __init__(self, doing: str, problems: Iterable[Problem]) -> None:
        self.doing = doing
        self.problems: Sequence[Problem] = tuple(problems)
        count = len(self.problems)
        lines = [f"{doing}: {count} problem{'s' if count != 1 else ''}."]
        lines += [f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[PlanError], tuple[str, Sequence[Problem]]]:
        return type(self), (self.doing, self.problems)


def known(names: Iterable[str]) -> str:
    """Return the first `MAX_LISTED` names as text, with the number of the others; or "none"."""
    ordered = sorted(names)
    more = len(ordered) - MAX_LISTED
    return (", ".join(ordered[:MAX_LISTED]) or "none") + (f" and {more} more" if more > 0 else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" if a name is similar to `name`, else an empty string."""
    spelled = {known_name.casefold(): known_name for known_name in sorted(names)}
    near = get_close_matches(name.casefold(), spelled, n=1, cutoff=0.6)
    return f" Did you mean '{spelled[near[0]]}'?" if near else ""
