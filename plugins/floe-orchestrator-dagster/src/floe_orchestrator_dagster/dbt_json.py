"""Decodes the JSON that dbt writes, which may contain NaN and infinities."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def decode_dbt_json(decode: Callable[[bytes], T], data: bytes) -> T:
    """Return the result of `decode` for a JSON file of dbt; NaN and infinities become null.

    Raises:
        msgspec.DecodeError: the data is not JSON, or `decode` does not accept it.
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
