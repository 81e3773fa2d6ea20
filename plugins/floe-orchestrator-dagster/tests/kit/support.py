"""Builds and runs real products in tests: dbt projects on DuckDB, compiled by floe."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import yaml
from click.testing import CliRunner

from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import Product
from floe_orchestrator_dagster.run.step import Host
from floe_orchestrator_dagster.testing import PLATFORM, write_product

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[4] / "examples"
DBT = tuple(map(int, version("dbt-core").split(".")[:2]))

DBT_PROJECT = {
    "name": "tiny",
    "profile": "tiny",
    "version": "1.0",
    "flags": {"send_anonymous_usage_stats": False},
}


def cli_runner() -> CliRunner:
    """Return a runner that separates stderr; click before 8.2 needs an option for this."""
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if old else {}
    return CliRunner(**options)


def spell_for_installed_dbt(directory: Path) -> None:
    """Write the arguments of generic tests without nesting, as dbt before 1.10 requires."""
    if DBT >= (1, 10):
        return

    def flat(value: Any) -> Any:
        if isinstance(value, dict):
            nested = value.get("arguments", {})
            return {key: flat(item) for key, item in value.items() if key != "arguments"} | nested
        return [flat(item) for item in value] if isinstance(value, list) else value

    for path in directory.glob("models/**/*.yml"):
        path.write_text(yaml.safe_dump(flat(yaml.safe_load(path.read_text()))))


@dataclass
class TinyProject:
    """A dbt project that a test writes file by file, with its compiled artifacts."""

    directory: Path
    template: Mapping[str, Any]
    spec: dict[str, Any] = field(default_factory=dict)

    def write(self, files: Mapping[str, str]) -> TinyProject:
        """Write project files; `models/a.sql` may be given as `a`."""
        for name, content in files.items():
            path = self.directory / (name if "." in name else f"models/{name}.sql")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self

    def compile(
        self,
        transforms: Sequence[Mapping[str, Any]] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> TinyProject:
        """Write compiled artifacts with these transforms, plugin config and additional outputs."""
        artifacts = json.loads(json.dumps(self.template))
        if transforms is not None:
            artifacts["transforms"]["models"] = [
                {"compute": "duckdb", **transform} for transform in transforms
            ]
            if not transforms:
                artifacts["transforms"] = None
        artifacts["plugins"]["orchestrator"]["config"] = dict(config or {})
        artifacts["dbt_profiles"]["tiny"]["outputs"] |= dict(outputs or {})
        target = self.directory / "target"
        target.mkdir(exist_ok=True)
        (target / "compiled_artifacts.json").write_text(json.dumps(artifacts))
        (self.directory / "dbt_project.yml").write_text(yaml.safe_dump(DBT_PROJECT))
        if self.spec:
            (self.directory / "floe.yaml").write_text(yaml.safe_dump(self.spec))
        return self

    def open(self) -> Product:
        """Open the product as a code location would."""
        return open_product(self.directory, progress=lambda _: None)

    @property
    def database(self) -> Path:
        """The DuckDB file that the product builds."""
        return self.directory / "target" / "tiny.duckdb"


def run(
    product: Product,
    instance: dg.DagsterInstance,
    *,
    select: Sequence[str] | None = None,
    job: str = "tiny",
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    partition: str | None = None,
    listener: Callable[[Any], None] | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize a product in this process; `select` has asset names."""
    definitions = build_definitions(product, host=Host(listener, lambda _: None))
    ops = {"ops": {f"{job}_dbt": {"config": dict(config)}}} if config else {}
    return job_named(definitions, job).execute_in_process(
        instance=instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey(name.split("/")) for name in select] if select else None,
        run_config={**ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=dict(tags or {}),
        partition_key=partition,
    )


def materialized(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the names of the assets that a run materialized, in order."""
    return [
        event.asset_key.to_user_string()
        for event in result.all_events
        if event.is_step_materialization and event.asset_key
    ]


def checked(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Return the evaluated checks, and whether each passed."""
    return {item.check_name: item.passed for item in result.get_asset_check_evaluations()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of the failed step."""
    failed = [event for event in result.all_events if event.is_step_failure]
    return failed[0].step_failure_data.error_display_string


def floe_product(
    directory: Path,
    name: str,
    models: Sequence[str],
    schedule: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] = PLATFORM,
) -> Path:
    """Write floe.yaml and manifest.yaml of a product and compile it with the real floe CLI."""
    target = write_product(
        directory,
        {},
        name=name,
        transforms=[{"name": model} for model in models],
        schedule=schedule,
        platform=manifest,
    )
    return target / "compiled_artifacts.json"


def asset_edges(definitions: dg.Definitions) -> set[tuple[str, str]]:
    """Return the edges of the asset graph as Dagster resolves it: (parent, child) key strings."""
    graph = definitions.resolve_asset_graph()
    return {
        (parent.to_user_string(), key.to_user_string())
        for key in graph.get_all_asset_keys()
        for parent in graph.get(key).parent_keys
    }


def dbt(directory: Path, *words: str, profiles: Path, **environment: str) -> str:
    """Run bare dbt in a project and return its output."""
    done = subprocess.run(
        [
            str(BIN / "dbt"),
            *("--no-use-colors", "--no-send-anonymous-usage-stats", "--no-version-check"),
            *words,
            *("--profiles-dir", str(profiles), "--target-path", "target/bare"),
        ],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout + done.stderr


def tables(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every relation of a DuckDB file with its rows, sorted."""
    with duckdb.connect(str(database), read_only=True) as connection:
        names = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables"
        ).fetchall()
        return {
            name: sorted(connection.execute(f"select * from {name}").fetchall(), key=repr)
            for (name,) in names
        }
