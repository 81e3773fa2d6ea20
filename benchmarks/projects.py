"""Generates dbt projects of any size for floe, dbt, raw dagster-dbt and the plugin.

A project has ten layers (or, on two computes, eleven stretches that alternate between them) of
models with one to three parents, two tests per model, described columns, tags, and sources that
already exist in the DuckDB file.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import yaml

from benchmarks.measure import BIN

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 10
STRETCHES = 11  # ten alternations
ROWS = 10
MODELS_PER_SOURCE = 20
# Change it with the generator, so that work directories of older generators are not used.
VERSION = "1"
COMPUTES = ("duckdb", "second")


@dataclass(frozen=True)
class Project:
    """A generated product: compiled and prepared in `ours`, the same files for dbt in `bare`."""

    directory: Path
    models: int
    two_computes: bool

    @property
    def name(self) -> str:
        """The name of the product, of its dbt project and of its job."""
        return f"bench_{self.models}" + ("_two" if self.two_computes else "")

    @property
    def ours(self) -> Path:
        """The directory in which the plugin works."""
        return self.directory / "ours"

    @property
    def bare(self) -> Path:
        """The directory in which dbt and raw dagster-dbt work."""
        return self.directory / "bare"

    @property
    def manifest(self) -> Path:
        """The manifest of the default compute."""
        return self.ours / "target" / "floe" / "duckdb" / "manifest.json"

    @property
    def tests(self) -> int:
        """The number of dbt tests."""
        return 2 * self.models

    def cool(self) -> None:
        """Remove everything that a load may have cached; dbt's own files stay."""
        kept = {"manifest.json", "partial_parse.msgpack", "parsed.json"}
        floe = self.ours / "target" / "floe"
        for path in sorted(floe.rglob("*"), reverse=True):
            if path.is_file() and not (path.parent.parent == floe and path.name in kept):
                path.unlink()


def project(work: Path, models: int, *, two_computes: bool = False) -> Project:
    """Return a project of this size; build and prepare it in `work` unless it exists."""
    made = Project(
        work / f"{models}{'-two' if two_computes else ''}-v{VERSION}", models, two_computes
    )
    done = made.directory / "done"
    if not done.is_file():
        shutil.rmtree(made.directory, ignore_errors=True)
        for folder in (made.ours, made.bare):
            _write(made, folder)
        _run(
            made.ours,
            *("floe", "platform", "compile", "--spec", "floe.yaml", "--manifest", "manifest.yaml"),
            *("--output", "target/compiled_artifacts.json", "--generate-definitions"),
        )
        _share_profile(made)
        _run(made.ours, "floe-dagster", "prepare", ".")
        done.touch()
    return made


def _run(directory: Path, program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(BIN / program), *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{program} {' '.join(arguments)} in {directory}:\n{done.stdout[-4000:]}"
            f"{done.stderr[-4000:]}"
        )


def _write(made: Project, folder: Path) -> None:
    chance = random.Random(made.models)
    stretches = STRETCHES if made.two_computes else LAYERS
    layers = [
        [
            f"m_{number:05}"
            for number in range(made.models)
            if number * stretches // made.models == k
        ]
        for k in range(stretches)
    ]
    sources = [f"raw_{number}" for number in range(max(1, made.models // MODELS_PER_SOURCE))]
    for depth, layer in enumerate(layers):
        below = folder / "models" / f"layer_{depth:02}"
        below.mkdir(parents=True)
        earlier = [name for names in layers[:depth] for name in names]
        for name in layer:
            parents = _parents(chance, layers[depth - 1] if depth else [], earlier)
            (below / f"{name}.sql").write_text(_sql(chance, parents, sources))
        described = [_described(name, depth) for name in layer]
        _yaml(below / "schema.yml", {"version": 2, "models": described})
    tables = [{"name": name, "description": f"Rows as they come, {name}."} for name in sources]
    _yaml(
        folder / "models" / "sources.yml",
        {
            "version": 2,
            "sources": [
                {
                    "name": "raw",
                    "database": _database(0, two=made.two_computes) or made.name,
                    "schema": "raw",
                    "tables": tables,
                }
            ],
        },
    )
    _write_project(made, folder, layers)
    _write_floe(made, folder, layers)
    _write_databases(made, folder, sources)


def _parents(chance: random.Random, last: list[str], earlier: list[str]) -> list[str]:
    if not last:
        return []
    others = chance.sample(earlier, min(len(earlier), chance.randint(0, 2)))
    return list(dict.fromkeys([chance.choice(last), *others]))


def _sql(chance: random.Random, parents: list[str], sources: list[str]) -> str:
    froms = [f"{{{{ ref('{name}') }}}}" for name in parents] or [
        f"{{{{ source('raw', '{chance.choice(sources)}') }}}}"
    ]
    joins = "".join(
        f"join {relation} as p{number} on p{number}.id = p0.id\n"
        for number, relation in enumerate(froms[1:], 1)
    )
    return (
        "select\n    p0.id,\n    p0.amount + 1 as amount,\n    p0.label,\n    p0.made_on\n"
        f"from {froms[0]} as p0\n{joins}"
    )


def _described(name: str, depth: int) -> dict[str, object]:
    return {
        "name": name,
        "description": f"Model {name} of layer {depth}, one row per id.",
        "config": {"tags": [f"layer_{depth}", "nightly" if depth % 2 else "hourly"]},
        "columns": [
            {
                "name": "id",
                "description": "Identity of a row.",
                "data_type": "integer",
                "data_tests": ["not_null", "unique"],
            },
            {"name": "amount", "description": "An amount in euros.", "data_type": "integer"},
            {"name": "label", "description": "What a person reads.", "data_type": "varchar"},
            {"name": "made_on", "description": "The day it was made.", "data_type": "date"},
        ],
    }


def _write_project(made: Project, folder: Path, layers: list[list[str]]) -> None:
    # Alternate tables and views: a chain of views would repeat their queries.
    settings: dict[str, object] = {
        f"layer_{depth:02}": {
            "+materialized": "view" if depth % 2 and not made.two_computes else "table",
            **({"+database": _database(depth, two=True)} if made.two_computes else {}),
        }
        for depth in range(len(layers))
    }
    _yaml(
        folder / "dbt_project.yml",
        {
            "name": made.name,
            "profile": made.name,
            "version": "1.0",
            "flags": {"send_anonymous_usage_stats": False},
            "models": {made.name: settings},
        },
    )


def _database(depth: int, *, two: bool) -> str:
    return COMPUTES[depth % 2] + "_file" if two else ""


def _write_floe(made: Project, folder: Path, layers: list[list[str]]) -> None:
    head = {"apiVersion": "floe.dev/v1"}
    about = {"version": "1.0.0", "owner": "bench@example.com"}
    transforms = [
        {"name": name, "compute": COMPUTES[depth % 2] if made.two_computes else "duckdb"}
        for depth, layer in enumerate(layers)
        for name in layer
    ]
    _yaml(
        folder / "floe.yaml",
        head
        | {
            "kind": "FloeSpec",
            "metadata": {"name": made.name.replace("_", "-"), **about, "description": "Made up."},
            "transforms": transforms,
        },
    )
    _yaml(
        folder / "manifest.yaml",
        head
        | {
            "kind": "Manifest",
            "metadata": {"name": "bench-platform", **about},
            "plugins": {
                "compute": {"type": "duckdb", "config": _output(made, folder, 0)},
                "orchestrator": {"type": "dagster"},
            },
        },
    )
    outputs = {
        name: {"type": "duckdb", "schema": "main", **_output(made, folder, number)}
        for number, name in enumerate(COMPUTES if made.two_computes else COMPUTES[:1])
    }
    _yaml(folder / "profiles.yml", {made.name: {"target": "duckdb", "outputs": outputs}})


def _output(made: Project, folder: Path, number: int) -> dict[str, object]:
    """Return an output of dbt-duckdb: its own file, with the other compute's file attached."""
    files = [folder / "target" / f"{name}.duckdb" for name in _files(made)]
    output: dict[str, object] = {"path": str(files[number]), "threads": 2}
    if made.two_computes:
        output["attach"] = [{"path": str(files[1 - number]), "alias": files[1 - number].stem}]
    return output


def _files(made: Project) -> list[str]:
    return [_database(depth, two=True) for depth in (0, 1)] if made.two_computes else [made.name]


def _write_databases(made: Project, folder: Path, sources: list[str]) -> None:
    (folder / "target").mkdir()
    for number, name in enumerate(_files(made)):
        with duckdb.connect(str(folder / "target" / f"{name}.duckdb")) as connection:
            connection.execute("create schema raw")
            for source in sources if number == 0 else []:
                connection.execute(
                    f"create table raw.{source} as select id::integer as id, "  # noqa: S608
                    "(id * 7)::integer as amount, 'row ' || id as label, current_date as made_on "
                    f"from range({ROWS}) as t(id)"
                )


def _share_profile(made: Project) -> None:
    """Give dbt the profile that floe compiled, so that both use the same connection."""
    artifacts = json.loads((made.ours / "target" / "compiled_artifacts.json").read_text())
    own = yaml.safe_load((made.bare / "profiles.yml").read_text())[made.name]
    for name, output in next(iter(artifacts["dbt_profiles"].values()))["outputs"].items():
        moved = json.dumps(output).replace(str(made.ours), str(made.bare))
        own["outputs"][name] = json.loads(moved)
    _yaml(made.bare / "profiles.yml", {made.name: own})


def _yaml(path: Path, content: object) -> None:
    # Prefer the C writer: the other takes a minute for a floe.yaml of 10,000 transforms.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    path.write_text(yaml.dump(content, Dumper=dumper, sort_keys=False))
