"""Asks a Dagster webserver what it is and how it does, within one deadline."""

from __future__ import annotations

import base64
import os
import queue
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.telemetry import failed, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import httpx

DEFAULT_URL = "http://localhost:3000"
URL_ENV = "DAGSTER_URL"
# FR-020 allows 10 s in all; half a second is left for giving up and for the caller.
DEADLINE_SECONDS = 9.5
MAX_ANSWER_BYTES = 16 * 2**20
MAX_REDIRECTS = 5
MAX_QUOTED = 300
_VERSION = re.compile(r"\d[\w.+!-]{0,60}")
_HOST = re.compile(r"[\w.:-]+")
_MASK = "***"

# What stands behind an error of httpx, the narrower first.
_REMEDIES: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: (
        "The certificate is not trusted: name the file of your own authority in `ca_bundle` of "
        "plugins.orchestrator.config, or correct the host name."
    ),
    ssl.SSLError: "Check http or https in the URL: they do not speak the same TLS.",
    socket.gaierror: "The host name is not known: check the URL and the DNS.",
}

_VERSION_QUERY = "{ version }"
_STATE_QUERY = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError {
    ... on Workspace {
      locationEntries { name locationOrLoadError { ... on PythonError { message } } }
    }
    ... on PythonError { message }
  }
}"""


class Address(NamedTuple):
    """Where a webserver is looked for, and who said so."""

    url: str
    source: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the webserver said: its version, or why there is none and what to do.

    `warnings` are about a webserver that answers and still cannot run products.
    """

    url: str
    version: str | None = None
    problem: str = ""
    warnings: tuple[str, ...] = field(default=())


class _Refusal(Exception):  # noqa: N818  an answer, not a fault
    """Why an answer is none, in words for the user."""


def webserver_address(configured: str | None) -> Address:
    """Return where the webserver is: configured, from ``DAGSTER_URL``, or the local default."""
    if configured:
        return Address(configured, "url in plugins.orchestrator.config")
    named = os.environ.get(URL_ENV)
    return Address(named, URL_ENV) if named else Address(DEFAULT_URL, "the default")


def ask_webserver(
    address: Address, deadline: float = DEADLINE_SECONDS, *, ca_bundle: str | None = None
) -> Answer:
    """Ask the GraphQL endpoint for Dagster's version, its daemons and its code locations.

    Never raises for what a server does, and returns after `deadline` seconds at the latest:
    name lookup, TLS and whatever drips included.

    Args:
        address: of the webserver; credentials in it are sent as basic authentication.
        deadline: seconds in all.
        ca_bundle: file of PEM certificates to trust instead of the usual ones.
    """
    with span("floe.connection", server=shown_url(address.url)) as current:
        answer = _ask_in_time(address, deadline, ca_bundle)
        if answer.problem:
            failed(current, answer.problem)
        return answer


def _ask_in_time(address: Address, deadline: float, ca_bundle: str | None) -> Answer:
    until = time.monotonic() + deadline
    secrets = _secrets(address.url)
    shown = shown_url(address.url)
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    line = _Line(until)

    def ask() -> None:
        try:
            told.put(_ask(address.url, shown, line, ca_bundle))
        except _Refusal as refusal:
            told.put(Answer(shown, problem=str(refusal)))
        except Exception as error:  # noqa: BLE001  whatever a server provokes is its answer
            told.put(Answer(shown, problem=_explain(error, deadline)))

    # A name lookup cannot be interrupted, nor a read of headers that drip: they are left behind.
    threading.Thread(target=ask, name="floe-dagster-connection", daemon=True).start()
    try:
        answer = told.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        line.cut()
        answer = Answer(shown, problem=_silence(deadline))
    where = f"POST {shown}/graphql ({address.source})" if shown else f"URL of {address.source}"
    return Answer(
        shown,
        answer.version,
        _masked(f"{where}: {answer.problem}", secrets) if answer.problem else "",
        tuple(_masked(warning, secrets) for warning in answer.warnings),
    )


class _Line:
    """The sockets of one conversation, so that it can be ended from outside."""

    def __init__(self, until: float) -> None:
        self.until = until
        self._sockets: list[socket.socket] = []

    @property
    def left(self) -> float:
        """Seconds until the deadline, never 0: that would mean no timeout."""
        return max(0.01, self.until - time.monotonic())

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take httpx's trace events; keeps the sockets that it opens."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            opened = info["return_value"].get_extra_info("socket")
            if opened is not None:
                self._sockets.append(opened)

    def cut(self) -> None:
        """Shut the sockets, which wakes and ends the thread that reads them."""
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def _ask(url: str, shown: str, line: _Line, ca_bundle: str | None) -> Answer:
    import httpx

    endpoint = _endpoint(url)
    if endpoint is None:
        raise _Refusal("this is no URL of a webserver. Write http://host:port or https://host.")
    with httpx.Client(verify=_trusted(ca_bundle), follow_redirects=False) as client:
        served = read_version(_post(client, endpoint, _VERSION_QUERY, line))
        warnings = _skew(served)
        try:
            warnings += read_state(_post(client, endpoint, _STATE_QUERY, line))
        except (_Refusal, httpx.HTTPError):
            warnings.append(
                "The webserver did not tell how its daemons and code locations do. Look at its "
                "Deployment page."
            )
    return Answer(shown, served, warnings=tuple(warnings))


def _post(client: httpx.Client, endpoint: httpx.URL, query: str, line: _Line) -> bytes:
    """Return the body of the answer to a query; redirects are followed within the host only."""
    import httpx

    for _ in range(MAX_REDIRECTS + 1):
        body = bytearray()
        with client.stream(
            "POST",
            endpoint,
            json={"query": query},
            # A compressed body could be of any size once unpacked.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=line.left,
            extensions={"trace": line.trace},
        ) as response:
            if response.is_redirect:
                endpoint = _redirected(endpoint, response.headers.get("location", ""))
                continue
            if response.status_code in {401, 403, 407}:
                raise _Refusal(
                    f"status {response.status_code}, it asks for credentials. Put them into "
                    f"{URL_ENV} (https://user:password@host), or ask without the proxy before it."
                )
            if response.status_code != httpx.codes.OK:
                raise _Refusal(
                    f"status {response.status_code}. Look into the log of the webserver, and of "
                    "what stands before it."
                )
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise _Refusal("the answer does not end. This is no Dagster: check the URL.")
                if time.monotonic() > line.until:
                    raise httpx.ReadTimeout("")
        return bytes(body)
    raise _Refusal(f"more than {MAX_REDIRECTS} redirects. Check what stands before Dagster.")


def _redirected(endpoint: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads.

    Raises:
        _Refusal: to another host, or from TLS to none: credentials must not follow.
    """
    to = endpoint.join(location)
    if not _HOST.fullmatch(to.host):
        raise _Refusal("it redirects to what is no URL. Check what stands before it.")
    if to.host != endpoint.host or to.scheme not in {endpoint.scheme, "https"}:
        raise _Refusal(
            f"it redirects to {shown_url(str(to))}, another host, which was not followed. If that "
            "is the webserver, write its URL."
        )
    return to.copy_with(userinfo=endpoint.userinfo)


class _Versioned(msgspec.Struct):
    version: str | None = None


class _GraphqlError(msgspec.Struct):
    message: str = ""


class _VersionReply(msgspec.Struct):
    data: _Versioned | None = None
    errors: list[_GraphqlError] | None = None


class _Daemon(msgspec.Struct, rename="camel"):
    daemon_type: str
    required: bool = True
    healthy: bool | None = None


class _DaemonHealth(msgspec.Struct, rename="camel"):
    all_daemon_statuses: list[_Daemon] = []


class _Instance(msgspec.Struct, rename="camel"):
    daemon_health: _DaemonHealth


class _LoadError(msgspec.Struct):
    message: str | None = None


class _Location(msgspec.Struct, rename="camel"):
    name: str
    location_or_load_error: _LoadError | None = None


class _Workspace(msgspec.Struct, rename="camel"):
    location_entries: list[_Location] = []
    message: str | None = None


class _State(msgspec.Struct, rename="camel"):
    instance: _Instance
    workspace_or_error: _Workspace


class _StateReply(msgspec.Struct):
    data: _State


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refusal(
            "the answer is not Dagster's. Check the URL, and what stands before it."
        ) from None


def read_version(body: bytes) -> str:
    """Return Dagster's version from an answer; what is none raises `_Refusal`."""
    found: _VersionReply = _decoded(body, _VersionReply)
    served = (found.data and found.data.version) or ""
    if not _VERSION.fullmatch(served):
        raise _Refusal(f"{_said(found.errors)}. Check the URL, and what stands before it.")
    return served


def _said(errors: Sequence[_GraphqlError] | None) -> str:
    messages = [error.message for error in errors or () if error.message]
    return f"GraphQL says {_quoted(messages[0])}" if messages else "the answer is not Dagster's"


def _skew(served: str) -> list[str]:
    """Return a warning if webserver and this environment are of different minor versions."""
    try:
        own = version("dagster")
    except PackageNotFoundError:
        return []
    if own.split(".")[:2] == served.split(".")[:2]:
        return []
    return [f"The webserver runs Dagster {served}, this environment {own}. Install the same minor."]


def read_state(body: bytes) -> list[str]:
    """Return warnings from an answer on daemons and code locations."""
    reply: _StateReply = _decoded(body, _StateReply)
    daemons = reply.data.instance.daemon_health.all_daemon_statuses
    ill = {daemon.daemon_type.lower() for daemon in daemons if daemon.required}
    ill -= {daemon.daemon_type.lower() for daemon in daemons if daemon.healthy}
    found = []
    if ill:
        found.append(
            f"No healthy daemon for: {_printable(known(ill))}. Schedules, sensors and queued runs "
            "wait for it: start dagster-daemon on the webserver's instance, and read its log."
        )
    workspace = reply.data.workspace_or_error
    if workspace.message:
        found.append(f"The workspace cannot be loaded: {_quoted(workspace.message)}.")
    for location in workspace.location_entries:
        error = location.location_or_load_error
        if error is not None and error.message:
            found.append(
                f"Code location {_quoted(location.name)} is in error: {_quoted(error.message)}. "
                "Mend it and reload the location."
            )
    return found


def _explain(error: Exception, deadline: float) -> str:
    """Return what went wrong on the way to an answer, with what to do."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return _silence(deadline)
    said = _quoted(str(error) or type(error).__name__)
    causes = [*_causes(error)]
    for kind, remedy in _REMEDIES.items():
        if any(isinstance(cause, kind) for cause in causes):
            return f"{said}. {remedy}"
    return f"{said}. Is the webserver running, and this its port?"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _silence(deadline: float) -> str:
    return (
        f"no whole answer within {deadline:g} s. Is the webserver overloaded, or is a firewall or "
        "the DNS in the way?"
    )


def _trusted(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise _Refusal(
            f"ca_bundle {ca_bundle} cannot be used: {error.strerror or error}. Name a file of PEM "
            "certificates in plugins.orchestrator.config."
        ) from None


def _endpoint(url: str) -> httpx.URL | None:
    import httpx

    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        return None
    # An @ in the path is the tail of a password that holds a slash.
    if base.scheme not in {"http", "https"} or not _HOST.fullmatch(base.host) or "@" in base.path:
        return None
    return base.copy_with(path=base.path.rstrip("/") + "/graphql", fragment=None)


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it; "" if it is none of a webserver.

    Left out are credentials, query and fragment.
    """
    base = _endpoint(url)
    if base is None:
        return ""
    shown = base.copy_with(userinfo=b"", query=None)
    return _printable(str(shown).removesuffix("/graphql"))


def _secrets(url: str) -> tuple[str, ...]:
    """Return what a server could say back to us of a URL's credentials, longest first."""
    base = _endpoint(url)
    if base is None:
        return ()  # nothing was sent
    raw = base.userinfo.decode("ascii", "replace")
    basic = base64.b64encode(f"{base.username}:{base.password}".encode()).decode()
    parts = {raw, raw.partition(":")[2], base.password, base.query.decode("ascii", "replace")}
    found = {part for part in parts if part} | ({basic} if base.userinfo else set())
    if base.userinfo and not base.password:
        found.add(base.username)
    return tuple(sorted(found, key=len, reverse=True))


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _MASK)
    return text


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _quoted(text: str) -> str:
    """Return somebody else's text on one line, cut."""
    line = " ".join(_printable(text).split()).rstrip(".")
    return f"'{line}'" if len(line) <= MAX_QUOTED else f"'{line[:MAX_QUOTED]} ...'"
