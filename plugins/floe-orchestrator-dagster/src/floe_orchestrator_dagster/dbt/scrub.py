"""Removes secrets from text, in every encoding of them; needs only the standard library."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from floe_orchestrator_dagster.urls import passwords_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "*****"
# dbt's own rule: an environment variable with this prefix holds a secret.
ENVIRONMENT_PREFIX = "DBT_ENV_SECRET"
# If the name of a setting in a dbt output contains one of these words, its value is a secret.
NAMES = (
    *("password", "passwd", "passphrase", "passcode", "token", "secret", "private_key", "api_key"),
    *("access_key", "account_key", "client_key", "keyfile_json", "credential", "sas_key", "dsn"),
)
EXACT_NAMES = frozenset({"pass", "pwd", "key", "keyfile_json", "authorization"})
# Settings whose names contain such a word, but whose values are not secret.
HARMLESS_NAMES = frozenset({"token_url", "token_endpoint", "token_uri", "private_key_path"})
# Masking a shorter value, such as a password of one letter, would make messages unreadable.
SHORTEST = 4
_SHORTEST_ENCODED = 8
_LONG_LINE = 16
_ENV_VAR = re.compile(r"""env_var\(\s*['"]([^'"]+)['"]""")


class Scrubber:
    """Masks a set of secrets in texts, also if they are base64-, URL- or JSON-encoded."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(filter(None, secrets))
        forms = {form for secret in self.secrets for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """Return a text with the secrets masked."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def value(self, value: Any) -> Any:
        """Return a JSON value with the secrets masked in all its texts; keys stay."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value


def environment_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets of an environment, according to dbt's naming rule."""
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and value.strip():
            yield value


def output_secrets(
    output: Any, environment: Mapping[str, str] | None = None, name: str = ""
) -> Iterator[str]:
    """Yield the secrets of a dbt output: values of secret-looking settings, passwords in URLs.

    If a setting refers to environment variables, their values are the secrets.
    """
    if isinstance(output, dict):
        for key, item in output.items():
            # Everything below a secret-looking name is secret, such as the parts of a key file.
            below = name if is_secret_name(name) else str(key)
            yield from output_secrets(item, environment, below)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from output_secrets(item, environment, name)
    elif isinstance(output, str):
        values = [(environment or {}).get(variable, "") for variable in _ENV_VAR.findall(output)]
        for value in values or [output]:
            if len(value) < SHORTEST:
                continue
            if is_secret_name(name):
                yield value
            yield from (part for part in passwords_in(value) if len(part) >= SHORTEST)


def is_secret_name(name: str) -> bool:
    """Return whether a setting of this name holds a secret."""
    lower = name.lower()
    if lower in HARMLESS_NAMES:
        return False
    return lower in EXACT_NAMES or any(word in lower for word in NAMES)


def _forms(secret: str) -> Iterator[str]:
    """Yield the encodings of a secret that may occur in a text."""
    yield secret
    yield secret.strip()
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    if len(secret) < _SHORTEST_ENCODED:
        return
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    data = secret.encode()
    # base64 encodes a secret in three ways, depending on its offset in the whole text. The piece
    # below leaves out the characters at both ends, which mix in bits of the neighboring text.
    for offset in range(3):
        padded = base64.b64encode(b"\0" * offset + data).decode()
        start = -(-offset * 8 // 6)
        end = (offset + len(data)) * 8 // 6
        piece = padded[start:end]
        yield piece
        yield piece.replace("+", "-").replace("/", "_")
    # A message may quote only some lines of a key.
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _LONG_LINE and "-----" not in line)
