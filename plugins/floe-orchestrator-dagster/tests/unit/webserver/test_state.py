"""The connection check reports servers that answer badly, on time and without secrets."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
import trustme

from floe_orchestrator_dagster.webserver import Address, WebserverState, ask_webserver
from floe_orchestrator_dagster.webserver.deadline import THREAD_NAME
from kit.hostile_server import CASES, SECRET, Case, _http, _json, serving
from kit.ports import free_port

SHORT = 1.0
# A loaded machine may be late; an unbounded wait would take minutes.
GENEROUS = 9.0


def ask(url: str, deadline: float = GENEROUS, ca_bundle: str | None = None) -> WebserverState:
    started = time.monotonic()
    answer = ask_webserver(Address(url, "--url"), deadline, ca_bundle=ca_bundle)
    assert time.monotonic() - started < deadline + GENEROUS
    return answer


def at(port: int, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://user:{SECRET}@{host}:{port}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_server_gets_a_clear_report(case: Case) -> None:
    with serving(case.act) as port:
        answer = ask(at(port), SHORT if case.slow else GENEROUS)
    assert answer.version is None
    assert answer.problem.startswith(f"POST http://127.0.0.1:{port}/graphql (--url): ")
    assert case.words in answer.problem
    assert SECRET not in repr(answer)
    assert answer.problem.isprintable()


def test_no_thread_still_reads_after_the_deadline() -> None:
    dripping = next(case for case in CASES if case.name == "dripping headers")
    with serving(dripping.act) as port:
        ask(at(port), SHORT)
        until = time.monotonic() + GENEROUS
        while time.monotonic() < until and _is_reading():
            time.sleep(0.02)
        assert not _is_reading()


def _is_reading() -> bool:
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def test_a_name_lookup_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        released.wait(GENEROUS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    answer = ask("http://dagster.internal:3000", SHORT)
    released.set()
    assert "no complete answer within 1 s" in answer.problem


def test_an_unknown_host_and_a_closed_port_are_reported() -> None:
    unknown = ask("http://dagster.invalid:3000")
    assert "The host name is not known: check the URL and the DNS." in unknown.problem
    refused = ask(at(free_port()))
    assert "refused" in refused.problem
    assert "Is the webserver running, and is this its port?" in refused.problem


@pytest.mark.parametrize(
    "url",
    [
        "localhost:3000",
        "ftp://localhost",
        "http://",
        "http://user:canary-pass/word@host:3000",
        "http://user:3000/canary-pass@host",
        "http://a b",
        "",
    ],
)
def test_an_invalid_url_is_reported_without_repeating_it(url: str) -> None:
    answer = ask(url)
    assert answer.problem == (
        "URL of --url: this is not a webserver URL. Write http://host:port or https://host."
    )
    assert "canary" not in repr(answer)


def test_a_redirect_within_the_host_is_followed() -> None:
    answers = iter(
        [
            _http("308 x", b"", "Location: /moved/graphql"),
            _http("200 OK", b'{"data": {"version": "1.13.27"}}'),
            _http("500 x"),
        ]
    )
    with serving(lambda connection: connection.sendall(next(answers))) as port:
        answer = ask(at(port))
    assert answer.version == "1.13.27"
    assert "did not report the state of its daemons and code" in " ".join(answer.warnings)


def test_ipv6_is_reached() -> None:
    with serving(_json({"data": {"version": "1.13.27"}}), family=socket.AF_INET6) as port:
        assert ask(at(port, host="[::1]")).version == "1.13.27"


def test_tls_is_verified_also_against_a_private_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with serving(_json({"data": {"version": "1.13.27"}}), context=context) as port:
        url = at(port, "https", "localhost")
        untrusted, trusted = ask(url), ask(url, ca_bundle=str(bundle))
        other_name = ask(at(port, "https"), ca_bundle=str(bundle))
        plain = ask(at(port))
    assert "set `ca_bundle` in plugins.orchestrator.config to" in untrusted.problem
    assert trusted.version == "1.13.27"
    assert "or correct the host name" in other_name.problem
    assert plain.version is None
    missing = ask(url, ca_bundle=str(tmp_path / "no.pem"))
    assert "no.pem cannot be used: No such file or directory." in missing.problem


def test_tls_to_a_server_without_tls_is_reported() -> None:
    with serving(_json({"data": {"version": "1.13.27"}})) as port:
        answer = ask(at(port, "https"))
    assert "check whether the URL must start with http or https" in answer.problem


def test_unhealthy_daemons_and_locations_become_warnings() -> None:
    state = {
        "version": "0.1.2",
        "instance": {
            "daemonHealth": {
                "allDaemonStatuses": [
                    {"daemonType": "SCHEDULER", "required": True, "healthy": None},
                    {"daemonType": "SENSOR", "required": True, "healthy": True},
                    {"daemonType": "BACKFILL", "required": False, "healthy": False},
                ]
            }
        },
        "workspaceOrError": {
            "locationEntries": [
                {"name": "shop", "locationOrLoadError": {"message": f"No module\n{SECRET}"}},
                {"name": "ok", "locationOrLoadError": {}},
            ]
        },
    }
    with serving(_json({"data": state})) as port:
        skew, daemon, location = ask(at(port)).warnings
    assert skew.startswith("The webserver runs Dagster 0.1.2, this environment ")
    assert daemon.startswith("No healthy daemon for: scheduler. Schedules, sensors and queued")
    assert location.startswith("Code location 'shop' is in error: 'No module ***'.")
