"""A code version changes only with code and settings that affect the result of a node.

The project has many small families of models. A round makes many changes at once, so that dbt
parses the project once per round. Each change of a round affects other families.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import yaml
from dagster_dbt import DagsterDbtTranslator

from floe_orchestrator_dagster.assets.specs import Specs, code_version
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import Product, load_all_manifests
from kit.support import DBT_PROJECT, TinyProject, failure_of, materialized, run, tables

PROJECT = {
    **DBT_PROJECT,
    "vars": {"color": "red", "inner": "before", "nested": "{{ var('inner') }}", "unread": 1},
    "on-run-end": "select 1",
    "models": {
        "tiny": {
            "by_strategy": {"+incremental_strategy": "append"},
            "by_schema_change": {"+on_schema_change": "ignore"},
            "by_schema": {"+schema": "before"},
        }
    },
}
MACROS = """
{% macro direct() %}'direct'{% endmacro %}
{% macro outer() %}{{ inner() }}{% endmacro %}
{% macro inner() %}'inner'{% endmacro %}
{% macro itself(depth) %}{% if depth %}{{ itself(depth - 1) }}{% endif %}'itself'{% endmacro %}
{% macro unused() %}'unused'{% endmacro %}
{% macro of_ephemeral() %}'of_ephemeral'{% endmacro %}
{% macro while_running() %}'while_running'{% endmacro %}
{% macro in_hook() %}select 'in_hook'{% endmacro %}
{% macro colored() %}'{{ var("color", "none") }}'{% endmacro %}
{% macro any_var(name) %}'{{ var(name, "none") }}'{% endmacro %}
{% macro any_env(name) %}'{{ env_var(name, "none") }}'{% endmacro %}
{% macro looks_at_meta() %}'{{ model.config.meta.get("level") }}'{% endmacro %}
{% macro dispatched() %}{{ adapter.dispatch("dispatched")() }}{% endmacro %}
{% macro default__dispatched() %}'default'{% endmacro %}
{% macro duckdb__dispatched() %}'duckdb'{% endmacro %}
{% test is_small(model, column_name) %}
  select * from {{ model }} where {{ column_name }} > 9
{% endtest %}
{% materialization own_table, adapter='duckdb' %}
  {% call statement('main') %}create or replace table {{ this }} as ({{ sql }}){% endcall %}
  {{ return({'relations': [this]}) }}
{% endmaterialization %}
"""
INCREMENTAL = "{{ config(materialized='incremental', unique_key='n') }} select 1 as n"
MODELS = {
    "plain": "select 1 as n",
    "by_macro": "select {{ direct() }} as n",
    "by_nested_macro": "select {{ outer() }} as n",
    "by_recursive_macro": "select {{ itself(2) }} as n",
    "by_package_macro": "select {{ tools.tool() }} as n",
    "by_dispatched_macro": "select {{ dispatched() }} as n",
    "by_macro_while_running": "{{ config(materialized='incremental') }} select 'x' as n "
    "{% if is_incremental() %} where {{ while_running() }} = 'x' {% endif %}",
    "by_macro_in_hook": """{{ config(post_hook="{{ in_hook() }}") }} select 1 as n""",
    "by_materialization": "{{ config(materialized='own_table') }} select 1 as n",
    "by_generic_test": "select 1 as n",
    "bottom": "{{ config(materialized='ephemeral') }} select 1 as n",
    "top": "{{ config(materialized='ephemeral') }} select * from {{ ref('bottom') }}",
    "by_ephemerals": "select * from {{ ref('top') }}",
    "with_macro": "{{ config(materialized='ephemeral') }} select {{ of_ephemeral() }} as n",
    "by_ephemerals_macro": "select * from {{ ref('with_macro') }}",
    "by_ephemerals_child": "select * from {{ ref('by_ephemerals') }}",
    "by_materialized": "{{ config(materialized='view') }} select 1 as n",
    "by_unique_key": INCREMENTAL,
    "by_strategy": INCREMENTAL,
    "by_schema_change": INCREMENTAL,
    "by_hook": "select 1 as n",
    "by_grants": "select 1 as n",
    "by_own_config": "select 1 as n",
    "by_contract": "select 1 as n",
    "by_constraint": "select 1 as n",
    "by_order_of_columns": "select 1 as n, 2 as m",
    "without_contract": "select 1 as n",
    "by_description": "select 1 as n",
    "by_columns_description": "select 1 as n",
    "described": "select 1 as n",
    "by_meta": "select {{ looks_at_meta() }} as n",
    "by_var": "select '{{ var('color') }}' as n",
    "by_macros_var": "select {{ colored() }} as n",
    "by_nested_var": "select '{{ var('nested') }}' as n",
    "by_any_var": "select {{ any_var('co' ~ 'lor') }} as n",
    "by_no_var": "select 'var(color)' as n",
    "by_env": "select '{{ env_var('FLOE_TEST_AREA', 'none') }}' as n",
    "by_macros_env": "select {{ any_env('FLOE_TEST_AREA') }} as n",
    "by_source": "select * from {{ source('raw', 'moved') }}",
    "by_external_source": "select * from {{ source('raw', 'external') }}",
    "by_other_source": "select * from {{ source('raw', 'stays') }}",
    "by_comment": "select 1 as n -- first",
    "by_schema": "select 1 as n",
    "by_function": "select {{ function('twice') }}(1) as n",
    "by_functions_function": "select {{ function('fourfold') }}(1) as n",
}
MODELS_YML = """
models:
  - {name: by_generic_test, columns: [{name: n, data_tests: [is_small]}]}
  - {name: by_hook, config: {pre_hook: select 1}}
  - {name: by_grants, config: {grants: {}}}
  - {name: by_own_config, config: {sorted_by: n}}
  - name: by_contract
    config: {contract: {enforced: true}}
    columns: [{name: n, data_type: integer}]
  - name: by_constraint
    config: {contract: {enforced: true}, materialized: table}
    columns: [{name: n, data_type: integer, constraints: []}]
  - name: by_order_of_columns
    config: {contract: {enforced: true}, materialized: table}
    columns: [{name: n, data_type: integer}, {name: m, data_type: integer}]
  - {name: without_contract, columns: [{name: n, data_type: integer}]}
  - name: by_description
    description: shown in the database
    config: {persist_docs: {relation: true}}
  - name: by_columns_description
    config: {persist_docs: {columns: true}}
    columns: [{name: n, description: of a column in the database}]
  - name: described
    description: for people
    config: {meta: {level: 1}, tags: [before], docs: {show: true}}
    columns: [{name: n, description: of a column}]
  - {name: by_meta, config: {meta: {level: 2, dagster: {group: before}}}}
seeds:
  - {name: by_column_types, config: {column_types: {n: integer}}}
sources:
  - name: raw
    schema: lake
    tables:
      - {name: stays, description: a source}
      - {name: moved, identifier: before}
      - {name: external, config: {meta: {external_location: before.parquet}}}
"""
SEEDS = {
    "seeds/by_cell.csv": "n\n1\n",
    "seeds/by_column_types.csv": "n\n1\n",
    "seeds/large.csv": "n,name\n" + "1,a row of a large seed\n" * 60_000,
    "seeds/large_too.csv": "n,name\n" + "2,a row of a large seed\n" * 60_000,
}
SNAPSHOTS = """
{% snapshot by_strategy_of_snapshot %}
{{ config(unique_key='n', strategy='check', check_cols='all') }}
select 1 as n
{% endsnapshot %}
"""
FUNCTIONS = {
    "functions/twice.sql": "n * 2",
    "functions/fourfold.sql": "{{ function('twice') }}(n) * 2",
    "functions/functions.yml": """
functions:
  - {name: twice, arguments: [{name: n, data_type: integer}], returns: {data_type: integer}}
  - {name: fourfold, arguments: [{name: n, data_type: integer}], returns: {data_type: integer}}
""",
}
FILES = {
    "dbt_project.yml": yaml.safe_dump(PROJECT),
    "packages.yml": "packages: [{local: vendor/tools}]",
    "vendor/tools/dbt_project.yml": "{name: tools, version: '1.0', vars: {tint: pale}}",
    "vendor/tools/macros/tool.sql": "{% macro tool() %}{{ tools.inner_tool() }}{% endmacro %}"
    "{% macro inner_tool() %}'tool'{% endmacro %}",
    "vendor/tools/models/by_packages_var.sql": "select '{{ var('tint') }}' as n",
    "macros/macros.sql": MACROS,
    "models/models.yml": MODELS_YML,
    "models/by_python.py": "def model(dbt, session):\n    return session.sql('select 1 as n')\n",
    "snapshots/snapshots.sql": SNAPSHOTS,
    **SEEDS,
    **FUNCTIONS,
    **{f"models/{name}.sql": code for name, code in MODELS.items()},
}


class Change(NamedTuple):
    """One edit of a file, and the assets whose version it changes."""

    what: str
    file: str
    old: str
    new: str
    changes: str = ""


NOTHING = [
    Change("an unused macro", "macros/macros.sql", "'unused'", "'still unused'"),
    Change("the macro of a generic test", "macros/macros.sql", "> 9", "> 8"),
    Change("descriptions", "models/models.yml", "for people", "for all people"),
    Change("the description of a column", "models/models.yml", "of a column}", "of one column}"),
    Change("meta", "models/models.yml", "level: 1", "level: one"),
    Change("meta only for Dagster", "models/models.yml", "group: before", "group: after"),
    Change("tags", "models/models.yml", "[before]", "[after]"),
    Change("docs", "models/models.yml", "show: true", "show: false"),
    Change("a source's description", "models/models.yml", "a source", "this source"),
    Change(
        "a type without a contract",
        "models/models.yml",
        "without_contract, columns: [{name: n, data_type: integer",
        "without_contract, columns: [{name: n, data_type: bigint",
    ),
    Change(
        "hooks of the project", "dbt_project.yml", "on-run-end: select 1", "on-run-end: select 2"
    ),
]
CODE = [
    Change("a macro", "macros/macros.sql", "'direct'", "'changed'", "by_macro"),
    Change("a nested macro", "macros/macros.sql", "'inner'", "'changed'", "by_nested_macro"),
    Change("a recursive macro", "macros/macros.sql", "'itself'", "'same'", "by_recursive_macro"),
    Change(
        "a package's macro",
        "vendor/tools/macros/tool.sql",
        "'tool'",
        "'changed'",
        "by_package_macro",
    ),
    Change(
        "a macro that dispatch chooses",
        "macros/macros.sql",
        "'duckdb'{% endmacro",
        "'changed'{% endmacro",
        "by_dispatched_macro",
    ),
    Change(
        "a macro that is called while dbt runs",
        "macros/macros.sql",
        "'while_running'",
        "'changed'",
        "by_macro_while_running",
    ),
    Change("a macro in a hook", "macros/macros.sql", "'in_hook'", "'changed'", "by_macro_in_hook"),
    Change(
        "a materialization",
        "macros/macros.sql",
        "create or replace",
        "create  or replace",
        "by_materialization",
    ),
    Change("an ephemeral's parent", "models/bottom.sql", "1 as n", "2 as n", "by_ephemerals"),
    Change(
        "an ephemeral's macro",
        "macros/macros.sql",
        "'of_ephemeral'",
        "'changed'",
        "by_ephemerals_macro",
    ),
    Change(
        "a function that another calls",
        "functions/twice.sql",
        "n * 2",
        "n + n",
        "by_function by_functions_function",
    ),
    Change("a comment", "models/by_comment.sql", "first", "second", "by_comment"),
    Change("Python", "models/by_python.py", "1 as n", "2 as n", "by_python"),
    Change("a cell", "seeds/by_cell.csv", "1", "2", "by_cell"),
    Change("a cell of a large seed", "seeds/large.csv", "1,a row", "3,a row", "large"),
]
CONFIG = [
    Change(
        "a configured type of a seed's column",
        "models/models.yml",
        "column_types: {n: integer}",
        "column_types: {n: bigint}",
        "by_column_types",
    ),
    Change("view to table", "models/by_materialized.sql", "view", "table", "by_materialized"),
    Change("a unique key", "models/by_unique_key.sql", "unique_key='n'", "", "by_unique_key"),
    Change(
        "an incremental strategy",
        "dbt_project.yml",
        "+incremental_strategy: append",
        "+incremental_strategy: delete+insert",
        "by_strategy",
    ),
    Change(
        "the reaction to changed columns",
        "dbt_project.yml",
        "+on_schema_change: ignore",
        "+on_schema_change: fail",
        "by_schema_change",
    ),
    Change("a hook", "models/models.yml", "pre_hook: select 1", "pre_hook: select 2", "by_hook"),
    Change("grants", "models/models.yml", "grants: {}", "grants: {select: [me]}", "by_grants"),
    Change(
        "an unknown config",
        "models/models.yml",
        "sorted_by: n",
        "sorted_by: m",
        "by_own_config",
    ),
    Change(
        "a type of a contract",
        "models/models.yml",
        "config: {contract: {enforced: true}}\n    columns: [{name: n, data_type: integer}]",
        "config: {contract: {enforced: true}}\n    columns: [{name: n, data_type: bigint}]",
        "by_contract",
    ),
    Change(
        "a constraint",
        "models/models.yml",
        "constraints: []",
        "constraints: [{type: not_null}]",
        "by_constraint",
    ),
    Change(
        "the order of a contract's columns",
        "models/models.yml",
        "[{name: n, data_type: integer}, {name: m, data_type: integer}]",
        "[{name: m, data_type: integer}, {name: n, data_type: integer}]",
        "by_order_of_columns",
    ),
    Change(
        "a description that dbt writes into the database",
        "models/models.yml",
        "shown in the database",
        "shown there",
        "by_description",
    ),
    Change(
        "a column's description that dbt writes into the database",
        "models/models.yml",
        "of a column in the database",
        "shown there",
        "by_columns_description",
    ),
    Change("meta that code reads", "models/models.yml", "level: 2", "level: two", "by_meta"),
    Change(
        "how a snapshot compares",
        "snapshots/snapshots.sql",
        "check_cols='all'",
        "check_cols=['n']",
        "by_strategy_of_snapshot",
    ),
    Change(
        "the place of a source",
        "models/models.yml",
        "identifier: before",
        "identifier: x",
        "by_source",
    ),
    Change(
        "the file of a source",
        "models/models.yml",
        "before.parquet",
        "after.parquet",
        "by_external_source",
    ),
]
VARS = [
    Change(
        "a var without a name in code", "dbt_project.yml", "unread: 1", "unread: 2", "by_any_var"
    ),
    Change(
        "a var",
        "dbt_project.yml",
        "color: red",
        "color: blue",
        "by_var by_macros_var by_any_var",
    ),
    Change(
        "a var that another var reads",
        "dbt_project.yml",
        "inner: before",
        "inner: after",
        "by_nested_var by_any_var",
    ),
    Change(
        "a var of a package",
        "vendor/tools/dbt_project.yml",
        "tint: pale",
        "tint: deep",
        "by_packages_var",
    ),
]
SCHEMA = [Change("the schema", "dbt_project.yml", "+schema: before", "+schema: after", "by_schema")]
ROUNDS = {
    "irrelevant": NOTHING,
    "code": CODE,
    "config": CONFIG,
    "vars": VARS,
    "schema": SCHEMA,
}


class Versions:
    """A product and the code versions of its assets, before and after changes."""

    def __init__(self, project: TinyProject) -> None:
        self.project = project
        self.before = self.now()

    def now(self) -> dict[str, str | None]:
        product = open_product(self.project.directory, progress=lambda _: None, force_parse=True)
        return versions(product)

    def after(self, changes: Sequence[Change]) -> set[str]:
        """Return the assets whose version differs after some changes; undo the changes."""
        directory = self.project.directory
        names = {change.file for change in changes}
        original = {name: (directory / name).read_text() for name in names}
        edited = dict(original)
        for change in changes:
            assert edited[change.file].count(change.old), f"{change.what}: nothing to change"
            edited[change.file] = edited[change.file].replace(change.old, change.new, 1)
        self.project.write(edited)
        try:
            now = self.now()
        finally:
            self.project.write(original)
        assert now.keys() == self.before.keys()
        return {name for name in now if now[name] != self.before[name]}


def versions(product: Product) -> dict[str, str | None]:
    """Return the code version of each asset by its name."""
    return {node.name: code_version(node) for node in product.plan.assets.values()}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory, compiled_template: dict[str, Any]) -> Versions:
    project = TinyProject(tmp_path_factory.mktemp("versions"), compiled_template)
    return Versions(project.compile([]).write(FILES))


@pytest.mark.parametrize("changes", ROUNDS.values(), ids=ROUNDS)
def test_a_change_affects_exactly_the_expected_versions(
    parsed: Versions, changes: Sequence[Change]
) -> None:
    expected = {name for change in changes for name in change.changes.split()}
    assert parsed.after(changes) == expected


def test_a_checkout_elsewhere_has_the_same_versions(parsed: Versions, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns("target", "logs", "dbt_packages")
    shutil.copytree(parsed.project.directory, elsewhere, ignore=ignored)
    compiled = "target/compiled_artifacts.json"
    (elsewhere / "target").mkdir()
    shutil.copyfile(parsed.project.directory / compiled, elsewhere / compiled)
    # A model in another folder is the same model.
    (elsewhere / "models" / "moved").mkdir()
    (elsewhere / "models" / "plain.sql").rename(elsewhere / "models" / "moved" / "plain.sql")
    assert versions(open_product(elsewhere, progress=lambda _: None)) == parsed.before


def test_from_failure_rebuilds_models_that_use_a_changed_macro(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "macros/m.sql": "{% macro number() %}1{% endmacro %}",
            "a": "{{ config(materialized='table') }} select {{ number() }} as id",
            "b": "{{ config(materialized='table') }} select nope from {{ ref('a') }}",
            "c": "{{ config(materialized='table') }} select 3 as id",
        }
    )
    failed = run(tiny.compile([]).open(), instance)
    assert sorted(materialized(failed)) == ["a", "c"]
    tiny.write(
        {
            "macros/m.sql": "{% macro number() %}2{% endmacro %}",
            "b": "{{ config(materialized='table') }} select id from {{ ref('a') }}",
        }
    )
    tags = {"dagster/parent_run_id": failed.run_id, "dagster/is_resume_retry": "true"}
    rerun = run(tiny.open(), instance, tags=tags)
    assert rerun.success, failure_of(rerun)
    assert materialized(rerun) == ["a", "b"]
    assert tables(tiny.database)["main.b"] == [(2,)]


def test_code_versions_of_a_users_translator_are_kept(tiny: TinyProject) -> None:
    class Own(DagsterDbtTranslator):
        def get_code_version(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
            return "mine" if dbt_resource_props["name"] == "a" else "theirs"

    product = tiny.write({"a": "select 1 as id"}).compile([]).open()
    manifests = dict(load_all_manifests(product))
    [(uid, node)] = product.plan.assets.items()
    own = Specs(product.plan, translator=Own(), manifests=manifests)
    assert own.assets[uid].code_version == own.code_version(uid) == "mine"
    stock = Specs(product.plan, translator=DagsterDbtTranslator(), manifests=manifests)
    assert stock.assets[uid].code_version == stock.code_version(uid) == code_version(node)
