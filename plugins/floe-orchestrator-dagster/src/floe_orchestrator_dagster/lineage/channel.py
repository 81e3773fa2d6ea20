"""Opens the way to a backend that a transport config describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.client_channel import PLAIN_KEYS, ClientChannel
from floe_orchestrator_dagster.lineage.http_channel import HttpChannel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_orchestrator_dagster.lineage.verdict import Verdict


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


def open_channel(transport: Mapping[str, Any]) -> Channel:
    """Return the way that a transport config describes; nothing is connected yet.

    Raises:
        LineageError: the config cannot be used.
    """
    kind = transport.get("type")
    if kind == "http" and transport.keys() <= PLAIN_KEYS:
        return _http(transport)
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


def _http(transport: Mapping[str, Any]) -> HttpChannel:
    try:
        return HttpChannel(transport)
    except (OSError, ValueError) as error:
        raise LineageError(
            f"Cannot use the lineage backend: the environment's proxy or certificates cannot be "
            f"used ({type(error).__name__}). Correct HTTP_PROXY, HTTPS_PROXY or SSL_CERT_FILE."
        ) from None
