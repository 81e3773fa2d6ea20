"""JSON as dbt writes it: with Python's words for numbers that JSON does not have."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def decode_dbt_json(decode: Callable[[bytes], T], data: bytes) -> T:
    """Return what `decode` makes of a file of dbt; NaN and the infinities are null.

    Raises:
        msgspec.DecodeError: not JSON otherwise either, or not what `decode` expects.
    """
    try:
        return decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        with suppress(ValueError):
            content = json.loads(data, parse_constant=lambda _: None)
            return decode(msgspec.json.encode(content))
        raise
