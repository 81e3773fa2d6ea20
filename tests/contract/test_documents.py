"""Generated documents match the code, and links lead to existing files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from floors import ROOT, rooms
from write_docs import PICTURE, README, direct, documents

DOCUMENTS = documents()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_document_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == DOCUMENTS[path], "run `make docs`"


def test_the_picture_shows_every_room_and_every_import() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    house = rooms()
    assert set(re.findall(r'class="name"[^>]*>([^<]+)<', text)) == set(house)
    below = direct(house)
    for name, room in house.items():
        reached: set[str] = set()
        pending = [name]
        while pending:
            for used in below[pending.pop()] - reached:
                reached.add(used)
                pending.append(used)
        assert room.uses <= reached


def test_the_readme_has_no_relative_links() -> None:
    links = LINK.findall(README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_page_lead_to_files(path: Path) -> None:
    links = LINK.findall(path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("https://", "http://"))]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_every_verb_of_make_is_listed_and_phony() -> None:
    verbs = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
    listed = set(re.findall(r"^([a-z-]+):[^\n]*##", MAKEFILE, re.MULTILINE))
    [phony] = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert verbs == listed == set(phony.split())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_only_make_and_pinned_actions(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    verbs = [step["run"].split() for step in steps if "run" in step]
    assert verbs
    for program, verb, *_ in verbs:
        assert program == "make"
        assert re.search(rf"^{verb}:", MAKEFILE, re.MULTILINE), verb
    for step in steps:
        assert "run" in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step


def test_commit_hooks_are_local() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}
