"""Checks within one deadline whether a webserver answers and what state it is in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from floe_orchestrator_dagster.telemetry import failed, span
from floe_orchestrator_dagster.urls import masked, secrets_of, shown, web_url
from floe_orchestrator_dagster.webserver.deadline import within
from floe_orchestrator_dagster.webserver.exchange import Exchange, endpoint_of, trusted
from floe_orchestrator_dagster.webserver.graphql import (
    STATE_QUERY,
    VERSION_QUERY,
    read_state,
    read_version,
    version_skew,
)
from floe_orchestrator_dagster.webserver.refusal import RefusalError, explained

if TYPE_CHECKING:
    from floe_orchestrator_dagster.webserver.deadline import Line

DEFAULT_URL = "http://localhost:3000"
URL_ENV = "DAGSTER_URL"
# FR-020 allows 10 s in total; half a second is left for giving up and for the caller.
DEADLINE_SECONDS = 9.5


class Address(NamedTuple):
    """The URL of a webserver, and the setting that it comes from."""

    url: str
    source: str


@dataclass(frozen=True, slots=True)
class WebserverState:
    """The version of a webserver, or why it is not known.

    Attributes:
        url: the URL that was queried, without credentials; "" if it is not a URL.
        version: the version of Dagster; None if there is a `problem`.
        problem: why there is no version, and what to do; "" if there is one.
        warnings: what keeps a webserver that answers from running products.
    """

    url: str
    version: str | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()


def webserver_address(configured: str | None) -> Address:
    """Return the configured address, else ``DAGSTER_URL``, else the local default."""
    if configured:
        return Address(configured, "url in plugins.orchestrator.config")
    named = os.environ.get(URL_ENV)
    return Address(named, URL_ENV) if named else Address(DEFAULT_URL, "the default")


def ask_webserver(
    address: Address, deadline: float = DEADLINE_SECONDS, *, ca_bundle: str | None = None
) -> WebserverState:
    """Query the GraphQL endpoint for Dagster's version, its daemons and its code locations.

    Nothing that a server does raises an error. The function returns within `deadline` seconds,
    including name lookup, TLS and bodies that arrive byte by byte.

    Args:
        address: the address of the webserver; credentials in it are sent as basic authentication.
        deadline: seconds in total.
        ca_bundle: a file of PEM certificates to trust instead of the usual ones.
    """
    with span("floe.connection", server=_shown(address.url)) as current:
        state = _state(address, deadline, ca_bundle)
        if state.problem:
            failed(current, state.problem)
        return state


def _state(address: Address, deadline: float, ca_bundle: str | None) -> WebserverState:
    url = _shown(address.url)
    parts = web_url(address.url)
    secrets = () if parts is None else secrets_of(parts)
    try:
        version, warnings = within(deadline, lambda line: _ask(address.url, line, ca_bundle))
    except Exception as error:  # noqa: BLE001  any error that a server causes is a problem to report
        where = f"POST {url}/graphql ({address.source})" if url else f"URL of {address.source}"
        problem = masked(f"{where}: {explained(error, deadline)}", secrets)
        return WebserverState(url, problem=problem)
    return WebserverState(
        url, version, warnings=tuple(masked(warning, secrets) for warning in warnings)
    )


def _shown(url: str) -> str:
    return shown(url) if web_url(url) is not None else ""


def _ask(url: str, line: Line, ca_bundle: str | None) -> tuple[str, list[str]]:
    """Return the version and the warnings.

    Raises:
        RefusalError: the answer cannot be used.
        httpx.HTTPError: there is no answer.
    """
    import httpx

    endpoint = endpoint_of(url)
    with httpx.Client(verify=trusted(ca_bundle), follow_redirects=False) as client:
        exchange = Exchange(client, endpoint, line)
        served = read_version(exchange.post(VERSION_QUERY))
        warnings = version_skew(served)
        try:
            warnings += read_state(exchange.post(STATE_QUERY))
        except (RefusalError, httpx.HTTPError):
            warnings.append(
                "The webserver did not report the state of its daemons and code locations. Look "
                "at its Deployment page."
            )
    return served, warnings
