"""Words for an answer that is of no use, and for what went wrong on the way to one."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.urls import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_QUOTED = 300

# What stands behind an error of httpx, the narrower first.
_REMEDIES: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: (
        "The certificate is not trusted: name the file of your own authority in `ca_bundle` of "
        "plugins.orchestrator.config, or correct the host name."
    ),
    ssl.SSLError: "Check http or https in the URL: they do not speak the same TLS.",
    socket.gaierror: "The host name is not known: check the URL and the DNS.",
}


class RefusalError(Exception):
    """An answer is of no use; the text says why, and what to do."""


def explained(error: BaseException, deadline: float) -> str:
    """Return why there is no answer, with what to do; `deadline` is in seconds."""
    import httpx

    if isinstance(error, RefusalError):
        return str(error)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return (
            f"no whole answer within {deadline:g} s. Is the webserver overloaded, or is a firewall "
            "or the DNS in the way?"
        )
    message = quoted(str(error) or type(error).__name__)
    causes = [*_causes(error)]
    for kind, remedy in _REMEDIES.items():
        if any(isinstance(cause, kind) for cause in causes):
            return f"{message}. {remedy}"
    return f"{message}. Is the webserver running, and this its port?"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def quoted(text: str) -> str:
    """Return somebody else's text in quotes, on one line, cut after `MAX_QUOTED` letters."""
    line = " ".join(printable(text).split()).rstrip(".")
    return f"'{line}'" if len(line) <= MAX_QUOTED else f"'{line[:MAX_QUOTED]} ...'"
