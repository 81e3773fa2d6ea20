"""The plan of a product: every rule, with the exact words of every error."""

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
from plans import SCHEMA, manifest, plan, problems_of, product, uid

DUCK = {"duck": Compute("duck", "duck", "duckdb")}


def names(planned: ProductPlan, uids: Any) -> list[str]:
    return [planned.nodes[one].name for one in uids]


def of_transforms(*transforms: Transform) -> ProductPlan:
    made = product(*transforms)
    computes, problems = resolve_computes(made, {name: name for name in made.computes_named})
    return plan_product(made, computes, problems=[*problems, *unknown_dependencies(made)])


def refused(*transforms: Transform) -> list[str]:
    with pytest.raises(PlanError) as error:
        of_transforms(*transforms)
    return [str(problem) for problem in error.value.problems]


def resolved(
    outputs: dict[str, str], *computes: str, config: dict[str, Any] | None = None
) -> tuple[dict[str, Compute], list[str]]:
    transforms = [Transform(f"m{n}", compute) for n, compute in enumerate(computes)]
    found, problems = resolve_computes(
        CompiledProduct("shop", tuple(transforms), config=product(config=config).config), outputs
    )
    return found, [str(problem) for problem in problems]


# --- the artifacts by themselves


def test_a_plan_of_transforms_alone_has_their_graph_and_computes() -> None:
    chain = of_transforms(
        Transform("a", "duck", tags=("daily",), tier="gold"), Transform("b", "pg", ("a",))
    )
    assert [*chain.assets] == ["a", "b"]
    assert chain.folded_parents["b"] == ("a",)
    assert (chain.nodes["b"].key, chain.nodes["b"].compute) == (("b",), "pg")
    assert (chain.nodes["a"].tags, chain.nodes["a"].tier) == (("daily",), "gold")
    assert (chain.default_compute, chain.project_name, chain.warnings) == ("duck", None, ())


def test_no_transforms_is_an_empty_plan() -> None:
    assert not of_transforms().assets


def test_a_duplicate_name_is_refused() -> None:
    assert refused(Transform("a", "duck"), Transform("b", "duck"), Transform("a", "duck")) == [
        (
            "transforms.models[2].name: Duplicate name 'a' (first at models[0]). "
            "Keep one of them in floe.yaml."
        )
    ]


def test_a_cycle_is_printed_as_a_path_in_which_each_depends_on_the_next() -> None:
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


def test_each_cycle_is_printed() -> None:
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]
    found = refused(*(Transform(name, "duck", (parent,)) for name, parent in pairs))
    assert [problem.split(". ")[0] for problem in found] == [
        "transforms.models: Circular dependency: a -> b -> a",
        "transforms.models: Circular dependency: c -> d -> c",
    ]


def test_an_unknown_dependency_is_refused_with_a_near_match() -> None:
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


def test_all_problems_come_at_once() -> None:
    with pytest.raises(PlanError) as error:
        of_transforms(
            Transform("a", "duck", ("b",)),
            Transform("b", "duck", ("a",)),
            Transform("b", "duck"),
            Transform("no way", "duck", ("x",)),
        )
    assert str(error.value) == (
        "Cannot plan product 'shop': 4 problems.\n"
        "  1. transforms.models[3].depends_on: 'no way' depends on unknown 'x'. "
        "Correct dependsOn in floe.yaml; known: a, b, no way.\n"
        "  2. transforms.models[2].name: Duplicate name 'b' (first at models[1]). "
        "Keep one of them in floe.yaml.\n"
        "  3. transforms.models: Circular dependency: a -> b -> a. "
        "Remove one of these dependsOn entries from floe.yaml.\n"
        "  4. model 'no way': Dagster refuses the asset key ['no way'] of 'no way'. "
        "Use letters, digits, '_', '-' and '.' only, or set meta.dagster.asset_key."
    )


def test_thousands_of_unknown_dependencies_are_all_found() -> None:
    found = refused(*(Transform(f"model_{n}", "duck", (f"modle_{n}",)) for n in range(3000)))
    assert len(found) == 3000


# --- computes


def test_a_compute_is_first_what_the_config_says_then_an_output_then_the_only_one_of_its_type() -> (
    None
):
    outputs = {"spark": "duckdb", "spark_prod": "spark", "dev": "postgres"}
    config = {"computes": {"spark": {"target": "spark_prod"}}}
    assert resolved(outputs, "spark", config=config)[0]["spark"].target == "spark_prod"
    assert resolved(outputs, "spark")[0]["spark"] == Compute("spark", "spark", "duckdb")
    assert resolved(outputs, "postgres")[0]["postgres"] == Compute("postgres", "dev", "postgres")


def test_a_compute_carries_its_settings() -> None:
    setting = {"pool": "p", "pool_limit": 2, "resources": "large"}
    found, _ = resolved({"pg": "postgres"}, "pg", config={"computes": {"pg": setting}})
    assert (found["pg"].pool, found["pg"].pool_limit) == ("p", 2)
    assert found["pg"].resources == "large"


def test_a_compute_that_fits_no_output_is_refused() -> None:
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


def test_a_compute_that_fits_two_outputs_is_refused() -> None:
    [problem] = resolved({"a": "spark", "b": "spark"}, "spark")[1]
    assert problem.startswith(
        "transforms.models[m0].compute: Compute 'spark' fits 2 dbt outputs (a, b). Outputs of"
    )


def test_the_output_that_the_profile_prefers_decides_between_several() -> None:
    made = CompiledProduct("shop", (Transform("m", "spark"), Transform("n", "pg")))
    outputs = {"a": "spark", "b": "spark", "c": "spark", "pg": "postgres", "p": "postgres"}
    computes, problems = resolve_computes(made, outputs, ("p", "b", "a"))
    assert problems == []
    # What is preferred is of another type, or has to stand behind an output of the very name.
    assert {name: compute.target for name, compute in computes.items()} == {
        "spark": "b",
        "pg": "pg",
    }


def test_a_compute_mapped_to_a_target_that_is_not_there_is_refused() -> None:
    config = {"computes": {"spark": {"target": "sprak"}}}
    [problem] = resolved({"spark": "spark"}, "spark", config=config)[1]
    assert problem.startswith(
        "transforms.models[m0].compute: Compute 'spark' is mapped to target 'sprak', no such "
        "output. Did you mean 'spark'? Outputs of the dbt profile: spark (spark)."
    )


def test_a_default_compute_that_no_model_names_is_refused_where_it_stands() -> None:
    _, [problem] = resolve_computes(CompiledProduct("shop", default_compute="duck"), {})
    assert str(problem).startswith(
        "transforms.default_compute: Compute 'duck' has no dbt output. Outputs of the dbt profile: "
        "none."
    )


def test_settings_of_a_misspelled_compute_are_refused_and_of_other_products_are_not() -> None:
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


def test_a_node_carries_the_tags_of_dbt_and_of_floe_once() -> None:
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
            "Supported is manifest v12: install dbt-core 1.8 to 1.11 and run `floe-dagster "
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


def test_a_dependency_that_neither_has_is_refused() -> None:
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
            "transforms.models[1].depends_on: 'b' does not depend on 'a' in dbt. dbt's graph "
            "is used; "
            "correct dependsOn in floe.yaml."
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


def test_problems_of_the_artifacts_of_dbt_and_of_relations_come_together() -> None:
    found = problems_of(
        "a > b, x!",
        transforms=[
            Transform("b", "pg", ("nothing",)),
            Transform("gone", "duck", ("gone",)),
        ],
        per_target={"pg": {"change": {"a": {"relation_name": "other.a"}}, "schema": ""}},
    )
    assert [problem.split(":")[0] for problem in found] == [
        "transforms.models",
        "manifest.json (target pg)",
        "transforms.models[0].depends_on",
        "transforms.models[1].name",
        "model 'x!'",
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


def test_a_model_that_nobody_placed_is_built_where_it_is_enabled() -> None:
    only_pg = plan("a > b", on={"b": "pg"}, per_target={"duck": {"without": ["a"]}})
    assert only_pg.nodes[uid("a")].compute == "pg"


def test_a_node_is_seen_as_on_its_own_target() -> None:
    there = {"relation_name": '"db"."pg"."a"', "depends_on": {"nodes": [uid("c")]}}
    own = plan("b > a, c", on={"a": "pg", "c": "pg"}, per_target={"pg": {"change": {"a": there}}})
    assert own.nodes[uid("a")].relation == '"db"."pg"."a"'
    assert own.folded_parents[uid("a")] == (uid("c"),)


def test_a_model_may_be_ephemeral_on_one_target_only() -> None:
    table = {"a": {"config": {"materialized": "table"}}}
    own = plan("a", kinds={"a": "ephemeral"}, on={"a": "pg"}, per_target={"pg": {"change": table}})
    assert own.nodes[uid("a")].kind == "model"


# --- ephemerals


def test_ephemerals_are_folded_and_take_their_consumers_compute() -> None:
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


def test_the_compute_that_floe_names_for_an_ephemeral_has_no_effect_and_is_said() -> None:
    named = plan("e > a", kinds={"e": "ephemeral"}, on={"e": "pg"})
    assert named.warnings == (
        (
            "dbt model 'e' is ephemeral: it is inlined on 'duck', where its consumers are "
            "built, not "
            "on 'pg'."
        ),
    )


def test_an_ephemeral_that_only_tests_read_runs_where_what_it_reads_is_built() -> None:
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


@pytest.mark.parametrize("name", ["a b", "größe", "a/b", "a$"])
def test_a_name_that_dagster_refuses_is_refused(name: str) -> None:
    fields = {"a": {"name": name, "original_file_path": "models/a.sql"}}
    assert problems_of("a", change=fields) == [
        (
            f"models/a.sql: Dagster refuses the asset key ['{name}'] of '{name}'. Use "
            f"letters, digits, "
            "'_', '-' and '.' only, or set meta.dagster.asset_key."
        )
    ]


@pytest.mark.parametrize("name", ["type", "config", "import", "input"])
def test_a_word_that_dagster_reserves_is_refused_unless_it_has_a_prefix(name: str) -> None:
    [problem] = problems_of(name)
    assert problem.startswith(
        f"model '{name}': Dagster refuses the asset key ['{name}'] of '{name}' (a reserved word)."
    )
    assert plan(name, change={name: {"config": {"schema": "mart"}}}).assets


def test_the_name_of_a_source_matters_only_if_it_is_read() -> None:
    assert plan("raw.a, b", change={"raw.a": {"name": "a b"}}).sources
    [problem] = problems_of("raw.a > b", change={"raw.a": {"name": "a b"}})
    assert problem.startswith("source 'a b': Dagster refuses the asset key ['raw', 'a b'] of 'a b'")


def test_two_nodes_of_one_key_are_refused() -> None:
    key = {"meta": {"dagster": {"asset_key": ["k"]}}}
    assert problems_of("a, b", change={"a": key, "b": key}) == [
        (
            "model 'b': 'model.shop.b' and 'model.shop.a' both map to the Dagster asset key ['k']. "
            "Rename one of them, or set meta.dagster.asset_key on it."
        )
    ]


def test_two_keys_that_fold_to_one_output_are_refused() -> None:
    asked = {"a": ["x-y"], "b": ["x.y"], "c": ["p__q"], "d": ["p", "q"]}
    keys = {name: {"meta": {"dagster": {"asset_key": key}}} for name, key in asked.items()}
    assert problems_of("a, b, c, d", change=keys) == [
        (
            "model 'b': 'model.shop.b' and 'model.shop.a' both map to the Dagster output "
            "name 'x_y'. "
            "Rename one of them, or set meta.dagster.asset_key on it."
        ),
        (
            "model 'd': 'model.shop.d' and 'model.shop.c' both map to the Dagster output "
            "name 'p__q'. "
            "Rename one of them, or set meta.dagster.asset_key on it."
        ),
    ]


def test_a_model_and_a_source_may_fold_to_one_name() -> None:
    # Such as the model shopify__orders on the source shopify.orders: common in dbt packages.
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
    [problem] = problems_of("s, raw.s > a", kinds={"s": "seed"}, change={"s": key, "raw.s": key})
    assert problem.startswith(
        "source 's': 'source.shop.raw.s' and 'seed.shop.s' both map to the Dagster asset key ['k']."
    )


def test_check_names_that_map_to_one_are_refused() -> None:
    twins = {"t1": {"reads": "a", "name": "t"}, "t2": {"reads": "a", "name": "t"}}
    assert problems_of("a", tests=twins) == [
        (
            "checks of 'a': 'test.shop.t2' and 'test.shop.t1' both map to the Dagster output name "
            "'a_t'. Rename one of them."
        )
    ]


def test_a_check_and_an_asset_may_not_map_to_one_output() -> None:
    assert problems_of("orders, orders_summary", tests={"summary": "orders"}) == [
        (
            "checks of 'orders': 'test.shop.summary' and 'model.shop.orders_summary' both "
            "map to the "
            "Dagster output name 'orders_summary'. Rename one of them."
        )
    ]


def test_checks_of_two_assets_may_not_map_to_one_output() -> None:
    assert problems_of("a, a_b", tests={"b_c": "a", "c": "a_b"}) == [
        (
            "checks of 'a_b': 'test.shop.c' and 'test.shop.b_c' both map to the Dagster "
            "output name "
            "'a_b_c'. Rename one of them."
        )
    ]


def test_quality_checks_of_one_name_are_refused() -> None:
    twice = QualityCheck("not-null", "x", {}), QualityCheck("not_null", "y", {})
    transforms = [Transform("a", "duck", quality_checks=twice)]
    assert problems_of("a", transforms=transforms, macros=["test_x", "test_y"]) == [
        (
            "checks of 'a': quality check 'not_null' of 'a' and quality check 'not-null' of "
            "'a' both "
            "map to the Dagster output name 'a_not_null'. Rename one of them."
        )
    ]


# --- packages and versions


def packaged(count: int, *, root: bool) -> ProductPlan:
    """Plan models named "a" in so many packages, beside one of the product's own or not."""
    change = {
        f"p{n}": {
            "name": "a",
            "package_name": f"pkg{n}",
            "meta": {"dagster": {"asset_key": [f"p{n}"]}},
        }
        for n in range(count)
    }
    return plan(", ".join([*change, *(["a"] if root else [])]), change=change, on={"a": "pg"})


def test_a_transform_means_the_products_own_node_before_a_packages() -> None:
    found = packaged(1, root=True)
    assert found.nodes[uid("a")].compute == "pg"
    assert found.nodes[uid("p0")].compute == "duck"
    assert found.warnings == ()


def test_a_transform_may_mean_a_packages_node() -> None:
    assert packaged(1, root=False).nodes[uid("p0")].compute == "pg"


def test_a_transform_that_two_packages_have_means_both_and_that_is_said() -> None:
    found = packaged(2, root=False)
    assert {found.nodes[uid(name)].compute for name in ("p0", "p1")} == {"pg"}
    assert found.warnings == (
        (
            "transforms.models[0].name: the dbt packages pkg0, pkg1 each have a 'a'. All are "
            "built on "
            "compute 'pg'."
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


def test_a_source_of_another_name_elsewhere_is_tested_at_home() -> None:
    elsewhere = {"pg": {"change": {"raw.t": {"relation_name": "pg.t"}}}}
    tested = plan("raw.t > a b", on={"b": "pg"}, tests={"t": "raw.t"}, per_target=elsewhere)
    assert tested.checks[uid("t", "test")].also_on == ()


def test_meta_dagster_ref_chooses_the_asset_of_a_test() -> None:
    def ref(**named: Any) -> dict[str, Any]:
        return {"t": {"reads": "a b", "config": {"meta": {"dagster": {"ref": named}}}}}

    assert plan("a, b", tests=ref(name="b")).checks[uid("t", "test")].on == uid("b")
    assert plan("a, b", tests=ref(name="b", package="shop")).checks[uid("t", "test")].on == uid("b")
    version = {"b": {"version": 2, "alias": "b_v2"}}
    found = plan("a, b", tests=ref(name="b", version=2), change=version)
    assert found.checks[uid("t", "test")].on == uid("b")
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


def test_a_test_that_reads_nothing_is_no_check_and_that_is_said() -> None:
    idle = plan("a", tests={"t": ""})
    assert not idle.checks
    assert idle.warnings == (
        (
            "dbt test 't' reads no model, seed, snapshot or source: it is no check of any "
            "asset and "
            "does not run. Give it a ref() or source()."
        ),
    )


def test_a_test_across_computes_can_run_wherever_all_it_reads_is_seen() -> None:
    both = {"tests": {"t": "a b"}, "on": {"b": "pg"}}
    check = plan("a > b", **both).checks[uid("t", "test")]
    assert (check.compute, check.also_on) == ("pg", ("duck",))
    elsewhere = {"duck": {"change": {"b": {"relation_name": "other.b"}}}}
    check = plan("a > b", **both, per_target=elsewhere).checks[uid("t", "test")]
    assert (check.compute, check.also_on) == ("pg", ())


def test_a_test_runs_only_where_it_is_enabled() -> None:
    off = {"pg": {"without": ["t"]}}
    check = plan("a > b", tests={"t": "a b"}, on={"b": "pg"}, per_target=off).checks
    assert check[uid("t", "test")].compute == "duck"
    lost = plan("a > b", tests={"t": "b"}, on={"b": "pg"}, per_target=off)
    assert not lost.checks
    assert lost.warnings == (
        (
            "dbt test 't' is disabled on every compute that has what it reads: it is no "
            "check and does "
            "not run."
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


def test_a_unit_test_of_an_ephemeral_does_not_run_and_that_is_said() -> None:
    idle = plan("e > a", kinds={"e": "ephemeral"}, unit_tests={"u": "e"})
    assert not idle.checks
    assert idle.warnings == (
        (
            "dbt unit test 'u' tests 'e', which is no asset: it does not run. Only models "
            "that are not "
            "ephemeral can carry checks."
        ),
    )


def test_a_unit_test_disabled_where_its_model_is_built_does_not_run_and_that_is_said() -> None:
    off = plan("a", on={"a": "pg"}, unit_tests={"u": "a"}, per_target={"pg": {"without": ["u"]}})
    assert off.warnings == (
        (
            "dbt unit test 'u' is disabled on compute 'pg', which builds 'a': it is no check "
            "and does "
            "not run."
        ),
    )


# --- quality checks


def checked(check: QualityCheck, **fields: Any) -> ProductPlan:
    transforms = [Transform("a", "duck", quality_checks=(check,))]
    return plan("a", transforms=transforms, **fields)


def test_a_quality_check_is_kept_where_dbt_has_no_test_of_that_meaning() -> None:
    unique = QualityCheck("u", "unique", {"column_name": "ID"})
    kept = checked(unique, macros=["test_unique"])
    assert kept.nodes[uid("a")].quality_checks == (unique,)
    test = {
        "reads": "a",
        "attached_node": "a",
        "test_metadata": {"name": "unique", "kwargs": {"column_name": "id", "model": "{{ a }}"}},
    }
    covered = checked(unique, macros=["test_unique"], tests={"t": test})
    assert covered.nodes[uid("a")].quality_checks == ()
    assert covered.warnings == ()


def test_a_quality_check_without_a_generic_test_is_said() -> None:
    idle = checked(QualityCheck("u", "pkg.unique", {}))
    assert idle.warnings == (
        (
            "quality check 'u' of 'a': dbt has no generic test 'pkg.unique', so it does not run. "
            "Install the dbt package that has it."
        ),
    )


def test_a_quality_check_of_an_ephemeral_is_said() -> None:
    idle = checked(
        QualityCheck("u", "unique", {}), kinds={"a": "ephemeral"}, macros=["test_unique"]
    )
    assert idle.warnings == (
        (
            "quality check 'u' of 'a': the model is ephemeral, so it carries no checks and "
            "this one "
            "does not run. Materialize it as a view or table."
        ),
    )


# --- sources that the product builds


def test_a_source_is_a_boundary_only_where_it_names_the_table_of_its_readers_target() -> None:
    there = {"pg": {"change": {"raw.s": {"relation_name": '"db"."main"."s"'}}}}
    fed = plan("s, raw.s > a b", kinds={"s": "seed"}, on={"b": "pg"}, per_target=there)
    assert fed.nodes[uid("a")].after == ()
    assert fed.nodes[uid("b")].after == ("seed.shop.s",)


def test_a_boundary_is_seen_through_ephemerals() -> None:
    fed = plan(
        "s, raw.s > e > a",
        kinds={"s": "seed", "e": "ephemeral"},
        change={"raw.s": {"relation_name": '"db"."main"."s"'}},
    )
    assert fed.nodes[uid("a")].after == ("seed.shop.s",)


def test_a_node_may_read_what_it_left_itself() -> None:
    own = plan("raw.a > a", change={"raw.a": {"relation_name": '"db"."main"."a"'}})
    assert own.nodes[uid("a")].after == ()


def test_a_node_may_read_what_a_node_below_left_and_that_is_said() -> None:
    loop = plan("raw.z > a > z", change={"raw.z": {"relation_name": '"db"."main"."z"'}})
    assert names(loop, loop.assets) == ["a", "z"]
    assert loop.warnings == (
        (
            "dbt model 'a' reads a source that is the table of 'z', which is built below it "
            "(a -> z -> a): it gets what the run before left there."
        ),
    )


def test_feedback_under_one_asset_key_is_refused() -> None:
    key = {"meta": {"dagster": {"asset_key": ["z"]}}}
    table = {"raw.z": {**key, "relation_name": '"db"."main"."z"'}}
    assert problems_of("raw.z > a > z", change=table) == [
        (
            "dbt model 'a': It reads a source that is the table of 'z', which is built below it "
            "(a -> z -> a), under one asset key ['z']: a cycle for Dagster. "
            "Set meta.dagster.asset_key on the source."
        )
    ]


# --- what else dbt says


def test_groups_and_exposures_are_kept() -> None:
    raw = b"""{
      "metadata": {"dbt_schema_version": "%s", "project_name": "shop"}, "nodes": {},
      "groups": {"group.shop.g": {"name": "g", "owner": {"email": ["a@x.io", "b@x.io"]}},
                 "group.shop.h": {"name": "h", "owner": {"name": "H"}}},
      "exposures": {"exposure.shop.dash": {"unique_id": "exposure.shop.dash", "name": "dash",
                    "depends_on": {"nodes": ["model.shop.a"]}}}
    }""" % SCHEMA.encode()
    found = plan_product(product(), DUCK, {"duck": decode_manifest(raw)})
    assert found.owners_of_group == {"g": ("a@x.io", "b@x.io")}
    assert found.exposures == {"dash": ("model.shop.a",)}
    assert found.project_name == "shop"


def test_a_plan_can_be_asked_for_targets_and_functions() -> None:
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
