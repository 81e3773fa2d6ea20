"""Queries a Dagster webserver for its version, its daemons and its code locations."""

from floe_orchestrator_dagster.webserver.state import (
    DEADLINE_SECONDS,
    Address,
    WebserverState,
    ask_webserver,
    webserver_address,
)

__all__ = [
    "DEADLINE_SECONDS",
    "Address",
    "WebserverState",
    "ask_webserver",
    "webserver_address",
]
