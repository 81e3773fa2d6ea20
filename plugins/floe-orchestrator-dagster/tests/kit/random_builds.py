"""Random dbt projects with a random fault, and random edits of projects, each from a seed.

`broken_build` draws a project of four to nine nodes and one fault in it. `Edits` draws a project
whose graph depends on vars, the environment and a package, and then one edit after another. Both
are plain texts: the same seed gives the same project.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kit.dbt_build_cases import OPEN_LOG, PAIR_CONFIG, PAIR_OUTPUTS, by_day, project

KINDS = (
    ["table"] * 3 + ["view"] * 3 + ["ephemeral", "incremental", "microbatch", "seed", "snapshot"]
)
MODELS = frozenset({"table", "view", "incremental", "microbatch"})
NOWHERE = "insert into nowhere values (1)"


@dataclass(frozen=True)
class RandomNode:
    """A node of a random project."""

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    compute: str = "duckdb"


@dataclass(frozen=True)
class BrokenBuild:
    """A random project: `files` is the healthy project, and `fault` replaces some of its files."""

    seed: int
    name: str
    nodes: tuple[RandomNode, ...]
    files: Mapping[str, str]
    fault: Mapping[str, str]

    @property
    def transforms(self) -> list[dict[str, str]]:
        """The models, each on its compute."""
        return [
            {"name": node.name, "compute": node.compute}
            for node in self.nodes
            if node.kind in MODELS
        ]

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the profile; one thread, so that few nodes run at once."""
        return {name: {**output, "threads": 1} for name, output in PAIR_OUTPUTS.items()}

    @property
    def is_ordered(self) -> bool:
        """Whether dbt stops at one place in each build of the project.

        With fail_fast it does not, even with one thread: the thread of the failed node takes the
        next node while dbt's main thread still waits. dbt then records that node as skipped,
        although it may build it completely.
        """
        return "fail_fast" not in self.name

    config = PAIR_CONFIG


class _Draft:
    """A project in the making: draws nodes, properties and settings, then writes their texts."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.nodes: list[RandomNode] = []
        self.settings: dict[str, Any] = {}
        self.configs: dict[str, str] = {}
        self.broken: set[str] = set()
        self.tests: dict[str, list[Any]] = {}
        self.units: list[dict[str, Any]] = []
        self.singular: dict[str, str] = {}

    def draw(self) -> None:
        chance = self.chance
        two = chance.random() < 0.2
        for number in range(chance.randint(4, 9)):
            kind = chance.choice(KINDS)
            # The order of names differs from the order of the graph, as in real projects.
            name = f"{chance.choice('abcdef')}{number}"
            earlier = [node.name for node in self.nodes]
            parents = chance.sample(earlier, min(len(earlier), chance.randint(0, 2)))
            if kind == "snapshot" and not parents:
                kind = "table"
            compute = chance.choice(["duckdb", "heavy"]) if two and kind in MODELS else "duckdb"
            self.nodes.append(
                RandomNode(name, kind, () if kind == "seed" else tuple(parents), compute)
            )
        if two:
            # Two computes cannot inline one ephemeral model: it has one dialect and one target.
            self.nodes = [
                RandomNode(one.name, "view" if one.kind == "ephemeral" else one.kind, *rest)
                for one in self.nodes
                for rest in [(one.parents, one.compute)]
            ]
        for node in self.tables():
            drawn = chance.sample(
                [
                    {"not_null": {"name": f"filled_{node.name}"}},
                    {"unique": {"name": f"once_{node.name}", "config": {"severity": "warn"}}},
                    {
                        "accepted_values": {
                            "name": f"warned_{node.name}",
                            "arguments": {"values": [-1], "quote": False},
                            "config": {"severity": "warn"},
                        }
                    },
                ],
                chance.randint(0, 2),
            )
            self.tests[node.name] = drawn
        for node in self.nodes:
            if node.kind in {"table", "view"} and len(node.parents) == 1 and chance.random() < 0.4:
                self.units.append(self.unit_test(node, 1))
        if chance.random() < 0.5:
            one, other = chance.choice(self.tables()), chance.choice(self.tables())
            self.singular["over_two"] = (
                f"select 1 from {{{{ ref('{one.name}') }}}} a join {{{{ ref('{other.name}') }}}} b "
                "using (id) where id < 0"
            )

    def tables(self, *kinds: str) -> list[RandomNode]:
        """Return the nodes that have a relation (of these kinds)."""
        return [
            node
            for node in self.nodes
            if node.kind != "ephemeral" and (not kinds or node.kind in kinds)
        ]

    def unit_test(self, node: RandomNode, expected: int) -> dict[str, Any]:
        [parent] = node.parents
        rows: dict[str, Any] = {"rows": [{"id": 1}]}
        if any(other.name == parent and other.kind == "ephemeral" for other in self.nodes):
            # dbt looks up the columns of other rows in a relation, which an ephemeral model lacks.
            rows = {"format": "sql", "rows": "select 1 as id"}
        return {
            "name": f"unit_{node.name}",
            "model": node.name,
            "given": [{"input": f"ref('{parent}')", **rows}],
            "expect": {"rows": [{"id": expected}]},
        }

    def sql(self, node: RandomNode) -> str:
        """Return the query of a node: the numbers of its parents, or its own numbers."""
        reads = [f"select id from {{{{ ref('{name}') }}}}" for name in node.parents]
        number = self.nodes.index(node)
        own = f"select range::integer + {number * 10} as id from range({number % 3 + 1})"
        query = " union all ".join(reads) or own
        if node.name in self.broken and node.kind != "microbatch":
            query = f"select no_such_column as id from ({query})"
        return query

    def text(self, node: RandomNode) -> dict[str, str]:
        """Return the file of a node."""
        config, query = self.configs.get(node.name, ""), self.sql(node)
        if node.kind == "seed":
            cell = "x" if node.name in self.broken else "7"
            return {f"seeds/{node.name}.csv": f"id\n{cell}\n8\n"}
        if node.kind == "snapshot":
            check = "no_such_column" if node.name in self.broken else "id"
            return {
                f"snapshots/{node.name}.sql": f"{{% snapshot {node.name} %}}{{{{ config("
                f"strategy='check', unique_key='id', check_cols=['{check}']{config}) }}}} "
                f"select distinct id from ({query}){{% endsnapshot %}}"
            }
        if node.kind == "microbatch":
            # One row per day. The batch of the middle row may fail.
            cell = "case when d = 1 then error('bad batch')::integer else d end"
            cell = cell if node.name in self.broken else "d"
            body = (
                f"select {cell} as id, (now() at time zone 'utc')::date - d + interval 1 minute "
                "as seen from (select range::integer as d from range(3))"
            )
            below = "".join(
                f" where (select count(*) from {{{{ ref('{name}') }}}}) >= 0"
                for name in node.parents[:1]
            )
            # dbt filters inputs by event time. This input has none, so the model filters it.
            batch = (
                "{% if model.batch %} and seen >= '{{ model.batch.event_time_start }}'::timestamp "
                "and seen < '{{ model.batch.event_time_end }}'::timestamp{% endif %}"
            )
            return {
                f"models/{node.name}.sql": by_day(
                    f"select * from ({body}{below}) where true{batch}", lookback=2
                ).replace(") }}", f"{config}) }}}}", 1)
            }
        settings = f"materialized='{node.kind}'"
        if node.kind == "incremental":
            settings += ", unique_key='id', incremental_strategy='delete+insert'"
        return {f"models/{node.name}.sql": f"{{{{ config({settings}{config}) }}}} {query}"}

    def files(self) -> dict[str, str]:
        """Return every file of the project."""
        contents = project(**self.settings)
        for node in self.nodes:
            contents |= self.text(node)
        places = {"seed": "seeds", "snapshot": "snapshots"}
        properties: dict[str, list[Any]] = {"models": [], "seeds": [], "snapshots": []}
        for node in self.tables():
            entry: dict[str, Any] = {"name": node.name}
            if node.kind == "seed":
                entry["config"] = {"column_types": {"id": "integer"}}
            tests = self.tests.get(node.name, [])
            entry["columns"] = [{"name": "id", "data_tests": tests}] if tests else []
            properties[places.get(node.kind, "models")].append(entry)
        contents["models/all.yml"] = yaml.safe_dump({**properties, "unit_tests": self.units})
        for name, query in self.singular.items():
            contents[f"tests/{name}.sql"] = query
        return contents

    # --- faults: each changes the draft and returns its name

    def break_node(self) -> str:
        node = self.chance.choice(self.nodes)
        self.broken.add(node.name)
        return f"broken {node.kind} {node.name}"

    def break_batch(self) -> str:
        microbatches = self.tables("microbatch")
        if not microbatches:
            return self.break_node()
        self.broken.add(self.chance.choice(microbatches).name)
        return "a batch fails"

    def fail_test(self) -> str:
        node = self.chance.choice(self.tables())
        test = {
            "accepted_values": {
                "name": f"failing_{node.name}",
                "arguments": {"values": [-1], "quote": False},
            }
        }
        self.tests[node.name] = [*self.tests.get(node.name, []), test]
        return f"a test of {node.kind} {node.name} fails"

    def fail_singular(self) -> str:
        node = self.chance.choice(self.tables())
        self.singular["failing"] = f"select 1 from {{{{ ref('{node.name}') }}}}"
        return f"a singular test of {node.name} fails"

    def fail_unit_test(self) -> str:
        candidates = [node for node in self.tables("table", "view") if len(node.parents) == 1]
        if not candidates:
            return self.fail_test()
        node = self.chance.choice(candidates)
        self.units = [unit for unit in self.units if unit["model"] != node.name]
        self.units.append(self.unit_test(node, 2))
        return f"the unit test of {node.name} fails"

    def fail_start(self) -> str:
        self.settings["on-run-start"] = [NOWHERE]
        return "on-run-start fails"

    def fail_end(self) -> str:
        self.settings["on-run-end"] = [NOWHERE]
        return "on-run-end fails"

    def fail_hook(self) -> str:
        node = self.chance.choice(self.tables("table", "view", "incremental", "snapshot") or [None])
        if node is None:
            return self.break_node()
        hook = self.chance.choice(["pre_hook", "post_hook"])
        self.configs[node.name] = f", {hook}='{NOWHERE}'"
        return f"{hook} of {node.kind} {node.name} fails"

    def fail_fast(self) -> str:
        return f"{self.break_node()}, fail_fast"

    def warn_error(self) -> str:
        node = self.chance.choice(self.tables())
        test = {
            "accepted_values": {
                "name": f"promoted_{node.name}",
                "arguments": {"values": [-1], "quote": False},
                "config": {"severity": "warn"},
            }
        }
        self.tests[node.name] = [*self.tests.get(node.name, []), test]
        return f"a warning of {node.name} is an error"


FAULTS = (
    "break_node",
    "break_batch",
    "fail_test",
    "fail_singular",
    "fail_unit_test",
    "fail_start",
    "fail_end",
    "fail_hook",
    "fail_fast",
    "warn_error",
)


def broken_build(seed: int) -> BrokenBuild:
    """Return the random project of a seed; ten consecutive seeds have ten kinds of fault."""
    fault = FAULTS[seed % len(FAULTS)]
    chance = random.Random(seed)
    draft = _Draft(chance)
    draft.draw()
    if fault == "fail_fast":
        draft.settings["flags"] = {"fail_fast": True}
    if fault == "warn_error":
        # Other warnings would still be errors after the fault is fixed.
        draft.settings["flags"] = {"warn_error_options": {"error": ["LogTestResult"]}}
        for tests in draft.tests.values():
            tests[:] = [test for test in tests if "not_null" in test]
    healthy = draft.files()
    name = getattr(draft, fault)()
    faulty = draft.files()
    changed = {path: text for path, text in faulty.items() if healthy.get(path) != text}
    return BrokenBuild(seed, name, tuple(draft.nodes), healthy, changed)


# --- edits


@dataclass(frozen=True)
class Edit:
    """One change of a project: its name, its files, and the environment from then on."""

    name: str
    files: Mapping[str, str | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


PACKAGE = "vendor/common"


class Edits:
    """A random project; iterate over it for its random edits."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = 0
        self.factor = 1
        self.models: dict[str, tuple[str, ...]] = {}
        self.package_tests = 0
        self.with_extra = False
        self.environment = {"AREA": "one", "EXTRA": "no"}

    def first(self) -> Edit:
        """Return the project before its edits."""
        files: dict[str, str] = {
            **self._project(),
            **self._macro(),
            **self._seed(),
            "packages.yml": f"packages: [{{local: {PACKAGE}}}]",
            f"{PACKAGE}/dbt_project.yml": "{name: common, version: '1.0'}",
            f"{PACKAGE}/models/shared.sql": "select 1 as id",
            # The same name as a model of the root project, in a different schema.
            f"{PACKAGE}/models/twin.sql": "select 2 as id",
            f"{PACKAGE}/models/all.yml": "models: [{name: twin, columns: [{name: id, "
            "data_tests: [unique: {name: alike}]}]}]\n"
            "sources: [{name: raw, schema: main, tables: [{name: landed}]}]\n",
            "models/twin.sql": "select id from {{ ref('common', 'shared') }}",
            "models/by_env.sql": "select 1 as id",
            "models/by_var.sql": "select 1 as id",
            "models/by_target.sql": "select 1 as id",
            "models/area.sql": "select '{{ env_var('AREA') }}' as area, 1 as id",
            "models/ghost.sql": "{{ config(enabled=false) }} select 1 as id",
            "models/all.yml": yaml.safe_dump(
                {
                    "models": [
                        {
                            "name": "twin",
                            "config": {"meta": {"dagster": {"group": 2024}, "plain": [1, "ü"]}},
                            "columns": [
                                {"name": "id", "data_tests": [{"unique": {"name": "alike"}}]}
                            ],
                        },
                        {
                            "name": "area",
                            "config": {"meta": {"dagster": {"owners": "ada@example.com"}}},
                        },
                        *(
                            {"name": name, "columns": [{"name": "id", "data_tests": ["not_null"]}]}
                            for name in ("by_env", "by_var", "by_target", "ghost")
                        ),
                    ],
                    "sources": [
                        {
                            "name": "raw",
                            "schema": "main",
                            "tables": [{"name": "landed", "meta": {"dagster": "odd"}}],
                        }
                    ],
                }
            ),
        }
        for _ in range(3):
            files |= self._model(self._new_name())
        return Edit("the first build", files, dict(self.environment))

    def __iter__(self) -> Iterator[Edit]:
        yield self.first()
        while True:
            yield getattr(
                self,
                self.chance.choice(
                    [
                        "edit_model",
                        "add_model",
                        "delete_model",
                        "edit_macro",
                        "edit_seed",
                        "edit_package_test",
                        "edit_package_model",
                        "change_area",
                        "change_extra",
                        "change_var",
                        "break_model",
                        "nothing",
                    ]
                ),
            )()

    def edit_model(self) -> Edit:
        name = self.chance.choice(sorted(self.models))
        return Edit(f"edit {name}", self._model(name))

    def break_model(self) -> Edit:
        name = self.chance.choice(sorted(self.models))
        return Edit(f"break {name}", {f"models/{name}.sql": "select no_such_column as id"})

    def add_model(self) -> Edit:
        name = self._new_name()
        return Edit(f"add {name}", self._model(name))

    def delete_model(self) -> Edit:
        read = {parent for parents in self.models.values() for parent in parents}
        unread = sorted(self.models.keys() - read)
        if len(self.models) < 2 or not unread:
            return self.add_model()
        name = self.chance.choice(unread)
        del self.models[name]
        return Edit(f"delete {name}", {f"models/{name}.sql": None})

    def edit_macro(self) -> Edit:
        self.factor += 1
        return Edit("edit the macro", self._macro())

    def edit_seed(self) -> Edit:
        return Edit("edit a cell of the seed", self._seed())

    def edit_package_test(self) -> Edit:
        self.package_tests += 1
        condition = self.chance.choice(["id < 0", "id > 0"])
        path = f"{PACKAGE}/tests/vendored_{self.package_tests % 2}.sql"
        text = f"select * from {{{{ ref('shared') }}}} where {condition}"
        return Edit(f"a test of the package, {condition}", {path: text})

    def edit_package_model(self) -> Edit:
        number = self.chance.randint(1, 99)
        return Edit(
            "edit a model of the package",
            {f"{PACKAGE}/models/shared.sql": f"select {number} as id"},
        )

    def change_area(self) -> Edit:
        self.environment["AREA"] = self.chance.choice(["one", "two", "drei ü"])
        return Edit(f"AREA={self.environment['AREA']}", {}, dict(self.environment))

    def change_extra(self) -> Edit:
        self.environment["EXTRA"] = "no" if self.environment["EXTRA"] == "yes" else "yes"
        return Edit(f"EXTRA={self.environment['EXTRA']}", {}, dict(self.environment))

    def change_var(self) -> Edit:
        self.with_extra = not self.with_extra
        return Edit(f"with_extra: {self.with_extra}", self._project())

    def nothing(self) -> Edit:
        return Edit("nothing")

    def _new_name(self) -> str:
        self.number += 1
        return f"m{self.number}"

    def _model(self, name: str) -> dict[str, str]:
        earlier = sorted(other for other in self.models if int(other[1:]) < int(name[1:]))
        drawn = self.chance.sample(earlier, min(len(earlier), self.chance.randint(0, 2)))
        self.models[name] = tuple(drawn)
        reads = [f"select id from {{{{ ref('{parent}') }}}}" for parent in drawn]
        reads += [
            self.chance.choice(
                [
                    "select id from {{ source('raw', 'landed') }}",
                    "select id from {{ ref('seeded') }}",
                    "select id from {{ ref('common', 'twin') }}",
                    f"select {self.chance.randint(1, 99)} as id",
                ]
            )
        ]
        kind = self.chance.choice(["table", "view", "ephemeral"])
        query = " union all ".join(reads)
        return {
            f"models/{name}.sql": f"{{{{ config(materialized='{kind}') }}}} "
            f"select {{{{ times('id') }}}} as id from ({query})"
        }

    def _macro(self) -> dict[str, str]:
        return {
            "macros/times.sql": f"{{% macro times(column) %}}{{{{ column }}}} * {self.factor}"
            "{% endmacro %}"
        }

    def _seed(self) -> dict[str, str]:
        return {"seeds/seeded.csv": f"id\n{self.chance.randint(1, 99)}\n2\n"}

    def _project(self) -> dict[str, str]:
        return project(
            **{"on-run-start": ["create table if not exists landed as select 5 as id"]},
            vars={"with_extra": self.with_extra},
            models={
                "tiny": {
                    "by_env": {"+enabled": "{{ env_var('EXTRA', 'no') == 'yes' }}"},
                    "by_var": {"+enabled": "{{ var('with_extra', false) }}"},
                    "by_target": {"+enabled": "{{ target.name == 'other' }}"},
                },
                "common": {"+schema": "common"},
            },
        )


__all__ = ["FAULTS", "OPEN_LOG", "BrokenBuild", "Edit", "Edits", "broken_build"]
