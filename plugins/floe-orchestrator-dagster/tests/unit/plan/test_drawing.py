"""Pictures of plans are well-formed and complete, with any names."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from floe_orchestrator_dagster.plan import Compute, Node, ProductPlan
from floe_orchestrator_dagster.plan.drawing import COLORS, MIN_ROWS, draw

SVG = "{http://www.w3.org/2000/svg}"
DUCK, PG = Compute("duck", "dev", "duckdb"), Compute("pg", "pg", "postgres")


def model(name: str, *parents: str, **more: Any) -> Node:
    uids = tuple(parent if "." in parent else f"model.p.{parent}" for parent in parents)
    settings: dict[str, Any] = {"compute": "duck", "key": (name,), **more}
    return Node(f"model.p.{name}", parents=uids, name=name, **settings)


def plan(*nodes: Node) -> ProductPlan:
    by_id = {node.unique_id: node for node in nodes}
    return ProductPlan("shop", by_id, {"duck": DUCK, "pg": PG}, "duck")


def tree(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def boxes(svg: str) -> dict[str, ET.Element]:
    root = tree(svg)
    return {group.attrib["id"]: group for group in root.iter(f"{SVG}g") if "id" in group.attrib}


def edges(svg: str) -> list[ET.Element]:
    return [
        path
        for path in tree(svg).iter(f"{SVG}path")
        if path.attrib.get("class", "").startswith("edge")
    ]


def left(box: ET.Element) -> int:
    return int(box.findall(f"{SVG}rect")[0].attrib["x"])


def test_every_asset_and_source_has_a_box_and_every_edge_a_line() -> None:
    source = Node("source.p.raw.t", "source", name="t", key=("raw", "t"))
    svg = draw(plan(source, model("a", "source.p.raw.t"), model("b", "a"), model("c", "a", "b")))
    assert set(boxes(svg)) == {"source.p.raw.t", "model.p.a", "model.p.b", "model.p.c"}
    assert len(edges(svg)) == 4


def test_a_node_is_to_the_right_of_its_parents() -> None:
    drawn = boxes(draw(plan(model("c", "a", "b"), model("b", "a"), model("a"))))
    assert left(drawn["model.p.a"]) < left(drawn["model.p.b"]) < left(drawn["model.p.c"])


def test_an_ephemeral_is_folded_into_its_readers() -> None:
    hidden = model("e", "a", kind="ephemeral", compute="")
    svg = draw(plan(model("a"), hidden, model("b", "e")))
    assert set(boxes(svg)) == {"model.p.a", "model.p.b"}
    assert len(edges(svg)) == 1


def test_each_compute_has_its_color_and_its_line_in_the_legend() -> None:
    svg = draw(plan(model("a"), model("b", "a", compute="pg")))
    drawn = boxes(svg)
    color = {uid: box.findall(f"{SVG}rect")[1].attrib["stroke"] for uid, box in drawn.items()}
    assert color == {"model.p.a": COLORS[0], "model.p.b": COLORS[1]}
    words = ["".join(text.itertext()) for text in tree(svg).iter(f"{SVG}text")]
    assert {"duck (duckdb): 1", "pg (postgres): 1"} <= set(words)


def test_a_boundary_edge_is_dashed() -> None:
    svg = draw(plan(model("a"), model("b", after=("model.p.a",))))
    assert [edge.attrib["class"] for edge in edges(svg)] == ["edge late"]


@pytest.mark.parametrize("name", ['<b>&"quotes"', "control\x00\x1b[31m", "ü\ud800", "x" * 500])
def test_any_name_gives_well_formed_xml(name: str) -> None:
    svg = draw(plan(model(name)))
    assert len(boxes(svg)) == 1
    svg.encode()


def test_a_long_name_is_cut_but_complete_in_the_tooltip() -> None:
    [box] = boxes(draw(plan(model("n" * 80)))).values()
    assert box.findtext(f"{SVG}title", "").startswith("model.p." + "n" * 80 + " on duck: model")
    assert box.findtext(f"{SVG}text") == "n" * 29 + "…"


def test_tests_and_quality_checks_are_counted() -> None:
    test = Node("test.p.t", "test", "duck", ("model.p.a",), name="t", on="model.p.a")
    check = Node("quality_check.p.a.q", "quality_check", "duck", ("model.p.a",), on="model.p.a")
    [box] = boxes(draw(plan(model("a", materialized="table"), test, check))).values()
    assert box.findall(f"{SVG}text")[1].text == "model · table · 2 tests"


def test_a_layer_of_thousands_is_spread_over_columns() -> None:
    svg = draw(plan(*(model(f"m{number}") for number in range(3000))))
    drawn = boxes(svg)
    assert len(drawn) == 3000
    columns = [left(box) for box in drawn.values()]
    assert max(columns.count(x) for x in set(columns)) <= max(MIN_ROWS, 2 * 54)


def test_the_picture_of_an_empty_product_has_its_name() -> None:
    root = tree(draw(plan()))
    assert root.findtext(f"{SVG}title") == "Data product shop"


def test_the_same_plan_gives_the_same_picture_on_light_and_dark_ground() -> None:
    nodes = [model("a"), model("b", "a"), model("c", "a")]
    svg = draw(plan(*nodes))
    assert svg == draw(plan(*reversed(nodes)))
    assert re.search(r"@media \(prefers-color-scheme: dark\)", svg)
