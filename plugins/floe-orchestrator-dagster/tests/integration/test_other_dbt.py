"""dbt 2 (Fusion) in place of dbt-core: checks, retries and lineage work in the same way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from floe_orchestrator_dagster.dbt.events import NodeStarted
from floe_orchestrator_dagster.dbt.process import INTERRUPT_TIMEOUT_SECONDS, run_dbt
from floe_orchestrator_dagster.errors import FloeDagsterError
from floe_orchestrator_dagster.testing import RecordingBackend
from kit.lineage_events import Recorded, build, kinds, sound
from kit.support import EXAMPLES, TinyProject, checked, failure_of, materialized, run

# The last release whose wheel contains the program; later ones download it during their build.
WHEEL = "dbt==2.0.0rc196"
# dbt 2 loads DuckDB from a shared library, which is on the npm registry but not on PyPI.
LIBRARY = "@duckdb/node-bindings-linux-x64@1.5.6-r.1"
HOME = EXAMPLES.parent / ".venvs" / "dbt-2"
TABLE = "{{ config(materialized='table') }} "
CHAIN = {
    "a": TABLE + "select 1 as id, 'x' as name union all select 2, null",
    "b": TABLE + "select id, upper(name) as loud from {{ ref('a') }}",
    "c": "select count(*) as n from {{ ref('b') }}",
    "seeds/s.csv": "id,v\n1,x\n2,y\n",
}
TESTS = """
models:
  - name: a
    columns:
      - {name: id, data_tests: [not_null, unique]}
      - {name: name, data_tests: [{not_null: {config: {severity: warn}}}]}
  - name: b
    columns: [{name: loud, data_tests: [not_null]}]
unit_tests:
  - name: shouts
    model: b
    given: [{input: ref('a'), rows: [{id: 1, name: z}]}]
    expect: {rows: [{id: 1, loud: Z}]}
"""


@pytest.fixture(scope="session")
def fusion() -> Path:
    """Install dbt 2 once, with DuckDB's library next to it; return the path of the program."""
    program = HOME / "bin" / "dbt"
    if not program.is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(HOME), WHEEL], check=True)
    library = HOME / "lib" / "libduckdb.so"
    if not library.is_file():
        npm = shutil.which("npm")
        assert npm, f"npm is needed to fetch DuckDB's shared library ({LIBRARY})"
        packed = subprocess.run(
            [npm, "pack", "--silent", LIBRARY], cwd=HOME, check=True, capture_output=True, text=True
        )
        library.parent.mkdir(exist_ok=True)
        with tarfile.open(HOME / packed.stdout.strip().splitlines()[-1]) as package:
            content = package.extractfile("package/libduckdb.so")
            assert content
            library.write_bytes(content.read())
    return program


def written(tiny: TinyProject, fusion: Path, files: Mapping[str, str], **more: Any) -> TinyProject:
    names = [name for name in files if "." not in name]
    return tiny.write(files).compile(
        [{"name": name, **more.get(name, {})} for name in names],
        config={"computes": {"duckdb": {"target": "dev", "dbt_executable": str(fusion)}}},
    )


@pytest.mark.heavy
def test_dbt_2_builds_tests_and_reports_lineage(
    tiny: TinyProject,
    fusion: Path,
    instance: dg.DagsterInstance,
    recorded: tuple[Recorded, RecordingBackend],
) -> None:
    product = written(tiny, fusion, {**CHAIN, "models/t.yml": TESTS}).open()
    events, backend = recorded
    result = build(product, backend, instance)
    assert sorted(materialized(result)) == ["a", "b", "s"]
    assert checked(result) == {
        "not_null_a_id": True,
        "unique_a_id": True,
        "not_null_a_name": False,
        "not_null_b_loud": False,
        "shouts": True,
    }
    message = failure_of(result)
    assert "failed: test not_null_b_loud: failing rows: 1" in message
    assert "skipped: model c" in message
    with duckdb.connect(str(tiny.database)) as connection:
        assert connection.execute("select * from b order by 1").fetchall() == [(1, "X"), (2, None)]
    by_job = sound(events)
    assert kinds(by_job["b"]) == ["START", "COMPLETE"]
    assert kinds(by_job["not_null_b_loud"]) == ["START", "FAIL"]
    run_facets = by_job["b"][-1]["run"]["facets"]
    assert run_facets["processing_engine"]["version"] == "2.0.0-preview.196"
    [output] = by_job["b"][-1]["outputs"]
    assert output["namespace"] == f"duckdb://{tiny.database}"
    assert output["name"] == "tiny.main.b"
    fields = output["facets"]["columnLineage"]["fields"]
    assert [item["field"] for item in fields["loud"]["inputFields"]] == ["name"]


@pytest.mark.heavy
def test_an_error_of_dbt_2_is_reported_and_from_failure_builds_what_is_missing(
    tiny: TinyProject, fusion: Path, instance: dg.DagsterInstance
) -> None:
    files = {**CHAIN, "b": TABLE + "select nonsense as loud from {{ ref('a') }}"}
    written(tiny, fusion, files)
    result = run(tiny.open(), instance)
    message = failure_of(result)
    assert "failed: model b: " in message
    assert 'Referenced column "nonsense" not found' in message
    assert sorted(materialized(result)) == ["a", "s"]
    written(tiny, fusion, CHAIN)
    tags = {
        "dagster/is_resume_retry": "true",
        "dagster/parent_run_id": result.run_id,
        "dagster/root_run_id": result.run_id,
    }
    rerun = run(tiny.open(), instance, tags=tags)
    assert rerun.success, failure_of(rerun)
    assert sorted(materialized(rerun)) == ["b", "c"]


@pytest.mark.heavy
def test_dbt_2_and_dbt_core_build_one_product(
    tiny: TinyProject, fusion: Path, instance: dg.DagsterInstance
) -> None:
    """Each has its own compute, and both use one DuckDB file."""
    tiny.write({name: CHAIN[name] for name in ("a", "b", "c")})
    output = {"type": "duckdb", "path": str(tiny.database), "threads": 1}
    tiny.compile(
        [{"name": "a"}, {"name": "b", "compute": "fast"}, {"name": "c"}],
        config={
            "computes": {
                "duckdb": {"target": "dev"},
                "fast": {"output": output, "dbt_executable": str(fusion)},
            }
        },
    )
    result = run(tiny.open(), instance)
    assert result.success, failure_of(result)
    assert materialized(result) == ["a", "b", "c"]
    runs = sorted(path.name for path in (tiny.directory / "target" / "floe" / "runs").iterdir())
    assert len(runs) == 3


@pytest.mark.heavy
def test_dbt_2_is_stopped_with_its_run(tiny: TinyProject, fusion: Path) -> None:
    long = "select count(*) as n from range(100000000) a, range(100000) b"
    product = written(tiny, fusion, {"a": TABLE + long}).open()
    command = product.command("build", "dev", product.new_run_dir("stopped", "dev"))
    with run_dbt(command) as started:
        for event in started:
            if isinstance(event, NodeStarted):
                break
        process = started._process
    assert process.wait(2 * INTERRUPT_TIMEOUT_SECONDS) != 0
    left = subprocess.run(["pgrep", "-f", str(tiny.directory)], capture_output=True, check=False)
    assert not left.stdout


def test_a_missing_dbt_executable_is_named(tiny: TinyProject) -> None:
    tiny.write({"a": "select 1 as id"}).compile(
        [{"name": "a"}],
        config={"computes": {"duckdb": {"target": "dev", "dbt_executable": "no-such-dbt"}}},
    )
    with pytest.raises(FloeDagsterError) as error:
        tiny.open()
    assert (
        "dbt reports: cannot start no-such-dbt: No such file or directory. Correct dbt_executable"
        in str(error.value)
    )


def test_two_dbts_cannot_share_one_output(tiny: TinyProject) -> None:
    tiny.write({"a": "select 1 as id", "b": "select 2 as id"}).compile(
        [{"name": "a"}, {"name": "b", "compute": "other"}],
        config={"computes": {"other": {"target": "dev", "dbt_executable": "dbt2"}}},
    )
    with pytest.raises(FloeDagsterError) as error:
        tiny.open()
    assert (
        "Computes 'duckdb' and 'other' share the dbt output 'dev' but name different dbt "
        "executables (dbt-core, dbt2)"
    ) in str(error.value)
