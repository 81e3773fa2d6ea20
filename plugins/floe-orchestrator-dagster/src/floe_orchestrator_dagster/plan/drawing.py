"""Draws a plan as an SVG picture: the graph, with the compute of each node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from floe_orchestrator_dagster.plan import Node, ProductPlan

BOX_WIDTH, BOX_HEIGHT = 220, 40
GAP_X, GAP_Y = 90, 14
MARGIN, HEADER = 24, 64
LEGEND_ITEM = 200
LABEL_CHARS = 30
# The longest column has this many rows, or twice the square root of the number of nodes if that is
# more. So the picture of a large product grows in both directions.
MIN_ROWS = 40
SWEEPS = 4
# The colors of Okabe and Ito, which color-blind readers can distinguish on light and dark ground.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a900", "#7f7fbf")
SOURCE_COLOR = "#8a8f98"
# XML 1.0 cannot contain these characters, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_STYLE = """
text { font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.ground { fill: #ffffff; }
.title { font-size: 18px; font-weight: 600; }
.name { font-size: 13px; font-weight: 600; }
.note { font-size: 11px; fill: #59636e; }
.edge { fill: none; stroke: #8a8f98; stroke-width: 1.2; stroke-opacity: 0.7; }
.late { stroke-dasharray: 5 4; }
.source { stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ground { fill: #0d1117; }
  .note { fill: #9198a1; }
}
""".strip()


@dataclass(frozen=True, slots=True)
class _Place:
    """The upper left corner of the box of a node."""

    x: int
    y: int


def draw(plan: ProductPlan) -> str:
    """Return the plan as an SVG document: sources and assets, left to right by depth."""
    parents = _parents(plan)
    places = _layout(parents)
    colors = {
        name: COLORS[position % len(COLORS)] for position, name in enumerate(sorted(plan.computes))
    }
    right = max((place.x for place in places.values()), default=0) + BOX_WIDTH + MARGIN
    bottom = max((place.y for place in places.values()), default=HEADER) + BOX_HEIGHT + MARGIN
    legend = [*_legend(plan, colors)]
    width = max(right, MARGIN + LEGEND_ITEM * len(legend), 480)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom}" '
            f'viewBox="0 0 {width} {bottom}" role="img">'
        ),
        f"<title>{_text(f'Data product {plan.name}')}</title>",
        f"<style>{_STYLE}</style>",
        (
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#8a8f98"/></marker>'
            "</defs>"
        ),
        f'<rect class="ground" width="{width}" height="{bottom}" fill="#ffffff"/>',
        f'<text class="title" x="{MARGIN}" y="30">{_text(plan.name)}</text>',
        *legend,
        *_edges(plan, parents, places),
    ]
    for uid, place in places.items():
        lines += _box(plan, uid, place, colors)
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _parents(plan: ProductPlan) -> dict[str, tuple[str, ...]]:
    """Return the parents of each drawn node; the order of ids makes pictures comparable."""
    drawn = dict.fromkeys(sorted((*plan.sources, *plan.assets)))
    return {
        uid: tuple(
            parent
            for parent in dict.fromkeys((*plan.folded_parents[uid], *plan.nodes[uid].after))
            if parent in drawn and parent != uid
        )
        for uid in drawn
    }


def _layout(parents: Mapping[str, Sequence[str]]) -> dict[str, _Place]:
    """Return the place of each node: columns by depth, rows near the parents' rows."""
    depth: dict[str, int] = {}
    for uid in _ordered(parents):
        depth[uid] = max((depth[parent] + 1 for parent in parents[uid]), default=0)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for uid in sorted(parents):
        layers[depth[uid]].append(uid)
    _untangle(layers, parents)
    rows = max(MIN_ROWS, 2 * isqrt(len(parents)))
    tallest = min(rows, max((len(layer) for layer in layers), default=0))
    places: dict[str, _Place] = {}
    x = MARGIN
    for layer in layers:
        for start in range(0, len(layer), rows):
            column = layer[start : start + rows]
            top = HEADER + MARGIN + (tallest - len(column)) * (BOX_HEIGHT + GAP_Y) // 2
            for row, uid in enumerate(column):
                places[uid] = _Place(x, top + row * (BOX_HEIGHT + GAP_Y))
            x += BOX_WIDTH + GAP_X
    return places


def _ordered(parents: Mapping[str, Sequence[str]]) -> Iterator[str]:
    from graphlib import TopologicalSorter

    yield from TopologicalSorter(parents).static_order()


def _untangle(layers: list[list[str]], parents: Mapping[str, Sequence[str]]) -> None:
    """Order each layer by the mean position of its neighbors, downward and upward in turns."""
    children: dict[str, list[str]] = {uid: [] for uid in parents}
    for uid, above in parents.items():
        for parent in above:
            children[parent].append(uid)
    position: dict[str, float] = {}
    for layer in layers:
        position.update(_spread(layer))
    for sweep in range(SWEEPS):
        neighbors: Mapping[str, Sequence[str]] = children if sweep % 2 else parents
        for layer in reversed(layers) if sweep % 2 else layers:
            weight = {uid: _mean(uid, neighbors, position) for uid in layer}
            layer.sort(key=lambda uid, weight=weight: (weight[uid], uid))  # type: ignore[misc]
            position.update(_spread(layer))


def _spread(layer: Sequence[str]) -> dict[str, float]:
    return {uid: (row + 0.5) / len(layer) for row, uid in enumerate(layer)}


def _mean(uid: str, neighbors: Mapping[str, Sequence[str]], position: Mapping[str, float]) -> float:
    near = neighbors[uid]
    return sum(position[other] for other in near) / len(near) if near else position[uid]


def _legend(plan: ProductPlan, colors: Mapping[str, str]) -> Iterator[str]:
    counts = dict.fromkeys(colors, 0)
    for node in plan.assets.values():
        counts[node.compute] = counts.get(node.compute, 0) + 1
    entries = [
        (f"{name} ({plan.computes[name].adapter}): {counts[name]}", color, "")
        for name, color in colors.items()
    ]
    if plan.sources:
        entries.append((f"sources: {len(plan.sources)}", SOURCE_COLOR, "source"))
    for number, (label, color, extra) in enumerate(entries):
        x = MARGIN + number * LEGEND_ITEM
        yield (
            f'<g><rect class="{extra}" x="{x}" y="44" width="14" height="14" rx="3" '
            f'fill="{color}" fill-opacity="0.18" stroke="{color}" stroke-width="2"/>'
            f'<text class="note" x="{x + 20}" y="55">{_text(_short(label))}</text></g>'
        )


def _edges(
    plan: ProductPlan, parents: Mapping[str, Sequence[str]], places: Mapping[str, _Place]
) -> Iterator[str]:
    for uid, above in parents.items():
        end = places[uid]
        late = set(plan.nodes[uid].after)
        for parent in above:
            start = places[parent]
            x1, y1 = start.x + BOX_WIDTH, start.y + BOX_HEIGHT // 2
            x2, y2 = end.x, end.y + BOX_HEIGHT // 2
            bend = max(GAP_X // 2, (x2 - x1) // 2)
            kind = "edge late" if parent in late else "edge"
            yield (
                f'<path class="{kind}" marker-end="url(#arrow)" fill="none" stroke="#8a8f98" '
                f'd="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"/>'
            )


def _box(plan: ProductPlan, uid: str, place: _Place, colors: Mapping[str, str]) -> tuple[str, ...]:
    node = plan.nodes[uid]
    color = colors.get(node.compute, SOURCE_COLOR) if node.kind != "source" else SOURCE_COLOR
    extra = "source" if node.kind == "source" else ""
    note = _note(node, len(plan.checks_on.get(uid, ())))
    on = f" on {node.compute}" if node.kind != "source" else ""
    return (
        f"<g id={_attribute(uid)}><title>{_text(f'{uid}{on}: {note}')}</title>",
        # The box is opaque, so that a long edge does not cross its text.
        (
            f'<rect class="ground" x="{place.x}" y="{place.y}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="6" fill="#ffffff"/>'
        ),
        (
            f'<rect class="{extra}" x="{place.x}" y="{place.y}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="6" fill="{color}" fill-opacity="0.18" stroke="{color}" '
            'stroke-width="2"/>'
        ),
        (
            f'<text class="name" x="{place.x + 10}" y="{place.y + 17}">'
            f"{_text(_short(node.name or uid))}</text>"
        ),
        f'<text class="note" x="{place.x + 10}" y="{place.y + 32}">{_text(note)}</text></g>',
    )


def _note(node: Node, tests: int) -> str:
    parts: list[str] = [node.kind]
    if node.kind == "model" and node.materialized:
        parts.append(node.materialized)
    if tests:
        parts.append(f"{tests} test{'s' if tests != 1 else ''}")
    return " · ".join(parts)


def _short(label: str) -> str:
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…"


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value))


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value))
