"""Names in Dagster are unique and permanent, on random products with many equal names."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from floe_orchestrator_dagster.plan import ProductPlan
from kit.plans import plan

NAMES = ["a", "A", "a_b", "a-b", "ä_b", "type", "a b"]
PACKAGES = ["shop", "shop", "lib", "kit"]
many = settings(max_examples=150, derandomize=True, deadline=None, database=None)

models = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from(PACKAGES), st.sampled_from([None, "lib", "k"])
    ),
    min_size=1,
    max_size=6,
)
sources = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(PACKAGES), st.sampled_from("tu")), max_size=4
)
tests = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(PACKAGES), st.integers(0, 9)), max_size=8
)


def planned(
    models: list[Any], sources: list[Any], tests: list[Any], *, without: int | None = None
) -> ProductPlan:
    change: dict[str, dict[str, Any]] = {}
    for number, (name, package, schema) in enumerate(models):
        fields = {"name": name, "package_name": package, "config": {"schema": schema}}
        change[f"m{number}"] = fields
    for number, (name, package, table) in enumerate(sources):
        fields = {"name": name, "package_name": package, "source_name": "raw"}
        change[f"raw.s{number}"] = {**fields, "relation_name": f"db.raw.{table}"}
    read = [*change]
    checks = {
        f"t{number}": {"reads": read[at % len(read)], "name": name, "package_name": package}
        for number, (name, package, at) in enumerate(tests)
        if number != without
    }
    return plan(", ".join(change), change=change, tests=checks)


def check_names(product_plan: ProductPlan) -> dict[str, tuple[Any, str]]:
    return {
        uid: (product_plan.nodes[one.on].key, one.name) for uid, one in product_plan.checks.items()
    }


@given(models, sources, tests)
@many
def test_every_asset_and_every_check_has_a_unique_name(
    models: list[Any], sources: list[Any], tests: list[Any]
) -> None:
    product_plan = planned(models, sources, tests)
    assert (len(product_plan.assets), len(product_plan.checks)) == (len(models), len(tests))
    keys = [node.key for node in product_plan.assets.values()]
    assert len({*keys}) == len(keys)
    tables: dict[Any, set[str | None]] = {}
    for node in product_plan.sources.values():
        tables.setdefault(node.key, set()).add(node.relation)
    # Each key of a source is one table, and not the key of an asset.
    assert all(len(relations) == 1 for relations in tables.values())
    assert tables.keys().isdisjoint(keys)
    names = [*check_names(product_plan).values()]
    assert len({*names}) == len(names)
    assert all(name.isascii() and name.replace("_", "x").isalnum() for _, name in names)


@given(models, sources, tests.filter(bool), st.integers(0, 7))
@many
def test_a_check_with_a_mark_keeps_it_when_other_checks_are_added(
    models: list[Any], sources: list[Any], tests: list[Any], at: int
) -> None:
    before = check_names(planned(models, sources, tests, without=at % len(tests)))
    after = check_names(planned(models, sources, tests))
    marks = {uid: name for uid, (_, name) in before.items() if name.rpartition("_")[2].isalnum()}
    for uid, name in marks.items():
        if len(name.rpartition("_")[2]) == 8:
            assert after[uid][1] == name
