"""`floe-dagster run` selects the same nodes as `dbt build`, for every method of dbt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.assets.specs import Specs
from floe_orchestrator_dagster.cli import selection
from floe_orchestrator_dagster.cli.selection import Selection, select_nodes
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.product.product import Product
from kit.support import BIN, TinyProject, dbt

COMMAND = str(BIN / "floe-dagster")
FILES = {
    "seeds/raw_things.csv": "id\n1\n",
    "models/a.sql": "{{ config(materialized='table', tags=['daily']) }} "
    "select id from {{ ref('raw_things') }}",
    "models/marts/b.sql": "{{ config(tags=['late', 'daily'], group='finance', access='public', "
    "meta={'owner': 'me'}) }} select id from {{ ref('a') }}",
    "models/e.sql": "{{ config(materialized='ephemeral') }} select id from {{ ref('a') }}",
    "models/marts/c.sql": "select id from {{ ref('e') }} "
    "union all select id from {{ source('ext', 'things') }}",
    "models/book_v1.sql": "select id from {{ ref('a') }}",
    "models/book_v2.sql": "select id, 1 as x from {{ ref('a') }}",
    "models/facts.sql": "select id, timestamp '2026-01-01' as at from {{ ref('a') }}",
    "models/days.sql": "select date '2026-01-01' as date_day",
    "tests/no_seven.sql": "select * from {{ ref('b') }} where id = 7",
    "models/s.yml": """
groups: [{name: finance, owner: {name: x}}]
sources:
  - name: ext
    schema: main
    tables:
      - {name: things, identifier: raw_things, columns: [{name: id, data_tests: [not_null]}]}
models:
  - {name: a, columns: [{name: id, data_tests: [unique, not_null]}]}
  - name: b
    columns:
      - {name: id, data_tests: [{relationships: {arguments: {to: ref('a'), field: id}}}]}
  - name: book
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
    columns: [{name: id, data_tests: [not_null]}]
  - name: days
    time_spine: {standard_granularity_column: date_day}
    columns: [{name: date_day, granularity: day}]
snapshots:
  - {name: snap, relation: ref('a'), config: {strategy: check, check_cols: all, unique_key: id}}
exposures:
  - {name: dash, type: dashboard, owner: {email: m@example.com}, depends_on: [ref('b')]}
unit_tests:
  - {name: ut, model: b, given: [{input: ref('a'), rows: [{id: 1}]}], expect: {rows: [{id: 1}]}}
semantic_models:
  - name: sem
    model: ref('facts')
    defaults: {agg_time_dimension: at}
    entities: [{name: id, type: primary}]
    dimensions: [{name: at, type: time, type_params: {time_granularity: day}}]
    measures: [{name: things_count, agg: count, expr: id}]
metrics:
  - {name: total, label: total, type: simple, type_params: {measure: things_count}}
saved_queries:
  - {name: sq, query_params: {metrics: [total]}}
""",
    "selectors.yml": """
selectors:
  - name: nightly
    default: true
    definition:
      union:
        - {method: tag, value: daily, parents: true, indirect_selection: cautious}
        - exclude: [{method: tag, value: late}]
  - name: marts
    definition: {method: path, value: models/marts, indirect_selection: empty}
  - name: nothing
    definition: {method: tag, value: nobody_has_it}
""",
}
WORDS = """
    a +b a+ 1+b @b tag:daily tag:daily,tag:late path:models/marts models/marts file:a.sql file:a
    package:tiny package:this config.materialized:ephemeral config.materialized:table
    config.meta.owner:me config.tags:late resource_type:seed resource_type:unit_test
    resource_type:snapshot source:ext source:ext.things source:ext.things+ exposure:dash
    +exposure:dash exposure:* metric:total +metric:total semantic_model:sem +semantic_model:sem
    saved_query:sq +saved_query:sq group:finance access:public access:protected version:latest
    version:old version:none book book.v1 book.v2 book_v1 unit_test:ut unit_test:* test_type:data
    test_type:unit test_type:generic test_type:singular test_name:unique no_seven unique_a_id
    raw_things snap e * fqn:* tiny.marts marts boo?.v1 nothing_is_called_so
"""
# Each pair has the words of --select and those of --exclude.
SELECTIONS: Sequence[tuple[Sequence[str], Sequence[str]]] = [
    *(([word], []) for word in WORDS.split()),
    (["b", "c"], []),
    (["b c"], []),
    (["tag:daily", "marts"], ["test_type:unit"]),
    (["+c"], ["a", "source:ext"]),
    ([], ["tag:late"]),
    ([], ["b+"]),
    ([], ["resource_type:test", "resource_type:unit_test"]),
]
# Runs `dbt ls` many times in one process, which takes no longer than two starts of dbt.
DBT_LS = """
import contextlib, io, json, sys
from dbt.cli.main import dbtRunner
runner, answers = dbtRunner(), []
for select, exclude in json.load(sys.stdin):
    words = ["--select", *select] if select else []
    words += ["--exclude", *exclude] if exclude else []
    with contextlib.redirect_stdout(io.StringIO()):
        done = runner.invoke(["--quiet", "ls", *words, "--output", "json", "--output-keys",
            "unique_id", "--profiles-dir", sys.argv[1], "--target-path", "target/bare"])
    assert done.success, (words, done.exception)
    answers.append([json.loads(line)["unique_id"] for line in done.result])
print(json.dumps(answers))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    return {**kept, "DO_NOT_TRACK": "1", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", **more}


def bare(product: Product, **more: str) -> list[set[str]]:
    """Return the nodes that bare dbt selects for each of SELECTIONS."""
    done = subprocess.run(
        [sys.executable, "-c", DBT_LS, str(product.profiles_dir)],
        cwd=product.project_dir,
        env=environment(**more),
        input=json.dumps(SELECTIONS),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [set(answer) for answer in json.loads(done.stdout)]


@pytest.mark.parametrize("indirect", ["", "cautious"])
def test_words_select_the_same_nodes_as_in_dbt(
    tiny: TinyProject, indirect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of dbt's lists come from one process; our own code does everything else."""
    product = tiny.write(FILES).compile([{"name": "a"}]).open()
    more = {"DBT_INDIRECT_SELECTION": indirect} if indirect else {}
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    wanted = bare(product, **more)
    answers = {
        json.dumps(requested): selected
        for requested, selected in zip(SELECTIONS, wanted, strict=True)
    }

    def listed(_: Product, __: str, flags: Sequence[str], requested: Selection) -> tuple[Any, Any]:
        words = [word for word in flags if not word.startswith("--")][2:]
        assert words == [*requested.select, *requested.exclude]
        return answers[json.dumps([requested.select, requested.exclude])], set()

    monkeypatch.setattr(selection, "_listed", listed)
    specs = Specs(product.plan, project_dir=product.project_dir)
    definitions = build_definitions(product)
    runnable = {*product.plan.assets, *product.plan.checks}
    for (select, exclude), selected in zip(SELECTIONS, wanted, strict=True):
        warnings: list[str] = []
        requested = Selection(select, exclude)
        assets, checks = select_nodes(product, specs, definitions, requested, warnings.append)
        assert {*assets, *checks} == selected & runnable, (select, exclude)
        assert bool(warnings) is not bool(selected & runnable), (select, exclude)


def ran(directory: Path, *words: str, code: int = 0) -> dict[str, str]:
    done = subprocess.run(
        [COMMAND, "run", str(directory), "--json", *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    nodes: list[dict[str, str]] = json.loads(done.stdout)["nodes"]
    return {node["unique_id"]: node["status"] for node in nodes}


def test_selectors_and_the_default_one_run_what_dbt_runs(tiny: TinyProject) -> None:
    product = tiny.write(FILES).compile([{"name": "a"}]).open()
    assert product.profiles_dir is not None
    results = tiny.directory / "target" / "bare" / "run_results.json"
    for words, requested in (
        ((), ()),
        (("--selector", "marts"), ("--selector", "marts")),
        (("--select", "state:new", "--state", str(tiny.directory / "old")),) * 2,
    ):
        dbt(tiny.directory, "build", *words, profiles=product.profiles_dir)
        selected = {
            item["unique_id"]: item["status"] for item in json.loads(results.read_text())["results"]
        }
        assert selected
        assert ran(tiny.directory, *requested) == selected, words
        if not words:
            # The state that the last words compare with: the project without one of its models.
            old = json.loads((tiny.directory / "target" / "bare" / "manifest.json").read_text())
            del old["nodes"]["model.tiny.facts"]
            (tiny.directory / "old").mkdir()
            (tiny.directory / "old" / "manifest.json").write_text(json.dumps(old))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--selector", "nightli"), 2, "Could not find selector named nightli, expected one of"),
        (("--selector", "nothing"), 0, "'--selector nothing' selects no model, seed, snapshot or"),
        (("--select", "nobody"), 0, "'nobody' selects no model, seed, snapshot or test of this"),
        (("--select", "key:nobody"), 2, "'key:nobody' selects no model, seed, snapshot or test"),
        (("--select", "exposure:dash"), 0, "It selects only exposure.tiny.dash, and there is"),
    ],
)
def test_a_selection_without_anything_to_build_is_explained(
    tiny: TinyProject, words: Sequence[str], code: int, message: str
) -> None:
    tiny.write(FILES).compile([{"name": "a"}])
    done = subprocess.run(
        [COMMAND, "run", str(tiny.directory), *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())


def test_nodes_of_only_one_target_are_selected_there(tiny: TinyProject) -> None:
    enabled = "{{ config(enabled=(target.name == 'heavy'), tags=['big']) }} "
    tiny.write({"a": "select 1 as id", "h": enabled + "select id from {{ ref('a') }}"})
    heavy = {"type": "duckdb", "path": "target/tiny.duckdb"}
    tiny.compile(
        [{"name": "a"}, {"name": "h", "compute": "heavy"}],
        outputs={"heavy": heavy},
        config={"computes": {"duckdb": {"target": "dev"}, "heavy": {"target": "heavy"}}},
    )
    product = tiny.open()
    warnings: list[str] = []
    assert selection._by_dbt(product, ["tag:big"], (), warnings.append) == {"model.tiny.h"}
    assert selection._by_dbt(product, ["a+"], (), warnings.append) == {
        "model.tiny.a",
        "model.tiny.h",
    }
    assert not warnings
    assert selection._by_dbt(product, ["nobody"], (), warnings.append) == set()
    assert warnings == ["The selection criterion 'nobody' does not match any enabled nodes"]
