"""The installed command on real products: output, exit codes and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from floe_orchestrator_dagster.cli import selection
from floe_orchestrator_dagster.product.opening import open_product
from kit.support import BIN, TinyProject, tables

COMMAND = str(BIN / "floe-dagster")
TABLE = "{{ config(materialized='table') }} "
FILES = {
    "models/a.sql": TABLE + "select range as id from range(3)",
    "models/b.sql": "{{ config(tags=['late']) }} select id from {{ ref('a') }}",
    "models/bad.sql": TABLE + "select nope from {{ ref('a') }}",
    "models/below.sql": "select * from {{ ref('bad') }}",
    "models/e.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
    "models/s.yml": """
models:
  - name: a
    columns:
      - name: id
        data_tests: [unique, {accepted_values: {values: [0], config: {severity: warn}}}]
  - name: b
    columns: [{name: id, data_tests: [not_null]}]
""",
}
GOOD = {name: text for name, text in FILES.items() if "bad" not in name and "below" not in name}
# This cross join of two ranges takes minutes, and DuckDB can interrupt it.
SLOW = TABLE + "select sum(x.range * y.range) as s from range(300000) x, range(3000000) y"


def floe_dagster(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words],
        env=clean(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    return {**kept, "DO_NOT_TRACK": "1", **environment}


def fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("  ") if field.strip()]


def build(project: TinyProject, files: Mapping[str, str]) -> str:
    return str(project.write(files).compile([{"name": "a"}]).directory)


def test_a_run_prints_a_line_for_each_node_and_the_failures_and_exits_with_1(
    tiny: TinyProject,
) -> None:
    done = floe_dagster("run", build(tiny, FILES))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "DAGSTER_HOME is not set: Dagster keeps no record of this run."
    assert lines[1] == "tiny: 7 nodes planned (4 to build, 3 to test) in 1 dbt run"
    nodes = {fields(line)[4]: fields(line)[1:] for line in lines[2:9]}
    assert nodes["a"][:4] == ["success", "model", "duckdb", "a"]
    assert nodes["a"][4] == "3 rows"
    assert nodes["b"][4] == "-"
    assert nodes["bad"][0] == "error"
    assert nodes["below"][0] == "skipped"
    assert nodes["unique_a_id"][:2] == ["pass", "test"]
    assert nodes["accepted_values_a_id__0"][0] == "warn"
    assert "error: model bad: Runtime Error in model bad" in done.stdout
    assert lines[-1].startswith(
        "2 built, 1 failed, 1 skipped; tests: 2 passed, 1 warned, 0 failed; "
    )
    assert lines[-1].endswith(" s in 1 dbt run")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_good_run_exits_with_0_and_json_is_one_document_on_stdout(tiny: TinyProject) -> None:
    done = floe_dagster("run", build(tiny, GOOD), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["product"] == "tiny"
    assert document["success"] is True
    assert document["dbt_runs"] == 1
    [a] = [node for node in document["nodes"] if node["name"] == "a"]
    assert (a["unique_id"], a["status"], a["rows"]) == ("model.tiny.a", "success", 3)
    assert a["seconds"] > 0
    assert "5 nodes planned" in done.stderr


def chosen(directory: str, *words: str) -> list[str]:
    done = floe_dagster("run", directory, "--json", *words)
    assert done.returncode == 0, done.stderr
    return sorted(node["name"] for node in json.loads(done.stdout)["nodes"])


def test_dbt_and_dagster_syntax_select_and_exclude(tiny: TinyProject) -> None:
    directory = build(tiny, GOOD)
    everything = ["a", "accepted_values_a_id__0", "b", "not_null_b_id", "unique_a_id"]
    assert chosen(directory, "--select", "+b") == everything
    assert chosen(directory, "--select", "tag:late", "--no-checks") == ["b"]
    assert chosen(directory, "--select", "test_name:unique") == ["unique_a_id"]
    assert chosen(directory, "--exclude", "a") == ["b", "not_null_b_id"]
    assert chosen(directory, "--select", '+key:"b"', "--exclude", 'key:"a"') == [
        "b",
        "not_null_b_id",
    ]
    assert chosen(directory, "--select", "kind:duckdb and not key:b", "--no-checks") == ["a"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("method:x", "dbt cannot read 'method:x': Runtime Error 'method' is not a valid method"),
        ("dagster:key:(", "Dagster cannot read 'key:('"),
        ("--full-refresh", "'--full-refresh' is not a selection."),
    ],
)
def test_a_bad_selection_is_explained_and_exits_with_2(
    tiny: TinyProject, selection: str, message: str
) -> None:
    done = floe_dagster("run", build(tiny, GOOD), f"--select={selection}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_variables_reach_dbt_from_json_and_from_yaml(tiny: TinyProject) -> None:
    """This includes surrogate pairs, which JSON writes and YAML does not read."""
    directory = build(tiny, {"a": TABLE + "select '{{ var(\"word\") }}' as word"})
    for words in ('{"word": "\N{GRINNING FACE} 氏名"}', "word: \N{GRINNING FACE} 氏名"):
        done = floe_dagster("run", directory, "--vars", words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert tables(tiny.database)["main.a"] == [("\N{GRINNING FACE} 氏名",)]


def test_vars_full_refresh_and_empty_reach_dbt(tiny: TinyProject) -> None:
    model = TABLE + "select range as id from range({{ var('shape', {'n': 1})['n'] }})"
    directory = build(tiny, {"a": model})
    done = floe_dagster("run", directory, "--vars", "{shape: {n: 7}}", "--full-refresh", "--json")
    assert [node["rows"] for node in json.loads(done.stdout)["nodes"]] == [7]
    assert floe_dagster("run", directory, "--empty", "--threads", "1").returncode == 0


def test_a_run_is_recorded_in_dagster_home(tiny: TinyProject, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    done = floe_dagster("run", build(tiny, GOOD), "--json", DAGSTER_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "history" / "runs" / f"{json.loads(done.stdout)['run_id']}.db").is_file()
    assert "keeps no record" not in done.stderr


def test_a_partitioned_product_requires_an_existing_partition(tiny: TinyProject) -> None:
    config = (
        "{{ config(materialized='incremental', meta={'dagster': {'partitions': "
        "{'type': 'daily', 'start': '2024-01-01', 'end': '2024-01-04'}}}) }} "
    )
    directory = build(tiny, {"a": config + 'select \'{{ var("partition_start", "") }}\' as at'})
    without = floe_dagster("run", directory)
    assert without.returncode == 2
    assert "choose a partition with --partition KEY. The latest is 2024-01-03." in without.stderr
    wrong = floe_dagster("run", directory, "--partition", "2025-01-01")
    assert wrong.returncode == 2
    assert "Partitions go from 2024-01-01 to 2024-01-03." in " ".join(wrong.stderr.split())
    assert floe_dagster("run", directory, "--partition", "2024-01-02").returncode == 0


def test_check_shows_the_plan_and_draws_it(tiny: TinyProject, tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    done = floe_dagster("check", build(tiny, FILES), "--graph", str(picture))
    assert done.returncode == 0, done.stderr
    assert "No problems found." in done.stdout
    assert [word for word in done.stdout.split() if word in {"duckdb", "dev"}]
    assert ET.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    document = json.loads(floe_dagster("check", str(tiny.directory), "--json").stdout)
    assert [(wave["compute"], len(wave["nodes"])) for wave in document["waves"]] == [("duckdb", 4)]
    assert document["computes"][0]["tests"] == 3


def test_check_finds_a_schedule_that_dagster_cannot_run(tiny: TinyProject) -> None:
    tiny.spec = {"schedule": {"cron": "99 * * * *"}}
    done = floe_dagster("check", build(tiny, GOOD))
    assert done.returncode == 1
    assert "cron '99 * * * *' is not one that Dagster accepts." in done.stderr


def test_prepare_builds_the_manifests_that_a_prepared_product_needs(tiny: TinyProject) -> None:
    directory = build(tiny, GOOD)
    early = floe_dagster("run", directory, FLOE_PREPARED="1")
    assert early.returncode == 3
    assert "Run `floe-dagster prepare`" in early.stderr
    made = json.loads(floe_dagster("prepare", directory, "--json").stdout)["manifests"]
    assert Path(made["dev"]).is_file()
    assert floe_dagster("check", directory, FLOE_PREPARED="1").returncode == 0


def test_ctrl_c_stops_dbt_and_leaves_no_process(tiny: TinyProject) -> None:
    directory = build(tiny, {"a": "select 1 as id", "slow": SLOW + ", {{ ref('a') }}"})
    with subprocess.Popen(
        [COMMAND, "run", directory],
        env=clean({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if " success " in line:
                break
        time.sleep(1)
        started = children(process.pid)
        assert started, "dbt runs in its own process"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read().splitlines()[-1] == (
            "Interrupted: dbt was stopped; 1 of 2 nodes done."
        )
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def test_a_name_selects_the_same_nodes_as_in_dbt(example: Callable[[str], Path]) -> None:
    """A word that can only mean one node is resolved without starting dbt."""
    product = open_product(example("shop"), progress=lambda _: None)
    names = {node.name for node in product.plan.nodes.values() if node.kind != "source"}
    known = {name: selection._by_name(product, [name]) for name in sorted(names)}
    answered = [name for name, selected in known.items() if selected]
    assert {"orders", "stg_orders", "raw_orders"} <= {*answered}
    some = [*answered[:: max(1, len(answered) // 4)], "orders"]
    for name in some:
        assert known[name] == selection._by_dbt(product, [name], (), print), name
    both = ["orders", "stg_orders"]
    assert selection._by_name(product, both) == selection._by_dbt(product, both, (), print)
    # Only dbt resolves folders, packages, operators and methods.
    for words in (["staging"], ["shop"], ["+orders"], ["tag:daily"], ["orders", "marts"]):
        assert selection._by_name(product, words) is None
