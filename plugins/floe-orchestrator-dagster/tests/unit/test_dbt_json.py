"""JSON as dbt writes it."""

from __future__ import annotations

import msgspec
import pytest

from floe_orchestrator_dagster.dbt_json import decode_dbt_json
from floe_orchestrator_dagster.plan.manifest import decode_manifest


def test_numbers_that_json_does_not_have_are_null() -> None:
    written = b'{"a": NaN, "b": [Infinity, -Infinity, 1.5], "c": "NaN"}'
    assert decode_dbt_json(msgspec.json.decode, written) == {
        "a": None,
        "b": [None, None, 1.5],
        "c": "NaN",
    }


@pytest.mark.parametrize("written", [b"", b"{", b'{"a": nan}', b"\xff"])
def test_other_malformed_json_is_refused(written: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_dbt_json(msgspec.json.decode, written)


def test_a_manifest_with_such_numbers_is_still_checked() -> None:
    with pytest.raises(msgspec.ValidationError, match="nodes"):
        decode_manifest(b'{"metadata": {}, "nodes": [NaN]}')
