"""The answer of a backend decides what happens to an event."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.channel import open_channel
from floe_orchestrator_dagster.lineage.client_channel import client_transport, run_event
from floe_orchestrator_dagster.lineage.delivery import _line
from floe_orchestrator_dagster.lineage.http_channel import HttpChannel
from floe_orchestrator_dagster.lineage.verdict import DELIVERED, Verdict, judged, seconds_of
from kit.backends import Backend, Reply, event
from kit.ports import free_port

EVENT = _line(event(1))


@pytest.mark.parametrize("status", [400, 406, 409, 413, 415, 422])
def test_a_status_that_blames_the_event_refuses_it(status: int) -> None:
    answer = judged(status, None, "no such field")
    assert answer.refused
    assert answer.reason == f"the backend answered {status}: no such field"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 407, 408, 429, 500, 502, 503, 504])
def test_a_status_that_can_change_means_send_again(status: int) -> None:
    answer = judged(status, None, "")
    assert not answer.refused
    assert not answer.delivered
    assert answer.poison == (status == 500)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_of("7") == 7.0
    assert seconds_of("-7") == 0.0
    assert seconds_of(None) is None
    assert seconds_of("soon") is None
    later = datetime.now(timezone.utc) + timedelta(seconds=60)
    assert 50 < (seconds_of(format_datetime(later, usegmt=True)) or 0) <= 60
    assert judged(503, "3", "") == Verdict(reason="the backend answered 503", wait=3.0)


def test_one_connection_carries_all_events() -> None:
    with Backend() as server:
        channel = HttpChannel(server.transport)
        assert [channel.post(EVENT) for _ in range(5)] == [DELIVERED] * 5
        channel.close()
        assert server.connections == 1
        assert server.events == [event(1)] * 5


def test_a_connection_that_the_server_closed_is_reopened() -> None:
    closes = Reply(headers={"Connection": "close"})
    with Backend(lambda *_: closes) as server:
        channel = HttpChannel(server.transport)
        assert [channel.post(EVENT) for _ in range(3)] == [DELIVERED] * 3
        channel.close()


def test_a_connection_that_is_cut_means_not_reachable() -> None:
    cut = Reply(status=0)
    with Backend(lambda *_: cut) as server:
        channel = HttpChannel(server.transport)
        assert channel.post(EVENT).reason == "not reachable (RemoteDisconnected)"


def test_a_closed_port_means_not_reachable() -> None:
    channel = HttpChannel({"url": f"http://127.0.0.1:{free_port()}/"})
    assert channel.post(EVENT).reason == "not reachable (ConnectionRefusedError)"


def test_silence_ends_at_the_timeout() -> None:
    with Backend(lambda *_: Reply(wait=5)) as server:
        channel = HttpChannel(server.transport | {"timeout": 0.2})
        assert channel.post(EVENT).reason == "no complete answer within 0.2 s"


@pytest.mark.parametrize(
    ("config", "header"),
    [
        ({"api_key": "k3y"}, "Bearer k3y"),
        ({"api_key": None}, None),
        ({}, None),
    ],
)
def test_the_key_is_sent_as_a_bearer_token(config: dict[str, str], header: str | None) -> None:
    with Backend() as server:
        channel = HttpChannel(server.transport | config)
        assert channel.post(EVENT) is DELIVERED
        channel.close()
    [(_, path, headers)] = server.requests
    assert path == "/api/v1/lineage"
    assert headers.get("Authorization") == header
    assert headers["Content-Type"] == "application/json"


def test_credentials_in_the_url_are_sent_as_basic_authentication_and_never_shown() -> None:
    echo = Reply(status=400, body=b"user sent pa55 and dXNlcjpwYTU1")
    with Backend(lambda *_: echo) as server:
        url = server.url.replace("127.0.0.1", "user:pa55@127.0.0.1")
        channel = HttpChannel({"url": url})
        answer = channel.post(EVENT)
        channel.close()
    assert server.requests[0][2]["Authorization"] == "Basic dXNlcjpwYTU1"
    assert answer.reason == "the backend answered 400: user sent *** and ***"


def test_events_are_sent_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Backend() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        channel = HttpChannel({"url": "http://marquez.example:5000/api/v1/lineage"})
        assert channel.post(EVENT) is DELIVERED
        channel.close()
    assert proxy.requests[0][1] == "http://marquez.example:5000/api/v1/lineage"
    assert proxy.requests[0][2]["Host"] == "marquez.example:5000"


@pytest.mark.parametrize(
    "url",
    [
        *(None, "", "marquez:5000", "ftp://marquez", "http://", "http://[", "http://host:99999999"),
        *("http://me:pa/ss@host", "http://me:30/ss@host"),
    ],
)
def test_a_config_without_a_usable_url_is_an_error(url: str | None) -> None:
    with pytest.raises(LineageError, match=r"has no `url` that starts with http:// or https://"):
        open_channel({"type": "http", "url": url})


def test_a_timeout_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(LineageError, match="`timeout` of its transport config is 'soon', not a"):
        open_channel({"type": "http", "url": "http://host", "timeout": "soon"})


def test_a_proxy_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:pa55@proxy:none")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        LineageError, match=r"Correct HTTP_PROXY, HTTPS_PROXY or SSL_CERT_FILE\."
    ) as caught:
        open_channel({"type": "http", "url": "http://marquez.example"})
    assert "pa55" not in str(caught.value)


def test_an_unknown_type_is_an_error_that_does_not_quote_the_config() -> None:
    with pytest.raises(LineageError, match="cannot create a transport of type 'pigeon'") as caught:
        open_channel({"type": "pigeon", "password": "pa55"})
    assert "pa55" not in str(caught.value)


def test_floe_http_config_becomes_openlineage_http_config() -> None:
    config = {"type": "http", "url": "http://m/api/v1/lineage", "api_key": "k", "drain_timeout": 3}
    assert client_transport(config) == {
        "type": "http",
        "url": "http://m/api/v1/lineage",
        "endpoint": "",
        "timeout": 5.0,
        "verify": True,
        "retry": {"total": 0, "status_forcelist": []},
        "auth": {"type": "api_key", "apiKey": "k"},
    }
    assert client_transport({"type": "kafka", "topic": "t"}) == {"type": "kafka", "topic": "t"}


def test_http_options_unknown_to_floe_use_openlineage_python() -> None:
    with Backend(lambda number, _: Reply(status=[201, 422, 503][number])) as server:
        channel = open_channel(server.transport | {"custom_headers": {"X-Team": "blue"}})
        assert channel.post(EVENT) is DELIVERED
        assert channel.post(EVENT) == Verdict(refused=True, reason="the backend answered 422")
        assert channel.post(EVENT) == Verdict(reason="the backend answered 503")
        channel.close()
    assert server.requests[0][1] == "/api/v1/lineage"
    assert server.requests[0][2]["X-Team"] == "blue"
    assert server.events[0]["run"] == event(1)["run"]


def test_an_event_keeps_its_content_as_an_object_of_openlineage_python() -> None:
    from openlineage.client.serde import Serde

    content = event(1) | {
        "inputs": [{"namespace": "n", "name": "a", "facets": {"x": {"y": 1}}, "inputFacets": {}}],
        "outputs": [{"namespace": "n", "name": "b", "facets": {}, "outputFacets": {"z": {}}}],
    }
    assert Serde.to_dict(run_event(_line(content))) == content


def test_other_transports_refuse_json_that_is_not_a_run_event(tmp_path: object) -> None:
    channel = open_channel({"type": "file", "log_file_path": f"{tmp_path}/log", "append": True})
    assert channel.post(b'{"job":{}}').reason == "not a run event (KeyError: 'eventTime')"
