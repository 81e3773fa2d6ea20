"""Writes the generated documents: `make docs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from floors import FLOORS, ROOT, SOURCE, Room, modules, rooms

README = ROOT / "README.md"
PACKAGE_README = ROOT / "plugins" / "floe-orchestrator-dagster" / "README.md"
DOCS = ROOT / "docs" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DECISIONS = ROOT / "docs" / "decisions" / "README.md"
PICTURE = ROOT / "docs" / "architecture.svg"

# What a newcomer looks for, with the names of the code that does it. The script looks up the files.
# Prefix a name with its room where two rooms define it.
QUESTIONS = {
    "find the dbt project and the artifacts": ("find_project", "find_product"),
    "define where a product's files are": ("Layout",),
    "open a product: read, parse and plan it": ("open_product",),
    "decide whether dbt's manifest is stale": ("fingerprint",),
    "choose the compute of a node": ("Placer",),
    "order the dbt runs": ("waves",),
    "reject a product before it runs": ("plan_product", "preflight"),
    "name an asset or a check in Dagster": ("asset_path", "dagster_name"),
    "compute a code version": ("version_of",),
    "build an asset spec": ("Specs",),
    "build jobs, schedules and sensors": ("build_definitions",),
    "read a launch: selection, config, partitions": ("launch_of",),
    "pass a partition's window to dbt": ("_window", "_window_variables", "DbtCommand.arguments"),
    "start, watch and stop dbt": ("run_dbt", "DbtRun"),
    "read a dbt event": ("EventReader",),
    "decide whether a dbt status is a failure": ("is_failure",),
    "decide whether to retry a node": ("Outcome.settle", "StepBuild._try"),
    "build the Dagster events of a run": ("Yields",),
    "resume a run from failure": ("remainder", "find_retry"),
    "mask a secret": ("Scrubber",),
    "name a dataset": ("dataset_name", "lineage/stores.py/postgres"),
    "trace columns through SQL": ("lineage/columns.py/column_lineage",),
    "keep a lineage event until its backend accepts it": ("SpooledDelivery",),
    "check the plugin's configuration": ("PluginConfig",),
    "build Helm values": ("deploy/helm_values", "official_values"),
    "query the webserver for its state": ("ask_webserver",),
    "define the error classes": ("FloeDagsterError", "Problem"),
    "add advice to a failure of dbt": ("advised",),
}
BOX_WIDTH, LINE, GAP, MARGIN, FLOOR_GAP, HEAD = 252, 15, 22, 28, 46, 30
WRAP = 36
HEAD_OF_ARROW = """
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"
orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#0072b2"/></marker></defs>
""".strip()
STYLE = """
text { font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.ground { fill: #ffffff; }
.room { fill: #f6f8fa; stroke: #8a8f98; }
.name { font-size: 14px; font-weight: 600; }
.note { font-size: 11px; fill: #59636e; }
.on { font-size: 11px; fill: #0072b2; }
.arrow { fill: none; stroke: #0072b2; stroke-opacity: 0.45; stroke-width: 1.3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ground { fill: #0d1117; }
  .room { fill: #161b22; }
  .note { fill: #9198a1; }
  .on { fill: #56b4e9; }
  .arrow { stroke: #56b4e9; }
}
""".strip()


def wrapped(words: tuple[str, ...]) -> list[str]:
    """Return words in lines that fit into a box, or no lines if "on" is the only word."""
    if words == ("on",):
        return []
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 1 > WRAP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line]


def direct(house: Mapping[str, Room]) -> dict[str, set[str]]:
    """Return the imports of each room, without those that it reaches through another room."""
    reached: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in reached:
            reached[name] = {below for used in house[name].uses for below in {used, *reach(used)}}
        return reached[name]

    return {
        name: {one for one in room.uses if not any(one in reach(via) for via in room.uses)}
        for name, room in house.items()
    }


def picture() -> str:
    """Draw the rooms by floor, with an arrow from each room to the rooms that it imports."""
    house, floors = rooms(), [sorted(floor) for floor in reversed(FLOORS)]
    below = direct(house)
    width = max(len(floor) for floor in floors) * (BOX_WIDTH + GAP) + MARGIN * 2 - GAP
    boxes, places, y = [], {}, MARGIN
    for floor in floors:
        lines = {
            name: [
                *(("note", line) for line in wrapped(house[name].modules)),
                *(("on", line) for line in wrapped(("on", *sorted(below[name])))),
            ]
            for name in floor
        }
        height = HEAD + max(len(each) for each in lines.values()) * LINE
        x = (width - len(floor) * (BOX_WIDTH + GAP) + GAP) // 2
        for name in floor:
            places[name] = (x + BOX_WIDTH // 2, y, y + height)
            boxes += [
                f"<g><title>{escape(house[name].sentence)}</title>",
                f'<rect class="room" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{height}"/>',
                f'<text class="name" x="{x + 12}" y="{y + 20}">{escape(name)}</text>',
                *(
                    f'<text class="{kind}" x="{x + 12}" y="{y + 37 + number * LINE}">'
                    f"{escape(line)}</text>"
                    for number, (kind, line) in enumerate(lines[name])
                ),
                "</g>",
            ]
            x += BOX_WIDTH + GAP
        y += height + FLOOR_GAP
    arrows = []
    for name in sorted(below):
        for used in sorted(below[name]):
            (x1, _, y1), (x2, y2, _) = places[name], places[used]
            bend = (y2 - y1) // 2
            arrows.append(
                f'<path class="arrow" marker-end="url(#head)" '
                f'd="M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}">'
                f"<title>{name} imports {used}</title></path>"
            )
    height = y - FLOOR_GAP + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>The rooms of floe_orchestrator_dagster and their imports</title>",
            f"<style>\n{STYLE}\n</style>",
            HEAD_OF_ARROW,
            f'<rect class="ground" width="{width}" height="{height}"/>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


def table_of_rooms() -> str:
    """Return the table of floors and rooms, doors first."""
    house = rooms()
    lines = ["| floor | room | what it is | files |", "|---|---|---|---|"]
    for level, floor in reversed([*enumerate(FLOORS, 1)]):
        for name in sorted(floor):
            room = house[name]
            place = f"{name}/" if room.modules else f"{name}.py"
            files = " ".join(f"`{module}`" for module in room.modules)
            lines.append(f"| {level} | `{place}` | {room.sentence} | {files} |")
    return "\n".join(lines)


def index_of_decisions() -> str:
    """Return one line per decision, with its number and title."""
    lines = []
    for path in sorted(DECISIONS.parent.glob("[0-9]*.md")):
        heading = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        title = re.sub(r"^\d+\.\s*", "", heading)
        lines.append(f"- [{path.name[:4]}]({path.name}) {title}")
    return "\n".join(lines)


def definitions() -> dict[str, list[str]]:
    """Return the files that define each class, function and method."""
    places: dict[str, list[str]] = {}
    for path in modules():
        file = path.relative_to(SOURCE).as_posix()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                places.setdefault(node.name, []).append(file)
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        places.setdefault(f"{node.name}.{member.name}", []).append(file)
    return places


def table_of_questions() -> str:
    """Return the table of questions, with the name and the file of the code that answers each."""
    known = definitions()
    lines = ["| to | see |", "|---|---|"]
    for question, names in QUESTIONS.items():
        answers = []
        for qualified in names:
            room, _, name = qualified.rpartition("/")
            places = [place for place in known.get(name, ()) if place.startswith(room)]
            assert len(places) == 1, f"{qualified} is defined in {places or 'no file'}"
            answers.append(f"`{name}` in `{places[0]}`")
        lines.append(f"| {question} | {', '.join(answers)} |")
    return "\n".join(lines)


def replaced(path: Path, name: str, text: str) -> str:
    """Return a document with `text` between the marks of `name`."""
    start, end = f"<!-- {name}: make docs -->\n", f"<!-- end of {name} -->\n"
    before, opened, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    assert opened and closed, f"{path} has no marks of {name}"  # noqa: PT018
    return f"{before}{start}\n{text}\n\n{end}{after}"


def documents() -> dict[Path, str]:
    """Return the expected text of each generated document."""
    return {
        # PyPI shows the package's README without the repository. Both READMEs are one text, so
        # it must not contain relative links.
        PACKAGE_README: README.read_text(encoding="utf-8"),
        DOCS: replaced(DOCS, "questions", table_of_questions()),
        CONTRIBUTING: replaced(CONTRIBUTING, "rooms", table_of_rooms()),
        DECISIONS: replaced(DECISIONS, "decisions", index_of_decisions()),
        PICTURE: picture(),
    }


if __name__ == "__main__":
    for document, content in documents().items():
        document.write_text(content, encoding="utf-8")
