"""Code versions depend on everything that decides a result, and on nothing else."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from floe_orchestrator_dagster.plan import (
    Compute,
    Node,
    ProductPlan,
    Surroundings,
    decode_manifest,
    plan_product,
    version_of,
)
from floe_orchestrator_dagster.plan.jinja import EVERY, reads_of
from kit.plans import product, raw_manifest

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "variables", "environment"),
    [
        ("select 'var(a)', 'env_var(b)'", "", ""),
        ("{{ var('a') }} {{ var(\"b\", 1) }} {{ var(var_name='c') }}", "a b c", ""),
        ("{% if var.has_var('a') %}{{ builtins.var('b') }}{% endif %}", "a b", ""),
        ("{# {{ var('a') }} #}{% raw %}{{ var('b') }}{% endraw %}", "", ""),
        ("{{ var('a' ~ 'b') }}", EVERY, ""),
        ("{% set read = var %}{{ read('a') }}", EVERY, ""),
        ("{% for var in [1] %}{{ var }}{% endfor %}", EVERY, ""),
        ("{{ env_var('A') }}{{ env_var('B', var('a')) }}", "a", "A B"),
        ("{% macro m(x=var('a')) %}{{ env_var('A') }}{% endmacro %}", "a", "A"),
        ("{% test t(model, x=var('a')) %}{{ var('b') }}{% endtest %}", "a b", ""),
        (
            "{% materialization m, adapter='duckdb' %}{{ var('a') }}{% endmaterialization %}",
            "a",
            "",
        ),
        (
            "{% materialization m, default, x=['y'] %}{% do var('a') %}{% endmaterialization %}",
            "a",
            "",
        ),
        ("{% snapshot s %}{{ var('a') }}{% endsnapshot %}", "a", ""),
        ("{% docs d %}{{ var('a') }}{% enddocs %}", "a", ""),
        ("{% for x in y %}{% if x %}{% break %}{% endif %}{{ var('a') }}{% endfor %}", "a", ""),
        ("{{ var('a') ", EVERY, ""),
    ],
)
def test_the_reads_of_a_text(text: str, variables: str, environment: str) -> None:
    reads = reads_of(text)
    assert reads.variables == set(variables.split())
    assert set(reads.environment_names) == set(environment.split())


def test_a_secret_of_the_environment_is_never_read() -> None:
    reads = reads_of("{{ env_var('DBT_ENV_SECRET_KEY') }}{{ env_var('OPEN') }}")
    assert set(reads.environment_names) == {"OPEN"}


def planned(
    raw: Json,
    *,
    target: str = "duck",
    variables: Mapping[str, Any] | None = None,
    adapter: str = "duckdb",
) -> ProductPlan:
    computes = {"duck": Compute("duck", target, adapter)}
    manifests = {target: decode_manifest(json.dumps(raw).encode())}
    around = Surroundings(variables=lambda _: variables or {})
    return plan_product(product(), computes, manifests, surroundings=around)


def node(code: str, *, macros: Mapping[str, str] | None = None, **options: Any) -> Node:
    """Return the planned model with this code, which uses these macros."""
    raw = raw_manifest("a", change={"a": {"raw_code": code}}, adapter=options.get("adapter"))
    raw["macros"] = {
        f"macro.shop.{name}": {"name": name, "package_name": "shop", "macro_sql": text}
        for name, text in (macros or {}).items()
    }
    raw["nodes"]["model.shop.a"]["depends_on"]["macros"] = [*raw["macros"]]
    return planned(raw, **options).nodes["model.shop.a"]


def test_a_version_depends_on_the_adapter_and_the_target() -> None:
    code = "select 1"
    versions = {
        version_of(node(code), {}),
        version_of(node(code, target="other"), {}),
        version_of(node(code, adapter="postgres"), {}),
    }
    assert len(versions) == 3
    assert version_of(node(code), {}) == version_of(node(code), {})


def test_a_version_depends_on_vars_of_a_launch_that_differ_from_the_configured_ones() -> None:
    reading = node("{{ var('a') }}{{ var('b', 1) }}", variables={"a": {"x": [1, 2]}, "c": 1})
    shown = version_of(reading, {})
    assert version_of(reading, {}, {"a": {"x": [1, 2]}, "c": 2}) == shown
    assert version_of(reading, {}, {"a": {"x": [1, 3]}}) != shown
    assert version_of(reading, {}, {"b": 1}) != shown
    # The version is the same if the value is in the configuration and not in the launch.
    configured = node("{{ var('a') }}{{ var('b', 1) }}", variables={"a": 3})
    assert version_of(reading, {}, {"a": 3}) == version_of(configured, {})


def test_a_computed_name_reads_every_var() -> None:
    reading = node("{{ var('a' ~ n) }}", variables={"x": 1})
    assert version_of(reading, {}, {"y": 1}) != version_of(reading, {})
    assert version_of(reading, {}, {"x": 1}) == version_of(reading, {})
    assert version_of(node("{{ var('a' ~ n) }}", variables={"x": 2}), {}) != version_of(reading, {})


def test_a_version_depends_on_the_environment_of_the_call() -> None:
    reading = node("{{ env_var('AREA', 'none') }}")
    assert len({version_of(reading, env) for env in ({}, {"AREA": "x"}, {"AREA": "y"})}) == 3
    assert version_of(reading, {"OTHER": "x"}) == version_of(reading, {})
    assert version_of(node("select 1"), {"AREA": "x"}) == version_of(node("select 1"), {})


def test_a_version_depends_on_a_variable_whose_name_is_passed_to_a_macro() -> None:
    macros = {"from_env": "{% macro from_env(name) %}{{ env_var(name, '') }}{% endmacro %}"}
    reading = node("{{ from_env('AREA') }}", macros=macros)
    assert version_of(reading, {"AREA": "x"}) != version_of(reading, {})
    assert version_of(reading, {"HOME": "x"}) == version_of(reading, {})


def test_values_are_not_in_a_plan() -> None:
    reading = node("{{ var('a') }}{{ env_var('AREA') }}", variables={"a": "the-value-of-a"})
    assert "the-value-of-a" not in repr(reading.reads)


def test_a_version_depends_on_all_macros_of_a_cycle() -> None:
    raw = raw_manifest("a, b", change={"a": {"raw_code": "x"}, "b": {"raw_code": "x"}})
    raw["macros"] = {
        f"macro.shop.{name}": {
            "name": name,
            "package_name": "shop",
            "macro_sql": f"{{% macro {name}() %}}{{{{ {other}() }}}}{{% endmacro %}}",
            "depends_on": {"macros": [f"macro.shop.{other}"]},
        }
        for name, other in (("ping", "pong"), ("pong", "ping"))
    }
    raw["nodes"]["model.shop.a"]["depends_on"]["macros"] = ["macro.shop.ping"]
    before = planned(raw).nodes
    raw["macros"]["macro.shop.pong"]["macro_sql"] += " "
    after = planned(raw).nodes
    assert before["model.shop.a"].code_version != after["model.shop.a"].code_version
    assert before["model.shop.b"].code_version == after["model.shop.b"].code_version


def test_the_version_of_a_microbatch_model_depends_on_the_event_time_of_its_parents() -> None:
    def versions(event_time: str) -> dict[str, str]:
        batches = {"materialized": "incremental", "incremental_strategy": "microbatch"}
        raw = raw_manifest(
            "a > b, a > c",
            change={"a": {"config": {"event_time": event_time}}, "b": {"config": batches}},
        )
        return {node.name: node.code_version for node in planned(raw).nodes.values()}

    before, after = versions("made_at"), versions("sold_at")
    assert {name for name in before if before[name] != after[name]} == {"b"}


def test_the_version_of_a_large_seed_depends_on_its_content() -> None:
    raw = raw_manifest("s", kinds={"s": "seed"})
    raw["nodes"]["seed.shop.s"] |= {
        "original_file_path": "seeds/s.csv",
        "checksum": {"name": "path", "checksum": "seeds/s.csv"},
    }
    manifests = {"duck": decode_manifest(json.dumps(raw).encode())}
    computes = {"duck": Compute("duck", "duck", "duckdb")}
    files = {"seeds/s.csv": "before"}
    around = Surroundings(seed_content=lambda seed: files[seed.original_file_path])

    def version() -> str:
        return (
            plan_product(product(), computes, manifests, surroundings=around)
            .nodes["seed.shop.s"]
            .code_version
        )

    before = version()
    assert version() == before
    files["seeds/s.csv"] = "after"
    assert version() != before


PRINT_VERSIONS = """
import json, sys
from test_versions import planned
nodes = planned(json.load(sys.stdin)).nodes
print(json.dumps({uid: node.code_version for uid, node in nodes.items()}))
"""


def test_versions_are_the_same_in_every_process_and_order() -> None:
    raw = raw_manifest(
        "e > a > b, s.raw > b, seed > b",
        kinds={"e": "ephemeral", "seed": "seed"},
        change={
            "a": {
                "raw_code": "{{ var('x') }}{{ env_var('Y') }}",
                "config": {"partition_by": {"field": "n", "type": "int"}, "meta": {"z": 1}},
            }
        },
    )
    raw["macros"] = {
        f"macro.shop.m{number}": {"name": f"m{number}", "package_name": "shop", "macro_sql": "x"}
        for number in range(20)
    }
    raw["nodes"]["model.shop.a"]["depends_on"]["macros"] = [*raw["macros"]]
    expected = {uid: node.code_version for uid, node in planned(raw).nodes.items()}
    for seed in ("1", "2"):
        chance = random.Random(seed)
        mixed = shuffled(raw, chance)
        mixed["metadata"] |= {"invocation_id": seed, "generated_at": seed}
        done = subprocess.run(
            [sys.executable, "-c", PRINT_VERSIONS],
            input=json.dumps(mixed),
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path]
                ),
            },
        )
        assert json.loads(done.stdout) == expected


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return the same JSON with the keys of every mapping in a different order."""
    if isinstance(value, dict):
        keys = [*value]
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value
