"""The oracle: builds one copy of a project with bare dbt, another with our plugin, and compares.

Tests use `Twins`: `write` changes both copies, and `build` builds both and returns each difference
as a line. It compares the exit code (0 or not), the asset graph with dbt's manifest, the status of
each node with dbt's run_results.json, every relation row by row, and Dagster's own events with
dbt's statuses. Functions, hooks and saved queries are not assets: if dbt fails with one, so must
our build.

The time of the build differs between any two builds. Columns that hold it (`CLOCK_COLUMNS`) are
equal if both are null or both are not.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import duckdb
import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from floe_orchestrator_dagster.cli import main as floe_dagster
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.errors import FloeDagsterError
from floe_orchestrator_dagster.plan import dagster_name
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.run.step import Host
from kit.dbt_server import Fork
from kit.support import cli_runner
from kit.support import run as run_by_dagster

Rows = tuple[tuple[Any, ...], ...]
Edge = tuple[str, str]

# Snapshots with the `check` strategy and hooks that write a log store the time of the build.
CLOCK_COLUMNS = frozenset(
    {"dbt_valid_from", "dbt_valid_to", "dbt_updated_at", "dbt_scd_id", "built_at"}
)
# dbt behaves differently if it detects pytest.
PYTEST_MARK = "PYTEST_CURRENT_TEST"
ASSETS = ("model", "seed", "snapshot")
CHECKS = ("test", "unit_test")
UNBUILT = frozenset({"skipped", "not run"})
PASSED = frozenset({"pass", "success"})
BUILT = frozenset({"success", "warn", "no-op", "reused"})


Verdict = Literal["passed", "warned", "failed"]


@dataclass(frozen=True, slots=True)
class Materialization:
    """One materialization event of a run."""

    unique_id: str
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One check evaluation event of a run."""

    unique_id: str
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """The result of a build: `statuses` are dbt's statuses by unique id."""

    success: bool
    statuses: Mapping[str, str] = field(default_factory=dict)
    assets: frozenset[str] = frozenset()
    edges: frozenset[Edge] = frozenset()
    relations: Mapping[str, Rows] = field(default_factory=dict)
    folders: frozenset[str] = frozenset()
    words: str = ""


@dataclass(frozen=True)
class Recorded:
    """The events of a run that Dagster keeps."""

    materializations: tuple[Materialization, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    success: bool = True


# --- comparing: values only


def differences(bare: Outcome, ours: Outcome) -> list[str]:
    """Return every difference between two builds of one project, one per line."""
    lines = []
    if bare.success != ours.success:
        lines.append(f"exit code: dbt {_ending(bare)}, we {_ending(ours)}: {_last(ours.words)}")
    lines += [f"graph: missing asset {uid}" for uid in sorted(bare.assets - ours.assets)]
    lines += [f"graph: unexpected asset {uid}" for uid in sorted(ours.assets - bare.assets)]
    lines += [f"graph: missing edge {a} -> {b}" for a, b in sorted(bare.edges - ours.edges)]
    lines += [f"graph: unexpected edge {a} -> {b}" for a, b in sorted(ours.edges - bare.edges)]
    for uid in sorted({*bare.statuses, *ours.statuses}):
        theirs, own = bare.statuses.get(uid, "not run"), ours.statuses.get(uid, "not run")
        unreported = _kind(uid) not in (*ASSETS, *CHECKS) and own in UNBUILT and theirs in BUILT
        if theirs != own and not {theirs, own} <= UNBUILT and not unreported:
            lines.append(f"status: {uid}: dbt {theirs}, we {own}")
    for name in sorted({*bare.relations, *ours.relations}):
        lines += _rows_apart(name, bare.relations.get(name), ours.relations.get(name))
    lines += [f"folder: only we make {name}" for name in sorted(ours.folders - bare.folders)]
    return lines


def contradictions(statuses: Mapping[str, str], recorded: Recorded, *, success: bool) -> list[str]:
    """Return where Dagster's events differ from dbt's status of a node, one per line."""
    lines = []
    if recorded.success != success:
        lines.append(f"run: dbt {_ended(success)}, Dagster {_ended(recorded.success)}")
    lines += _wrongly_materialized(statuses, recorded)
    lines += _wrongly_evaluated(statuses, recorded)
    return lines


def _wrongly_materialized(statuses: Mapping[str, str], recorded: Recorded) -> Iterator[str]:
    times_materialized = Counter(
        (event.unique_id, event.partition) for event in recorded.materializations
    )
    for (uid, partition), times in sorted(times_materialized.items(), key=repr):
        of = f" of partition {partition}" if partition is not None else ""
        if times > 1:
            yield f"events: {times} materializations of {uid}{of}"
        if statuses.get(uid, "not run") not in BUILT:
            yield f"events: {uid} is materialized, dbt reported {statuses.get(uid, 'nothing')}"
    materialized = {uid for uid, _ in times_materialized}
    for uid, status in sorted(statuses.items()):
        if _kind(uid) in ASSETS and status in BUILT and uid not in materialized:
            yield f"events: {uid} is not materialized, dbt reported {status}"


def _wrongly_evaluated(statuses: Mapping[str, str], recorded: Recorded) -> Iterator[str]:
    evaluated: dict[str, list[str]] = {}
    for event in recorded.evaluations:
        evaluated.setdefault(event.unique_id, []).append(event.verdict)
    for uid, status in sorted(statuses.items()):
        if _kind(uid) not in CHECKS:
            continue
        verdicts = evaluated.get(uid, [])
        if len(verdicts) != (status not in UNBUILT):
            yield f"events: {len(verdicts)} evaluations of {uid}, dbt reported {status}"
        expected = "passed" if status in PASSED else "warned" if status == "warn" else "failed"
        for verdict in verdicts:
            if verdict != expected and status not in UNBUILT:
                yield f"events: {uid} {verdict}, dbt reported {status}"
    for uid in sorted(evaluated.keys() - statuses.keys()):
        yield f"events: {uid} is evaluated, dbt reported nothing"


def _kind(uid: str) -> str:
    return uid.partition(".")[0]


def contradictions_of_resumed(
    clean: Outcome, before: Recorded | None, resumed: Recorded
) -> list[str]:
    """Return what two runs, the second "from failure", did not record of a clean build."""
    statuses = clean.statuses
    recorded_ids = {event.unique_id for event in resumed.materializations}
    recorded_ids |= {event.unique_id for event in resumed.evaluations}
    lines = contradictions(
        {uid: status for uid, status in statuses.items() if uid in recorded_ids},
        resumed,
        success=clean.success,
    )
    if before is not None:
        recorded_ids |= {event.unique_id for event in before.materializations}
        recorded_ids |= {event.unique_id for event in before.evaluations}
    lines += [
        f"events: neither run recorded {uid}, dbt reported {status}"
        for uid, status in sorted(statuses.items())
        if status not in UNBUILT and _kind(uid) in (*ASSETS, *CHECKS) and uid not in recorded_ids
    ]
    return lines


def _ended(success: object) -> str:
    return "succeeded" if success else "failed"


def _ending(outcome: Outcome) -> str:
    return "0" if outcome.success else "not 0"


def _last(words: str) -> str:
    return " / ".join(words.strip().splitlines()[-4:])


def _rows_apart(name: str, theirs: Rows | None, own: Rows | None) -> Iterator[str]:
    if own is None:
        yield f"relation: {name} is missing"
    elif theirs is None:
        yield f"relation: {name} is unexpected"
    elif theirs != own:
        lost = list((Counter(theirs) - Counter(own)).elements())[:3]
        more = list((Counter(own) - Counter(theirs)).elements())[:3]
        yield f"relation: {name}: only dbt has {lost}, only we have {more}"


# --- reading the result of a build


def _merged(builds: Sequence[Outcome]) -> Outcome:
    """Return several consecutive builds of one project as one.

    Each build counts for the nodes that it built.
    """
    if len(builds) == 1:
        return builds[0]
    statuses: dict[str, str] = {}
    for build in builds:
        for uid, status in build.statuses.items():
            # A hook runs in each build: one failure counts.
            if statuses.get(uid, "success") in BUILT:
                statuses[uid] = status
    return Outcome(
        success=all(build.success for build in builds),
        statuses=statuses,
        assets=frozenset(uid for build in builds for uid in build.assets & build.statuses.keys()),
        edges=frozenset(
            edge for build in builds for edge in build.edges if edge[1] in build.statuses
        ),
        relations=builds[-1].relations,
        folders=builds[-1].folders,
        words="".join(build.words for build in builds),
    )


def read_relations(directory: Path) -> dict[str, Rows]:
    """Return every table and view of the DuckDB files below a directory, by file and name."""
    files = [path for path in sorted(directory.rglob("*.duckdb")) if path.is_file()]
    relations: dict[str, Rows] = {}
    with duckdb.connect() as connection:
        connection.execute(f"set file_search_path = '{directory}'")
        for path in files:
            connection.execute(f"attach '{path}' as \"{path.stem}\" (read_only)")
        for path in files:
            for schema, name in connection.execute(
                "select table_schema, table_name from information_schema.tables "
                "where table_catalog = ?",
                [path.stem],
            ).fetchall():
                where = f'"{path.stem}"."{schema}"."{name}"'
                shown = f"{path.relative_to(directory)}: {schema}.{name}"
                connection.execute(f'use "{path.stem}"')
                relations[shown] = _rows(connection, where)
    return relations


def read_folders(directory: Path) -> frozenset[str]:
    """Return the names of the folders of a project."""
    return frozenset(path.name for path in directory.iterdir() if path.is_dir())


def _rows(connection: duckdb.DuckDBPyConnection, relation: str) -> Rows:
    try:
        result = connection.execute(f"select * from {relation}")
    except duckdb.Error as error:
        return ((f"unreadable: {type(error).__name__}",),)
    names = [column[0] for column in result.description or ()]
    clock = [name.lower() in CLOCK_COLUMNS for name in names]
    rows = [
        tuple(
            repr(value) if not is_clock else ("null" if value is None else "set")
            for value, is_clock in zip(row, clock, strict=True)
        )
        for row in result.fetchall()
    ]
    return (tuple(names), *sorted(rows))


def read_bare(directory: Path, target_path: str, code: int, words: str) -> Outcome:
    """Return the result of a bare dbt build, from dbt's own artifacts."""
    target = directory / target_path
    results, manifest = target / "run_results.json", target / "manifest.json"
    results_of_nodes = (
        json.loads(results.read_text())["results"]
        if results.is_file()
        else _results_in_log(directory)
    )
    statuses = {
        item["unique_id"]: item["status"]
        for item in results_of_nodes
        if _kind(item["unique_id"]) in (*ASSETS, *CHECKS, "function", "operation", "saved_query")
    }
    assets, edges = graph_of(json.loads(manifest.read_text())) if manifest.is_file() else _NO_GRAPH
    return Outcome(
        code == 0,
        statuses,
        assets,
        edges,
        read_relations(directory),
        read_folders(directory),
        words,
    )


def _results_in_log(directory: Path) -> Iterator[dict[str, str]]:
    """Yield the status of each node from dbt's log: a crashed dbt writes no results."""
    log = directory / "logs" / "dbt.log"
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        event = json.loads(line)
        if event["info"]["name"] == "NodeFinished":
            node, result = event["data"]["node_info"], event["data"]["run_result"]
            yield {"unique_id": node["unique_id"], "status": result["status"]}


def named(statuses: Mapping[str, str]) -> dict[str, str]:
    """Return statuses by the names of nodes; a version is named `book.v1`."""
    by_name = {}
    for uid, status in statuses.items():
        kind, _, name, *rest = uid.split(".")
        if kind in {"test", "unit_test"}:
            name = rest[0] if kind == "unit_test" and rest else name
        elif rest:
            name = ".".join((name, *rest))
        by_name[name] = status
    return by_name


_NO_GRAPH: tuple[frozenset[str], frozenset[Edge]] = (frozenset(), frozenset())


def graph_of(manifest: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[Edge]]:
    """Return the assets and edges of dbt's manifest, with ephemerals and functions folded.

    Sources are identified by their relation, because two packages may declare one table.
    """
    nodes = {**manifest["nodes"], **manifest["sources"], **manifest.get("functions", {})}

    def is_asset(uid: str) -> bool:
        node = nodes[uid]
        kind = node["resource_type"]
        return kind in ASSETS and node["config"].get("materialized") != "ephemeral"

    built: dict[str, str] = {
        node["relation_name"]: uid for uid, node in nodes.items() if is_asset(uid)
    }

    def named(uid: str) -> str:
        if nodes[uid]["resource_type"] != "source":
            return uid
        relation = nodes[uid]["relation_name"]
        return built.get(relation, f"source {relation}")

    def reads(uid: str) -> Iterator[str]:
        for parent in nodes[uid].get("depends_on", {}).get("nodes", ()):
            if parent not in nodes:
                continue
            if is_asset(parent) or nodes[parent]["resource_type"] == "source":
                yield named(parent)
            else:
                yield from reads(parent)

    assets = frozenset(uid for uid in nodes if is_asset(uid))
    edges = frozenset((above, uid) for uid in assets for above in reads(uid) if above != uid)
    return assets, edges


def graph_of_dagster(
    directory: Path, variables: Mapping[str, Any]
) -> tuple[frozenset[str], frozenset[Edge]]:
    """Return the assets and edges of our Definitions, with the names of `graph_of`."""
    product = open_product(directory, progress=lambda _: None, variables=variables)
    plan = product.plan
    graph = build_definitions(product, host=Host(echo=lambda _: None)).resolve_asset_graph()
    built = {node.relation: uid for uid, node in plan.assets.items()}
    names = {}
    for uid, node in plan.nodes.items():
        if node.key and uid in plan.assets:
            names[dg.AssetKey(node.key)] = uid
    for uid, node in plan.nodes.items():
        if node.key and uid not in plan.assets:
            name = built.get(node.relation, f"source {node.relation}")
            names.setdefault(dg.AssetKey(node.key), name)
    edges = set()
    for key in graph.get_all_asset_keys():
        for parent in graph.get(key).parent_keys:
            above, below = (names.get(one, one.to_user_string()) for one in (parent, key))
            if above != below:
                edges.add((above, below))
    assets = {
        names.get(key, key.to_user_string())
        for key in graph.get_all_asset_keys()
        if graph.get(key).is_materializable
    }
    return frozenset(assets), frozenset(edges)


def read_events(instance: dg.DagsterInstance, run_id: str) -> Recorded:
    """Return the events of a run that an instance keeps, with assets and checks by unique id."""
    materializations, evaluations = [], []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            materializations.append(
                Materialization(_unique_id(materialization.metadata), materialization.partition)
            )
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if "unique_id" in check.metadata:
                warned = check.severity is dg.AssetCheckSeverity.WARN
                verdict: Verdict = "passed" if check.passed else "warned" if warned else "failed"
                evaluations.append(Evaluation(_unique_id(check.metadata), verdict))
    run = instance.get_run_by_id(run_id)
    success = run is not None and run.status is dg.DagsterRunStatus.SUCCESS
    return Recorded(tuple(materializations), tuple(evaluations), success)


def _unique_id(metadata: Mapping[str, Any]) -> str:
    return str(metadata["unique_id"].value)


# --- building


@dataclass(frozen=True, slots=True)
class Build:
    """Both sides of one build and their differences."""

    bare: Outcome
    ours: Outcome
    recorded: Recorded | None
    run_id: str | None
    mismatches: list[str]
    document: Mapping[str, Any] = field(default_factory=dict)

    def mismatches_in_any_order(self) -> list[str]:
        """Return the differences that count if both sides stopped at different nodes."""
        lines = [line for line in self.mismatches if line.startswith(("exit code", "run:"))]
        if self.recorded is not None:
            own = contradictions(self.ours.statuses, self.recorded, success=self.bare.success)
            lines += [line for line in own if line not in lines]
        return lines


class Twins:
    """One product in two copies: bare dbt builds one, our plugin builds the other.

    `directory` contains the copies `bare` and `ours`, and the Dagster instance `home`. Bare dbt
    reads a profile with the project's own outputs and the compiled ones.
    """

    def __init__(self, directory: Path, server: Fork) -> None:
        self.bare, self.ours = directory / "bare", directory / "ours"
        self.home = directory / "home"
        for folder in (self.bare, self.ours, self.home, directory / "profiles"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self._profiles = directory / "profiles"
        self._server = server

    def write(self, files: Mapping[str, str | None]) -> Twins:
        """Write files into both copies; the text None removes the file."""
        for copy in (self.bare, self.ours):
            for name, content in files.items():
                path = copy / (name if "." in name else f"models/{name}.sql")
                if content is None:
                    path.unlink()
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
        return self

    def copy(self, source: Path) -> Twins:
        """Copy an existing product into both copies."""
        for copy in (self.bare, self.ours):
            shutil.copytree(
                source,
                copy,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("target", "logs", "dbt_packages"),
            )
        return self

    def compiled(self, artifacts: Mapping[str, Any]) -> Twins:
        """Write compiled artifacts into our copy; `dbt` gives their outputs to the bare one."""
        target = self.ours / "target"
        target.mkdir(exist_ok=True)
        (target / "compiled_artifacts.json").write_text(json.dumps(artifacts))
        return self

    def dbt(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run bare dbt in its copy."""
        (self.bare / "target").mkdir(exist_ok=True)
        return self._server.dbt(
            self.bare,
            [
                *(
                    "--log-format-file",
                    "json",
                    "--no-use-colors",
                    "--no-send-anonymous-usage-stats",
                    "--no-version-check",
                ),
                *words,
                *("--profiles-dir", str(self._profiles_dir())),
            ],
            {**{k: v for k, v in os.environ.items() if k != PYTEST_MARK}, **(env or {})},
        )

    def _profiles_dir(self) -> Path:
        """Write the profile of bare dbt: the project's own outputs and the compiled ones."""
        project = yaml.safe_load((self.bare / "dbt_project.yml").read_text(encoding="utf-8"))
        name, path = project["profile"], self.bare / "profiles.yml"
        profiles = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        artifacts = json.loads((self.ours / "target/compiled_artifacts.json").read_text())
        [compiled] = artifacts["dbt_profiles"].values()
        own = profiles.get(name, {})
        outputs = {**own.get("outputs", {}), **compiled["outputs"]}
        profile = {"target": own.get("target", compiled["target"]), "outputs": outputs}
        (self._profiles / "profiles.yml").write_text(yaml.safe_dump({name: profile}))
        return self._profiles

    @staticmethod
    def _folder(project: Mapping[str, Any], name: str, env: Mapping[str, str] | None) -> str:
        """Return a folder that dbt_project.yml names, rendered, or dbt's default."""
        usual = {"target": "target", "packages-install": "dbt_packages"}[name]
        template = NativeEnvironment().from_string(project.get(f"{name}-path", usual))
        environment = {**os.environ, **(env or {})}
        return str(template.render(env_var=lambda key, default="": environment.get(key, default)))

    def build_bare(
        self, *words: str, verb: str = "build", env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Build the bare copy; install packages first if the project requires some."""
        project = yaml.safe_load((self.bare / "dbt_project.yml").read_text(encoding="utf-8"))
        target_path = (env or {}).get("DBT_TARGET_PATH") or self._folder(project, "target", env)
        target = self.bare / target_path
        for path in (
            target / "run_results.json",
            target / "manifest.json",
            self.bare / "logs/dbt.log",
        ):
            # `dbt retry` reads the last results.
            if verb != "retry" or path.name == "dbt.log":
                path.unlink(missing_ok=True)
        packages = self.bare / self._folder(project, "packages-install", env)
        has_packages = any(
            (self.bare / f"{name}.yml").is_file() for name in ("packages", "dependencies")
        )
        if has_packages and not packages.is_dir():
            code, output = self.dbt("deps", env=env)
            if code:
                return read_bare(self.bare, target_path, code, output)
        code, output = self.dbt(verb, *words, env=env)
        return read_bare(self.bare, target_path, code, output)

    def build_ours(
        self, *options: str, env: Mapping[str, str] | None = None
    ) -> tuple[Outcome, Recorded | None, Mapping[str, Any]]:
        """Build our copy with the real command line, and read the events that Dagster keeps."""
        # stderr explains a mismatch.
        with self._started_in_forks():
            result = cli_runner().invoke(
                floe_dagster,
                ["run", str(self.ours), "--json", *options],
                env={"DAGSTER_HOME": str(self.home), **(env or {})},
            )
        words = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            words += repr(result.exception)
        try:
            document = json.loads(result.stdout)
        except json.JSONDecodeError:
            words += f"\nstdout is not one JSON document: {result.stdout[:300]!r}"
            document = {}
        statuses = {
            node["unique_id"]: node["status"]
            for node in document.get("nodes", ())
            # If an ephemeral model does not compile, dbt reports only the nodes that inline it.
            if node["kind"] != "ephemeral"
        }
        recorded = None
        if document.get("run_id"):
            with self.instance() as instance:
                recorded = read_events(instance, document["run_id"])
        # A quality check of floe.yaml is not a dbt node.
        kinds = {node["unique_id"]: node["kind"] for node in document.get("nodes", ())}
        statuses = {uid: at for uid, at in statuses.items() if kinds[uid] != "quality_check"}
        graph, problem = self._graph(options, env)
        outcome = Outcome(
            result.exit_code == 0,
            statuses,
            *graph,
            read_relations(self.ours),
            read_folders(self.ours),
            words + problem,
        )
        return outcome, recorded, document

    @contextmanager
    def _started_in_forks(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "executable", str(self._server.program))
            patched.delenv(PYTEST_MARK, raising=False)
            yield

    def instance(self) -> dg.DagsterInstance:
        """Return the Dagster instance that keeps our runs."""
        return dg.DagsterInstance.local_temp(str(self.home))

    def _graph(
        self, options: Sequence[str], env: Mapping[str, str] | None
    ) -> tuple[tuple[frozenset[str], frozenset[Edge]], str]:
        """Return our graph, or an empty one with the error if our Definitions cannot be built."""
        with pytest.MonkeyPatch.context() as patched, self._started_in_forks():
            for name, value in (env or {}).items():
                patched.setenv(name, value)
            try:
                return graph_of_dagster(self.ours, _variables(options)), ""
            except FloeDagsterError as error:
                return _NO_GRAPH, f"\n{error}"

    def build(
        self,
        *words: str,
        verb: str = "build",
        options: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        bare_builds: Sequence[Sequence[str]] = (),
    ) -> Build:
        """Build both copies with the same words.

        `options` replaces the words of our command, and `verb` the command of dbt. `bare_builds`
        has the words of several dbt builds, one per target, if one build is not enough.
        """
        bare = _merged(
            [self.build_bare(*each, verb=verb, env=env) for each in bare_builds or [words]]
        )
        ours, recorded, document = self.build_ours(
            *(words if options is None else options), env=env
        )
        lines = differences(bare, ours)
        if recorded is not None:
            lines += contradictions(bare.statuses, recorded, success=bare.success)
        elif any(status not in UNBUILT for status in bare.statuses.values()):
            lines.append(f"events: Dagster has no run: {_last(ours.words)}")
        return Build(bare, ours, recorded, document.get("run_id"), lines, document)

    def resume(self, built: Build, *, verb: Literal["build", "retry"] = "build") -> list[str]:
        """Re-execute our run "from failure"; compare with a clean build, or with `dbt retry`."""
        assert built.run_id is not None
        if verb == "build":
            for path in (self.bare / "target").glob("*.duckdb"):
                path.unlink()
        clean = self.build_bare(verb=verb)
        with self._started_in_forks(), self.instance() as instance:
            product = open_product(self.ours, progress=lambda _: None)
            result = run_by_dagster(
                product,
                instance,
                job=dagster_name(product.plan.name),
                tags={
                    "dagster/parent_run_id": built.run_id,
                    "dagster/root_run_id": built.run_id,
                    "dagster/is_resume_retry": "true",
                },
            )
            recorded = read_events(instance, result.run_id)
        words = " / ".join(
            event.step_failure_data.error_display_string
            for event in result.all_events
            if event.is_step_failure
        )
        relations = read_relations(self.ours)
        ours = replace(clean, success=result.success, relations=relations, words=words)
        return [
            *differences(clean, ours),
            *contradictions_of_resumed(clean, built.recorded, recorded),
        ]


def _variables(options: Sequence[str]) -> dict[str, Any]:
    """Return the vars of a command line, which decide which nodes exist."""
    words = [*options]
    if "--vars" not in words:
        return {}
    variables: dict[str, Any] = yaml.safe_load(words[words.index("--vars") + 1])
    return variables


__all__ = [
    "Build",
    "Evaluation",
    "Materialization",
    "Outcome",
    "Recorded",
    "Twins",
    "contradictions",
    "contradictions_of_resumed",
    "differences",
    "named",
]
