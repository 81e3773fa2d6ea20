"""JSON of dbt is decoded, with null for numbers that JSON does not have."""

from __future__ import annotations

import msgspec
import pytest

from floe_orchestrator_dagster.dbt_json import decode_dbt_json
from floe_orchestrator_dagster.plan.manifest import decode_manifest


def test_nan_and_infinities_become_null() -> None:
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


def test_a_manifest_with_nan_is_still_validated() -> None:
    with pytest.raises(msgspec.ValidationError, match="nodes"):
        decode_manifest(b'{"metadata": {}, "nodes": [NaN]}')
