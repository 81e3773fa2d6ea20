"""Judges what a backend made of an event: delivered, refused for good, or to be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# Not about the event: it would go through at another time, or with other credentials or address.
LATER = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})
CLIENT_ERRORS = range(400, 500)
SERVER_FAILED = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a backend made of an event: delivered, refused for good, or to be sent again.

    Attributes:
        delivered: the backend has it.
        refused: it will never be taken; not set when it is to be sent again.
        reason: for people, without secrets; empty when delivered.
        wait: seconds the backend asks to wait, if it does.
        poison: the backend failed on it, which may be the event's fault.
    """

    delivered: bool = False
    refused: bool = False
    reason: str = ""
    wait: float | None = None
    poison: bool = False


DELIVERED = Verdict(delivered=True)
ABORTED = Verdict(reason="broken off")


def judged(status: int, retry_after: str | None, said: str) -> Verdict:
    """Return what an HTTP status other than 2xx means for an event."""
    reason = f"the backend answered {status}" + (f": {said}" if said else "")
    if status in CLIENT_ERRORS and status not in LATER:
        return Verdict(refused=True, reason=reason)
    return Verdict(reason=reason, wait=seconds_of(retry_after), poison=status == SERVER_FAILED)


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date to wait for."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
