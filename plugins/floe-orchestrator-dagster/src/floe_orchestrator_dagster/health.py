"""Asks a Dagster webserver whether it is one, within a deadline."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

DEFAULT_URL = "http://localhost:3000"
URL_ENV = "DAGSTER_URL"
DEADLINE_SECONDS = 10.0
MAX_ANSWER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the webserver said: its version, or why there is none and what to do."""

    url: str
    version: str | None = None
    problem: str = ""


def webserver_url(configured: str | None) -> str:
    """Return the webserver's URL: configured, from ``DAGSTER_URL``, or the local default."""
    return (configured or os.environ.get(URL_ENV) or DEFAULT_URL).rstrip("/")


def ask_version(url: str, deadline: float = DEADLINE_SECONDS) -> Answer:
    """Ask the GraphQL endpoint of `url` for Dagster's version.

    Never raises for what a server does. A silent server, or a body that drips, is given up within
    `deadline` seconds; a server that drips its headers is not yet bounded.
    """
    import httpx

    shown = _without_credentials(url)
    try:
        found = _ask(url, deadline)
    except httpx.TimeoutException:
        found = f"no whole answer in {deadline:g} s. Is the webserver overloaded?"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = str(error).replace(url, shown) or type(error).__name__
        found = f"{said}. Is the webserver running?"
    if isinstance(found, str):
        return Answer(shown, problem=f"POST {shown}/graphql: {found}")
    version = _version(found)
    if version is None:
        return Answer(
            shown, problem=f"POST {shown}/graphql: the answer is not Dagster's. Check the URL."
        )
    return Answer(shown, version=version)


def _ask(url: str, deadline: float) -> bytes | str:
    """Return the body of the answer, or what is wrong with it."""
    import httpx

    until = time.monotonic() + deadline
    body = bytearray()
    with (
        httpx.Client(timeout=deadline / 2, follow_redirects=False) as client,
        client.stream("POST", f"{url}/graphql", json={"query": "{ version }"}) as response,
    ):
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                return "the answer does not end. Check the URL."
            if time.monotonic() > until:
                raise httpx.ReadTimeout("")
        if response.status_code != httpx.codes.OK:
            return f"status {response.status_code}. Check the URL, and what stands before it."
    return bytes(body)


def _version(body: bytes) -> str | None:
    import msgspec

    try:
        answer: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    data = answer.get("data") if isinstance(answer, dict) else None
    version = data.get("version") if isinstance(data, dict) else None
    return version if isinstance(version, str) and version else None


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
