"""How a microbatch model is built: the window of its batches, and whether to refresh it fully."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.dbt.events import Window


@dataclass(frozen=True, slots=True)
class Batches:
    """How to build a microbatch model: a window (None: dbt chooses), with a full refresh or not."""

    window: tuple[str, str] | None = None
    full_refresh: bool = False

    @property
    def lane(self) -> str:
        """The name that all models with these settings share: one dbt command can build them."""
        return f"{'/'.join(self.window or ())} {'full' if self.full_refresh else ''}".strip()


@dataclass(frozen=True, slots=True)
class PartlyBuilt:
    """A microbatch model with failed batches: the version of its code, and `missing` of `every`."""

    code: str | None
    missing: Sequence[Window]
    every: Sequence[Window]
    parents_changed: bool = False

    def again(self, code: str | None, *, full_refresh: bool) -> Batches:
        """Return how to build it again: only the missing batches, or all if the rest is stale."""
        if self.parents_changed or code != self.code or len(self.missing) == len(self.every):
            return Batches(covering(self.every), full_refresh)
        # A full refresh would drop the existing batches.
        return Batches(covering(self.missing))


def lanes_of(batches: Mapping[str, Batches], *, full_refresh: bool) -> Mapping[str, str]:
    """Return the lanes of models that one dbt command cannot build together with the other nodes.

    `full_refresh` is the setting of the other nodes.
    """
    usual = Batches(full_refresh=full_refresh)
    kinds = {*batches.values()}
    # One command is enough if all models have the same window and the same refresh as the rest.
    if len(kinds) <= 1 and all(one.full_refresh == full_refresh for one in kinds):
        return {}
    return {uid: one.lane for uid, one in batches.items() if one != usual}


def in_utc(window: tuple[datetime, datetime]) -> tuple[str, str]:
    """Return a window in dbt's form: in UTC, because dbt ignores offsets."""
    start, end = (
        moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")
        for moment in window
    )
    return start, end


def since(begin: Any) -> tuple[str, str]:
    """Return the window from a model's `begin` to now, in dbt's form."""
    moment = begin if isinstance(begin, datetime) else datetime.fromisoformat(str(begin))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return in_utc((moment, datetime.now(timezone.utc)))


def covering(windows: Sequence[Window]) -> tuple[str, str]:
    """Return the window from the first to the last of some batches, in dbt's form."""
    moments = [
        datetime.fromisoformat(part.replace("Z", "+00:00")) for one in windows for part in one
    ]
    return in_utc((min(moments), max(moments)))
