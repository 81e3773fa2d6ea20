"""Reads Dagster's GraphQL answers: the version, and warnings about daemons and locations."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec

from floe_orchestrator_dagster.errors import known
from floe_orchestrator_dagster.urls import printable
from floe_orchestrator_dagster.webserver.refusal import RefusalError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION_QUERY = "{ version }"
STATE_QUERY = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError {
    ... on Workspace {
      locationEntries { name locationOrLoadError { ... on PythonError { message } } }
    }
    ... on PythonError { message }
  }
}"""
_VERSION = re.compile(r"\d[\w.+!-]{0,60}")


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


def read_version(body: bytes) -> str:
    """Return Dagster's version from the answer to `VERSION_QUERY`.

    Raises:
        RefusalError: the answer has no version.
    """
    reply: _VersionReply = _decoded(body, _VersionReply)
    served = (reply.data and reply.data.version) or ""
    if not _VERSION.fullmatch(served):
        raise RefusalError(
            f"{_first_message(reply.errors)}. Check the URL and any proxy in front of Dagster."
        )
    return served


def read_state(body: bytes) -> list[str]:
    """Return warnings from the answer to `STATE_QUERY`; [] when all is well.

    Raises:
        RefusalError: the answer is not Dagster's.
    """
    reply: _StateReply = _decoded(body, _StateReply)
    daemons = reply.data.instance.daemon_health.all_daemon_statuses
    ill = {daemon.daemon_type.lower() for daemon in daemons if daemon.required}
    ill -= {daemon.daemon_type.lower() for daemon in daemons if daemon.healthy}
    warnings = []
    if ill:
        warnings.append(
            f"No healthy daemon for: {printable(known(ill))}. Schedules, sensors and queued runs "
            "wait for it: start dagster-daemon on the webserver's instance, and read its log."
        )
    workspace = reply.data.workspace_or_error
    if workspace.message:
        warnings.append(f"The workspace cannot be loaded: {quoted(workspace.message)}.")
    for location in workspace.location_entries:
        error = location.location_or_load_error
        if error is not None and error.message:
            warnings.append(
                f"Code location {quoted(location.name)} is in error: {quoted(error.message)}. "
                "Fix it and reload the location."
            )
    return warnings


def version_skew(served: str) -> list[str]:
    """Return a warning if the webserver and this environment have different minor versions."""
    try:
        own = version("dagster")
    except PackageNotFoundError:
        return []
    if own.split(".")[:2] == served.split(".")[:2]:
        return []
    return [f"The webserver runs Dagster {served}, this environment {own}. Use the same version."]


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusalError(
            "the answer is not Dagster's. Check the URL and any proxy in front of Dagster."
        ) from None


def _first_message(errors: Sequence[_GraphqlError] | None) -> str:
    messages = [error.message for error in errors or () if error.message]
    return f"GraphQL reports {quoted(messages[0])}" if messages else "the answer is not Dagster's"
