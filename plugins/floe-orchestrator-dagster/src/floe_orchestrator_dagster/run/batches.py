"""How a microbatch model is built: which window of its batches, and afresh or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.dbt.events import Window


@dataclass(frozen=True, slots=True)
class Batches:
    """How a microbatch model is to be built: a window (None: dbt's own choice), afresh or not."""

    window: tuple[str, str] | None = None
    full_refresh: bool = False

    @property
    def lane(self) -> str:
        """The name of the dbt commands that build so."""
        return f"{'/'.join(self.window or ())} {'full' if self.full_refresh else ''}".strip()


@dataclass(frozen=True, slots=True)
class PartlyBuilt:
    """A microbatch model of which some batches failed: from which code, which ones of which."""

    code: str | None
    missing: Sequence[Window]
    every: Sequence[Window]
    parents_changed: bool = False

    def again(self, code: str | None, *, full_refresh: bool) -> Batches:
        """Return how it is built again: the missing batches, or all where the others are stale."""
        if self.parents_changed or code != self.code or len(self.missing) == len(self.every):
            return Batches(covering(self.every), full_refresh)
        # A full refresh would drop the batches that are there.
        return Batches(covering(self.missing))


def lanes_of(batches: Mapping[str, Batches], *, full_refresh: bool) -> Mapping[str, str]:
    """Return the lane of what must not be built by one dbt command with the rest.

    The rest is built afresh with `full_refresh`.
    """
    usual = Batches(full_refresh=full_refresh)
    kinds = {*batches.values()}
    # All in one way, and in no other way than the rest: one command will do.
    if len(kinds) <= 1 and all(one.full_refresh == full_refresh for one in kinds):
        return {}
    return {uid: one.lane for uid, one in batches.items() if one != usual}


def in_utc(window: tuple[datetime, datetime]) -> tuple[str, str]:
    """Return a window as dbt takes it: in UTC, for dbt leaves offsets aside."""
    start, end = (
        moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")
        for moment in window
    )
    return start, end


def since(begin: Any) -> tuple[str, str]:
    """Return the window from a model's `begin` to now, as dbt takes it."""
    moment = begin if isinstance(begin, datetime) else datetime.fromisoformat(str(begin))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return in_utc((moment, datetime.now(timezone.utc)))


def covering(windows: Sequence[Window]) -> tuple[str, str]:
    """Return the window from the first to the last of some batches, as dbt takes it."""
    moments = [
        datetime.fromisoformat(part.replace("Z", "+00:00")) for one in windows for part in one
    ]
    return in_utc((min(moments), max(moments)))
