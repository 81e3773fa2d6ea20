"""Every rule of a plan, with the exact text of every error."""

from __future__ import annotations

from typing import Any

import pytest

from floe_orchestrator_dagster.errors import PlanError
from floe_orchestrator_dagster.plan import (
    CompiledProduct,
    Compute,
    ProductPlan,
    QualityCheck,
    Transform,
    asset_path,
    dagster_name,
    decode_manifest,
    plan_product,
    resolve_computes,
    unknown_dependencies,
)
from kit.plans import SCHEMA, Json, manifest, plan, problems_of, product, uid

DUCK = {"duck": Compute("duck", "duck", "duckdb")}


def names(planned: ProductPlan, uids: Any) -> list[str]:
    return [planned.nodes[one].name for one in uids]


def of_transforms(*transforms: Transform) -> ProductPlan:
    compiled = product(*transforms)
    computes, problems = resolve_computes(
        compiled, {name: name for name in compiled.computes_named}
    )
    return plan_product(compiled, computes, problems=[*problems, *unknown_dependencies(compiled)])


def refused(*transforms: Transform) -> list[str]:
    with pytest.raises(PlanError) as error:
        of_transforms(*transforms)
    return [str(problem) for problem in error.value.problems]


def resolved(
    outputs: dict[str, str], *computes: str, config: dict[str, Any] | None = None
) -> tuple[dict[str, Compute], list[str]]:
    transforms = [Transform(f"m{n}", compute) for n, compute in enumerate(computes)]
    resolved_computes, problems = resolve_computes(
        CompiledProduct("shop", tuple(transforms), config=product(config=config).config), outputs
    )
    return resolved_computes, [str(problem) for problem in problems]


# --- the artifacts


def test_a_plan_of_only_transforms_has_their_graph_and_computes() -> None:
    chain = of_transforms(
        Transform("a", "duck", tags=("daily",), tier="gold"), Transform("b", "pg", ("a",))
    )
    assert [*chain.assets] == ["a", "b"]
    assert chain.folded_parents["b"] == ("a",)
    assert (chain.nodes["b"].key, chain.nodes["b"].compute) == (("b",), "pg")
    assert (chain.nodes["a"].tags, chain.nodes["a"].tier) == (("daily",), "gold")
    assert (chain.default_compute, chain.project_name, chain.warnings) == ("duck", None, ())


def test_a_plan_without_transforms_is_empty() -> None:
    assert not of_transforms().assets


def test_a_duplicate_name_is_refused() -> None:
    assert refused(Transform("a", "duck"), Transform("b", "duck"), Transform("a", "duck")) == [
        (
            "transforms.models[2].name: Duplicate name 'a' (first at models[0]). "
            "Keep one of them in floe.yaml."
        )
    ]


def test_a_cycle_is_a_path_in_which_each_node_depends_on_the_next() -> None:
    ring = [Transform("c", "duck", ("a",)), Transform("a", "duck", ("b",))]
    assert refused(*ring, Transform("b", "duck", ("c",)), Transform("x", "duck", ("a",))) == [
        (
            "transforms.models: Circular dependency: a -> b -> c -> a. "
            "Remove one of these dependsOn entries from floe.yaml."
        )
    ]


def test_a_model_that_depends_on_itself_is_a_cycle() -> None:
    [problem] = refused(Transform("a", "duck", ("a",)))
    assert "Circular dependency: a -> a." in problem


def test_every_cycle_is_a_problem() -> None:
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]
    problems = refused(*(Transform(name, "duck", (parent,)) for name, parent in pairs))
    assert [problem.split(". ")[0] for problem in problems] == [
        "transforms.models: Circular dependency: a -> b -> a",
        "transforms.models: Circular dependency: c -> d -> c",
    ]


def test_an_unknown_dependency_is_refused_with_a_similar_name() -> None:
    assert refused(Transform("orders", "duck"), Transform("b", "duck", ("Ordrs", "zzz"))) == [
        (
            "transforms.models[1].depends_on: 'b' depends on unknown 'Ordrs'. Did you mean "
            "'orders'? "
            "Correct dependsOn in floe.yaml; known: b, orders."
        ),
        (
            "transforms.models[1].depends_on: 'b' depends on unknown 'zzz'. "
            "Correct dependsOn in floe.yaml; known: b, orders."
        ),
    ]


def test_one_error_lists_all_problems() -> None:
    with pytest.raises(PlanError) as error:
        of_transforms(
            Transform("a", "duck", ("b",)),
            Transform("b", "duck", ("a",)),
            Transform("b", "duck"),
            Transform("no way", "duck", ("x",)),
        )
    assert str(error.value) == (
        "Cannot plan product 'shop': 3 problems.\n"
        "  1. transforms.models[3].depends_on: 'no way' depends on unknown 'x'. "
        "Correct dependsOn in floe.yaml; known: a, b, no way.\n"
        "  2. transforms.models[2].name: Duplicate name 'b' (first at models[1]). "
        "Keep one of them in floe.yaml.\n"
        "  3. transforms.models: Circular dependency: a -> b -> a. "
        "Remove one of these dependsOn entries from floe.yaml."
    )


def test_thousands_of_unknown_dependencies_are_all_listed() -> None:
    problems = refused(*(Transform(f"model_{n}", "duck", (f"modle_{n}",)) for n in range(3000)))
    assert len(problems) == 3000


# --- computes


def test_the_target_of_a_compute_is_that_of_the_config_or_of_its_name_or_of_its_type() -> None:
    outputs = {"spark": "duckdb", "spark_prod": "spark", "dev": "postgres"}
    config = {"computes": {"spark": {"target": "spark_prod"}}}
    assert resolved(outputs, "spark", config=config)[0]["spark"].target == "spark_prod"
    assert resolved(outputs, "spark")[0]["spark"] == Compute("spark", "spark", "duckdb")
    assert resolved(outputs, "postgres")[0]["postgres"] == Compute("postgres", "dev", "postgres")


def test_a_compute_has_its_settings() -> None:
    setting = {"pool": "p", "pool_limit": 2, "resources": "large"}
    resolved_computes, _ = resolved({"pg": "postgres"}, "pg", config={"computes": {"pg": setting}})
    assert (resolved_computes["pg"].pool, resolved_computes["pg"].pool_limit) == ("p", 2)
    assert resolved_computes["pg"].resources == "large"


def test_a_compute_without_an_output_is_refused() -> None:
    assert resolved({"spork": "duckdb", "x": "postgres"}, "spark", "spark")[1] == [
        (
            "transforms.models[m0].compute: Compute 'spark' has no dbt output. Did you mean "
            "'spork'? "
            "Outputs of the dbt profile: spork (duckdb), x (postgres). Name one under "
            "plugins.orchestrator.config.computes.spark.target, add an output 'spark' to "
            "profiles.yml, "
            "or choose another compute in floe.yaml."
        )
    ]


def test_a_compute_that_matches_two_outputs_is_refused() -> None:
    [problem] = resolved({"a": "spark", "b": "spark"}, "spark")[1]
    assert problem.startswith(
        "transforms.models[m0].compute: Compute 'spark' matches 2 dbt outputs (a, b). Outputs of"
    )


def test_the_profile_decides_between_several_outputs() -> None:
    compiled = CompiledProduct("shop", (Transform("m", "spark"), Transform("n", "pg")))
    outputs = {"a": "spark", "b": "spark", "c": "spark", "pg": "postgres", "p": "postgres"}
    computes, problems = resolve_computes(compiled, outputs, ("p", "b", "a"))
    assert problems == []
    # A preferred output does not matter if it has another type, or if an output has the name of the
    # compute.
    assert {name: compute.target for name, compute in computes.items()} == {
        "spark": "b",
        "pg": "pg",
    }


def test_a_compute_mapped_to_a_missing_target_is_refused() -> None:
    config = {"computes": {"spark": {"target": "sprak"}}}
    [problem] = resolved({"spark": "spark"}, "spark", config=config)[1]
    assert problem.startswith(
        "transforms.models[m0].compute: Compute 'spark' is mapped to target 'sprak', which is "
        "not an output of the dbt profile. Did you mean 'spark'? Outputs of the dbt profile: "
        "spark (spark)."
    )


def test_a_default_compute_without_an_output_is_refused_at_its_own_path() -> None:
    _, [problem] = resolve_computes(CompiledProduct("shop", default_compute="duck"), {})
    assert str(problem).startswith(
        "transforms.default_compute: Compute 'duck' has no dbt output. Outputs of the dbt profile: "
        "none."
    )


def test_settings_of_a_misspelled_compute_are_refused_but_not_those_of_other_products() -> None:
    config = {"computes": {"sparck": {"pool": "p"}, "trino": {"pool": "q"}}}
    assert resolved({"spark": "spark"}, "spark", config=config)[1] == [
        (
            "plugins.orchestrator.config.computes.sparck: No model runs on compute 'sparck'. "
            "Did you mean 'spark'? Computes of this product: spark."
        )
    ]


# --- dbt's manifest


def test_the_plan_is_dbts_graph_with_every_node_on_its_compute() -> None:
    built = plan(
        "s > a > b, snap, raw.t > a",
        kinds={"s": "seed", "snap": "snapshot"},
        on={"b": "pg", "snap": "pg", "s": "pg"},
    )
    assert names(built, built.assets) == ["s", "snap", "a", "b"]
    assert built.nodes[uid("a")].compute == "duck"
    assert {built.nodes[one].compute for one in (uid("b"), uid("s", "seed"))} == {"pg"}
    assert built.nodes[uid("snap", "snapshot")].compute == "pg"
    assert built.nodes["source.shop.raw.t"].key == ("raw", "t")
    assert built.folded_parents[uid("a")] == ("seed.shop.s", "source.shop.raw.t")
    assert built.children["source.shop.raw.t"] == (uid("a"),)
    assert built.warnings == ()


def test_a_node_has_each_tag_of_dbt_and_of_floe_once() -> None:
    tagged = plan(
        "a",
        transforms=[Transform("a", "duck", tags=("daily", "x"), tier="gold")],
        change={"a": {"tags": ["x", "y"]}},
    )
    assert tagged.nodes[uid("a")].tags == ("x", "y", "daily")
    assert tagged.nodes[uid("a")].tier == "gold"


def test_a_manifest_of_an_unsupported_dbt_is_refused() -> None:
    old = SCHEMA.replace("v12", "v11")
    assert problems_of("a", schema=old) == [
        (
            f"manifest.json (target duck): Written by dbt 1.11.0 in schema {old}. "
            "The plugin supports manifest v12: install dbt-core 1.8 to 1.11 and run `floe-dagster "
            "prepare`."
        )
    ]
    [problem] = problems_of("a", schema="")
    assert "in schema (none)." in problem


def test_a_manifest_of_another_adapter_is_refused() -> None:
    assert problems_of("a", adapter="snowflake") == [
        (
            "manifest.json (target duck): Written for adapter snowflake, but the dbt "
            "profile's output "
            "'duck' is of type duckdb. Run `floe-dagster prepare`."
        )
    ]
    assert plan("a", adapter="duckdb").assets


def test_a_transform_that_dbt_does_not_have_is_refused() -> None:
    assert problems_of("orders", on={"ordres": "duck", "zzz": "duck"}) == [
        (
            "transforms.models[0].name: dbt has no model, seed or snapshot 'ordres'. "
            "Did you mean 'orders'? Correct the name in floe.yaml, or add the model to the dbt "
            "project."
        ),
        (
            "transforms.models[1].name: dbt has no model, seed or snapshot 'zzz'. "
            "Correct the name in floe.yaml, or add the model to the dbt project."
        ),
    ]


def test_a_dependency_that_is_neither_in_floe_nor_in_dbt_is_refused() -> None:
    assert problems_of("a", transforms=[Transform("a", "duck", ("b",))]) == [
        (
            "transforms.models[0].depends_on: 'a' depends on unknown 'b'. "
            "Correct dependsOn in floe.yaml; known: a."
        )
    ]


def test_a_dependency_that_dbt_does_not_have_is_a_warning() -> None:
    odd = plan("a, b", transforms=[Transform("a", "duck"), Transform("b", "duck", ("a",))])
    assert odd.warnings == (
        (
            "transforms.models[1].depends_on: 'b' does not depend on 'a' in dbt. The plan "
            "follows dbt's graph; correct dependsOn in floe.yaml."
        ),
    )
    assert odd.folded_parents[uid("b")] == ()


@pytest.mark.parametrize("parent", ["s", "t", "raw.t", "e"])
def test_a_dependency_may_be_a_seed_a_source_or_an_ephemeral(parent: str) -> None:
    fine = plan(
        "s e raw.t > a",
        kinds={"s": "seed", "e": "ephemeral"},
        transforms=[Transform("a", "duck", (parent,))],
    )
    assert fine.warnings == ()


def test_a_cycle_in_dbt_is_refused() -> None:
    assert problems_of("a > b > c, c > a, c > x", tests={"t": "x"}) == [
        "dbt models: Circular dependency: a -> c -> b -> a. Remove one of these ref() calls."
    ]


def test_one_error_lists_problems_of_the_artifacts_and_of_dbt_and_of_relations() -> None:
    problems = problems_of(
        "a > b",
        transforms=[
            Transform("b", "pg", ("nothing",)),
            Transform("gone", "duck", ("gone",)),
        ],
        per_target={"pg": {"change": {"a": {"relation_name": "other.a"}}, "schema": ""}},
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "transforms.models",
        "manifest.json (target pg)",
        "transforms.models[0].depends_on",
        "transforms.models[1].name",
        "a -> b",
    ]


def test_a_model_disabled_where_it_should_be_built_is_refused() -> None:
    assert problems_of("a", on={"a": "pg"}, per_target={"pg": {"without": ["a"]}}) == [
        (
            "dbt model 'a': It does not exist on target 'pg', where compute 'pg' would build it "
            "(enabled for another target only?). Enable it for that target or choose another "
            "compute "
            "in floe.yaml."
        )
    ]


def test_a_model_without_a_compute_is_built_where_it_is_enabled() -> None:
    only_pg = plan("a > b", on={"b": "pg"}, per_target={"duck": {"without": ["a"]}})
    assert only_pg.nodes[uid("a")].compute == "pg"


def test_a_node_has_the_parents_of_its_own_target() -> None:
    there = {"relation_name": '"db"."pg"."a"', "depends_on": {"nodes": [uid("c")]}}
    own = plan("b > a, c", on={"a": "pg", "c": "pg"}, per_target={"pg": {"change": {"a": there}}})
    assert own.nodes[uid("a")].relation == '"db"."pg"."a"'
    assert own.folded_parents[uid("a")] == (uid("c"),)


def test_a_model_may_be_ephemeral_on_only_one_target() -> None:
    table = {"a": {"config": {"materialized": "table"}}}
    own = plan("a", kinds={"a": "ephemeral"}, on={"a": "pg"}, per_target={"pg": {"change": table}})
    assert own.nodes[uid("a")].kind == "model"


# --- ephemerals


def test_ephemerals_are_folded_and_have_the_compute_of_their_consumers() -> None:
    folded = plan(
        "a raw.t > e > f > b, e > c",
        kinds={"e": "ephemeral", "f": "ephemeral"},
        on={"b": "pg", "c": "pg"},
    )
    assert set(names(folded, folded.assets)) == {"a", "b", "c"}
    assert folded.folded_parents[uid("b")] == (uid("a"), "source.shop.raw.t")
    assert {folded.nodes[uid(name)].compute for name in "ef"} == {"pg"}


def test_an_ephemeral_that_two_dialects_share_is_refused() -> None:
    assert problems_of("e > a b", kinds={"e": "ephemeral"}, on={"b": "pg"}) == [
        (
            "dbt model 'e': It is ephemeral and inlined on computes of 2 SQL dialects (duck, pg). "
            "Materialize it as a view or table, or build its consumers on one compute."
        )
    ]


def test_an_ephemeral_that_two_computes_of_one_dialect_share_is_fine() -> None:
    shared = plan("e > a b", kinds={"e": "ephemeral"}, on={"a": "pg", "b": "pg2"})
    assert shared.nodes[uid("e")].compute == "pg"


def test_a_compute_in_floe_yaml_for_an_ephemeral_has_no_effect_but_a_warning() -> None:
    named = plan("e > a", kinds={"e": "ephemeral"}, on={"e": "pg"})
    assert named.warnings == (
        (
            "dbt model 'e' is ephemeral: it is inlined on 'duck', where its consumers are "
            "built, not "
            "on 'pg'."
        ),
    )


def test_an_ephemeral_that_only_tests_read_has_the_compute_of_its_parents() -> None:
    tested = plan("a > e", kinds={"e": "ephemeral"}, on={"a": "pg"}, tests={"t": "e"})
    assert tested.checks[uid("t", "test")].compute == "pg"


def test_a_test_of_an_ephemeral_runs_in_the_dialect_of_its_consumers() -> None:
    tested = plan("a > e > b", kinds={"e": "ephemeral"}, on={"b": "pg"}, tests={"t": "e"})
    check = tested.checks[uid("t", "test")]
    assert (check.compute, check.also_on, check.on) == ("pg", (), uid("a"))


# --- names


def test_dagster_names_are_letters_digits_and_underscores() -> None:
    assert dagster_name("my-product.v2 é") == "my_product_v2__"


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, ("a",)),
        ({"config": {"schema": "mart"}}, ("mart", "a")),
        ({"version": 2, "alias": "a_v2"}, ("a_v2",)),
        ({"version": 2, "alias": "a_v2", "config": {"schema": "mart"}}, ("a_v2",)),
        ({"meta": {"dagster": {"asset_key": ["x", "y"]}}}, ("x", "y")),
        ({"config": {"meta": {"dagster": {"asset_key": ["x"]}}}}, ("x",)),
        ({"meta": {"dagster": {"asset_key": "x"}}}, ("x",)),
        ({"meta": {"dagster": {"asset_key": []}}}, ("a",)),
        ({"meta": {"dagster": "nonsense"}}, ("a",)),
    ],
)
def test_asset_keys_are_those_of_dagster_dbt(fields: dict[str, Any], key: tuple[str, ...]) -> None:
    assert asset_path(manifest("a", change={"a": fields}).nodes[uid("a")]) == key


@pytest.mark.parametrize("name", ["a b", "größe", "a/b", "a$", "type", "config", "import"])
def test_an_asset_has_dbts_name_even_if_dagster_refuses_it_for_outputs(name: str) -> None:
    odd = plan("a", change={"a": {"name": name}})
    assert odd.nodes[uid("a")].key == (name,)
    assert odd.warnings == ()


KEY = {"meta": {"dagster": {"asset_key": ["k"]}}}


def keys(planned: ProductPlan) -> dict[str, str]:
    return {one: "/".join(node.key) for one, node in {**planned.sources, **planned.assets}.items()}


def test_two_nodes_with_one_key_get_permanent_marks() -> None:
    two = plan("a, b", change={"a": KEY, "b": KEY})
    assert keys(two) == {uid("a"): "k_b4412532", uid("b"): "k_42ee307a"}
    assert two.warnings == (
        (
            "2 dbt nodes share an asset key with another node. In Dagster they have the names: "
            "k_42ee307a (model.shop.b), k_b4412532 (model.shop.a)."
        ),
    )
    three = keys(plan("a, b, A", change={"a": KEY, "b": KEY, "A": KEY}))
    assert {one: three[one] for one in keys(two)} == keys(two)


def in_package(package: str, **fields: Any) -> dict[str, Any]:
    return {"package_name": package, "relation_name": f"db.{package}.t", **fields}


def test_the_model_of_the_project_keeps_the_key_before_one_of_a_package() -> None:
    change = {"p": in_package("pkg", name="a"), "q": in_package("other", name="a")}
    planned = plan("a, p, q", change=change)
    assert keys(planned) == {uid("a"): "a", uid("p"): "pkg/a", uid("q"): "other/a"}
    assert names(planned, (uid("a"), uid("p"))) == ["a", "pkg.a"]
    assert len(planned.warnings) == 1
    foreign = plan("p, q", change=change)
    assert keys(foreign) == {uid("p"): "pkg/a", uid("q"): "other/a"}


def test_a_key_with_a_package_gets_a_mark_if_it_is_not_unique() -> None:
    change = {
        "p": in_package("pkg", name="a"),
        "x": {"name": "a", "config": {"schema": "pkg"}},
    }
    asset_keys = keys(plan("a, p, x", change=change))
    assert (asset_keys[uid("a")], asset_keys[uid("x")]) == ("a", "pkg/a")
    assert asset_keys[uid("p")].startswith("pkg/a_")


def test_one_table_that_two_packages_declare_is_one_asset() -> None:
    same = {"relation_name": '"db"."main"."t"', "name": "t", "source_name": "raw"}
    tests = {"mine": "raw.t", "theirs": "pkg.t"}
    planned = plan(
        "raw.t > a, pkg.t > b",
        change={"raw.t": same, "pkg.t": {**same, "package_name": "pkg"}},
        tests=tests,
    )
    assert {planned.nodes[one].key for one in planned.sources} == {("raw", "t")}
    assert {planned.nodes[check.on].key for check in planned.checks.values()} == {("raw", "t")}
    assert planned.warnings == ()


def test_two_tables_with_one_name_in_two_packages_are_two_assets() -> None:
    alike = {"name": "t", "source_name": "raw"}
    planned = plan(
        "raw.t > a, pkg.t > b", change={"raw.t": alike, "pkg.t": in_package("pkg", **alike)}
    )
    assert keys(planned) | {} == {
        "source.shop.raw.t": "raw/t",
        "source.shop.pkg.t": "pkg/raw/t",
        uid("a"): "a",
        uid("b"): "b",
    }


def test_sources_that_one_asset_loads_are_one_asset() -> None:
    planned = plan("raw.a raw.b > c", change={"raw.a": KEY, "raw.b": KEY}, tests={"t": "raw.b"})
    assert [node.key for node in planned.sources.values()] == [("k",), ("k",)]
    assert planned.warnings == ()


def test_a_source_that_an_asset_of_the_product_loads_waits_for_it() -> None:
    key = {"meta": {"dagster": {"asset_key": ["a"]}}}
    planned = plan("a, raw.s > b", change={"raw.s": key})
    assert planned.nodes[uid("b")].after == (uid("a"),)
    assert planned.warnings == ()


def test_a_model_and_a_source_with_one_key_and_two_tables_are_two_assets() -> None:
    planned = plan("a, raw.a > b", change={"a": {"config": {"schema": "raw"}}})
    assert keys(planned)[uid("a")] == "raw/a"
    assert keys(planned)["source.shop.raw.a"].startswith("raw/a_")
    assert planned.nodes[uid("b")].after == ()


def test_a_model_and_a_source_may_have_similar_names() -> None:
    # Packages of dbt often have such names: the model shopify__orders on the source shopify.orders.
    assert plan("shopify.orders > shopify__orders").assets


def test_a_source_that_is_the_table_of_a_seed_may_have_its_key() -> None:
    key = {"meta": {"dagster": {"asset_key": ["k"]}}}
    relation = {"relation_name": "DB.MAIN.s"}
    same = plan(
        "s, raw.s > a", kinds={"s": "seed"}, change={"s": key, "raw.s": {**key, **relation}}
    )
    assert same.nodes["source.shop.raw.s"].after == ("seed.shop.s",)
    assert same.nodes[uid("a")].after == ("seed.shop.s",)
    assert names(same, same.children["seed.shop.s"]) == ["a"]


def checks(planned: ProductPlan) -> dict[str, str]:
    return {one.rpartition(".")[2]: check.name for one, check in planned.checks.items()}


def test_checks_with_one_name_get_permanent_marks() -> None:
    twins = {f"t{n}": {"reads": "a", "name": "t"} for n in (1, 2)}
    two = plan("a", tests=twins)
    assert checks(two) == {"t1": "t_5217dfd9", "t2": "t_230cf6cc"}
    assert two.warnings == (
        (
            "2 checks share a name with another check of their asset. In Dagster they have "
            "the names: t_230cf6cc (test.shop.t2), t_5217dfd9 (test.shop.t1)."
        ),
    )
    three = plan("a", tests={"t0": {"reads": "a", "name": "t"}, **twins})
    assert checks(three).items() > checks(two).items()


@pytest.mark.parametrize(("one", "other"), [("氏名", "住所"), ("Größe", "Grüße")])
def test_checks_with_names_that_are_equal_in_ascii_get_marks(one: str, other: str) -> None:
    tests = {"t1": {"reads": "a", "name": one}, "t2": {"reads": "a", "name": other}}
    check_names = checks(plan("a", tests=tests))
    assert len({*check_names.values()}) == 2
    assert all(name.isascii() for name in check_names.values())


def test_a_check_with_a_name_that_dagster_accepts_keeps_it() -> None:
    tests = {"t1": {"reads": "a", "name": "x-y"}, "t2": {"reads": "a", "name": "x_y"}}
    check_names = checks(plan("a", tests=tests, unit_tests={"x.y": "a"}))
    assert check_names["t2"] == "x_y"
    assert check_names["t1"].startswith("x_y_")
    assert len({*check_names.values()}) == 3


def test_a_test_of_the_project_keeps_its_name_before_one_of_a_package() -> None:
    tests = {
        "t1": {"reads": "a", "name": "t"},
        "t2": {"reads": "a", "name": "t", "package_name": "pkg"},
    }
    check_names = checks(plan("a", tests=tests))
    assert check_names["t1"] == "t"
    assert check_names["t2"].startswith("t_")


def test_checks_with_one_name_on_two_assets_need_no_mark() -> None:
    twins = {f"t{n}": {"reads": name, "name": "t"} for n, name in enumerate("ab")}
    assert {*checks(plan("a, b", tests=twins)).values()} == {"t"}
    assert {*checks(plan("orders, orders_summary", tests={"summary": "orders"})).values()} == {
        "summary"
    }
    assert checks(plan("a, a_b", tests={"b_c": "a", "c": "a_b"})) == {"b_c": "b_c", "c": "c"}


def test_names_that_differ_only_by_case_need_no_mark() -> None:
    planned = plan("a, A", tests={"t": "a", "T": "a"})
    assert checks(planned) == {"t": "t", "T": "T"}
    assert [*keys(planned).values()] == ["A", "a"]
    assert planned.warnings == ()


def quality_names(*checks: QualityCheck, **fields: Any) -> list[str]:
    transforms = [Transform("a", "duck", quality_checks=checks)]
    planned = plan("a", transforms=transforms, macros=["test_x", "test_y"], **fields)
    return [check.name for check in planned.quality_checks.values()]


def test_quality_checks_with_one_name_get_marks() -> None:
    mapped, plain = quality_names(QualityCheck("n-n", "x", {}), QualityCheck("n_n", "y", {}))
    assert (plain, mapped.startswith("n_n_")) == ("n_n", True)
    assert len({*quality_names(QualityCheck("n", "x", {}), QualityCheck("n", "y", {}))}) == 2
    [named] = quality_names(QualityCheck("t", "x", {}), tests={"t": "a"})
    assert named.startswith("t_")


# --- packages and versions


def packaged(count: int, *, root: bool) -> ProductPlan:
    """Return a plan with a model "a" in each of `count` packages, and in the project if `root`."""
    change = {
        f"p{n}": {
            "name": "a",
            "package_name": f"pkg{n}",
            "meta": {"dagster": {"asset_key": [f"p{n}"]}},
        }
        for n in range(count)
    }
    return plan(", ".join([*change, *(["a"] if root else [])]), change=change, on={"a": "pg"})


def test_a_transform_means_a_node_of_the_project_before_one_of_a_package() -> None:
    planned = packaged(1, root=True)
    assert planned.nodes[uid("a")].compute == "pg"
    assert planned.nodes[uid("p0")].compute == "duck"
    assert planned.warnings == ()


def test_a_transform_may_mean_a_node_of_a_package() -> None:
    assert packaged(1, root=False).nodes[uid("p0")].compute == "pg"


def test_a_transform_in_two_packages_means_both_and_gives_a_warning() -> None:
    planned = packaged(2, root=False)
    assert {planned.nodes[uid(name)].compute for name in ("p0", "p1")} == {"pg"}
    assert planned.warnings == (
        (
            "transforms.models[0].name: the dbt packages pkg0, pkg1 each contain a node 'a'. "
            "Compute 'pg' builds all of them."
        ),
    )


def test_a_transform_means_every_version_of_a_model() -> None:
    change = {f"a{n}": {"name": "a", "version": n, "alias": f"a_v{n}"} for n in (1, 2)}
    versions = plan("a1 > b, a2 > c", change=change, on={"a": "pg"})
    assert {versions.nodes[uid(name)].compute for name in ("a1", "a2")} == {"pg"}
    assert [versions.nodes[uid(name)].key for name in ("a1", "a2")] == [("a_v1",), ("a_v2",)]


# --- tests


def test_a_generic_test_is_on_the_node_it_is_attached_to() -> None:
    tested = plan("a, b", tests={"rel": {"reads": "a b", "attached_node": "b"}})
    check = tested.checks[uid("rel", "test")]
    assert (check.on, check.name, check.blocking) == (uid("b"), "rel", True)
    assert tested.checks_on == {uid("b"): (uid("rel", "test"),)}
    assert tested.folded_parents[uid("rel", "test")] == (uid("a"), uid("b"))


def test_a_singular_test_is_on_the_first_node_it_reads() -> None:
    assert plan("a, b", tests={"t": "b a"}).checks[uid("t", "test")].on == uid("b")


def test_a_test_of_a_source_is_on_the_source_and_runs_where_it_is_read() -> None:
    tested = plan("raw.t > e > a", kinds={"e": "ephemeral"}, on={"a": "pg"}, tests={"t": "raw.t"})
    check = tested.checks[uid("t", "test")]
    assert (check.on, check.compute, check.also_on) == ("source.shop.raw.t", "pg", ("duck",))
    unread = plan("raw.t, a", on={"a": "pg"}, tests={"t": "raw.t"}).checks[uid("t", "test")]
    assert unread.compute == "duck"


def test_a_source_with_another_relation_elsewhere_is_tested_on_its_own_compute() -> None:
    elsewhere = {"pg": {"change": {"raw.t": {"relation_name": "pg.t"}}}}
    tested = plan("raw.t > a b", on={"b": "pg"}, tests={"t": "raw.t"}, per_target=elsewhere)
    assert tested.checks[uid("t", "test")].also_on == ()


def test_meta_dagster_ref_chooses_the_asset_of_a_test() -> None:
    def ref(**named: Any) -> dict[str, Any]:
        return {"t": {"reads": "a b", "config": {"meta": {"dagster": {"ref": named}}}}}

    assert plan("a, b", tests=ref(name="b")).checks[uid("t", "test")].on == uid("b")
    assert plan("a, b", tests=ref(name="b", package="shop")).checks[uid("t", "test")].on == uid("b")
    version = {"b": {"version": 2, "alias": "b_v2"}}
    planned = plan("a, b", tests=ref(name="b", version=2), change=version)
    assert planned.checks[uid("t", "test")].on == uid("b")
    wrong = plan("a, b, c", tests=ref(name="c"))
    assert wrong.checks[uid("t", "test")].on == uid("a")
    assert wrong.warnings == (
        (
            "dbt test 't': meta.dagster.ref names 'c', which the test does not read; it is "
            "shown on "
            "'a' instead."
        ),
    )


@pytest.mark.parametrize(
    ("severity", "blocking"), [(None, True), ("ERROR", True), ("warn", False), ("WARN", False)]
)
def test_a_test_that_only_warns_does_not_block(severity: str | None, *, blocking: bool) -> None:
    tested = plan("a", tests={"t": {"reads": "a", "config": {"severity": severity}}})
    assert tested.checks[uid("t", "test")].blocking is blocking


def test_a_test_that_reads_nothing_is_on_the_last_asset_of_its_compute_and_stops_nothing() -> None:
    planned = plan("a > b > c", on={"c": "pg"}, tests={"t": ""})
    check = planned.checks[uid("t", "test")]
    assert (check.on, check.compute, check.also_on) == (uid("b"), "duck", ())
    assert (check.blocking, check.parents, planned.warnings) == (False, (), ())


def test_a_test_that_reads_nothing_may_name_its_asset() -> None:
    ref = {"config": {"meta": {"dagster": {"ref": {"name": "a"}}}}}
    assert plan("a > b", tests={"t": {"reads": "", **ref}}).checks[uid("t", "test")].on == uid("a")


def test_a_test_of_an_ephemeral_is_on_the_first_asset_that_inlines_it() -> None:
    planned = plan("e > f > b > c, a", kinds={"e": "ephemeral", "f": "ephemeral"}, tests={"t": "e"})
    check = planned.checks[uid("t", "test")]
    assert (check.on, check.blocking) == (uid("b"), True)


def test_a_test_without_an_asset_gives_a_warning() -> None:
    idle = plan("e", kinds={"e": "ephemeral"}, tests={"t": "e"})
    assert not idle.checks
    assert idle.warnings == (
        "dbt test 't' does not run: the product has no asset to show it on. Add a model.",
    )
    assert plan("raw.t", tests={"t": ""}).checks[uid("t", "test")].on == "source.shop.raw.t"


def test_a_test_can_run_on_every_compute_that_can_read_its_parents() -> None:
    both: Json = {"tests": {"t": "a b"}, "on": {"b": "pg"}}
    check = plan("a > b", **both).checks[uid("t", "test")]
    assert (check.compute, check.also_on) == ("pg", ("duck",))
    elsewhere = {"duck": {"change": {"b": {"relation_name": "other.b"}}}}
    check = plan("a > b", **both, per_target=elsewhere).checks[uid("t", "test")]
    assert (check.compute, check.also_on) == ("pg", ())


def test_a_test_runs_only_on_a_compute_that_has_it_enabled() -> None:
    off: Json = {"pg": {"without": ["t"]}}
    check = plan("a > b", tests={"t": "a b"}, on={"b": "pg"}, per_target=off).checks
    assert check[uid("t", "test")].compute == "duck"
    there = plan("a > b", tests={"t": "b"}, on={"b": "pg"}, per_target=off).checks
    assert there[uid("t", "test")].compute == "duck"
    elsewhere = {**off, "duck": {"change": {"b": {"relation_name": "other.b"}}}}
    lost = plan("a > b", tests={"t": "b"}, on={"b": "pg"}, per_target=elsewhere)
    assert not lost.checks
    assert lost.warnings == (
        (
            "dbt test 't' is enabled only on computes that cannot read its parents (duck): it is "
            "not a check and does not run."
        ),
    )


def test_a_unit_test_is_a_check_of_its_model() -> None:
    tested = plan("a > b", on={"b": "pg"}, unit_tests={"u": "b"})
    check = tested.checks["unit_test.shop.b.u"]
    assert (check.kind, check.on, check.compute, check.parents) == (
        "unit_test",
        uid("b"),
        "pg",
        (uid("b"),),
    )


def test_a_unit_test_of_an_ephemeral_is_on_the_first_asset_that_inlines_it() -> None:
    planned = plan(
        "e > f > a > b", kinds={"e": "ephemeral", "f": "ephemeral"}, unit_tests={"u": "e"}
    )
    check = planned.checks["unit_test.shop.e.u"]
    assert (check.on, check.parents, planned.warnings) == (uid("a"), (uid("e"),), ())


def test_a_unit_test_disabled_on_the_compute_of_its_model_gives_a_warning() -> None:
    off = plan("a", on={"a": "pg"}, unit_tests={"u": "a"}, per_target={"pg": {"without": ["u"]}})
    assert off.warnings == (
        (
            "dbt unit test 'u' is disabled on compute 'pg', which builds 'a': it is not a check "
            "and does "
            "not run."
        ),
    )


# --- quality checks


def checked(check: QualityCheck, **fields: Any) -> ProductPlan:
    transforms = [Transform("a", "duck", quality_checks=(check,))]
    return plan("a", transforms=transforms, **fields)


def test_a_quality_check_runs_unless_a_dbt_test_covers_it() -> None:
    unique = QualityCheck("u", "unique", {"column_name": "ID"})
    kept = checked(unique, macros=["test_unique"])
    [check] = kept.checks.values()
    assert check.unique_id == "quality_check.shop.a.u"
    assert (check.kind, check.quality, check.on) == ("quality_check", unique, uid("a"))
    assert (check.parents, check.compute, check.blocking) == ((uid("a"),), "duck", False)
    assert kept.checks_on[uid("a")] == (check.unique_id,)
    test = {
        "reads": "a",
        "attached_node": "a",
        "test_metadata": {"name": "unique", "kwargs": {"column_name": "id", "model": "{{ a }}"}},
    }
    covered = checked(unique, macros=["test_unique"], tests={"t": test})
    assert covered.quality_checks == {}
    assert covered.warnings == ()


def test_a_quality_check_without_a_generic_test_gives_a_warning() -> None:
    idle = checked(QualityCheck("u", "pkg.unique", {}))
    assert idle.warnings == (
        (
            "quality check 'u' of 'a': dbt has no generic test 'pkg.unique', so it does not run. "
            "Install the dbt package that contains it."
        ),
    )


def test_a_quality_check_of_an_ephemeral_gives_a_warning() -> None:
    idle = checked(
        QualityCheck("u", "unique", {}), kinds={"a": "ephemeral"}, macros=["test_unique"]
    )
    assert idle.warnings == (
        (
            "quality check 'u' of 'a': the model is ephemeral, so it cannot have checks and "
            "this check does not run. Materialize it as a view or table."
        ),
    )


# --- sources that the product builds


def test_a_source_is_a_boundary_only_on_a_target_where_it_names_a_built_table() -> None:
    there = {"pg": {"change": {"raw.s": {"relation_name": '"db"."main"."s"'}}}}
    fed = plan("s, raw.s > a b", kinds={"s": "seed"}, on={"b": "pg"}, per_target=there)
    assert fed.nodes[uid("a")].after == ()
    assert fed.nodes[uid("b")].after == ("seed.shop.s",)


def test_a_boundary_passes_through_ephemerals() -> None:
    fed = plan(
        "s, raw.s > e > a",
        kinds={"s": "seed", "e": "ephemeral"},
        change={"raw.s": {"relation_name": '"db"."main"."s"'}},
    )
    assert fed.nodes[uid("a")].after == ("seed.shop.s",)


def test_a_node_may_read_its_own_earlier_result() -> None:
    own = plan("raw.a > a", change={"raw.a": {"relation_name": '"db"."main"."a"'}})
    assert own.nodes[uid("a")].after == ()


def test_a_node_may_read_the_earlier_result_of_a_node_below_with_a_warning() -> None:
    loop = plan("raw.z > a > z", change={"raw.z": {"relation_name": '"db"."main"."z"'}})
    assert names(loop, loop.assets) == ["a", "z"]
    assert loop.warnings == (
        (
            "dbt model 'a' reads a source that is the table of 'z', which is built below it "
            "(a -> z -> a): it reads what the previous run wrote there."
        ),
    )


def test_a_source_with_feedback_cannot_keep_the_asset_key_of_its_table() -> None:
    key = {"meta": {"dagster": {"asset_key": ["z"]}}}
    table = {"raw.z": {**key, "relation_name": '"db"."main"."z"'}}
    loop = plan("raw.z > a > z", change=table)
    assert keys(loop)["source.shop.raw.z"] == "raw/z"
    assert loop.warnings == (
        (
            "dbt source 'z' has the asset key raw/z instead of the key of 'z'. The readers of the "
            "source are built before 'z', so one key for both would be a cycle in Dagster."
        ),
        (
            "dbt model 'a' reads a source that is the table of 'z', which is built below it "
            "(a -> z -> a): it reads what the previous run wrote there."
        ),
    )
    by_schema = {"z": {"config": {"schema": "raw"}}, "raw.z": {"relation_name": "db.main.z"}}
    other = keys(plan("raw.z > a > z", change=by_schema))
    assert other[uid("z")] == "raw/z"
    assert other["source.shop.raw.z"].startswith("raw/z_")


# --- groups, exposures and functions


def test_a_plan_has_groups_and_exposures() -> None:
    raw = b"""{
      "metadata": {"dbt_schema_version": "%s", "project_name": "shop"}, "nodes": {},
      "groups": {"group.shop.g": {"name": "g", "owner": {"email": ["a@x.io", "b@x.io"]}},
                 "group.shop.h": {"name": "h", "owner": {"name": "H"}}},
      "exposures": {"exposure.shop.dash": {"unique_id": "exposure.shop.dash", "name": "dash",
                    "depends_on": {"nodes": ["model.shop.a"]}}}
    }""" % SCHEMA.encode()
    planned = plan_product(product(), DUCK, {"duck": decode_manifest(raw)})
    assert planned.owners_of_group == {"g": ("a@x.io", "b@x.io")}
    assert planned.exposures == {"dash": ("model.shop.a",)}
    assert planned.project_name == "shop"


def test_two_packages_may_have_groups_and_exposures_with_one_name() -> None:
    raw = b"""{
      "metadata": {"dbt_schema_version": "%s", "project_name": "shop"}, "nodes": {},
      "groups": {"group.shop.g": {"name": "g", "owner": {"email": "own@x.io"}},
                 "group.pkg.g": {"name": "g", "owner": {"email": "pkg@x.io"}}},
      "exposures": {"exposure.shop.d": {"unique_id": "exposure.shop.d", "name": "d",
                    "depends_on": {"nodes": ["model.shop.a"]}},
                    "exposure.pkg.d": {"unique_id": "exposure.pkg.d", "name": "d",
                    "depends_on": {"nodes": ["model.pkg.b"]}}}
    }""" % SCHEMA.encode()
    planned = plan_product(product(), DUCK, {"duck": decode_manifest(raw)})
    assert planned.owners_of_group == {"g": ("own@x.io",)}
    assert planned.exposures == {"d": ("model.shop.a", "model.pkg.b")}


def test_a_plan_returns_targets_and_functions() -> None:
    called = plan("f > g > e > a", kinds={"f": "function", "g": "function", "e": "ephemeral"})
    assert called.target_of(uid("a")) == "duck"
    assert set(names(called, called.functions_of([uid("a")]))) == {"f", "g"}


def test_many_ephemerals_in_a_row_are_folded() -> None:
    row = [f"e{n}" for n in range(2000)]
    long = plan(" > ".join(["a", *row, "b"]), kinds=dict.fromkeys(row, "ephemeral"))
    assert long.folded_parents[uid("b")] == (uid("a"),)


def test_a_diamond_of_ephemerals_is_folded_once() -> None:
    layers = [f"l{n} r{n}" for n in range(40)]
    kinds = dict.fromkeys(" ".join(layers).split(), "ephemeral")
    deep = plan(" > ".join(["a", *layers, "b"]), kinds=kinds, tests={"t": "l39 r39"})
    assert deep.checks[uid("t", "test")].on == uid("a")


# --- nodes that dbt does not run, or not on every target


OFF = {"config": {"enabled": False}}


def test_disabled_nodes_in_the_manifest_are_not_planned() -> None:
    planned = plan(
        "a, b, s, snap, raw.t, raw.u",
        kinds={"s": "seed", "snap": "snapshot"},
        change=dict.fromkeys(("b", "s", "snap", "raw.u"), OFF),
        tests={"gone": {"reads": "", **OFF}, "half": {"reads": "a", **OFF}, "t": "a"},
    )
    assert {*planned.nodes} == {uid("a"), "source.shop.raw.t", uid("t", "test")}
    assert planned.warnings == ()


@pytest.mark.parametrize("code", ["", "  \n\t"])
def test_a_file_without_code_is_not_run(code: str) -> None:
    empty = {"raw_code": code}
    planned = plan(
        "a > b, s",
        kinds={"s": "seed"},
        change={"a": empty, "s": empty},
        tests={"t": {"reads": "b", **empty}},
    )
    assert names(planned, planned.nodes) == ["s", "b"]


def test_a_transform_that_is_disabled_in_dbt_gives_a_warning() -> None:
    planned = plan("a, b", on={"b": "duck"}, change={"b": OFF})
    assert names(planned, planned.assets) == ["a"]
    assert planned.warnings == (
        "transforms.models[0].name: 'b' is disabled or empty in dbt: it is not built.",
    )


def test_a_test_is_planned_as_on_the_target_that_runs_it() -> None:
    """On the default target the test is disabled and has no parents."""
    cut = {"tests": {"t": {"reads": "", "config": {"enabled": False}}}, "without": ["b"]}
    planned = plan(
        "a > b",
        on={"b": "pg"},
        tests={"t": {"reads": "a b", "attached_node": "b", "config": {"severity": "warn"}}},
        per_target={"duck": cut},
    )
    check = planned.checks[uid("t", "test")]
    assert (check.compute, check.on, check.also_on) == ("pg", uid("b"), ())
    assert (check.blocking, check.parents) == (False, (uid("a"), uid("b")))
    assert planned.warnings == ()


def test_a_test_with_different_parents_by_target_runs_on_the_target_of_its_parents() -> None:
    planned = plan(
        "a, b", on={"b": "pg"}, tests={"t": "a"}, per_target={"pg": {"tests": {"t": "b"}}}
    )
    assert planned.checks[uid("t", "test")].compute == "duck"
    assert planned.checks[uid("t", "test")].on == uid("a")


def test_a_test_with_different_severities_by_target_runs_on_only_one() -> None:
    severe = {"t": {"reads": "a b", "config": {"severity": "error"}}}
    mild = {"t": {"reads": "a b", "config": {"severity": "warn"}}}
    planned = plan("a > b", on={"b": "pg"}, tests=mild, per_target={"pg": {"tests": severe}})
    check = planned.checks[uid("t", "test")]
    assert (check.compute, check.also_on, check.blocking) == ("pg", (), True)


@pytest.mark.parametrize(("name", "kind"), [("s", "seed"), ("s", "snapshot"), ("raw.s", "source")])
def test_seeds_snapshots_and_sources_of_one_target_are_tested_there(name: str, kind: str) -> None:
    planned = plan(
        f"{name} > b, a",
        on={"b": "pg"},
        kinds={name: kind},
        tests={"t": name},
        per_target={"duck": {"without": [name, "b", "t"]}},
    )
    node = uid(name, kind)
    assert planned.nodes[node].compute == "pg"
    assert (planned.checks[uid("t", "test")].compute, planned.checks[uid("t", "test")].on) == (
        "pg",
        node,
    )
    assert planned.warnings == ()


def test_a_unit_test_is_planned_as_on_the_target_of_its_model() -> None:
    planned = plan(
        "a", on={"a": "pg"}, unit_tests={"u": "a"}, per_target={"duck": {"without": ["a", "u"]}}
    )
    assert planned.checks["unit_test.shop.a.u"].compute == "pg"


TABLE = {"config": {"materialized": "table"}, "relation_name": '"db"."main"."e"'}


def test_a_model_that_only_one_target_inlines_is_built_for_readers_on_the_other() -> None:
    planned = plan(
        "a > e > b, e > c",
        kinds={"e": "ephemeral"},
        on={"b": "pg"},
        per_target={"pg": {"change": {"e": TABLE}}},
    )
    assert (planned.nodes[uid("e")].kind, planned.nodes[uid("e")].compute) == ("model", "pg")
    assert planned.folded_parents[uid("b")] == (uid("e"),)
    # The default target inlines the model in this reader.
    assert planned.folded_parents[uid("c")] == (uid("a"),)
    assert planned.nodes[uid("c")].compute == "duck"


def test_a_model_that_one_target_builds_is_inlined_on_another() -> None:
    planned = plan(
        "a > e > f > b",
        kinds={"f": "ephemeral"},
        on={"b": "pg"},
        per_target={"pg": {"kinds": {"e": "ephemeral", "f": "ephemeral"}}},
    )
    assert (planned.nodes[uid("e")].kind, planned.nodes[uid("e")].compute) == ("model", "duck")
    assert planned.folded_parents[uid("b")] == (uid("a"),)


def test_a_test_of_an_overridden_model_is_on_the_overriding_model() -> None:
    """dbt names the model of the package, which the project overrides."""
    test = {"reads": "b a", "attached_node": "model.pkg.a"}
    assert plan("a, b", tests={"t": test}).checks[uid("t", "test")].on == uid("a")


# --- versions


def test_the_versions_of_a_model_have_different_names() -> None:
    change = {f"book{n}": {"name": "book", "version": n, "alias": f"book_v{n}"} for n in (1, 2)}
    planned = plan("book1 > a, book2 > b", change=change, on={"book": "pg"})
    assert names(planned, planned.assets) == ["book.v1", "book.v2", "a", "b"]
    assert [node.key for node in planned.assets.values()][:2] == [("book_v1",), ("book_v2",)]
    depends = plan(
        "book1 > a", change=change, transforms=[Transform("a", "duck", depends_on=("book",))]
    )
    assert depends.warnings == ()


# --- meta.dagster


def meta(**settings: Any) -> dict[str, Any]:
    both = {"meta": {"dagster": settings}, "config": {"meta": {"dagster": settings}}}
    return {"a": {**both, "original_file_path": "models/a.sql"}}


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"group": 2024}, "group is 2024 and is left out: Input should be a valid string."),
        (
            {"asset_key": 7},
            "asset_key is 7 and is left out: expected a string or a list of strings.",
        ),
        (
            {"asset_key": ["a", 7]},
            "asset_key is ['a', 7] and is left out: expected a string or a list of strings.",
        ),
        (
            {"owners": ["bob", "a@example.com"]},
            "owners.0 is 'bob' and is left out: expected an email address or 'team:name'.",
        ),
        ({"owners": 5}, "owners is 5 and is left out: Input should be a valid list."),
        (
            {"auto_materialize_policy": {"type": "eagre"}},
            (
                "auto_materialize_policy.type is 'eagre' and is left out: Input should be "
                "'eager' or 'lazy'."
            ),
        ),
        (
            {"ref": "b"},
            "ref is 'b' and is left out: expected a mapping with the `name` of a model.",
        ),
    ],
)
def test_only_an_invalid_value_of_meta_dagster_is_left_out(
    settings: dict[str, Any], warning: str
) -> None:
    planned = plan("a", change=meta(**settings, kept="as it is"))
    assert planned.warnings == (f"dbt model 'a' (models/a.sql): meta.dagster.{warning}",)
    node = planned.nodes[uid("a")]
    assert node.dbt is not None
    left = node.dbt.dagster_meta
    assert left.pop("owners", ["a@example.com"]) == ["a@example.com"]
    assert left == {"kept": "as it is"}
    assert node.key == ("a",)


def test_meta_dagster_that_is_not_a_mapping_is_left_out() -> None:
    [warning] = plan("a", change={"a": {"meta": {"dagster": "x"}}}).warnings
    assert warning == ("dbt model 'a': meta.dagster is 'x' and is left out: expected a mapping.")


def test_one_owner_becomes_a_list() -> None:
    planned = plan("a", change=meta(owners="a@example.com"))
    assert planned.warnings == ()
    node = planned.nodes[uid("a")]
    assert node.dbt is not None
    assert node.dbt.dagster_meta == {"owners": ["a@example.com"]}


def test_an_empty_value_in_meta_dagster_is_not_set() -> None:
    assert plan("a", change=meta(group=None, owners=[], asset_key="")).warnings == ()


def test_invalid_partitions_are_listed_with_all_other_problems() -> None:
    wrong = meta(partitions={"type": "dayly", "start": "soon", "begin": 1})
    assert problems_of("a", change=wrong, on={"zzz": "duck"}) == [
        (
            "dbt model 'a' meta.dagster.partitions.type: Input should be 'hourly', 'daily', "
            "'weekly' or 'monthly'. Expected {type: hourly|daily|weekly|monthly, start: "
            "'YYYY-MM-DD', end?, timezone?}."
        ),
        (
            "dbt model 'a' meta.dagster.partitions.start: String should match pattern "
            "'^\\d{4}-\\d{2}-\\d{2}(-\\d{2}:\\d{2})?$'. Expected {type: "
            "hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', end?, timezone?}."
        ),
        (
            "dbt model 'a' meta.dagster.partitions.begin: Extra inputs are not permitted. Expected "
            "{type: hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', end?, timezone?}."
        ),
        (
            "transforms.models[0].name: dbt has no model, seed or snapshot 'zzz'. Correct the "
            "name in floe.yaml, or add the model to the dbt project."
        ),
    ]


@pytest.mark.parametrize("kind", ["daily", "weekly", "monthly"])
def test_only_hourly_partitions_take_a_time_of_day(kind: str) -> None:
    settings = {"start": "2026-01-01-03:00", "end": "2026-02-01-00:00"}
    assert problems_of("a", change=meta(partitions={"type": kind, **settings})) == [
        f"dbt model 'a' meta.dagster.partitions.{key}: '{day}' has a time of day, which "
        f"`type: {kind}` does not take. Expected {{type: hourly|daily|weekly|monthly, start: "
        "'YYYY-MM-DD', end?, timezone?}."
        for key, day in settings.items()
    ]
    hourly = meta(partitions={"type": "hourly", **settings})
    assert plan("a", change=hourly).warnings == ()


def test_the_id_of_a_quality_check_is_unique_and_not_an_id_of_dbt() -> None:
    same_ids = (
        QualityCheck("n", "x", {}),
        QualityCheck("n", "y", {}),
        QualityCheck("m m", "x", {}),
    )
    planned = plan(
        "a, b",
        kinds={"b": "seed"},
        transforms=[
            Transform("a", "duck", quality_checks=same_ids),
            Transform("b", "duck", quality_checks=same_ids[:1]),
        ],
        macros=["test_x", "test_y"],
    )
    ids = [*planned.quality_checks]
    first, second = [one for one in ids if one.startswith("quality_check.shop.a.n_")]
    assert first != second
    assert {*ids} == {first, second, "quality_check.shop.a.m m", "quality_check.shop.b.n"}


def test_two_equal_quality_checks_are_one_with_the_stricter_severity() -> None:
    equal = (
        QualityCheck("n", "x", {}),
        QualityCheck("n", "x", {}, severity="warn"),
    )
    transforms = [Transform("a", "duck", quality_checks=equal)]
    planned = plan("a", transforms=transforms, macros=["test_x"])
    [check] = planned.quality_checks.values()
    assert (check.unique_id, check.quality) == ("quality_check.shop.a.n", equal[0])
    assert planned.warnings == ()
