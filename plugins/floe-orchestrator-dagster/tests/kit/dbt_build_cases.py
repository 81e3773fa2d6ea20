"""Small products that together use everything that `dbt build` can do.

A case is a project that bare dbt and our plugin build step by step. Each of its rows is one feature
of dbt, and one row of the table in docs/dbt-build.md. The row names its nodes and their expected
results with bare dbt, so that it cannot pass if nothing is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

Files = Mapping[str, "str | None"]
Values = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Row:
    """One feature of dbt.

    `about` names the nodes and relations of the feature (none: the whole build). After the step
    `step`, `statuses` has dbt's statuses by node name, and `tables` the rows of relations.
    """

    name: str
    about: Sequence[str] = ()
    statuses: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Values] = field(default_factory=dict)
    step: int = -1


@dataclass(frozen=True)
class Step:
    """The files to write before a build, the words of the build, and whether dbt fails.

    `options` replaces the words for our command. `bare` has the words of several dbt builds, if one
    build is not enough for two targets. dbt's output contains `says`.
    """

    files: Files = field(default_factory=dict)
    words: Sequence[str] = ()
    options: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    fails: bool = False
    bare: Sequence[Sequence[str]] = ()
    says: str = ""


@dataclass(frozen=True)
class Case:
    """A product, its builds and the rows of the table that they show."""

    name: str
    steps: Sequence[Step]
    rows: Sequence[Row]
    transforms: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    postgres: bool = False


def project(**settings: Any) -> dict[str, str]:
    """Return dbt_project.yml of the project `tiny`, with additional settings."""
    flags = {"send_anonymous_usage_stats": False, **settings.pop("flags", {})}
    content = {"name": "tiny", "profile": "tiny", "version": "1.0", "flags": flags, **settings}
    return {"dbt_project.yml": yaml.safe_dump(content, allow_unicode=True)}


TABLE = "{{ config(materialized='table') }} "
NUMBERS = TABLE + "select range as id from range(3)"
BROKEN = TABLE + "select no_such_column from (select 1 as id)"

MATERIALIZATIONS = Case(
    "materializations",
    [
        Step(
            {
                **project(
                    models={
                        "tiny": {
                            "+persist_docs": {"relation": True, "columns": True},
                        }
                    },
                ),
                "a_table": NUMBERS,
                "a_view": "select id + 1 as id from {{ ref('a_table') }}",
                "inlined": "{{ config(materialized='ephemeral') }} "
                "select id * 2 as id from {{ ref('a_view') }}",
                "over_inlined": TABLE + "select id from {{ ref('inlined') }}",
                "models/in_python.py": "def model(dbt, session):\n"
                "    dbt.config(materialized='table')\n"
                "    return dbt.ref('a_table').aggregate('max(id) as top')\n",
                "macros/stamped.sql": "{% materialization stamped, default %}\n"
                "{% set target_relation = this.incorporate(type='table') %}\n"
                "{% call statement('main') %}create or replace table {{ target_relation }} as "
                "select 'stamped' as stamp, * from ({{ sql }}){% endcall %}\n"
                "{{ adapter.commit() }}{{ return({'relations': [target_relation]}) }}\n{% endmaterialization %}\n",
                "customised": "{{ config(materialized='stamped') }} "
                "select id from {{ ref('a_table') }}",
                "outside": "{{ config(materialized='external', location='target/out.csv') }} "
                "select id from {{ ref('a_table') }}",
                "aliased": "{{ config(alias='another_name') }} select 1 as id",
                "elsewhere": "{{ config(schema='area') }} select 1 as id",
                "attached": "{{ config(database='other', materialized='table') }} select 1 as id",
                "from_attached": TABLE + "select id from {{ ref('attached') }}",
                "quoted": "{{ config(alias='Order By', materialized='table') }} select 1 as id",
                "n" * 60: TABLE + "select 1 as id",
                "hooked": "{{ config(materialized='table', "
                "pre_hook='create table if not exists log (what varchar)', "
                "post_hook=[\"insert into log values ('{{ this.name }}')\", "
                "{'sql': 'vacuum', 'transaction': False}]) }} select 1 as id",
                "models/schema.yml": yaml.safe_dump(
                    {
                        "models": [
                            {
                                "name": "a_table",
                                "description": "Numbers.",
                                "columns": [{"name": "id", "description": "A number."}],
                            },
                            {
                                "name": "n" * 60,
                                "columns": [{"name": "id", "data_tests": ["unique"]}],
                            },
                        ],
                        "exposures": [
                            {
                                "name": "board",
                                "type": "dashboard",
                                "owner": {"name": "Ada"},
                                "depends_on": ["ref('a_table')"],
                            }
                        ],
                    },
                    allow_unicode=True,
                ),
            }
        )
    ],
    [
        Row("table", ["a_table"], {"a_table": "success"}, {"main.a_table": [(0,), (1,), (2,)]}),
        Row("view", ["a_view"], {"a_view": "success"}, {"main.a_view": [(1,), (2,), (3,)]}),
        Row("ephemeral", ["inlined"], {}, {"main.over_inlined": [(2,), (4,), (6,)]}),
        Row("python model", ["in_python"], {"in_python": "success"}, {"main.in_python": [(2,)]}),
        Row(
            "custom materialization",
            ["customised"],
            {"customised": "success"},
            {"main.customised": [("stamped", 0), ("stamped", 1), ("stamped", 2)]},
        ),
        Row(
            "adapter's own materialization",
            ["outside"],
            {"outside": "success"},
            {"main.outside": [(0,), (1,), (2,)]},
        ),
        Row(
            "alias",
            ["aliased", "another_name"],
            {"aliased": "success"},
            {"main.another_name": [(1,)]},
        ),
        Row(
            "custom schema",
            ["elsewhere"],
            {"elsewhere": "success"},
            {"main_area.elsewhere": [(1,)]},
        ),
        Row(
            "custom database",
            ["attached"],
            {"attached": "success", "from_attached": "success"},
            {"main.attached": [(1,)], "main.from_attached": [(1,)]},
        ),
        Row("quoting", ["quoted", "Order By"], {"quoted": "success"}, {"main.Order By": [(1,)]}),
        Row("long names", ["n" * 60], {"n" * 60: "success", f"unique_{'n' * 60}_id": "pass"}),
        Row(
            "hooks of a model",
            ["hooked", "log"],
            {"hooked": "success"},
            {"main.log": [("hooked",)]},
        ),
        Row("persist_docs", ["a_table"], {"a_table": "success"}),
        Row("exposures", ["board"]),
    ],
    outputs={
        "dev": {
            "type": "duckdb",
            "path": "target/tiny.duckdb",
            "threads": 2,
            "attach": [{"path": "target/other.duckdb", "alias": "other"}],
        }
    },
)

NAMES = [
    Case(
        "non-ASCII models",
        [
            Step(
                {
                    **project(),
                    "größe": TABLE + "select 1 as id",
                    "grüße": TABLE + "select * from {{ ref('größe') }}",
                    "models/s.yml": "models: [{name: größe, columns: [{name: id, data_tests: "
                    "[not_null]}]}]",
                }
            )
        ],
        [
            Row(
                "non-ASCII models",
                ["größe", "grüße"],
                {"größe": "success", "grüße": "success", "not_null_größe_id": "pass"},
            )
        ],
    ),
    Case(
        "names of columns and tests",
        [
            Step(
                {
                    **project(),
                    "sizes": TABLE + 'select 1 as "氏名", 2 as "住所"',
                    "Upper": TABLE + "select 1 as id",
                    "models/s.yml": """
models:
  - name: sizes
    columns: [{name: 氏名, data_tests: [not_null]}, {name: 住所, data_tests: [not_null]}]
  - name: Upper
    columns: [{name: id, data_tests: [unique: {name: "test,with*signs(1)"}]}]
""",
                }
            )
        ],
        [
            Row("non-ASCII columns", ["sizes"], {"sizes": "success", "not_null_sizes__": "pass"}),
            Row("signs in names", ["Upper"], {"Upper": "success", "test,with*signs(1)": "pass"}),
        ],
    ),
]

INCREMENTALS = {
    "by_append": ("append", ""),
    "by_delete": ("delete+insert", "unique_key='id',"),
    "by_merge": ("merge", "unique_key='id',"),
}
SCHEMA_CHANGES = ("ignore", "append_new_columns", "sync_all_columns", "fail")

INCREMENTAL = Case(
    "incremental",
    [
        Step(
            {
                **project(),
                "feed": TABLE + "select * from (values (1, 'a'), (2, 'b')) t(id, v)",
                **{
                    name: f"{{{{ config(materialized='incremental', {key} "
                    f"incremental_strategy='{strategy}') }}}} select id, v from {{{{ ref('feed') }}}}"
                    for name, (strategy, key) in INCREMENTALS.items()
                },
                **{
                    f"on_change_{how}": "{{ config(materialized='incremental', "
                    f"unique_key='id', on_schema_change='{how}') }}}} "
                    "select * from {{ ref('feed') }}"
                    for how in SCHEMA_CHANGES
                },
                "below_fail": "select id from {{ ref('on_change_fail') }}",
            }
        ),
        Step(
            {
                "feed": TABLE
                + "select * from (values (2, 'B', true), (3, 'c', false)) t(id, v, extra)"
            },
            fails=True,
        ),
        Step(words=["--full-refresh"]),
    ],
    [
        Row(
            "incremental: append",
            ["by_append"],
            {"by_append": "success"},
            {"main.by_append": [(1, "a"), (2, "b"), (2, "B"), (3, "c")]},
            step=1,
        ),
        Row(
            "incremental: delete+insert",
            ["by_delete"],
            {"by_delete": "success"},
            {"main.by_delete": [(1, "a"), (2, "B"), (3, "c")]},
            step=1,
        ),
        Row(
            "incremental: merge",
            ["by_merge"],
            {"by_merge": "success"},
            {"main.by_merge": [(1, "a"), (2, "B"), (3, "c")]},
            step=1,
        ),
        Row(
            "on_schema_change: ignore",
            ["on_change_ignore"],
            {"on_change_ignore": "success"},
            {"main.on_change_ignore": [(1, "a"), (2, "B"), (3, "c")]},
            step=1,
        ),
        Row(
            "on_schema_change: append_new_columns",
            ["on_change_append_new_columns"],
            {"on_change_append_new_columns": "success"},
            {
                "main.on_change_append_new_columns": [
                    (1, "a", None),
                    (2, "B", True),
                    (3, "c", False),
                ]
            },
            step=1,
        ),
        Row(
            "on_schema_change: sync_all_columns",
            ["on_change_sync_all_columns"],
            {"on_change_sync_all_columns": "success"},
            {"main.on_change_sync_all_columns": [(1, "a", None), (2, "B", True), (3, "c", False)]},
            step=1,
        ),
        Row(
            "on_schema_change: fail",
            ["on_change_fail", "below_fail"],
            {"on_change_fail": "error", "below_fail": "skipped"},
            step=1,
        ),
        Row(
            "full refresh of incremental models",
            ["by_append", "on_change_fail"],
            {"by_append": "success", "on_change_fail": "success"},
            {"main.by_append": [(2, "B"), (3, "c")]},
        ),
    ],
)


def snapshot(name: str, settings: str) -> str:
    """Return the SQL of a snapshot of the seed `people`."""
    return (
        f"{{% snapshot {name} %}}{{{{ config(unique_key='id', {settings}) }}}} "
        f"select * from {{{{ ref('people') }}}}{{% endsnapshot %}}"
    )


BY_TIME = "strategy='timestamp', updated_at='seen'"
SNAPSHOTS = Case(
    "snapshots",
    [
        Step(
            {
                **project(),
                "seeds/people.csv": "id,name,seen\n1,Ada,2026-01-01\n2,Bob,2026-01-01\n",
                "snapshots/by_time.sql": snapshot("by_time", BY_TIME),
                "snapshots/by_check.sql": snapshot(
                    "by_check", "strategy='check', check_cols=['name']"
                ),
                "snapshots/deletes_ignored.sql": snapshot(
                    "deletes_ignored", f"{BY_TIME}, hard_deletes='ignore'"
                ),
                "snapshots/deletes_invalidated.sql": snapshot(
                    "deletes_invalidated", f"{BY_TIME}, hard_deletes='invalidate'"
                ),
                "snapshots/deletes_recorded.sql": snapshot(
                    "deletes_recorded", f"{BY_TIME}, hard_deletes='new_record'"
                ),
                "snapshots/all.yml": """
snapshots:
  - name: in_yaml
    relation: ref('people')
    config: {unique_key: id, strategy: timestamp, updated_at: seen}
    columns: [{name: id, data_tests: [not_null]}]
""",
                "current": "select name from {{ ref('by_time') }} where dbt_valid_to is null",
            }
        ),
        Step({"seeds/people.csv": "id,name,seen\n1,Ann,2026-02-01\n"}),
    ],
    [
        Row("snapshot: timestamp", ["by_time"], {"by_time": "success"}),
        Row("snapshot: check", ["by_check"], {"by_check": "success"}),
        Row("snapshot: hard_deletes ignore", ["deletes_ignored"], {"deletes_ignored": "success"}),
        Row(
            "snapshot: hard_deletes invalidate",
            ["deletes_invalidated"],
            {"deletes_invalidated": "success"},
        ),
        Row(
            "snapshot: hard_deletes new_record",
            ["deletes_recorded"],
            {"deletes_recorded": "success"},
        ),
        Row("snapshot in YAML", ["in_yaml"], {"in_yaml": "success"}),
        Row("test of a snapshot", ["not_null_in_yaml_id"], {"not_null_in_yaml_id": "pass"}),
        Row(
            "read a snapshot",
            ["current"],
            {"current": "success"},
            {"main.current": [("Ann",), ("Bob",)]},
        ),
    ],
)

SEEDS = Case(
    "seeds",
    [
        Step(
            {
                **project(seeds={"tiny": {"typed": {"+column_types": {"code": "varchar(3)"}}}}),
                "seeds/typed.csv": "code,n\n007,1\n",
                "seeds/changed.csv": "id\n1\n",
                "seeds/nothing.csv": "id\n",
                "seeds/semicolons.csv": "id;v\n1;x\n",
                "seeds/s.yml": "seeds:\n  - {name: semicolons, config: {delimiter: ';'}}\n"
                "  - {name: typed, columns: [{name: code, data_tests: [not_null]}]}\n",
                "over": "select id from {{ ref('changed') }}",
            }
        ),
        Step({"seeds/changed.csv": "id\n1\n2\n"}),
        Step({"seeds/changed.csv": "id,more\n1,x\n"}, fails=True),
        Step(words=["--full-refresh"]),
    ],
    [
        Row("seed: column_types", ["typed"], {"typed": "success"}, {"main.typed": [("007", 1)]}),
        Row(
            "seed: changed",
            ["changed", "over"],
            {"changed": "success"},
            {"main.over": [(1,), (2,)]},
            step=1,
        ),
        Row("seed: other columns", ["changed"], {"changed": "error", "over": "skipped"}, step=2),
        Row(
            "seed: full refresh", ["changed"], {"changed": "success"}, {"main.changed": [(1, "x")]}
        ),
        Row("seed without rows", ["nothing"], {"nothing": "success"}, {"main.nothing": []}),
        Row(
            "seed: delimiter",
            ["semicolons"],
            {"semicolons": "success"},
            {"main.semicolons": [(1, "x")]},
        ),
        Row("test of a seed", ["not_null_typed_code"], {"not_null_typed_code": "pass"}),
    ],
)

TESTS = Case(
    "data tests",
    [
        # A source test waits for no other node, so its table must already exist.
        Step({**project(), "seeds/landed.csv": "id\n1\n2\n"}),
        Step(
            {
                **project(
                    data_tests={
                        "tiny": {
                            "by_target": {
                                "+severity": "{{ 'warn' if target.name == 'dev' else 'error' }}"
                            }
                        }
                    }
                ),
                "base": TABLE + "select * from (values (1, 'a'), (2, null), (2, 'c')) t(id, v)",
                "after_warning": "select count(*) as n from {{ ref('base') }}",
                "errs": TABLE + "select 1 as id",
                "below_errs": "select id from {{ ref('errs') }}",
                "models/schema.yml": """
sources:
  - name: raw
    schema: main
    tables:
      - name: arrived
        identifier: landed
        columns: [{name: id, data_tests: [{not_null: {name: of_source}}]}]
models:
  - name: base
    columns:
      - name: id
        data_tests:
          - relationships: {name: over_two, arguments: {to: ref('errs'), field: id}, config: {severity: warn}}
          - unique: {name: with_where, config: {where: "v is not null"}}
          - unique: {name: with_limit, config: {limit: 1, severity: warn}}
          - unique: {name: stored, config: {store_failures: true, severity: warn}}
          - unique: {name: stored_as_view, config: {store_failures_as: view, severity: warn}}
          - unique: {name: with_fail_calc, config: {fail_calc: "sum(n_records)", severity: warn}}
          - unique: {name: warned_from_five, config: {warn_if: ">5", error_if: ">9"}}
          - unique: {name: warned_from_one, config: {warn_if: ">0", error_if: ">9"}}
      - name: v
        data_tests:
          - not_null: {name: disabled_test, config: {enabled: false}}
  - name: errs
    columns:
      - name: id
        data_tests:
          - accepted_values: {name: fails, arguments: {values: [2], quote: false}}
""",
                "tests/singular.sql": "select * from {{ ref('base') }} where id > 5",
                "tests/over_three.sql": "select 1 from {{ ref('base') }}, {{ ref('errs') }}, "
                "{{ ref('landed') }} where false",
                "tests/by_target/by_target.sql": "select 1 from {{ ref('base') }}",
                "tests/generic/is_even.sql": "{% test is_even(model, column_name) %}"
                "select * from {{ model }} where {{ column_name }} % 2 = 1{% endtest %}",
                "models/own.yml": "models:\n  - name: after_warning\n    columns:\n"
                "      - {name: n, data_tests: [{is_even: {name: own_generic, "
                "config: {severity: warn}}}]}\n",
            },
            fails=True,
        ),
    ],
    [
        Row("test: where", ["with_where"], {"with_where": "pass"}),
        Row("test: limit", ["with_limit"], {"with_limit": "warn"}),
        Row(
            "test: store_failures",
            ["stored"],
            {"stored": "warn"},
            {"main_dbt_test__audit.stored": [(2, 2)]},
        ),
        Row("test: store_failures_as", ["stored_as_view"], {"stored_as_view": "warn"}),
        Row("test: fail_calc", ["with_fail_calc"], {"with_fail_calc": "warn"}),
        Row(
            "test: warn_if and error_if",
            ["warned_from_five", "warned_from_one"],
            {"warned_from_five": "pass", "warned_from_one": "warn"},
        ),
        Row("test: severity by target", ["by_target"], {"by_target": "warn"}),
        Row("test: disabled", ["disabled_test"]),
        Row("test of a source", ["of_source"], {"of_source": "pass"}),
        Row(
            "test over several parents",
            ["over_two", "over_three"],
            {"over_two": "warn", "over_three": "pass"},
        ),
        Row("singular test", ["singular"], {"singular": "pass"}),
        Row("generic test of the project", ["own_generic"], {"own_generic": "warn"}),
        Row("a failed test", ["fails", "below_errs"], {"fails": "fail", "below_errs": "skipped"}),
    ],
)

UNIT_TESTS = Case(
    "unit tests",
    [
        Step(
            {
                **project(),
                "base": TABLE + "select 1 as id",
                "plus": "select id + 1 as id from {{ ref('base') }}",
                "wrong": "select id + 2 as id from {{ ref('base') }}",
                "below_wrong": "select id from {{ ref('wrong') }}",
                "grows": "{{ config(materialized='incremental') }} select id from {{ ref('base') }}"
                "{% if is_incremental() %} where id > (select max(id) from {{ this }}){% endif %}",
                "models/unit.yml": "models: [{name: book, latest_version: 2, versions: [{v: 1}, {v: 2}]}]",
                "book_v1": "select id from {{ ref('base') }}",
                "book_v2": "select id + 10 as id from {{ ref('base') }}",
            }
        ),
        # dbt queries the relation for the columns of `this`.
        Step(
            {
                "tests/fixtures/in_csv.csv": "id\n5\n",
                "tests/fixtures/in_sql.sql": "select 5 as id",
                "models/unit.yml": """
models:
  - name: book
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
unit_tests:
  - name: plus_by_rows
    model: plus
    given: [{input: ref('base'), rows: [{id: 5}]}]
    expect: {rows: [{id: 6}]}
  - name: plus_by_csv
    model: plus
    given: [{input: ref('base'), format: csv, fixture: in_csv}]
    expect: {format: csv, rows: "id\\n6\\n"}
  - name: plus_by_sql
    model: plus
    given: [{input: ref('base'), format: sql, fixture: in_sql}]
    expect: {format: sql, rows: "select 6 as id"}
  - name: wrong_by_one
    model: wrong
    given: [{input: ref('base'), rows: [{id: 5}]}]
    expect: {rows: [{id: 6}]}
  - name: grows_from_there
    model: grows
    overrides: {macros: {is_incremental: true}}
    given: [{input: ref('base'), rows: [{id: 1}, {id: 2}]}, {input: this, rows: [{id: 1}]}]
    expect: {rows: [{id: 2}]}
  - name: of_version_one
    model: book
    versions: {include: [1]}
    given: [{input: ref('base'), rows: [{id: 5}]}]
    expect: {rows: [{id: 5}]}
  - name: disabled_one
    model: plus
    config: {enabled: false}
    given: [{input: ref('base'), rows: [{id: 5}]}]
    expect: {rows: [{id: 7}]}
""",
            },
            fails=True,
        ),
    ],
    [
        Row("unit test", ["plus_by_rows"], {"plus_by_rows": "pass"}),
        Row(
            "unit test: external fixtures",
            ["plus_by_csv", "plus_by_sql"],
            {"plus_by_csv": "pass", "plus_by_sql": "pass"},
        ),
        Row("unit test of a version", ["of_version_one"], {"of_version_one_v1": "pass"}),
        Row("unit test: overrides", ["grows_from_there"], {"grows_from_there": "pass"}),
        Row(
            "a failed unit test",
            ["wrong_by_one", "below_wrong"],
            {"wrong_by_one": "fail", "wrong": "skipped", "below_wrong": "skipped"},
        ),
        Row("unit test: disabled", ["disabled_one"]),
    ],
)

GOVERNANCE = Case(
    "governance",
    [
        Step(
            {
                **project(),
                "base": TABLE + "select 1 as id",
                "book_v1": TABLE + "select id from {{ ref('base') }}",
                "book_v2": TABLE + "select id, 'new' as title from {{ ref('base') }}",
                "reader": "select * from {{ ref('book') }}",
                "reader_of_old": "select * from {{ ref('book', v=1) }}",
                "kept": TABLE + "select 1 as id, 'x' as v",
                "broken_promise": TABLE + "select 1 as id, 2 as other",
                "below_promise": "select * from {{ ref('broken_promise') }}",
                "breaks_constraint": TABLE + "select null::integer as id",
                "secret_part": "{{ config(group='inner', access='private') }} select 1 as id",
                "same_group": "{{ config(group='inner') }} select * from {{ ref('secret_part') }}",
                "models/all.yml": """
groups: [{name: inner, owner: {name: Ada, email: ada@example.com}}]
models:
  - name: book
    latest_version: 2
    deprecation_date: 2020-01-01
    columns: [{name: id, data_tests: [unique]}]
    versions: [{v: 1, columns: [{include: all}]}, {v: 2}]
  - name: kept
    config: {contract: {enforced: true}}
    columns:
      - {name: id, data_type: integer, constraints: [{type: not_null}]}
      - {name: v, data_type: varchar}
  - name: broken_promise
    config: {contract: {enforced: true}}
    columns: [{name: id, data_type: integer}]
  - name: breaks_constraint
    config: {contract: {enforced: true}}
    columns: [{name: id, data_type: integer, constraints: [{type: not_null}]}]
""",
            },
            fails=True,
        ),
        Step(
            {
                "broken_promise": None,
                "below_promise": None,
                "breaks_constraint": None,
                "thief": "select * from {{ ref('secret_part') }}",
                "models/all.yml": """
groups: [{name: inner, owner: {name: Ada, email: ada@example.com}}]
models: [{name: book, versions: [{v: 1}, {v: 2}]}]
""",
            },
            fails=True,
            says="node model.tiny.secret_part, which is not allowed because the referenced node is "
            "private to the 'inner' group",
        ),
    ],
    [
        Row(
            "model versions",
            ["book", "reader"],
            {"book.v1": "success", "book.v2": "success", "reader": "success"},
            {"main.reader": [(1, "new")], "main.reader_of_old": [(1,)]},
            step=0,
        ),
        Row(
            "tests of versions",
            ["unique_book"],
            {"unique_book_v1_id": "pass", "unique_book_v2_id": "pass"},
            step=0,
        ),
        Row("deprecated model", ["book"], {"book.v1": "success"}, step=0),
        Row(
            "contract and constraints kept",
            ["kept"],
            {"kept": "success"},
            {"main.kept": [(1, "x")]},
            step=0,
        ),
        Row(
            "contract broken",
            ["broken_promise", "below_promise"],
            {"broken_promise": "error", "below_promise": "skipped"},
            step=0,
        ),
        Row("constraint broken", ["breaks_constraint"], {"breaks_constraint": "error"}, step=0),
        Row(
            "groups and access",
            ["secret_part", "same_group"],
            {"secret_part": "success", "same_group": "success"},
            step=0,
        ),
        Row("a private model read from outside is refused", [], {}),
    ],
)


def hooked(name: str, *rows: Row, fails: bool = False, **hooks: Any) -> Case:
    """Return a case of on-run hooks, which write to their own table."""
    files = {
        **project(**{key.replace("_", "-"): value for key, value in hooks.items()}),
        "a": "select 1 as id",
        "b": "select id from {{ ref('a') }}",
        "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [unique]}]}]",
    }
    return Case(name, [Step(files, fails=fails)], rows)


OPEN_LOG = "create table if not exists hook_log (what varchar)"
BOTH = {"a": "success", "b": "success"}
HOOKS = [
    hooked(
        "hooks that work",
        Row("on-run-start works", ["hook_log"], BOTH, {"main.hook_log": [("end 3",), ("start",)]}),
        Row("on-run-end works", ["hook_log"], BOTH),
        on_run_start=[OPEN_LOG, "insert into hook_log values ('start')"],
        on_run_end=[
            "insert into hook_log values ('end {{ results | selectattr(\"node\") | list | length }}')",
            "{% for schema in schemas %} select 1 {% endfor %}",
        ],
    ),
    hooked(
        "a start hook that fails",
        Row("on-run-start fails", [], BOTH),
        fails=True,
        on_run_start=["insert into nowhere values (1)"],
    ),
    hooked(
        "an end hook that fails",
        Row("on-run-end fails", [], BOTH),
        fails=True,
        on_run_end=["insert into nowhere values (1)"],
    ),
    hooked(
        "a hook that cannot be rendered",
        Row("on-run-end raises a compiler error", [], BOTH),
        fails=True,
        on_run_end=["{% if execute %}{{ exceptions.raise_compiler_error('no') }}{% endif %}"],
    ),
]

NODE_HOOKS = Case(
    "hooks of nodes",
    [
        Step(
            {
                **project(),
                "before_fails": "{{ config(pre_hook='select * from nowhere') }} select 1 as id",
                "below_before": "select id from {{ ref('before_fails') }}",
                "after_fails": TABLE
                + "{{ config(post_hook='insert into nowhere values (1)') }} select 1 as id",
                "below_after": "select id from {{ ref('after_fails') }}",
                "seeds/hooked_seed.csv": "id\n1\n",
                "seeds/s.yml": "seeds: [{name: hooked_seed, config: {post-hook: "
                "'insert into nowhere values (1)'}}]",
                "well": "select 1 as id",
            },
            fails=True,
        )
    ],
    [
        Row(
            "pre-hook fails",
            ["before_fails", "below_before"],
            {"before_fails": "error", "below_before": "skipped", "well": "success"},
        ),
        Row(
            "post-hook fails",
            ["after_fails", "below_after"],
            {"after_fails": "error", "below_after": "skipped"},
        ),
        Row("post-hook of a seed fails", ["hooked_seed"], {"hooked_seed": "error"}),
    ],
)

# Two days ago, so that there are always three batches.
BEGIN = (
    "(modules.datetime.datetime.now(modules.pytz.utc) - modules.datetime.timedelta(days=2))"
    ".strftime('%Y-%m-%d')"
)
DAYS = (
    "{{ config(materialized='table', event_time='seen') }} select range as id, "
    "(now() at time zone 'utc')::date - range::integer + interval 1 minute as seen from range(3)"
)


def by_day(body: str, **settings: Any) -> str:
    """Return a microbatch model with one batch per day, from two days ago."""
    more = "".join(f", {name}={value!r}" for name, value in settings.items())
    return (
        "{{ config(materialized='incremental', incremental_strategy='microbatch', "
        f"event_time='seen', batch_size='day', begin={BEGIN}{more}) }}}} {body}"
    )


MICROBATCH = Case(
    "microbatch",
    [
        Step(
            {
                **project(),
                "days": DAYS,
                "batches": by_day("select id, seen from {{ ref('days') }}", lookback=0),
                "side_by_side": by_day(
                    "select id, seen from {{ ref('days') }}", concurrent_batches=True
                ),
                "below": "select count(*) as n from {{ ref('batches') }}",
                "models/s.yml": "models: [{name: batches, columns: [{name: id, "
                "data_tests: [unique]}]}]",
            }
        ),
        Step(
            {
                "days": DAYS.replace("select range as id", "select range + 10 as id"),
            }
        ),
        Step(words=["--full-refresh"]),
        Step(
            {
                "batches": by_day(
                    "select case when id = 11 then error('bad batch') else id end as id, seen "
                    "from {{ ref('days') }}",
                    lookback=2,
                )
            },
            fails=True,
        ),
        Step(
            {
                "batches": by_day(
                    "select error('all are bad')::integer as id, seen from {{ ref('days') }}",
                    lookback=2,
                )
            },
            fails=True,
        ),
    ],
    [
        Row(
            "microbatch: batches from begin to now",
            ["batches", "side_by_side"],
            {"batches": "success", "side_by_side": "success"},
            {"main.below": [(3,)]},
            step=0,
        ),
        Row(
            "microbatch: lookback",
            ["batches"],
            {"batches": "success"},
            {"main.below": [(3,)]},
            step=1,
        ),
        Row(
            "microbatch: full refresh",
            ["batches"],
            {"batches": "success", "unique_batches_id": "pass"},
            step=2,
        ),
        Row(
            "microbatch: one batch fails",
            ["batches", "below"],
            {"batches": "partial success", "below": "skipped", "unique_batches_id": "skipped"},
            step=3,
        ),
        Row(
            "microbatch: each batch fails",
            ["batches", "below"],
            {"batches": "error", "below": "skipped"},
            step=4,
        ),
    ],
)

EVENTS = TABLE.replace("'table'", "'table', event_time='seen'") + (
    "select * from (values (1, timestamp '2026-01-02 10:00'), (2, timestamp '2026-01-03 10:00'), "
    "(3, timestamp '2026-01-03 11:00'), (4, timestamp '2026-01-04 10:00')) t(id, seen)"
)
BY_PARTITION = (
    "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='seen', "
    "batch_size='day', begin='2026-01-01', meta={'dagster': {'partitions': "
    "{'type': 'daily', 'start': '2026-01-01', 'end': '2026-01-06'}}}) }} "
    "select %s as id, seen from {{ ref('events') }}"
)


MORNINGS = [datetime.fromisoformat(f"2026-01-0{day} 10:00") for day in (2, 3)]


def of_day(day: int, **more: Any) -> Step:
    """Return the build of one day of January, as our partition and as dbt's window."""
    start, end = f"2026-01-{day:02}", f"2026-01-{day + 1:02}"
    return Step(
        words=["--event-time-start", start, "--event-time-end", end],
        options=["--partition", start],
        **more,
    )


PARTITIONS = Case(
    "partitions",
    [
        of_day(2, files={**project(), "events": EVENTS, "sessions": BY_PARTITION % "id"}),
        of_day(3),
        of_day(3, files={"events": EVENTS.replace("(3, timestamp '2026-01-03 11:00'), ", "")}),
        of_day(
            4,
            files={"sessions": BY_PARTITION % "case id when 4 then error('no') else id end"},
            fails=True,
        ),
    ],
    [
        Row(
            "microbatch: a partition is dbt's window",
            ["sessions", "events"],
            {"sessions": "success"},
            {"main.sessions": [(1, MORNINGS[0])]},
            step=0,
        ),
        Row(
            "microbatch: a partition built again loses rows that are gone",
            ["sessions"],
            {"sessions": "success"},
            {"main.sessions": [(1, MORNINGS[0]), (2, MORNINGS[1])]},
            step=2,
        ),
        Row("microbatch: the batch of a partition fails", ["sessions"], {"sessions": "error"}),
    ],
)

DISABLED = Case(
    "disabled nodes",
    [
        Step(
            {
                **project(
                    vars={"with_extra": False},
                    models={
                        "tiny": {
                            "extra_by_env": {"+enabled": "{{ env_var('EXTRA', 'no') == 'yes' }}"},
                            "extra_by_target": {"+enabled": "{{ target.name == 'other' }}"},
                            "extra_by_var": {"+enabled": "{{ var('with_extra', false) }}"},
                        }
                    },
                    seeds={"tiny": {"off": {"+enabled": False}}},
                ),
                "here": "select 1 as id",
                "gone": "{{ config(enabled=false) }} select 1 as id",
                "extra_by_env": "select 1 as id",
                "extra_by_target": "select 1 as id",
                "extra_by_var": "select 1 as id",
                "seeds/off.csv": "id\n1\n",
                "snapshots/off_snapshot.sql": "{% snapshot off_snapshot %}{{ config(enabled=false, "
                "unique_key='id', strategy='check', check_cols='all') }} select 1 as id"
                "{% endsnapshot %}",
                "models/all.yml": """
models:
  - name: gone
    columns: [{name: id, data_tests: [unique, {relationships: {arguments: {to: ref('here'), field: id}}}]}]
  - name: here
    columns: [{name: id, data_tests: [{relationships: {name: half_gone, arguments: {to: ref('gone'), field: id}}}]}]
  - name: extra_by_env
    columns: [{name: id, data_tests: [unique]}]
  - name: extra_by_target
    columns: [{name: id, data_tests: [unique]}]
unit_tests:
  - {name: of_gone, model: gone, given: [], expect: {rows: [{id: 1}]}}
""",
                "tests/singular_of_gone.sql": "select * from {{ ref('gone') }}",
            }
        ),
        Step(env={"EXTRA": "yes"}),
        Step(words=["--vars", "{with_extra: true}"], env={"EXTRA": "yes"}),
    ],
    [
        Row(
            "disabled model, its tests, unit tests and readers",
            ["gone", "half_gone"],
            {"here": "success"},
        ),
        Row("disabled seed and snapshot", ["off"], {"here": "success"}),
        Row(
            "enabled by environment",
            ["extra_by_env"],
            {"extra_by_env": "success", "unique_extra_by_env_id": "pass"},
            step=1,
        ),
        Row("enabled by target", ["extra_by_target"], {"here": "success"}, step=1),
        Row(
            "enabled by var",
            ["extra_by_var"],
            {"extra_by_var": "success", "here": "success"},
            step=2,
        ),
    ],
)

PACKAGES = Case(
    "packages",
    [
        Step(
            {
                **project(
                    models={"common": {"+schema": "common", "overridden": {"+enabled": False}}}
                ),
                "packages.yml": "packages: [{local: vendor/common}, {local: vendor/other}]",
                "vendor/common/dbt_project.yml": "{name: common, version: '1.0'}",
                "vendor/common/models/numbers.sql": TABLE + "select 1 as id",
                "vendor/common/models/overridden.sql": "select 1 as id",
                "vendor/common/models/both.yml": """
models:
  - {name: numbers, columns: [{name: id, data_tests: [unique, {not_null: {name: alike}}]}]}
  - {name: overridden, columns: [{name: id, data_tests: [{unique: {name: of_overridden}}]}]}
sources: [{name: raw, schema: main, tables: [{name: base}]}]
""",
                "vendor/common/macros/m.sql": "{% macro seven() %}7{% endmacro %}",
                "vendor/other/dbt_project.yml": "{name: other, version: '1.0'}",
                "vendor/other/models/from_source.sql": "select id from {{ source('raw', 'base') }}",
                "vendor/other/models/s.yml": "sources: [{name: raw, schema: main, tables: "
                "[{name: base, columns: [{name: id, data_tests: [not_null]}]}]}]",
                "numbers": TABLE + "select {{ common.seven() }} as id",
                "overridden": "select 2 as id",
                "base": TABLE + "select 1 as id",
                "reader": "select id from {{ ref('common', 'numbers') }} union all "
                "select id from {{ ref('tiny', 'numbers') }}",
                "models/s.yml": "models: [{name: numbers, columns: [{name: id, data_tests: "
                "[unique, {not_null: {name: alike}}]}]}]\n"
                "sources: [{name: raw, schema: main, tables: "
                "[{name: base, columns: [{name: id, data_tests: [not_null]}]}]}]",
            }
        ),
        Step(
            {
                "vendor/common/tests/never.sql": "select 1 from {{ ref('common', 'numbers') }}",
                "vendor/common/models/late.sql": "select 1 as id",
            },
            fails=True,
        ),
    ],
    [
        Row("packages", ["numbers"], {"numbers": "success"}, {"main.numbers": [(7,)]}, step=0),
        Row(
            "models of two packages with one name",
            ["numbers", "reader"],
            {"reader": "success"},
            {"main.reader": [(1,), (7,)], "main_common.numbers": [(1,)]},
            step=0,
        ),
        Row("tests of two packages with one name", ["alike"], {"alike": "pass"}, step=0),
        Row(
            "model of a package overridden",
            ["overridden"],
            {"overridden": "success"},
            {"main.overridden": [(2,)]},
            step=0,
        ),
        Row("one source in two packages", ["raw", "base"], {"from_source": "success"}, step=0),
        Row(
            "local package changed", ["never", "late"], {"never": "fail", "late": "success"}, step=1
        ),
    ],
)

ONE_THREAD = {"dev": {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 1}}
WARNING = {
    "a": TABLE + "select 1 as id",
    "b": "select id from {{ ref('a') }}",
    "models/s.yml": "models: [{name: a, columns: [{name: id, data_tests: [{accepted_values: {name: "
    "warns, arguments: {values: [2], quote: false}, config: {severity: warn}}}]}]}]",
}
FLAGS = [
    Case(
        "fail_fast",
        [
            Step(
                {
                    **project(flags={"fail_fast": True}),
                    "a": BROKEN,
                    "b": "select 1 as id",
                    "c": "select id from {{ ref('b') }}",
                    "d": "select id from {{ ref('c') }}",
                },
                fails=True,
            ),
            Step(project(), env={"DBT_FAIL_FAST": "1"}, fails=True),
        ],
        [
            Row("fail_fast", [], {"a": "error", "d": "skipped"}, step=0),
            Row("DBT_FAIL_FAST", [], {"a": "error", "d": "skipped"}, step=1),
        ],
        outputs=ONE_THREAD,
    ),
    Case(
        "warn_error",
        [
            Step({**project(flags={"warn_error": True}), **WARNING}, fails=True),
            Step(project(flags={"warn_error_options": {"error": ["LogTestResult"]}}), fails=True),
            Step(
                project(flags={"warn_error_options": {"error": "all", "warn": ["LogTestResult"]}})
            ),
            Step(project(), env={"DBT_WARN_ERROR": "1"}, fails=True),
            Step(project()),
        ],
        [
            Row("warn_error", [], {"warns": "fail", "b": "skipped"}, step=0),
            Row("warn_error_options: error", [], {"warns": "fail", "b": "skipped"}, step=1),
            Row("warn_error_options: warn", [], {"warns": "warn", "b": "success"}, step=2),
            Row("DBT_WARN_ERROR", [], {"warns": "fail", "b": "skipped"}, step=3),
            Row("a warning", [], {"warns": "warn", "b": "success"}),
        ],
    ),
    Case(
        "selection",
        [
            Step(
                {
                    **project(),
                    "a": TABLE + "select {{ var('n', 1) }} as id",
                    "b": TABLE
                    + "select id, '{{ env_var('WORD', 'none') }}' as w from {{ ref('a') }}",
                    "c": TABLE + "select id from {{ ref('b') }}",
                    "x": "{{ config(tags=['late'], on_error='continue') }} select 1 as id",
                    "models/s.yml": "models: [{name: b, columns: [{name: id, data_tests: [unique]}]}]",
                },
                ["--exclude", "tag:late"],
            ),
            Step(words=["--select", "+b"], env={"WORD": "given"}),
            Step(words=["--vars", "{n: 3, word: '🦆 über'}"]),
            Step(
                {
                    "selectors.yml": "selectors:\n  - name: most\n    default: true\n    definition:\n"
                    "      union:\n        - {method: fqn, value: '*'}\n"
                    "        - exclude: [{method: tag, value: late}]\n"
                    "  - {name: just_x, definition: 'tag:late'}\n"
                },
            ),
            Step(words=["--selector", "just_x"]),
            Step({"selectors.yml": None}, env={"DBT_EXCLUDE_RESOURCE_TYPES": "test"}),
            Step(
                words=["--select", "b", "--indirect-selection", "empty"],
                options=["--select", "b", "--no-checks"],
            ),
        ],
        [
            Row("--exclude", ["x"], {"c": "success"}, step=0),
            Row(
                "--select",
                ["a", "b", "c"],
                {"a": "success", "b": "success", "unique_b_id": "pass"},
                step=1,
            ),
            Row("env_var", ["b"], {"b": "success"}, {"main.b": [(1, "given")]}, step=1),
            Row("--vars", ["a"], {"a": "success"}, {"main.a": [(3,)]}, step=2),
            Row("on_error", ["x"], {"x": "success"}, step=2),
            Row("selectors.yml: default", ["x"], {"c": "success"}, step=3),
            Row("selectors.yml: --selector", [], {"x": "success"}, step=4),
            Row("DBT_EXCLUDE_RESOURCE_TYPES", ["unique_b_id"], {"c": "success"}, step=5),
            Row("build without tests", ["unique_b_id"], {"b": "success"}, step=6),
        ],
    ),
]

SCALAR = (
    "{% macro duckdb__scalar_function_sql(target_relation) %}create or replace macro "
    "{{ target_relation.render() }}({% for a in model.arguments %}{{ a.name }}{% endfor %}) as "
    "({{ model.compiled_code }}){% endmacro %}"
)
FUNCTIONS = Case(
    "functions",
    [
        Step(
            {
                **project(),
                "macros/functions.sql": SCALAR,
                "functions/twice.sql": "x * 2",
                "functions/all.yml": "functions:\n  - name: twice\n"
                "    arguments: [{name: x, data_type: integer}]\n"
                "    returns: {data_type: integer}\n",
                "base": TABLE + "select 4 as id",
                "doubled": TABLE
                + "select {{ function('twice') }}(id) as id from {{ ref('base') }}",
            }
        ),
        Step({"functions/twice.sql": "x * * ("}, fails=True),
    ],
    [
        Row(
            "function",
            ["twice", "doubled"],
            {"twice": "success", "doubled": "success"},
            {"main.doubled": [(8,)]},
            step=0,
        ),
        Row(
            "a failed function",
            ["twice", "doubled"],
            {"twice": "error", "doubled": "skipped"},
            step=1,
        ),
    ],
)

SEMANTICS = Case(
    "semantic layer",
    [
        Step(
            {
                **project(),
                "orders": TABLE + "select 1 as id, date '2026-01-01' as ordered_on, 5 as amount",
                "spine": TABLE + "select date '2026-01-01' as day",
                "models/sl.yml": """
models:
  - name: spine
    time_spine: {standard_granularity_column: day}
    columns: [{name: day, granularity: day}]
semantic_models:
  - name: orders
    model: ref('orders')
    defaults: {agg_time_dimension: ordered_on}
    entities: [{name: id, type: primary}]
    dimensions: [{name: ordered_on, type: time, type_params: {time_granularity: day}}]
    measures: [{name: amount, agg: sum}]
metrics:
  - {name: revenue, label: Revenue, type: simple, type_params: {measure: amount}}
saved_queries:
  - {name: daily, query_params: {metrics: [revenue], group_by: ["TimeDimension('id__ordered_on', 'day')"]}}
""",
            }
        )
    ],
    [
        Row("semantic models", ["orders"], {"orders": "success"}),
        Row("metrics", ["revenue"], {"spine": "success"}),
        Row("saved queries", ["daily"], {"daily": "no-op"}),
    ],
)

READS_NOTHING = Case(
    "tests that read nothing",
    [
        Step({**project(), "entries": TABLE + "select 1 as id, -5 as amount"}),
        Step(
            {"tests/no_negative.sql": "select * from {{ target.schema }}.entries where amount < 0"},
            fails=True,
        ),
        Step({"tests/no_negative.sql": "select * from {{ target.schema }}.entries where id < 0"}),
    ],
    [
        Row(
            "a test that reads nothing fails",
            ["no_negative"],
            {"no_negative": "fail", "entries": "success"},
            step=1,
        ),
        Row(
            "a test that reads nothing passes",
            ["no_negative"],
            {"no_negative": "pass", "entries": "success"},
        ),
    ],
)

FAILURES = Case(
    "failures",
    [
        Step(
            {
                **project(),
                "bad": BROKEN,
                "below": "select * from {{ ref('bad') }}",
                "far_below": "select * from {{ ref('below') }}",
                "beside": "select 1 as id",
                "matview": "{{ config(materialized='materialized_view') }} select 1 as id",
                "models/s.yml": "models: [{name: bad, columns: [{name: id, data_tests: [unique]}]}]",
            },
            fails=True,
        ),
        Step({"bad": "select {{ no_such_macro() }}"}, fails=True, says="no_such_macro"),
        Step({"bad": "select * from {{ ref('nobody') }}"}, fails=True, says="nobody"),
    ],
    [
        Row(
            "a model that fails",
            ["bad", "below", "beside"],
            {
                "bad": "error",
                "below": "skipped",
                "far_below": "skipped",
                "beside": "success",
                "unique_bad_id": "skipped",
            },
            step=0,
        ),
        Row(
            "materialized view where the adapter has none",
            ["matview"],
            {"matview": "error"},
            step=0,
        ),
        Row("a macro that does not exist", ["bad"], {}, step=1),
        Row("a project that does not parse is refused", [], {}, step=2),
    ],
)

PAIR_OUTPUTS = {
    "dev": {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 2},
    "heavy": {"type": "duckdb", "path": "target/tiny.duckdb", "threads": 3},
}
PAIR_CONFIG = {"computes": {"heavy": {"target": "heavy"}, "duckdb": {"target": "dev"}}}
CHAIN = {
    "a": TABLE + "select 1 as id, '{{ target.name }}' as home",
    "b": TABLE + "select id, '{{ target.name }}' as home from {{ ref('a') }}",
    "c": TABLE + "select id, '{{ target.name }}' as home from {{ ref('b') }}",
}
IN_TURN = [
    ["--target", "dev", "--select", "a"],
    ["--target", "heavy", "--select", "b"],
    ["--target", "dev", "--select", "c"],
]
TWO_COMPUTES = [
    Case(
        "two computes",
        [
            Step(
                {
                    **project(
                        **{
                            "on-run-start": [OPEN_LOG, "insert into hook_log values ('start')"],
                            "on-run-end": ["insert into hook_log values ('{{ target.name }}')"],
                        }
                    ),
                    **CHAIN,
                },
                bare=IN_TURN,
            ),
            Step(
                project(
                    **{
                        "on-run-end": [
                            "{{ 'select 1' if target.name == 'dev' else 'select nope' }}"
                        ]
                    }
                ),
                bare=IN_TURN,
                fails=True,
            ),
        ],
        [
            Row(
                "on-run hooks with two computes run once a dbt run",
                ["hook_log"],
                {"a": "success", "b": "success", "c": "success"},
                {
                    "main.hook_log": [
                        ("dev",),
                        ("dev",),
                        ("heavy",),
                        ("start",),
                        ("start",),
                        ("start",),
                    ]
                },
                step=0,
            ),
            Row(
                "models on two computes",
                ["a", "b", "c"],
                {"b": "success"},
                {"main.b": [(1, "heavy")], "main.c": [(1, "dev")]},
                step=0,
            ),
            Row("on-run-end fails on one of two computes", [], {"b": "success"}),
        ],
        transforms=[{"name": "a"}, {"name": "b", "compute": "heavy"}, {"name": "c"}],
        config=PAIR_CONFIG,
        outputs=PAIR_OUTPUTS,
    ),
    Case(
        "warn_error on two computes",
        [
            Step(
                {**project(flags={"warn_error": True}), **WARNING},
                fails=True,
            )
        ],
        [Row("warn_error with two computes", [], {"warns": "fail", "b": "skipped"})],
        transforms=[{"name": "a"}, {"name": "b", "compute": "heavy"}],
        config=PAIR_CONFIG,
        outputs=PAIR_OUTPUTS,
    ),
]

BY_TARGET = Case(
    "enabled by target on two computes",
    [
        Step(
            {
                **project(
                    models={
                        "tiny": {
                            "+materialized": "table",
                            "heavy_only": {"+enabled": "{{ target.name == 'heavy' }}"},
                            "dev_only": {"+enabled": "{{ target.name == 'dev' }}"},
                        }
                    }
                ),
                "common": "select 1 as id",
                "heavy_only": "select id from {{ ref('common') }}",
                "dev_only": "select id from {{ ref('common') }}",
                "last": "{% if target.name == 'heavy' %} select id from {{ ref('heavy_only') }} "
                "{% else %} select id from {{ ref('common') }} {% endif %}",
                "models/s.yml": """
models:
  - {name: common, columns: [{name: id, data_tests: [{not_null: {name: on_each}}]}]}
  - name: heavy_only
    columns:
      - name: id
        data_tests:
          - unique: {name: of_heavy}
          - relationships: {name: heavy_to_common, arguments: {to: ref('common'), field: id}}
""",
            },
            bare=[["--target", "dev"], ["--target", "heavy", "--select", "heavy_only"]],
        )
    ],
    [
        Row(
            "a model of one target only",
            ["heavy_only", "dev_only", "last"],
            {"heavy_only": "success", "dev_only": "success", "last": "success"},
        ),
        Row(
            "tests of a model of one target only",
            ["of_heavy", "heavy_to_common"],
            {"of_heavy": "pass", "heavy_to_common": "pass", "on_each": "pass"},
        ),
    ],
    transforms=[{"name": "common"}, {"name": "heavy_only", "compute": "heavy"}],
    config=PAIR_CONFIG,
    outputs=PAIR_OUTPUTS,
)

PATHS = Case(
    "paths",
    [
        Step(
            {
                **project(
                    **{
                        "target-path": "{{ env_var('MY_TARGET', 'target') }}",
                        "packages-install-path": "{{ env_var('MY_PACKAGES', 'dbt_packages') }}",
                    }
                ),
                "packages.yml": "packages: [{local: util}]",
                "util/dbt_project.yml": "{name: util, version: '1.0'}",
                "util/macros/m.sql": "{% macro seven() %}7{% endmacro %}",
                "a": TABLE + "select {{ util.seven() }} as id",
            }
        ),
        Step(env={"DBT_TARGET_PATH": "elsewhere", "DBT_LOG_PATH": "written"}),
    ],
    [
        Row("paths with Jinja", ["a", "folder"], {"a": "success"}, {"main.a": [(7,)]}, step=0),
        Row("DBT_TARGET_PATH and DBT_LOG_PATH", ["a", "folder"], {"a": "success"}),
    ],
)

UNTOLD = Case(
    "an event that dbt cannot print",
    [
        Step(
            {
                **project(),
                "a": TABLE + "select 1 as id, null as v",
                "b": "select id from {{ ref('a') }}",
                "models/s.yml": "models: [{name: a, columns: [{name: v, data_tests: [{not_null: "
                "{name: many, config: {severity: warn, fail_calc: 'max(3000000000)'}}}]}]}]",
            }
        )
    ],
    [Row("more failing rows than dbt's event can hold", [], {"many": "warn", "b": "success"})],
)

CASES = [
    MATERIALIZATIONS,
    *NAMES,
    INCREMENTAL,
    SNAPSHOTS,
    SEEDS,
    TESTS,
    UNIT_TESTS,
    GOVERNANCE,
    *HOOKS,
    NODE_HOOKS,
    MICROBATCH,
    PARTITIONS,
    DISABLED,
    PACKAGES,
    *FLAGS,
    FUNCTIONS,
    SEMANTICS,
    READS_NOTHING,
    FAILURES,
    *TWO_COMPUTES,
    BY_TARGET,
    PATHS,
    UNTOLD,
]
