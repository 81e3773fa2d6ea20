"""The words of the repository are plain English: the worst phrases of its past do not return."""

from __future__ import annotations

import re
from bisect import bisect
from functools import cache
from pathlib import Path

import pytest

from floors import ROOT

PLUGIN = ROOT / "plugins" / "floe-orchestrator-dagster"
CASES = PLUGIN / "tests" / "cases"
TEXTS = (
    *(".ci/run", "Makefile", "*.md", "*.toml", ".github/**/*.yml", "docs/**/*.md"),
    *("tests/**/*.py", "tests/**/*.sh", "tools/*.py", "benchmarks/*.py", "benchmarks/*.md"),
    *("charts/**/*.md", "charts/**/*.txt", "charts/**/*.tpl", "charts/**/*.yaml"),
    *("charts/**/*.json", "examples/*.md", "examples/*/*.md", "examples/*/*.yaml"),
    *("plugins/*/*.md", "plugins/*/*.toml", "plugins/*/src/**/*.py", "plugins/*/tests/**/*.py"),
    "plugins/*/tests/**/*.yaml",
)
# This file names the phrases, and products from public reports keep their spelling.
EXCLUDED = {ROOT / "tests" / "contract" / Path(__file__).name, *CASES.rglob("*")}

# A phrase is a regular expression over lower-case words. Words are separated by one space, even
# where the text breaks the line or a name has underscores; punctuation is a word.
PHRASES = {
    "is not a ...": (
        r"(?<!there )\b(is|are|was|were) no (?!longer|more|less|fewer|later|earlier|better|worse"
        r"|different|other|one|use|need|doubt|exception|problem|matter|way|wonder)\w+"
    ),
    "no longer": r"\bany more(?= [.,;:()]|$)",
    "again, from scratch": r"\banew\b",
    "fix": r"\bmend(s|ed|ing)?\b",
    "rarely, less often": r"\bseldom(er)?\b",
    "name who does it": r"\b(whoever|whosoever|whomever)\b",
    "you do not need to": r"\bnot your business\b",
    "one per line": r"\ban? (line|file|row|test|event) each\b|\bone a (line|file|row|run|wave)\b",
    "is in": r"\bwhat lies\b|\b(lies|stands?) (beside|there)\b",
    "next to, in addition to": r"\bbeside (it|its|the|that|this|those|other|others)\b",
    "before": r"\bahead of\b(?! time)",
    "a separate ...": (
        r"\ban? (command|copy|dbt run|directory|environment|file|folder|fork|group|instance|option"
        r"|place|process|run|schema|spec|step|thread) of (its|their) own\b"
    ),
    "must be, will be": r"\b(is|are|was|were) to be\b",
    "the result of": r"\bwhat (came|comes|became|becomes|has become) of\b",
    "whether it answers": r"\bhow it does\b(?= [.,;:()]|$)",
    "receives, handles": r"\bheard\b",
    "so, therefore": r"\b(thus|hereby|thereby|whereby|whereof|thereof|hitherto|henceforth)\b",
    "must, will": r"\bshall\b",
    "accepts, needs": r"\b(is|are) content with\b|\b(dares?|wishes) to\b",
}
# What each phrase means to catch.
CAUGHT = {
    "is not a ...": ["it is no mapping.", "def test_what_is_no_url():", "these are no tests"],
    "no longer": ["it has no model a any more: it was", 'gone any more"'],
    "again, from scratch": ["it was compiled anew", "read_anew = 1"],
    "fix": ["Mend it.", "not ours to mend"],
    "rarely, less often": ["Seldomer, and by whom", "seldom"],
    "name who does it": ["whoever asks first"],
    "you do not need to": ["`dbt parse` is not your business"],
    "one per line": ["names, a line each", "a file each", "one a wave"],
    "is in": ["return what lies below", "the file that lies beside", "what stands there"],
    "next to, in addition to": ["the port beside it", "Beside the project"],
    "before": ["started ahead of\n    # the first"],
    "a separate ...": ["in a process of its own", "a folder\n    # of its own"],
    "must be, will be": ['nothing is "\n    f"to be built'],
    "the result of": ["print what came of it"],
    "whether it answers": ["ask how it does, within 10 s"],
    "receives, handles": ["def heard(self)"],
    "so, therefore": ["and thus it ends"],
    "must, will": ["it shall end"],
    "accepts, needs": ["dbt is content with one", "no test dares to"],
}
HONEST = (
    "there is no mapping",
    "Whether there\n    # are no models",
    "it is no longer there, and it is no more than a line",
    "does not need any more rows",
    "recommended amendments to meanders",
    "The port next to it; besides, it is beside a model named beside.",
    "It is ahead: a line that each row has. Ahead of time.",
    "a step of the run, on its own; its own process",
    "The aim is: to be quick. Is it? To be sure.",
    "how it does so; show it does not",
    "an overheard marshall",
    "if reads is NO_READS:",
    "[this](page-of-a-process-of-its-own.md)",
)


@cache
def texts() -> list[Path]:
    """Return every file that people here have written."""
    paths = {path for pattern in TEXTS for path in ROOT.glob(pattern)}
    return sorted(path for path in paths - EXCLUDED if path.is_file())


def words_of(text: str) -> tuple[str, list[int], list[int]]:
    """Return the words of a text on one line, the place of each in it, and the line of each."""
    # Escapes, the prefix of an f-string, names of constants and targets of links are not words.
    text = re.sub(r"\\[nt]|\bf(?=[\"'])|\b_?[A-Z]+(_[A-Z]+)+\b|(?<=\])\(\S+\)", " ", text).lower()
    words, places, lines = [], [], []
    place, line, end = 0, 1, 0
    for match in re.finditer(r"[a-z0-9]+|[.,;:()]", text):
        line += text.count("\n", end, match.start())
        end = match.start()
        words.append(match[0])
        places.append(place)
        lines.append(line)
        place += len(match[0]) + 1
    return " ".join(words), places, lines


@cache
def words_of_file(path: Path) -> tuple[str, list[int], list[int]]:
    return words_of(path.read_text(encoding="utf-8"))


def test_the_files_are_those_that_people_wrote() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in texts()}
    for name in ("README.md", "Makefile", "tools/floors.py", "docs/lineage.md", ".ci/run"):
        assert name in names
    assert len(names) > 300


@pytest.mark.parametrize("better", PHRASES)
def test_a_phrase_is_not_used(better: str) -> None:
    uses = []
    for path in texts():
        words, places, lines = words_of_file(path)
        for match in re.finditer(PHRASES[better], words):
            line = lines[bisect(places, match.start()) - 1]
            uses.append(f"{path.relative_to(ROOT)}:{line}: '{match[0]}'")
    assert not uses, "\n".join([f"Write instead: {better}", *uses])


@pytest.mark.parametrize("better", PHRASES)
def test_a_phrase_is_recognized_and_plain_english_is_not(better: str) -> None:
    assert CAUGHT.keys() == PHRASES.keys()
    for text in CAUGHT[better]:
        assert re.search(PHRASES[better], words_of(text)[0]), text
    for text in HONEST:
        assert not re.search(PHRASES[better], words_of(text)[0]), text
