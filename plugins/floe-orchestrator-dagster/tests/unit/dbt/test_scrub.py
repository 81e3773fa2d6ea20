"""Secrets are masked in every encoding, and no other text is masked."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_orchestrator_dagster.dbt.scrub import (
    MASK,
    Scrubber,
    environment_secrets,
    is_secret_name,
    output_secrets,
)

CANARY = "p@ss w/rd+Ünï"


@pytest.mark.parametrize(
    "encoded",
    [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        quote_plus(CANARY),
        json.dumps(CANARY)[1:-1],
        base64.b64encode(CANARY.encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_masked_in_every_encoding(encoded: str) -> None:
    masked = Scrubber([CANARY]).text(f"cannot open {encoded}!")
    assert MASK in masked
    assert encoded not in masked


@given(before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_a_secret_is_masked_within_a_longer_encoded_text(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + b"correct-horse-battery" + after).decode()
    masked = Scrubber(["correct-horse-battery"]).text(text)
    assert MASK in masked
    # At each end, less than one character of the secret is left.
    assert len(masked.replace(MASK, "")) <= len(text) - 26


def test_lines_of_a_key_are_masked_one_by_one() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----"
    assert Scrubber([key]).text("near MIIEvQIBADANBgkqhkiG9w0: bad") == f"near {MASK}: bad"


def test_texts_without_a_secret_stay() -> None:
    assert Scrubber([CANARY]).text("relation orders does not exist") == (
        "relation orders does not exist"
    )
    assert Scrubber().value({"a": ["b", 1, None]}) == {"a": ["b", 1, None]}


def test_texts_in_a_value_are_masked_but_not_its_keys() -> None:
    assert Scrubber(["hunter22"]).value(
        {"hunter22": ["x hunter22", {"y": "hunter22"}], "n": 1}
    ) == {
        "hunter22": [f"x {MASK}", {"y": MASK}],
        "n": 1,
    }


def test_secrets_of_the_environment_follow_dbts_rule() -> None:
    environment = {"DBT_ENV_SECRET_KEY": "one", "DBT_ENV_SECRET": "two", "DBT_SECRET": "three"}
    assert set(environment_secrets(environment)) == {"one", "two"}


def test_an_output_contains_secrets_by_name_by_reference_and_in_urls() -> None:
    output = {
        "type": "x",
        "user": "alice",
        "password": "{{ env_var('PG_PASSWORD') }}",
        "keyfile_json": {"client_email": "a@example.com", "private_key": "KEY-KEY"},
        "attach": [{"path": "postgres://bob:s3cr%40t@host/db"}],
        "token_uri": "https://example.com/token",
        "settings": {"s3_secret_access_key": "abcdefgh", "pass": "abc"},
    }
    assert set(output_secrets(output, {"PG_PASSWORD": "from-env"})) == {
        *("from-env", "a@example.com", "KEY-KEY", "s3cr%40t", "s3cr@t", "abcdefgh"),
    }


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("PASS", True),
        ("aws_secret_access_key", True),
        ("private_key_passphrase", True),
        ("token", True),
        ("client_secret", True),
        ("keyfile", False),
        ("token_uri", False),
        ("user", False),
        ("passenger_table", False),
        ("keepalives_idle", False),
    ],
)
def test_settings_are_secret_by_name(name: str, *, secret: bool) -> None:
    assert is_secret_name(name) is secret
