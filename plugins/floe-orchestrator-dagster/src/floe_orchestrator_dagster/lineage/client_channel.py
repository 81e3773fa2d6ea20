"""Sends events through openlineage-python's own transports: kafka, file, console, composite, ..."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.http_channel import DEFAULT_TIMEOUT_SECONDS
from floe_orchestrator_dagster.lineage.verdict import ABORTED, DELIVERED, Verdict, judged

if TYPE_CHECKING:
    from collections.abc import Mapping

# The keys of a floe transport config of type http that `HttpChannel` supports.
PLAIN_KEYS = frozenset({"type", "url", "timeout", "drain_timeout", "api_key", "verify_ssl"})


class ClientChannel:
    """Sends through the transport that openlineage-python creates from a config."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Create the transport; raise any error that the transport raises."""
        from openlineage.client.transport import get_default_factory

        self._timeout = float(config.get("timeout") or DEFAULT_TIMEOUT_SECONDS)
        self._transport = get_default_factory().create(client_transport(config))
        self._aborted = False

    def post(self, event: bytes) -> Verdict:
        """Send one event and wait until the transport has sent it."""
        if self._aborted:
            return ABORTED
        try:
            content = run_event(event)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"not a run event ({type(error).__name__}: {error})"
            return Verdict(refused=True, reason=reason)
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
        """Do nothing: the transport has its own timeout."""

    def abort(self) -> None:
        """Refuse later events; the transport cannot abort the current one."""
        self._aborted = True

    def close(self) -> None:
        """Close the transport and ignore its errors."""
        with suppress(Exception):
            self._transport.close(self._timeout)


def client_transport(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transport config of a `LineageBackendPlugin` in the form of openlineage-python.

    floe's http config has the whole endpoint in `url`. Without this change the client would append
    its path a second time and drop the key.
    """
    if config.get("type") != "http" or "endpoint" in config:
        return dict(config)
    further = {key: value for key, value in config.items() if key not in PLAIN_KEYS}
    transport: dict[str, Any] = {
        "type": "http",
        "url": config["url"],
        "endpoint": "",
        "timeout": config.get("timeout", DEFAULT_TIMEOUT_SECONDS),
        "verify": config.get("verify_ssl", True),
        # The sender retries: it also knows when to stop.
        "retry": {"total": 0, "status_forcelist": []},
    }
    if config.get("api_key"):
        transport["auth"] = {"type": "api_key", "apiKey": config["api_key"]}
    return transport | further


def run_event(event: bytes) -> Any:
    """Return an event as openlineage-python's own class, which its transports require."""
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
