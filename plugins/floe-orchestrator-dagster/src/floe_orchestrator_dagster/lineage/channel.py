"""Opens the channel to a lineage backend that a transport config describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.client_channel import PLAIN_KEYS, ClientChannel
from floe_orchestrator_dagster.lineage.http_channel import HttpChannel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_orchestrator_dagster.lineage.verdict import Verdict


class Channel(Protocol):
    """A connection to a lineage backend."""

    def post(self, event: bytes) -> Verdict:
        """Send one event; never raise."""

    def watch(self) -> None:
        """Abort a `post` that takes too long; another thread calls this now and then.

        A socket timeout restarts with each byte, so a slow server could block a reader for hours.
        """

    def abort(self) -> None:
        """Abort the current `post` and all later ones; another thread calls this."""

    def close(self) -> None:
        """Close all connections."""


def open_channel(transport: Mapping[str, Any]) -> Channel:
    """Return the channel that a transport config describes; this does not connect yet.

    Raises:
        LineageError: the config cannot be used.
    """
    kind = transport.get("type")
    if kind == "http" and transport.keys() <= PLAIN_KEYS:
        return _http(transport)
    try:
        return ClientChannel(transport)
    except Exception as error:  # noqa: BLE001  each transport raises its own
        # The client's message may quote the config, with its secrets.
        raise LineageError(
            f"Cannot use the lineage backend: openlineage-python cannot create a transport of type "
            f"'{kind}' from its config ({type(error).__name__}). Correct "
            "plugins.lineage_backend in manifest.yaml and compile again, or install the packages "
            "that the transport needs."
        ) from None


def _http(transport: Mapping[str, Any]) -> HttpChannel:
    try:
        return HttpChannel(transport)
    except (OSError, ValueError) as error:
        raise LineageError(
            f"Cannot use the lineage backend: the proxy or the certificates of the environment "
            f"are not usable ({type(error).__name__}). Correct HTTP_PROXY, HTTPS_PROXY or "
            "SSL_CERT_FILE."
        ) from None
