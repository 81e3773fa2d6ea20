"""Decides from a backend's answer whether an event is delivered, refused, or must be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# Not the fault of the event: it can succeed later, or with other credentials or another address.
LATER = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})
CLIENT_ERRORS = range(400, 500)
SERVER_FAILED = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of sending an event; if neither delivered nor refused, it must be sent again.

    Attributes:
        delivered: the backend has accepted the event.
        refused: the backend will never accept the event.
        reason: the message for people, without secrets; "" if delivered.
        wait: the seconds that the backend requests to wait, if any.
        poison: the backend failed on the event, perhaps because of the event.
    """

    delivered: bool = False
    refused: bool = False
    reason: str = ""
    wait: float | None = None
    poison: bool = False


DELIVERED = Verdict(delivered=True)
ABORTED = Verdict(reason="aborted")


def judged(status: int, retry_after: str | None, body: str) -> Verdict:
    """Return the verdict on an event for an HTTP status other than 2xx."""
    reason = f"the backend answered {status}" + (f": {body}" if body else "")
    if status in CLIENT_ERRORS and status not in LATER:
        return Verdict(refused=True, reason=reason)
    return Verdict(reason=reason, wait=seconds_of(retry_after), poison=status == SERVER_FAILED)


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header requests, by a number or a date."""
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
