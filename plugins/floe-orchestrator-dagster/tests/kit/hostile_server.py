"""Servers that are not Dagster, or that are broken: each case is one way to answer badly."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

PAUSE_SECONDS = 0.05
TLS_HELLO = b"\x16\x03"
SECRET = "canary-pass-word"  # noqa: S105  a canary


def _http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _sends(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def _json(document: Any) -> Callable[[socket.socket], None]:
    return _sends(_http("200 OK", json.dumps(document).encode()))


def _silent(connection: socket.socket) -> None:
    while connection.recv(1):
        pass


def _drips(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(PAUSE_SECONDS)

    return act


def _endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 2**16)


def _read_request(connection: socket.socket) -> None:
    """Read a whole request: closing a socket with unread bytes resets the connection."""
    received = b""
    while b"\r\n\r\n" not in received and not received.startswith(TLS_HELLO):
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split()
    while length and len(body) < int(length[0]):
        body += _more(connection)


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(2**16)
    if not piece:
        raise ConnectionError
    return piece


_OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Case:
    """One way to answer, and the words that the reported problem must contain."""

    name: str
    act: Callable[[socket.socket], None]
    words: str
    slow: bool = False


CASES = (
    Case("silent", _silent, "no complete answer within", slow=True),
    Case("dripping headers", _drips(_OK + b"X: ", b"x"), "no complete answer within", slow=True),
    Case("dripping body", _drips(_OK + b"\r\n", b" "), "no complete answer within", slow=True),
    Case("endless body", _endless, "the answer is longer than 16 MiB"),
    Case("endless redirects", _sends(_http("307 x", b"", "Location: /again")), "redirects"),
    Case(
        "redirect to another host",
        _sends(_http("302 Found", b"", "Location: http://user:pw@other.invalid/graphql?t=1")),
        "the redirect to http://other.invalid/graphql was not followed: it leads to another host",
    ),
    Case(
        "redirect to an invalid URL",
        _sends(_http("302 x", b"", "Location: http://a:b:c/")),
        "Invalid URL in location",
    ),
    Case("HTML", _sends(_http("200 OK", b"<html>hello</html>")), "is not Dagster's"),
    Case("empty object", _json({}), "is not Dagster's"),
    Case("a list", _json([1]), "is not Dagster's"),
    Case("deep nesting", _sends(_http("200 OK", b"[" * 200_000)), "is not Dagster's"),
    Case("not UTF-8", _sends(_http("200 OK", b'{"data":{"version":"\xff"}}')), "is not Dagster's"),
    Case("version of words", _json({"data": {"version": "<b>hi"}}), "is not Dagster's"),
    Case(
        "GraphQL errors",
        _json({"data": None, "errors": [{"message": f"no\nfield\x1b[31m {SECRET}"}]}),
        "GraphQL reports 'no field [31m ***'. Check the URL",
    ),
    Case("packed", _sends(_http("200 OK", gzip.compress(b"{}" * 10**6))), "is not Dagster's"),
    Case(
        "401", _sends(_http("401 x", SECRET.encode())), "status 401: the server needs credentials"
    ),
    Case("500", _sends(_http("500 x", SECRET.encode())), "status 500. Read the log"),
    Case("hangs up", lambda _: None, "disconnected"),
    Case("SSH", _sends(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "Is the webserver running, and is this"),
)


@contextmanager
def serving(
    act: Callable[[socket.socket], None],
    *,
    context: ssl.SSLContext | None = None,
    family: socket.AddressFamily = socket.AF_INET,
) -> Iterator[int]:
    """Answer every connection with `act`; yield the port."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    listener = socket.create_server((host, 0), family=family)

    def answer(accepted: socket.socket) -> None:
        with suppress(OSError), accepted:
            connection = context.wrap_socket(accepted, server_side=True) if context else accepted
            with connection:
                if act is not _silent:
                    _read_request(connection)
                act(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Closing alone does not wake a thread that waits in accept().
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
