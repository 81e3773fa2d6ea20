"""Lineage to real servers, healthy and broken: no event is lost and no job waits."""

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner, Result
from floe_core.lineage import LineageDataset, RunState
from floe_core.plugin_registry import PluginRegistry, _reset_registry, get_registry
from floe_core.plugin_types import PluginType
from floe_lineage_marquez import MarquezLineageBackendPlugin

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.cli import main
from floe_orchestrator_dagster.definitions.sensors import drain, lineage_drain
from floe_orchestrator_dagster.errors import LineageError
from floe_orchestrator_dagster.lineage.backend import (
    backend_of,
    lineage_destination,
    transport_of,
)
from floe_orchestrator_dagster.lineage.delivery import DeliveryReport, open_delivery, replay
from floe_orchestrator_dagster.lineage.facets import PRODUCER
from floe_orchestrator_dagster.lineage.sender import DeliveryTiming
from floe_orchestrator_dagster.lineage.spool import spool_status
from floe_orchestrator_dagster.testing import PLATFORM
from kit.backends import OK, Backend, Reply, event
from kit.lineage_producer import outcome, start
from kit.ports import free_port
from kit.support import BIN, floe_product

COUNT = 300
# How many seconds lineage may cost a job, in addition to the drain; test machines are slow.
PATIENCE = 1.0


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def names(count: int = COUNT, first: int = 0) -> list[str]:
    return [f"{number:05d}" for number in range(first, first + count)]


def deliver_the_rest(server: Backend, spool: Path) -> None:
    """Replay to a server that is healthy again."""
    server.script = lambda *_: OK
    assert replay(server.transport, spool, 30).waiting == 0
    assert spool_status(spool).waiting == 0


BROKEN = {
    "answers 500": Reply(status=500),
    "answers 503": Reply(status=503, headers={"Retry-After": "1"}),
    "answers 429 for an hour": Reply(status=429, headers={"Retry-After": "3600"}),
    "does not know the key": Reply(status=401),
    "hangs": Reply(wait=3600, takes=False),
    "drips": Reply(drip=0.05, takes=False),
    "drops the connection": Reply(status=0, takes=False),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_backend_costs_the_job_little_and_gets_all_events_later(
    how: str, spool: Path
) -> None:
    with Backend(lambda *_: BROKEN[how]) as server:
        job = outcome(start(spool, server.transport, count=COUNT, drain_seconds=0.5))
        assert job["code"] == 0, job["log"]
        assert job["report"]["waiting"] == COUNT
        assert job["sending"] + job["draining"] < 0.5 + PATIENCE
        assert len(server.requests) < 20
        deliver_the_rest(server, spool)
        assert server.names == names()


def test_a_backend_that_starts_later_gets_all_events(spool: Path) -> None:
    port = free_port()
    transport = {"type": "http", "url": f"http://127.0.0.1:{port}/api/v1/lineage"}
    job = outcome(start(spool, transport, count=COUNT))
    assert job["report"]["waiting"] == COUNT
    assert job["sending"] + job["draining"] < PATIENCE
    with Backend(port=port) as server:
        job = outcome(start(spool, transport, first=COUNT, count=10))
        assert job["report"] == asdict(DeliveryReport(made=10, delivered=10, earlier=COUNT))
        assert server.names == names(COUNT + 10)


def test_a_busy_backend_gets_the_event_again_after_its_retry_after(spool: Path) -> None:
    times: list[float] = []

    def busy(number: int, _: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "1"}) if number == 3 else OK

    with (
        Backend(busy) as server,
        open_delivery(server.transport, spool) as sending,
    ):
        sending.send_all([event(number) for number in range(10)])
        assert sending.finish().delivered == 10
        assert server.names == names(10)
        assert times[4] - times[3] >= 1.0
        assert server.connections == 1


def test_a_backend_that_fails_sometimes_gets_all_events_in_order(spool: Path) -> None:
    ways = (Reply(status=500), Reply(status=0, takes=False), Reply(status=503))

    def flaky(number: int, _: dict[str, Any]) -> Reply:
        return ways[number % 3] if number % 97 in {5, 6} else OK

    with Backend(flaky) as server, open_delivery(server.transport, spool) as sending:
        for number in range(COUNT):
            sending.send(event(number))
        server.wait_for(COUNT)
        assert sending.finish().delivered == COUNT
        assert server.names == names()


def test_refused_events_are_kept_with_the_answer(spool: Path) -> None:
    def strict(number: int, _: dict[str, Any]) -> Reply:
        return Reply(status=400, body=b'{"message": "bad"}') if number % 10 == 0 else OK

    with Backend(strict) as server:
        job = outcome(start(spool, server.transport, count=COUNT))
        assert job["report"]["refused"] == COUNT / 10
        assert len(server.names) == COUNT * 9 / 10
    letters = [json.loads(one) for one in (spool / "dead_letters.jsonl").read_text().splitlines()]
    assert {one["reason"] for one in letters} == {'the backend answered 400: {"message": "bad"}'}
    assert sorted(server.names + [one["event"]["job"]["name"] for one in letters]) == names()


@pytest.mark.parametrize("kill_at", [1, 150, 299])
def test_the_events_of_a_killed_run_arrive_later(kill_at: int, spool: Path) -> None:
    with Backend(lambda *_: Reply(wait=0.002)) as server:
        job = outcome(start(spool, server.transport, count=COUNT, kill_at=kill_at))
        assert job["code"] == -9
        before = len(server.names)
        deliver_the_rest(server, spool)
        assert list(dict.fromkeys(server.names)) == names(kill_at)
        # The last request of the killed run may arrive after that count.
        assert server.duplicates <= min(before + 1, 100)


def test_two_runs_at_once_share_a_spool(spool: Path) -> None:
    with Backend() as server:
        jobs = [start(spool, server.transport, first=first, count=COUNT) for first in (0, 5000)]
        assert [outcome(job)["report"]["delivered"] for job in jobs] == [COUNT, COUNT]
        for first in (0, 5000):
            own = [name for name in server.names if name in set(names(first=first))]
            assert own == names(first=first)
        assert server.duplicates == 0
        assert not list(spool.glob("0*"))


def test_leftovers_are_sent_once_by_two_runs_at_once(spool: Path) -> None:
    transport = {"type": "http", "url": f"http://127.0.0.1:{free_port()}"}
    for first in (0, 100, 200):
        outcome(start(spool, transport, first=first, count=100))
    with Backend() as server:
        jobs = [start(spool, server.transport, first=first, count=5) for first in (5000, 6000)]
        assert sum(outcome(job)["report"]["earlier"] for job in jobs) == COUNT
        assert server.duplicates == 0
        assert len(server.names) == COUNT + 10


def test_a_full_disk_loses_nothing_while_the_backend_is_healthy(spool: Path) -> None:
    with Backend() as server:
        job = outcome(start(spool, server.transport, count=COUNT, file_bytes=100_000))
        assert job["report"]["delivered"] == COUNT, job
        assert server.names == names()
    assert job["log"].count("\n") == 1
    assert "File too large); they are sent from memory" in job["log"]


def test_a_full_disk_stops_a_run_that_requires_lineage(spool: Path) -> None:
    transport = {"type": "http", "url": f"http://127.0.0.1:{free_port()}"}
    job = outcome(start(spool, transport, count=COUNT, file_bytes=100_000, required=True))
    assert job["error"].startswith(f"Cannot write lineage to {spool}: File too large.")
    assert 0 < job["sent"] < COUNT
    assert spool_status(spool).waiting == job["sent"]


def test_keys_and_passwords_are_in_no_file_and_no_log(
    spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(number: int, _: dict[str, Any]) -> Reply:
        body = b"Bearer k3y-secret for user:pa55-secret"
        return Reply(status=400 if number else 401, body=body)

    with Backend(echo) as server:
        url = server.url.replace("127.0.0.1", "user:pa55-secret@127.0.0.1")
        transport = server.transport | {"url": url, "api_key": "k3y-secret"}
        with open_delivery(transport, spool, timing=DeliveryTiming(drain_seconds=5)) as sending:
            sending.send_all([event(1), event(2)])
            report = sending.finish()
    kept = b"".join(path.read_bytes() for path in spool.iterdir())
    assert b"answered 400: Bearer *** for ***" in kept
    for text in (kept.decode(), caplog.text, str(report), str(spool_status(spool))):
        assert "secret" not in text


@pytest.mark.parametrize("kind", ["file", "console", "composite"])
def test_other_transports_are_those_of_openlineage_python(
    kind: str, spool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "events"
    with Backend() as server, caplog.at_level(logging.INFO, "openlineage"):
        transports: dict[str, dict[str, Any]] = {
            "file": {"type": "file", "log_file_path": str(log), "append": True},
            "console": {"type": "console"},
            "composite": {
                "type": "composite",
                "transports": [
                    {"type": "http", "url": server.url, "endpoint": ""},
                    {"type": "file", "log_file_path": str(log), "append": True},
                ],
            },
        }
        with open_delivery(transports[kind], spool) as sending:
            sending.send_all([event(number) for number in range(5)])
            assert sending.finish().delivered == 5
        if kind == "composite":
            assert server.names == names(5)
        text = caplog.text if kind == "console" else log.read_text()
        assert [text.count(f'"name": "{name}"') for name in names(5)] == [1] * 5
    assert list(spool.iterdir()) == []


# The real Marquez client.


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return real compiled artifacts of a product whose platform manifest names Marquez."""
    directory = tmp_path_factory.mktemp("marquez")
    backend_named = {"type": "marquez", "config": {"url": "http://localhost:1", "api_key": "k3y"}}
    plugins = PLATFORM["plugins"] | {"lineage_backend": backend_named}
    floe_product(directory, "shop", ["a"], manifest={**PLATFORM, "plugins": plugins})
    return artifacts_of(directory)


@pytest.fixture
def marquez(tmp_path: Path, compiled: dict[str, Any]) -> Iterator[tuple[Backend, Path]]:
    """A server and a compiled product whose Marquez backend points at it."""
    with Backend() as server:
        artifacts = json.loads(json.dumps(compiled))
        config = artifacts["plugins"]["lineage_backend"]["config"]
        # floe keeps no secrets in artifacts, so the key comes from the environment.
        assert config == {"url": "http://localhost:1"}
        config["url"] = server.url.removesuffix("/api/v1/lineage").replace("127.0.0.1", "localhost")
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "compiled_artifacts.json").write_text(json.dumps(artifacts))
        (tmp_path / "dbt_project.yml").write_text(
            yaml.safe_dump({"name": "shop", "profile": "shop", "target-path": "out"})
        )
        yield server, tmp_path


def artifacts_of(directory: Path) -> dict[str, Any]:
    artifacts: dict[str, Any] = json.loads(
        (directory / "target/compiled_artifacts.json").read_text()
    )
    return artifacts


def without_a_backend(directory: Path) -> None:
    artifacts = artifacts_of(directory)
    artifacts["plugins"]["lineage_backend"] = None
    (directory / "target" / "compiled_artifacts.json").write_text(json.dumps(artifacts))


def test_marquez_of_the_platform_manifest_gets_events_at_its_endpoint(
    marquez: tuple[Backend, Path], spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, directory = marquez
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k3y")
    backend = backend_of(artifacts_of(directory))
    assert isinstance(backend, MarquezLineageBackendPlugin)
    with open_delivery(transport_of(backend), spool) as sending:
        for number in range(20):
            sending.send(event(number))
        assert sending.finish().delivered == 20
    assert server.names == names(20)
    assert {path for _, path, _ in server.requests} == {"/api/v1/lineage"}
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer k3y"}
    assert server.connections == 1


def test_artifacts_without_a_backend_give_none(marquez: tuple[Backend, Path]) -> None:
    artifacts = artifacts_of(marquez[1])
    artifacts["plugins"]["lineage_backend"] = None
    assert backend_of(artifacts) is None
    assert transport_of(None) is None
    assert backend_of({"plugins": None}) is None


def test_a_backend_that_is_not_installed_is_named(marquez: tuple[Backend, Path]) -> None:
    artifacts = artifacts_of(marquez[1])
    artifacts["plugins"]["lineage_backend"]["type"] = "atlan"
    with pytest.raises(LineageError) as caught:
        backend_of(artifacts)
    assert str(caught.value) == (
        "Cannot send lineage: the platform manifest names lineage backend 'atlan', and no plugin "
        "of that name is installed (installed: marquez). Install it, usually with `pip install "
        "floe-lineage-atlan`, or remove plugins.lineage_backend from manifest.yaml and compile "
        "again."
    )


def test_a_config_that_the_backend_rejects_is_reported_without_its_values(
    marquez: tuple[Backend, Path],
) -> None:
    artifacts = artifacts_of(marquez[1])
    artifacts["plugins"]["lineage_backend"]["config"] = {"drain_timeout": "s3cret"}
    with pytest.raises(
        LineageError, match=r"rejects its config \(invalid: drain_timeout\)"
    ) as caught:
        backend_of(artifacts)
    assert "s3cret" not in str(caught.value)


def floe_dagster(*words: str) -> Result:
    return CliRunner().invoke(main, ["lineage", *words])


def test_status_and_replay_on_the_command_line(marquez: tuple[Backend, Path]) -> None:
    server, directory = marquez
    waiting = directory / "out" / "floe" / "lineage"
    away = {"type": "http", "url": f"http://127.0.0.1:{free_port()}"}
    assert outcome(start(waiting, away, count=30))["report"]["waiting"] == 30

    shown = floe_dagster("status", str(directory))
    assert shown.exit_code == 0, shown.output
    assert "waiting   30 events, " in shown.stdout
    status = json.loads(floe_dagster("status", str(directory), "--json").stdout)
    assert status["directory"] == str(waiting)
    assert (status["waiting"], status["held"], status["refused"]) == (30, 0, 0)

    server.script = lambda *_: Reply(status=503)
    failed = floe_dagster("replay", str(directory), "--deadline", "0.5")
    assert failed.exit_code == 1
    assert failed.stdout == (
        "Delivered 0 of 30 events, 0 refused; 30 still wait: the backend answered 503.\n"
    )
    server.script = lambda *_: OK
    sent = floe_dagster("replay", str(directory), "--json")
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.stdout) == asdict(DeliveryReport(made=30, delivered=30))
    assert server.names == names(30)
    assert floe_dagster("replay", str(directory)).stdout == "No events wait.\n"


def test_replay_without_a_backend_explains_what_to_do(marquez: tuple[Backend, Path]) -> None:
    without_a_backend(marquez[1])
    result = floe_dagster("replay", str(marquez[1]), "--json")
    assert result.exit_code == 3
    assert result.stderr == (
        "Cannot replay lineage of product 'shop': its platform manifest names no lineage backend. "
        "Add plugins.lineage_backend to manifest.yaml and compile again.\n"
    )
    assert json.loads(result.stdout)["error"] + "\n" == result.stderr


# The sensor.


def test_the_sensor_delivers_waiting_events_and_reports_them(
    spool: Path, instance: dg.DagsterInstance
) -> None:
    with Backend() as server:
        sensor = lineage_drain(lambda: server.transport, spool)

        def tick() -> str | None:
            context = dg.build_sensor_context(instance=instance)
            return sensor.evaluate_tick(context).skip_message

        assert tick() == "No lineage events wait."
        away = {"type": "http", "url": f"http://127.0.0.1:{free_port()}"}
        outcome(start(spool, away, count=20))
        server.script = lambda *_: Reply(status=503)
        assert tick() == (
            "Delivered 0 of 20 lineage events; 20 still wait (the backend answered 503)."
        )
        server.script = lambda number, _: Reply(status=400 if number % 10 == 4 else 201)
        assert tick() == ("Delivered 18 of 20 lineage events; 2 refused (see dead_letters.jsonl).")
        assert tick() == "No lineage events wait."
    assert drain(None, spool).made == 0


@pytest.mark.heavy
def test_the_daemon_ticks_the_sensor_of_a_code_location(
    marquez: tuple[Backend, Path], tmp_path: Path
) -> None:
    server, directory = marquez
    away = {"type": "http", "url": f"http://127.0.0.1:{free_port()}"}
    outcome(start(directory / "out" / "floe" / "lineage", away, count=20))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "location.py").write_text(
        "import dagster as dg\n"
        "from floe_orchestrator_dagster import DagsterOrchestratorPlugin\n"
        f"plugin = DagsterOrchestratorPlugin(project_dir={str(directory)!r})\n"
        "defs = dg.Definitions(sensors=[plugin.sensor_definition()])\n"
    )
    log = tmp_path / "daemon.log"
    with log.open("w") as out:
        daemon = subprocess.Popen(
            [str(BIN / "dagster-daemon"), "run", "-f", str(tmp_path / "location.py")],
            env={"DAGSTER_HOME": str(tmp_path / "home"), "PATH": str(BIN)},
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            server.wait_for(20, seconds=90)
        except AssertionError as error:
            raise AssertionError(log.read_text()[-3000:]) from error
        finally:
            daemon.terminate()
            daemon.wait(30)
    assert server.names == names(20)


def test_there_is_a_sensor_only_with_a_backend(
    marquez: tuple[Backend, Path],
) -> None:
    server, directory = marquez
    named = DagsterOrchestratorPlugin(project_dir=directory).sensor_definition()
    assert named is not None
    assert named.name == "lineage_drain"
    assert named.default_status is dg.DefaultSensorStatus.RUNNING
    marquez_backend = MarquezLineageBackendPlugin(url=server.url.replace("127.0.0.1", "localhost"))
    plugin = DagsterOrchestratorPlugin(lineage_backend=marquez_backend)
    assert plugin.sensor_definition() is not None
    without_a_backend(directory)
    assert DagsterOrchestratorPlugin(project_dir=directory).sensor_definition() is None
    (directory / "target" / "compiled_artifacts.json").unlink()
    assert DagsterOrchestratorPlugin(project_dir=directory).sensor_definition() is None


# Single events of the plugin's API.


def test_single_events_arrive(
    marquez: tuple[Backend, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = marquez
    monkeypatch.setenv("FLOE_LINEAGE_SPOOL", str(tmp_path / "volume"))
    root = server.url.removesuffix("/api/v1/lineage").replace("127.0.0.1", "localhost")
    plugin = DagsterOrchestratorPlugin(
        lineage_backend=MarquezLineageBackendPlugin(url=root, api_key="k3y")
    )
    facet = {"_producer": "https://p", "_schemaURL": "https://s", "x": 1}
    run_id = plugin.emit_lineage_event(RunState.START, "job", "space")
    again = plugin.emit_lineage_event(
        RunState.COMPLETE,
        "job",
        job_namespace="space",
        run_id=run_id,
        inputs=[LineageDataset(namespace="n", name="in", facets={"a": facet})],
        outputs=[LineageDataset(namespace="n", name="out")],
        run_facets={"b": facet},
        job_facets={"c": facet},
        producer="https://example.com/producer",
    )
    assert again == run_id
    plugin.shutdown()
    first, second = server.events
    assert [one["eventType"] for one in server.events] == ["START", "COMPLETE"]
    assert {one["run"]["runId"] for one in server.events} == {str(run_id)}
    assert second["job"] == {"namespace": "space", "name": "job", "facets": {"c": facet}}
    [source] = second["inputs"]
    assert (source["namespace"], source["name"]) == ("n", "in")
    assert source["facets"] == {"a": facet}
    assert [one["name"] for one in second["outputs"]] == ["out"]
    assert second["run"]["facets"] == {"b": facet}
    assert second["producer"] == "https://example.com/producer"
    assert first["producer"] == PRODUCER
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer k3y"}
    assert not list((tmp_path / "volume" / "events").iterdir())


def test_single_events_of_a_product_share_the_spool_of_its_runs(
    marquez: tuple[Backend, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, directory = marquez
    monkeypatch.setenv("FLOE_LINEAGE_SPOOL", str(tmp_path / "volume"))
    plugin = DagsterOrchestratorPlugin(project_dir=directory)
    plugin.emit_lineage_event(RunState.START, "job", "space")
    plugin.shutdown()
    assert len(server.events) == 1
    product = artifacts_of(directory)["metadata"]["product_name"]
    assert [path.name for path in (tmp_path / "volume").iterdir()] == [product]


@pytest.fixture
def registry() -> Iterator[PluginRegistry]:
    """floe's registry, empty before and after."""
    _reset_registry()
    yield get_registry()
    _reset_registry()


def registered_plugin(registry: PluginRegistry, project_dir: Path) -> DagsterOrchestratorPlugin:
    """Return the plugin as floe creates it: without arguments, configured with a project."""
    plugin = registry.get(PluginType.ORCHESTRATOR, "dagster")
    registry.configure(PluginType.ORCHESTRATOR, "dagster", {"project_dir": str(project_dir)})
    assert isinstance(plugin, DagsterOrchestratorPlugin)
    return plugin


def emit_both_ways(plugin: DagsterOrchestratorPlugin) -> None:
    """Send one event through each of the plugin's two methods."""
    plugin.emit_lineage_event(RunState.COMPLETE, "single")
    emitter = plugin.get_lineage_emitter()
    assert emitter is not None
    asyncio.run(emitter.emit_start("emitted"))
    plugin.shutdown()


def test_the_registrys_plugin_sends_to_the_backend_of_the_products_artifacts(
    marquez: tuple[Backend, Path], registry: PluginRegistry
) -> None:
    server, directory = marquez
    emit_both_ways(registered_plugin(registry, directory))
    assert server.names == ["single", "emitted"]
    assert {event["job"]["namespace"] for event in server.events} == {"prod.floe"}
    assert registry.get_config(PluginType.LINEAGE_BACKEND, "marquez") is None


def test_the_registrys_plugin_sends_to_the_backend_that_is_configured_in_the_registry(
    marquez: tuple[Backend, Path], registry: PluginRegistry
) -> None:
    server, directory = marquez
    root = server.url.removesuffix("/api/v1/lineage").replace("127.0.0.1", "localhost")
    without_a_backend(directory)
    plugin = registered_plugin(registry, directory)
    registry.get(PluginType.LINEAGE_BACKEND, "marquez")
    assert plugin.get_lineage_emitter() is None, "a plugin that is only loaded is not configured"
    config = {"url": root, "environment": "staging"}
    registry.configure(PluginType.LINEAGE_BACKEND, "marquez", config)
    emit_both_ways(plugin)
    assert server.names == ["single", "emitted"]
    assert {event["job"]["namespace"] for event in server.events} == {"staging.floe"}
    assert plugin.sensor_definition() is not None


def test_several_backends_in_the_registry_are_ambiguous(
    marquez: tuple[Backend, Path], registry: PluginRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    server, directory = marquez
    without_a_backend(directory)
    registry.configure(PluginType.LINEAGE_BACKEND, "marquez", {"url": "http://localhost:1"})
    registry.register(PluginType.LINEAGE_BACKEND, server)
    plugin = registered_plugin(registry, directory)
    assert plugin.get_lineage_emitter() is None
    assert "several lineage backends are configured in floe's registry (marquez, recorder)" in (
        caplog.text
    )


def test_a_backend_registered_in_code_is_used(
    marquez: tuple[Backend, Path], registry: PluginRegistry
) -> None:
    server, directory = marquez
    without_a_backend(directory)
    registry.register(PluginType.LINEAGE_BACKEND, server)
    emit_both_ways(registered_plugin(registry, directory))
    assert server.names == ["single", "emitted"]


def test_events_wait_for_a_backend_that_is_away(
    marquez: tuple[Backend, Path], registry: PluginRegistry
) -> None:
    server, directory = marquez
    server.script = lambda *_: Reply(status=503)
    emit_both_ways(registered_plugin(registry, directory))
    assert spool_status(directory / "out" / "floe" / "lineage").waiting == 2


@pytest.mark.parametrize(
    "change",
    [
        {"lineage": False},
        {"lineage_transport": "noop"},
    ],
)
def test_lineage_that_the_artifacts_switch_off_is_not_sent(
    marquez: tuple[Backend, Path], registry: PluginRegistry, change: dict[str, Any]
) -> None:
    server, directory = marquez
    observe(directory, change)
    artifacts = artifacts_of(directory)
    for backend_ in (None, server):
        assert lineage_destination(artifacts, backend_) is None
        plugin = DagsterOrchestratorPlugin(project_dir=directory, lineage_backend=backend_)
        plugin.emit_lineage_event(RunState.START, "job")
        assert plugin.get_lineage_emitter() is None
        assert plugin.sensor_definition() is None
        plugin.shutdown()
    registry.configure(PluginType.LINEAGE_BACKEND, "marquez", {"url": "http://localhost:1"})
    assert registered_plugin(registry, directory).get_lineage_emitter() is None
    assert server.requests == []
    assert not (directory / "out" / "floe" / "lineage").exists()
    result = floe_dagster("replay", str(directory))
    assert result.exit_code == 3
    assert result.stderr == (
        "Cannot replay lineage of product 'shop': observability.lineage switches lineage off. "
        "Enable it in manifest.yaml and compile again.\n"
    )
    shown = floe_dagster("status", str(directory))
    assert shown.stdout.startswith("off       observability.lineage switches lineage off.")
    assert json.loads(floe_dagster("status", str(directory), "--json").stdout)["enabled"] is False


def observe(directory: Path, change: dict[str, Any]) -> None:
    """Change `observability` in the artifacts."""
    artifacts = artifacts_of(directory)
    artifacts["observability"] |= change
    (directory / "target" / "compiled_artifacts.json").write_text(json.dumps(artifacts))


@pytest.mark.parametrize(
    ("change", "backend_named", "namespace"),
    [
        # floe-core fills in the product's name; it is not a configured namespace.
        ({}, "marquez", "prod.floe"),
        ({"lineage_namespace": "analytics"}, "marquez", "analytics"),
        ({"lineage_endpoint": "http://lineage.example.com/api"}, None, "shop"),
        ({"lineage_endpoint": "http://a.example.com", "lineage_namespace": "b"}, None, "b"),
        ({"lineage_transport": "console"}, None, "shop"),
    ],
)
def test_a_configured_namespace_of_jobs_wins(
    marquez: tuple[Backend, Path], change: dict[str, Any], backend_named: str | None, namespace: str
) -> None:
    _, directory = marquez
    if backend_named is None:
        without_a_backend(directory)
    observe(directory, change)
    destination = lineage_destination(artifacts_of(directory))
    assert destination is not None
    assert destination.namespace == namespace


def test_an_endpoint_in_the_artifacts_needs_no_plugin(
    marquez: tuple[Backend, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, directory = marquez
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k3y")
    without_a_backend(directory)
    observe(directory, {"lineage_endpoint": server.url, "lineage_transport": "http"})
    plugin = DagsterOrchestratorPlugin(project_dir=directory)
    emit_both_ways(plugin)
    assert server.names == ["single", "emitted"]
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer k3y"}
    assert plugin.sensor_definition() is not None


def test_the_transport_console_writes_events_to_the_log(
    marquez: tuple[Backend, Path], caplog: pytest.LogCaptureFixture
) -> None:
    server, directory = marquez
    observe(directory, {"lineage_transport": "console"})
    with caplog.at_level(logging.INFO, "openlineage"):
        emit_both_ways(DagsterOrchestratorPlugin(project_dir=directory))
    assert [caplog.text.count(f'"name": "{name}"') for name in ("single", "emitted")] == [1, 1]
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"event_type": "COMPLETE"}, ""),
        ({"event_type": "complete"}, ""),
        ({"run_id": "6f0b3c1e-7f43-4d52-9a3a-0d2f5b1e9a11"}, ""),
        ({"inputs": [{"namespace": "n", "name": "d"}], "outputs": ()}, ""),
        ({"producer": "floe"}, ""),
        ({"job_namespace": ""}, ""),
        ({"event_type": "DONE"}, "event_type 'DONE' is not one of START, RUNNING, COMPLETE"),
        ({"event_type": None}, "event_type None is not one of"),
        ({"event_type": 7}, "event_type (of type int) is not one of"),
        ({"job_name": None}, "job_name None is not a name"),
        ({"job_name": ""}, "job_name '' is not a name"),
        ({"job_namespace": 3}, "job_namespace (of type int) is not a name"),
        ({"run_id": "nonsense"}, "run_id 'nonsense' is not a UUID"),
        ({"run_id": 5}, "run_id (of type int) is not a UUID"),
        ({"inputs": "a"}, "inputs 'a' is not a list of datasets"),
        ({"inputs": 5}, "inputs (of type int) is not a list of datasets"),
        ({"outputs": [None]}, "outputs[0] None is not a dataset"),
        ({"outputs": [{"name": "d"}]}, "outputs[0].namespace None is not a name"),
        ({"run_facets": ["x"]}, "run_facets (of type list) is not a mapping"),
        ({"job_facets": {"x": object()}}, "TypeError: a facet holds an object of type object"),
        ({"job_facets": {"x": float("nan")}}, "ValueError: Out of range float values"),
        (
            {"event_type": 1, "job_name": 2, "run_id": 3},
            "run_id (of type int) is not a UUID; event_type (of type int) is not one of",
        ),
    ],
)
def test_wrong_arguments_never_raise_and_are_reported(
    marquez: tuple[Backend, Path],
    caplog: pytest.LogCaptureFixture,
    arguments: dict[str, Any],
    words: str,
) -> None:
    server, directory = marquez
    plugin = DagsterOrchestratorPlugin(project_dir=directory)
    event_arguments = {"event_type": RunState.COMPLETE, "job_name": "job", **arguments}
    with caplog.at_level(logging.WARNING):
        assert isinstance(plugin.emit_lineage_event(**event_arguments), UUID)
    plugin.shutdown()
    assert len(server.events) == (0 if words else 1)
    assert words in caplog.text
    assert bool(caplog.text) == bool(words)


def test_a_problem_with_the_backend_is_logged_once_and_never_raised(
    marquez: tuple[Backend, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, directory = marquez
    artifacts = artifacts_of(directory)
    artifacts["plugins"]["lineage_backend"]["type"] = "atlan"
    (directory / "target" / "compiled_artifacts.json").write_text(json.dumps(artifacts))
    plugin = DagsterOrchestratorPlugin(project_dir=directory)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert isinstance(plugin.emit_lineage_event(RunState.START, "job"), UUID)
    assert plugin.get_lineage_emitter() is None
    [record] = caplog.records
    assert "names lineage backend 'atlan', and no plugin of that name" in record.message


def test_single_events_never_block_and_are_kept_at_exit(tmp_path: Path) -> None:
    code = (
        "import time; from floe_core.lineage import RunState\n"
        "from floe_orchestrator_dagster import DagsterOrchestratorPlugin\n"
        "from floe_lineage_marquez import MarquezLineageBackendPlugin\n"
        f"backend = MarquezLineageBackendPlugin(url='http://localhost:{free_port()}')\n"
        "plugin = DagsterOrchestratorPlugin(lineage_backend=backend)\n"
        "plugin.emit_lineage_event(RunState.START, 'warm up')\n"
        "began = time.perf_counter()\n"
        "for n in range(100): plugin.emit_lineage_event(RunState.START, f'job {n}')\n"
        "print(time.perf_counter() - began)\n"
    )
    env = {"FLOE_LINEAGE_SPOOL": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < PATIENCE
    assert spool_status(tmp_path / "events").waiting == 101
