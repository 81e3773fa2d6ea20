"""Hands one event to the backend and says what became of it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.urls import WEB, basic_credentials, masked, secrets_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

DEFAULT_TIMEOUT_SECONDS = 5.0
# What is read of an answer; Marquez sends none, others a line.
MAX_ANSWER_BYTES = 64 * 2**10
MAX_REASON = 200
OK = range(200, 300)
# Not about the event: it would go through at another time, or with other credentials or address.
LATER = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})
CLIENT_ERRORS = range(400, 500)

# What a floe transport config may hold and `HttpChannel` understands.
_PLAIN_KEYS = frozenset({"type", "url", "timeout", "drain_timeout", "api_key", "verify_ssl"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a backend made of an event: delivered, refused for good, or to be sent again.

    Attributes:
        delivered: the backend has it.
        refused: it will never be taken; not set when it is to be sent again.
        reason: for people, without secrets; empty when delivered.
        wait: seconds the backend asks to wait, if it does.
        poison: the backend failed on it, which may be the event's fault.
    """

    delivered: bool = False
    refused: bool = False
    reason: str = ""
    wait: float | None = None
    poison: bool = False


DELIVERED = Verdict(delivered=True)


class Channel(Protocol):
    """The way to a backend."""

    def post(self, event: bytes) -> Verdict:
        """Send one event; never raises."""

    def watch(self) -> None:
        """Break off a `post` that takes too long; called now and then by another thread.

        Socket timeouts start anew with each byte, so a server that drips holds a reader for hours.
        """

    def abort(self) -> None:
        """Break off what `post` is waiting for, for good; called by another thread."""

    def close(self) -> None:
        """Give up connections."""


def client_transport(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `LineageBackendPlugin` transport config as openlineage-python wants it.

    floe's http config names the whole endpoint in `url`; given to the client as it is, the path
    would be doubled and the key dropped.
    """
    if config.get("type") != "http" or "endpoint" in config:
        return dict(config)
    further = {key: value for key, value in config.items() if key not in _PLAIN_KEYS}
    transport: dict[str, Any] = {
        "type": "http",
        "url": config["url"],
        "endpoint": "",
        "timeout": config.get("timeout", DEFAULT_TIMEOUT_SECONDS),
        "verify": config.get("verify_ssl", True),
        # Going on trying is the sender's, who also knows when to stop.
        "retry": {"total": 0, "status_forcelist": []},
    }
    if config.get("api_key"):
        transport["auth"] = {"type": "api_key", "apiKey": config["api_key"]}
    return transport | further


def open_channel(transport: Mapping[str, Any]) -> Channel:
    """Return the way that a transport config describes; nothing is connected yet.

    Raises:
        LineageError: the config cannot be used.
    """
    kind = transport.get("type")
    if kind == "http" and transport.keys() <= _PLAIN_KEYS:
        return HttpChannel(transport)
    try:
        return ClientChannel(transport)
    except Exception as error:  # noqa: BLE001  each transport raises its own
        # What the client says may quote the config, with its secrets.
        raise LineageError(
            f"Cannot use the lineage backend: openlineage-python makes no transport of type "
            f"'{kind}' from its config ({type(error).__name__}). Correct "
            "plugins.lineage_backend in manifest.yaml and compile again, or install what that "
            "transport needs."
        ) from None


class HttpChannel:
    """Posts to one URL over one connection that is kept open.

    The standard library's client takes 0.13 ms of processor time an event, httpx 0.45 and
    requests, which openlineage-python uses, 0.75; lineage may cost a run 3 %.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        url = config.get("url")
        parts = urlsplit(url.strip() if isinstance(url, str) else "")
        if parts.scheme not in WEB or not parts.hostname:
            raise LineageError(
                "Cannot use the lineage backend: its transport config has no `url` that starts "
                "with http:// or https://. Correct plugins.lineage_backend in manifest.yaml and "
                "compile again."
            )
        self._timeout = float(config.get("timeout") or DEFAULT_TIMEOUT_SECONDS)
        key = config.get("api_key")
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "floe-orchestrator-dagster",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        elif parts.username:
            self._headers["Authorization"] = f"Basic {basic_credentials(parts)}"
        # An answer may quote what it was sent.
        self._secrets = [*([str(key)] if key else []), *secrets_of(parts)]
        self._connection, self._path = _connection(
            parts, self._timeout, verify=bool(config.get("verify_ssl", True))
        )
        self._aborted = False
        self._until: float | None = None
        self._late = False
        # Guards the two above: the watch must never break the post that comes after a late one.
        self._watch = threading.Lock()

    def post(self, event: bytes) -> Verdict:
        """Send one event; never raises."""
        reused = self._connection.sock is not None
        with self._watch:
            if self._aborted:
                return Verdict(reason="broken off")
            self._until, self._late = time.monotonic() + self._timeout, False
        try:
            try:
                return self._exchange(event)
            except ConnectionError:
                # A server closes idle connections as it likes; that says nothing of its health.
                self._connection.close()
                if not reused or self._aborted or self._late:
                    raise
                return self._exchange(event)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            if self._late or isinstance(error, TimeoutError):
                return Verdict(reason=f"no whole answer within {self._timeout:g} s")
            return Verdict(reason=f"not reachable ({type(error).__name__})")
        finally:
            with self._watch:
                self._until = None

    def _exchange(self, event: bytes) -> Verdict:
        self._connection.request("POST", self._path, body=event, headers=self._headers)
        response = self._connection.getresponse()
        said = response.read(MAX_ANSWER_BYTES)
        if not response.isclosed():
            self._connection.close()
        if response.status in OK:
            return DELIVERED
        return judged(response.status, response.getheader("Retry-After"), self._hide(said))

    def _hide(self, said: bytes) -> str:
        text = " ".join(said.decode(errors="replace").split())
        return masked(text, self._secrets)[:MAX_REASON]

    def _break(self) -> None:
        # shutdown wakes a thread that waits in recv; close alone does not.
        sock = self._connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def watch(self) -> None:
        """Break off a post that takes longer than the timeout."""
        with self._watch:
            if self._until is not None and time.monotonic() > self._until:
                self._late = True
                self._break()

    def abort(self) -> None:
        """Break off a post that waits, for good."""
        with self._watch:
            self._aborted = True
            self._break()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class ClientChannel:
    """Sends through openlineage-python's own transports: kafka, file, console, composite, ..."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from openlineage.client.transport import get_default_factory

        self._timeout = float(config.get("timeout") or DEFAULT_TIMEOUT_SECONDS)
        self._transport = get_default_factory().create(client_transport(config))
        self._aborted = False

    def post(self, event: bytes) -> Verdict:
        """Send one event and wait until the transport has it out of the house."""
        if self._aborted:
            return Verdict(reason="broken off")
        try:
            content = run_event(event)
        except (ValueError, KeyError, TypeError) as error:
            return Verdict(refused=True, reason=f"no run event ({type(error).__name__}: {error})")
        try:
            self._transport.emit(content)
            wait = getattr(self._transport, "wait_for_completion", None)
            if wait is not None and not wait(self._timeout):
                return Verdict(reason=f"not confirmed within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001  each transport raises its own
            response = getattr(error, "response", None)
            status = getattr(response, "status_code", None)
            if response is not None and isinstance(status, int):
                return judged(status, response.headers.get("Retry-After"), "")
            return Verdict(reason=f"not sent ({type(error).__name__})")
        return DELIVERED

    def watch(self) -> None:
        """Leave the transport its own time."""

    def abort(self) -> None:
        """Let the present event be the last; these transports cannot be broken off."""
        self._aborted = True

    def close(self) -> None:
        """Close the transport, whatever it says."""
        with suppress(Exception):
            self._transport.close(self._timeout)


def run_event(event: bytes) -> Any:
    """Return an event as openlineage-python's own class, which its transports ask for."""
    from openlineage.client import event_v2

    content = json.loads(event)
    return event_v2.RunEvent(
        eventTime=content["eventTime"],
        eventType=event_v2.RunState[content["eventType"]] if content.get("eventType") else None,
        run=event_v2.Run(content["run"]["runId"], content["run"].get("facets") or {}),
        job=event_v2.Job(
            content["job"]["namespace"], content["job"]["name"], content["job"].get("facets") or {}
        ),
        inputs=[event_v2.InputDataset(**item) for item in content.get("inputs") or ()],
        outputs=[event_v2.OutputDataset(**item) for item in content.get("outputs") or ()],
        producer=content["producer"],
    )


def judged(status: int, retry_after: str | None, said: str) -> Verdict:
    """Return what an HTTP status other than 2xx means for an event."""
    reason = f"the backend answered {status}" + (f": {said}" if said else "")
    if status in CLIENT_ERRORS and status not in LATER:
        return Verdict(refused=True, reason=reason)
    return Verdict(reason=reason, wait=seconds_of(retry_after), poison=status == 500)  # noqa: PLR2004


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date to wait for."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())


def _connection(
    parts: SplitResult, timeout: float, *, verify: bool
) -> tuple[http.client.HTTPConnection, str]:
    """Return an unconnected connection for a URL, through the environment's proxy, and a path."""
    host, port = parts.hostname or "", parts.port
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme)
    via = urlsplit(proxy if not proxy or "://" in proxy else f"http://{proxy}") if proxy else None
    to, to_port = (via.hostname or "", via.port) if via else (host, port)
    if parts.scheme == "http":
        if via:
            path = f"http://{host}:{port or 80}{path}"
        return http.client.HTTPConnection(to, to_port, timeout=timeout), path
    # The certificates of certifi, as everywhere else in floe; SSL_CERT_FILE names others.
    import httpx

    context = httpx.create_ssl_context(verify=verify)
    connection = http.client.HTTPSConnection(to, to_port, timeout=timeout, context=context)
    if via:
        proof = f"Basic {basic_credentials(via)}"
        connection.set_tunnel(host, port, {"Proxy-Authorization": proof} if via.username else {})
    return connection, path
