"""The secrets of a URL are never shown, are masked in responses, and never become its host."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_orchestrator_dagster.urls import (
    holds_secret,
    masked,
    passwords_in,
    repository_url,
    secrets_of,
    server_url,
    shown,
    web_url,
)

CANARY = "canary-pass"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (f"https://u:{CANARY}@h:1/dagster/?token=abc#x", "https://h:1/dagster"),
        (f"grpc://:{CANARY}@collector:4317", "grpc://collector:4317"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        (" http://Host/a ", "http://Host/a"),
        (f"http://u:{CANARY}@h/a\x1b[31m", "http://h/a [31m"),
        ("http://bücher.example:80/a", "http://bücher.example:80/a"),
    ],
)
def test_a_url_is_shown_without_possible_secrets(url: str, wanted: str) -> None:
    assert shown(url) == wanted


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{CANARY}/word@host:3000",
        f"http://user:3000/{CANARY}@host",
        f"http://user:3000?{CANARY}@host",
        f"http://user:3000#{CANARY}@host",
        f"http://{CANARY}@ho st",
        f"http://{CANARY}@",
        f"http://[{CANARY}",
        f"http://host:99999999/{CANARY}",
        f"user:{CANARY}@host",
        "localhost:3000",
        "http://",
        "",
    ],
)
def test_a_text_that_names_no_server_is_not_shown(url: str) -> None:
    assert server_url(url) is None
    assert shown(url) == ""


def test_a_web_url_is_http_or_https() -> None:
    assert web_url("https://host:1/a") == urlsplit("https://host:1/a")
    assert web_url("HTTP://host") is not None
    assert web_url("ftp://host") is None


def test_every_form_of_the_credentials_is_masked_in_a_response() -> None:
    url = urlsplit("http://us%20er:pass%2Fword@host/a?token=abc")
    basic = base64.b64encode(b"us er:pass/word").decode()
    answer = f"no: us%20er:pass%2Fword, pass%2Fword, pass/word, Basic {basic}, token=abc"
    assert masked(answer, secrets_of(url)) == "no: ***, ***, ***, Basic ***, ***"
    assert masked("a t0ken b", secrets_of(urlsplit("http://t0ken@host"))) == "a *** b"
    assert secrets_of(urlsplit("http://host/a")) == ()


@given(
    user=st.text(max_size=8),
    password=st.text(max_size=8),
    path=st.text(max_size=8),
    write=st.sampled_from([str, partial(quote, safe="")]),
)
def test_no_password_is_shown_or_remains_in_a_response(
    user: str, password: str, path: str, write: Callable[[str], str]
) -> None:
    secret = write(f"{password}{CANARY}{password}")
    url = f"http://{quote(user, safe='')}:{secret}@host:3000/{path}"
    assert CANARY not in shown(url)
    parts = server_url(url)
    if parts is not None:
        assert parts.hostname == "host"
        sent = parts.password or ""
        answer = f"denied: {sent} <{unquote(sent)}>"
        assert CANARY not in masked(answer, secrets_of(parts))


@pytest.mark.parametrize(
    ("remote", "wanted"),
    [
        ("https://github.com/org/repo.git", "https://github.com/org/repo.git"),
        (f"https://bot:{CANARY}@git.example:8443/org/repo", "https://git.example:8443/org/repo"),
        (f"https://bot:{CANARY}/2@git.example/org/repo", None),
        (f"https://git.example/org/repo?token={CANARY}", "https://git.example/org/repo"),
        ("ssh://git@github.com:22/org/repo.git", "https://github.com/org/repo.git"),
        ("git@github.com:org/repo.git", "https://github.com/org/repo.git"),
        ("github.com:org/repo.git", "https://github.com/org/repo.git"),
        ("file:///srv/repo", None),
        ("/srv/repo", None),
        ("", None),
    ],
)
def test_a_git_remote_becomes_an_https_url_without_credentials(
    remote: str, wanted: str | None
) -> None:
    assert repository_url(remote) == wanted


def test_the_password_of_any_connection_url_is_returned() -> None:
    assert set(passwords_in("postgres://u:a%2Fb@host/db")) == {"a%2Fb", "a/b"}
    assert not [*passwords_in("postgres://host/db"), *passwords_in("u:p@h"), *passwords_in("x://[")]


def test_a_url_that_contains_a_secret_is_recognized() -> None:
    for url in ("https://t0ken@github.com/a", "https://u:p@github.com/a", "ssh://git:p@host/a"):
        assert holds_secret(url)
    for url in ("ssh://git@github.com/a", "https://github.com/a", "https://[", "a word"):
        assert not holds_secret(url)
