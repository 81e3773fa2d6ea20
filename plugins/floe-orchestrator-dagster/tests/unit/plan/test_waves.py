"""Waves are few dbt builds in a valid order, for any selection."""

from __future__ import annotations

from collections.abc import Iterable

from floe_orchestrator_dagster.plan import (
    Compute,
    ProductPlan,
    QualityCheck,
    Transform,
    Wave,
    blocked_by_check,
    downstream,
    plan_product,
    read_by_check,
    segments,
    waves,
)
from kit.plans import manifest, plan, product, sentences, uid, waves_of

CHAIN = {"a": "duck", "b": "pg", "c": "duck", "d": "pg"}


def names(planned: ProductPlan, uids: Iterable[str]) -> str:
    return " ".join(sorted(planned.nodes[one].name for one in uids))


def test_one_compute_needs_one_build() -> None:
    assert waves_of(plan("a > b > c, a > d")) == ["duck: a b d c"]


def test_an_empty_selection_needs_no_build() -> None:
    assert waves(plan("a > b"), []) == ()
    assert waves(plan(""), []) == ()


def test_an_alternating_chain_needs_one_build_per_turn() -> None:
    chain = plan("a > b > c > d", on=CHAIN)
    assert waves_of(chain) == ["duck: a", "pg: b", "duck: c", "pg: d"]


def test_the_order_respects_nodes_that_are_not_selected() -> None:
    chain = plan("a > b > c > d", on=CHAIN)
    assert waves_of(chain, "a d") == ["duck: a", "pg: d"]
    assert waves_of(chain, "a c") == ["duck: a c"]
    assert waves_of(chain, "d") == ["pg: d"]


def test_a_build_contains_everything_that_it_can_reach() -> None:
    two = plan("a > b > c, x > y", on={"b": "pg", "x": "duck", "y": "pg"})
    assert waves_of(two) == ["duck: a x", "pg: b y", "duck: c"]


def test_the_better_compute_goes_first() -> None:
    assert waves_of(plan("b > a", on={"a": "duck", "b": "pg"})) == ["pg: b", "duck: a"]
    late = plan("a > b > c, x > y", on={"a": "pg", "b": "duck", "c": "pg", "x": "pg", "y": "duck"})
    assert waves_of(late) == ["pg: a x", "duck: b y", "pg: c"]


def test_three_computes_share_builds() -> None:
    three = plan(
        "a > b > c, d > e > f",
        on={"a": "x", "b": "y", "c": "duck", "d": "y", "e": "x", "f": "duck"},
    )
    assert len(waves_of(three)) == 4


def test_two_computes_of_one_target_share_one_build() -> None:
    computes = {name: Compute(name, "dev", "duckdb") for name in ("duck", "other")}
    one = plan_product(
        product(Transform("a", "duck"), Transform("b", "other"), Transform("c", "duck")),
        computes,
        {"dev": manifest("a > b > c")},
    )
    assert waves_of(one) == ["duck: a b c"]


def test_the_reader_of_a_source_waits_for_the_seed_that_builds_it() -> None:
    fed = plan(
        "s, raw.s > a > b",
        kinds={"s": "seed"},
        change={"raw.s": {"relation_name": "DB.main.s"}},
    )
    assert waves_of(fed) == ["duck: s", "duck: a b"]
    assert waves_of(fed, "a b") == ["duck: a b"]
    assert waves_of(fed, "s b") == ["duck: s", "duck: b"]


def test_the_order_respects_a_boundary_behind_an_unselected_builder() -> None:
    fed = plan(
        "s > t, raw.t > a",
        kinds={"s": "seed"},
        change={"raw.t": {"relation_name": '"db"."main"."t"'}},
    )
    assert waves_of(fed, "s a") == ["duck: s", "duck: a"]


def test_the_order_respects_a_boundary_behind_an_unselected_reader() -> None:
    fed = plan(
        "x, raw.x > y, raw.y > z",
        change={
            name: {"relation_name": f'"db"."main"."{name[-1]}"'} for name in ("raw.x", "raw.y")
        },
    )
    assert waves_of(fed) == ["duck: x", "duck: y", "duck: z"]
    assert waves_of(fed, "x z") == ["duck: x", "duck: z"]


def test_the_reader_of_a_source_is_after_its_builder_with_any_names() -> None:
    # dbt has no edge between the two nodes, and its own order would start with "a".
    fed = plan("raw.z > a, z", change={"raw.z": {"relation_name": '"db"."main"."z"'}})
    assert waves_of(fed) == ["duck: z", "duck: a"]
    assert [*fed.assets] == [uid("z"), uid("a")]


def test_a_check_runs_in_the_wave_that_builds_its_parents() -> None:
    chain = plan("a > b > c > d", on=CHAIN, tests={"ta": "a", "tb": "b", "tc": "c", "tcc": "c"})
    assert waves_of(chain) == ["duck: a (ta)", "pg: b (tb)", "duck: c (tc tcc)", "pg: d"]


def test_a_check_with_several_parents_runs_once_with_the_last_of_them() -> None:
    chain = plan("a > b > c > d", on=CHAIN, tests={"rel": "d a", "early": "a b"})
    assert waves_of(chain) == ["duck: a", "pg: b (early)", "duck: c", "pg: d (rel)"]


def test_a_check_of_unselected_nodes_is_a_separate_build() -> None:
    chain = plan("a > b", on={"b": "pg"}, tests={"ta": "a", "tb": "b"})
    assert waves_of(chain, "", "tb") == ["pg:  (tb)"]
    assert waves_of(chain, "", "ta tb") == ["duck:  (ta)", "pg:  (tb)"]
    assert waves_of(chain, "a", "tb") == ["duck: a", "pg:  (tb)"]


def test_a_check_waits_for_selected_ancestors_of_its_parents() -> None:
    # b may be a view, so its content depends on a.
    chain = plan("a > b > c", on={"c": "pg"}, tests={"tc": "c"})
    assert waves_of(chain, "a") == ["duck: a", "pg:  (tc)"]


def test_a_check_that_only_one_compute_can_run_affects_the_order() -> None:
    elsewhere = {"a": {"relation_name": '"db"."other"."a"'}}
    odd = plan(
        "a, b",
        on={"a": "duck", "b": "pg"},
        tests={"both": "a b"},
        per_target={"pg": {"change": elsewhere}},
    )
    assert odd.checks[uid("both", "test")].also_on == ()
    assert waves_of(odd) == ["pg: b", "duck: a (both)"]


def test_a_check_of_a_source_runs_with_any_build_on_its_target() -> None:
    read = plan("raw.x > a > b", on={"b": "pg"}, tests={"fresh": "raw.x"})
    assert waves_of(read) == ["duck: a (fresh)", "pg: b"]
    assert waves_of(read, "b") == ["duck:  (fresh)", "pg: b"]


def test_a_check_of_a_source_waits_for_the_seed_that_builds_it() -> None:
    fed = plan(
        "s, raw.s > a",
        kinds={"s": "seed"},
        change={"raw.s": {"relation_name": '"db"."main"."s"'}},
        tests={"fresh": "raw.s"},
    )
    assert waves_of(fed) == ["duck: s", "duck: a (fresh)"]
    assert waves_of(fed, "s") == ["duck: s", "duck:  (fresh)"]


def test_a_unit_test_runs_with_its_model() -> None:
    chain = plan("a > b", on={"b": "pg"}, unit_tests={"ub": "b"})
    assert waves_of(chain) == ["duck: a", "pg: b (ub)"]
    assert waves_of(chain, "a") == ["duck: a", "pg:  (ub)"]


def test_a_unit_test_of_an_ephemeral_runs_before_its_readers_and_stops_them() -> None:
    planned = plan(
        "a > e > f > b > c, d", kinds={"e": "ephemeral", "f": "ephemeral"}, unit_tests={"u": "e"}
    )
    assert waves_of(planned) == ["duck: a d", "duck:  (u)", "duck: b c"]
    assert waves_of(planned, "a") == ["duck: a", "duck:  (u)"]
    assert waves_of(planned, checks="") == ["duck: a d b c"]
    assert sentences(planned, segments(planned)) == ["duck: a d", "duck: b c (u)"]
    unused = plan("a > e", kinds={"e": "ephemeral"}, unit_tests={"u": "e"})
    assert sentences(unused, segments(unused)) == ["duck: a", "duck:  (u)"]
    stopped = blocked_by_check(planned, "unit_test.shop.e.u")
    assert stopped == {uid("b"), uid("c")}


def test_a_test_without_parents_runs_after_all_builds() -> None:
    planned = plan("a > b > c", on={"b": "pg"}, tests={"t": ""})
    assert waves_of(planned) == ["duck: a", "pg: b", "duck: c (t)"]
    ends_elsewhere = plan("a > b", on={"b": "pg"}, tests={"t": ""})
    assert waves_of(ends_elsewhere) == ["duck: a", "pg: b", "duck:  (t)"]


def test_ephemerals_are_not_part_of_a_wave() -> None:
    folded = plan("a > e > b", kinds={"e": "ephemeral"}, on={"b": "pg"})
    assert waves_of(folded) == ["duck: a", "pg: b"]


def test_a_function_is_built_once_on_each_target_that_calls_it() -> None:
    called = plan(
        "f > a > b, f > b, a > c, f > c",
        kinds={"f": "function"},
        on={"b": "pg"},
    )
    assert waves_of(called) == ["duck: f a c", "pg: f b"]
    assert waves_of(called, "b") == ["pg: f b"]


def test_a_function_that_only_a_check_calls_is_built_for_this_check() -> None:
    called = plan("f, a", kinds={"f": "function"}, tests={"t": "f a"})
    assert waves_of(called) == ["duck: f a (t)"]


def test_the_parents_of_a_function_are_built_before_its_callers() -> None:
    called = plan("a > f > b", kinds={"f": "function"}, on={"a": "pg"})
    assert called.folded_parents[uid("b")] == (uid("a"),)
    assert waves_of(called) == ["pg: a", "duck: f b"]


def test_a_wave_names_the_default_compute_of_its_target() -> None:
    [wave] = waves(plan("a"), [uid("a")])
    assert wave == Wave(Compute("duck", "duck", "duckdb"), (uid("a"),))


def test_downstream_is_everything_below() -> None:
    tree = plan("a > b > c, a > e > d, x", kinds={"e": "ephemeral"})
    assert names(tree, downstream(tree, [uid("a")])) == "b c d"
    assert names(tree, downstream(tree, [uid("a"), uid("b")])) == "b c d"
    assert downstream(tree, [uid("x")]) == set()
    assert downstream(tree, ["model.shop.unknown"]) == set()


def test_downstream_includes_the_readers_of_a_source_that_the_product_builds() -> None:
    fed = plan(
        "s, raw.s > a > b",
        kinds={"s": "seed"},
        change={"raw.s": {"relation_name": '"db"."main"."s"'}},
    )
    assert names(fed, downstream(fed, [uid("s", "seed")])) == "a b"


def test_a_failed_check_stops_nodes_below_all_its_parents() -> None:
    tree = plan("a > c, b > c, b > d, c > x", tests={"ta": "a", "tb": "b", "both": "a b"})
    assert names(tree, blocked_by_check(tree, uid("ta", "test"))) == "c x"
    assert names(tree, blocked_by_check(tree, uid("tb", "test"))) == "c d x"
    assert names(tree, blocked_by_check(tree, uid("both", "test"))) == "c x"


def test_a_failed_relationship_along_a_chain_stops_nodes_below_the_lower_parent() -> None:
    chain = plan("a > b > c", tests={"rel": "a b"})
    assert names(chain, blocked_by_check(chain, uid("rel", "test"))) == "c"


def test_a_failed_check_stops_nodes_below_with_any_planned_severity() -> None:
    promoted = plan("a > b", tests={"ta": {"reads": "a", "config": {"severity": "WARN"}}})
    assert blocked_by_check(promoted, uid("ta", "test")) == {uid("b")}


def test_a_failed_check_of_a_source_stops_its_readers() -> None:
    read = plan("raw.x > a > b, c", tests={"fresh": "raw.x"})
    assert names(read, blocked_by_check(read, uid("fresh", "test"))) == "a b"


def test_a_failed_check_of_an_ephemeral_stops_only_the_nodes_below_it() -> None:
    folded = plan("a > e > b, a > c", kinds={"e": "ephemeral"}, tests={"te": "e"})
    assert names(folded, blocked_by_check(folded, uid("te", "test"))) == "b"


def test_a_failed_unit_test_also_stops_its_model() -> None:
    chain = plan("a > b > c", unit_tests={"ub": "b"})
    assert names(chain, blocked_by_check(chain, "unit_test.shop.b.ub")) == "b c"


def test_a_large_product_is_ordered_quickly() -> None:
    layers = [" ".join(f"m{layer}_{i}" for i in range(20)) for layer in range(50)]
    on = {f"m{layer}_{i}": ("duck", "pg")[layer // 5 % 2] for layer in range(50) for i in range(20)}
    large = plan(" > ".join(layers), on=on, tests={f"t_{name}": name for name in on})
    assert large.assets
    assert len(waves_of(large)) == 10


def test_a_quality_check_is_in_the_wave_of_its_model_but_not_in_its_dbt_command() -> None:
    check = QualityCheck("few", "x", {})
    transforms = [
        Transform("a", "duck", quality_checks=(check,)),
        Transform("b", "pg", quality_checks=(check,)),
    ]
    planned = plan("a > b", transforms=transforms, tests={"t": "a"}, macros=["test_x"])
    on_a, on_b = planned.quality_checks
    first, second = waves(planned, [*planned.assets], [*planned.checks])
    assert (first.checks, first.quality_checks) == ((uid("t", "test"),), (on_a,))
    assert (second.checks, second.quality_checks) == ((), (on_b,))
    assert [wave.quality_checks for wave in segments(planned)] == [(on_a,), (on_b,)]
    assert waves(planned, [], [on_a]) == ()
    [alone] = waves(planned, [uid("b")], [on_a, on_b])
    assert alone.quality_checks == (on_b,)


def test_a_quality_check_reads_its_model_and_stops_nothing() -> None:
    transforms = [Transform("a", "duck", quality_checks=(QualityCheck("few", "x", {}),))]
    planned = plan("a > b", transforms=transforms, macros=["test_x"])
    [check] = planned.quality_checks
    assert read_by_check(planned, check) == (uid("a"),)
    assert blocked_by_check(planned, check) == set()
