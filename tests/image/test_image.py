"""A product's image builds without an index, and executes a run read-only and without root.

`make test-image` needs a Docker daemon, and PYTHON_IMAGE if python:3.11-slim is not available.
The containers run as in the chart: with dagster.yaml and workspace.yaml, without capabilities, with
a read-only root, a user without privileges, and /tmp and DAGSTER_HOME in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "floe-orchestrator-dagster"
BIN = Path(sys.executable).parent
IMAGE = "floe-dagster-test-image:1"
PREFIX = "floe-dagster-test"
WEB_PORT, CODE_PORT = 13970, 13971
PATIENCE_SECONDS = 300
RESTRICTED = (
    "--read-only",
    "--user=10001:10001",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=host",
    "--tmpfs=/tmp:mode=1777",
    "--env=HOME=/tmp",
)


def docker(*words: str, stdin: Path | None = None) -> str:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        done = subprocess.run(
            ["docker", *words], stdin=source, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def eventually(what: str, question: Callable[[], Any]) -> tuple[Any, float]:
    """Repeat a question until it has an answer; return the answer and the seconds that it took."""
    start = time.monotonic()
    last: Exception | None = None
    while time.monotonic() - start < PATIENCE_SECONDS:
        try:
            if answer := question():
                return answer, time.monotonic() - start
        except (OSError, httpx.HTTPError, AssertionError, KeyError) as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"no {what} in {PATIENCE_SECONDS} s: {last}")


def ask(query: str, **variables: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"http://127.0.0.1:{WEB_PORT}/graphql",
        json={"query": query, "variables": variables},
        timeout=30,
    )
    data: dict[str, Any] = answer.json()["data"]
    return data


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, str]]:
    """The measured figures, which are printed at the end."""
    by_name: dict[str, str] = {}
    yield by_name
    sys.stdout.write("\n" + "\n".join(f"{name}: {value}" for name, value in by_name.items()) + "\n")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, figures: dict[str, str]) -> str:
    """The image of examples/shop, built only from wheels, with its DuckDB file on a volume."""
    folder = tmp_path_factory.mktemp("image")
    product = folder / "shop"
    shutil.copytree(ROOT / "examples" / "shop", product, ignore=shutil.ignore_patterns("target"))
    manifest = yaml.safe_load((product / "manifest.yaml").read_text())
    manifest["plugins"]["compute"]["config"]["path"] = "/data/shop.duckdb"
    (product / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    compiler = ["--spec", "floe.yaml", "--manifest", "manifest.yaml", "--generate-definitions"]
    subprocess.run(
        [
            *(str(BIN / "floe"), "platform", "compile", *compiler),
            *("--output", "target/compiled_artifacts.json"),
        ],
        cwd=product,
        check=True,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
    )
    wheels, context = folder / "wheels", folder / "context.tar"
    command = [str(BIN / "floe-dagster"), "build-context", str(product)]
    first = folder / "first"
    subprocess.run([*command, "--output", first], check=True)
    pip = [str(BIN / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, PLUGIN], check=True)
    subprocess.run(
        [
            *(
                *pip,
                "download",
                "--prefer-binary",
                "--dest",
                str(wheels),
                "--find-links",
                str(wheels),
            ),
            *("--constraint", str(ROOT / "constraints.txt")),
            *("--requirement", str(first / "requirements.txt")),
        ],
        check=True,
    )
    subprocess.run([*command, "--output", context, "--wheels", wheels], check=True)
    base = os.environ.get("PYTHON_IMAGE", "python:3.11-slim")
    started = time.monotonic()
    docker(
        *("build", "--network=none", f"--build-arg=PYTHON_IMAGE={base}", "--tag", IMAGE, "-"),
        stdin=context,
    )
    figures["context with wheels"] = f"{context.stat().st_size / 2**20:.0f} MiB"
    figures["build without network"] = f"{time.monotonic() - started:.0f} s"
    for name, image_name in (("base image", base), ("image", IMAGE)):
        size = int(docker("image", "inspect", "--format={{.Size}}", image_name))
        figures[name] = f"{size / 2**20:.0f} MiB"
    return IMAGE


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster instance on SQLite, instead of PostgreSQL, that the containers share."""
    folder = tmp_path_factory.mktemp("home")
    instance = {
        "telemetry": {"enabled": False},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "DefaultRunCoordinator",
        },
    }
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
    server = {"host": "127.0.0.1", "port": CODE_PORT, "location_name": "shop"}
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    (folder / "data").mkdir()
    for path in (folder, folder / "data"):
        os.chown(path, 10001, 10001)
    return folder


@contextlib.contextmanager
def container(name: str, home: Path, *command: str) -> Iterator[str]:
    """Run a container as the chart does, with a home and a volume for DuckDB."""
    full = f"{PREFIX}-{name}"
    volumes = (f"--volume={home}:/opt/dagster/dagster_home", f"--volume={home}/data:/data")
    docker("run", "--detach", "--name", full, *RESTRICTED, *volumes, IMAGE, *command)
    try:
        yield full
    finally:
        docker("rm", "--force", "--volumes", full)


def test_the_image_contains_the_prepared_files_and_runs_without_root(image: str) -> None:
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert "FLOE_PREPARED=1" in config["Env"]
    listed = docker("run", "--rm", "--network=none", image, "find", "/app", "-type", "f")
    assert "/app/target/floe/dev/manifest.json" in listed
    assert "/app/target/floe/dev/partial_parse.msgpack" in listed
    assert ".env" not in listed
    owned = docker(
        "run", "--rm", "--network=none", image, "find", "/app", "/venv", "-user", "10001"
    )
    assert owned == ""
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    assert "PLACEHOLDERS" not in history


@pytest.mark.usefixtures("image")
def test_a_run_launched_over_graphql_succeeds(home: Path, figures: dict[str, str]) -> None:
    server = ("dagster", "api", "grpc", "--host=0.0.0.0", f"--port={CODE_PORT}")
    source = ("--python-file=target/definitions.py", "--location-name=shop")
    web = ("dagster-webserver", "--host=127.0.0.1", f"--port={WEB_PORT}")
    workspace = "--workspace=/opt/dagster/dagster_home/workspace.yaml"
    check = ("exec", f"{PREFIX}-code", "dagster", "api", "grpc-health-check", "-p", str(CODE_PORT))
    with container("code", home, *server, *source) as code:
        _, seconds = eventually("code server", lambda: docker(*check) or True)
        figures["code server, until it answers"] = f"{seconds:.1f} s"
        start = time.monotonic()
        docker(*check)
        figures["dagster api grpc-health-check"] = f"{time.monotonic() - start:.1f} s"
        with container("web", home, *web, workspace):
            _, seconds = eventually("webserver", lambda: ask("{ version }")["version"])
            figures["webserver, until it answers"] = f"{seconds:.1f} s"
            repositories = ask(
                "{ repositoriesOrError { ... on RepositoryConnection { nodes {"
                " name location { name } jobs { name } } } } }"
            )["repositoriesOrError"]["nodes"]
            assert [node["location"]["name"] for node in repositories] == ["shop"]
            assert "shop" in [job["name"] for job in repositories[0]["jobs"]]
            launched = ask(
                "mutation($run: ExecutionParams!) { launchPipelineExecution(executionParams: $run)"
                " { __typename ... on LaunchRunSuccess { run { runId } }"
                " ... on PythonError { message } } }",
                run={
                    "selector": {
                        "repositoryLocationName": "shop",
                        "repositoryName": repositories[0]["name"],
                        "jobName": "shop",
                    },
                    "mode": "default",
                },
            )["launchPipelineExecution"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            run_id = launched["run"]["runId"]

            def ended() -> str | None:
                run = ask(
                    "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }",
                    id=run_id,
                )["runOrError"]
                status: str = run["status"]
                return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

            status, seconds = eventually("end of the run", ended)
            figures["run of examples/shop"] = f"{seconds:.1f} s"
            memory = docker("stats", "--no-stream", "--format={{.Name}} {{.MemUsage}}")
            figures["memory"] = memory.replace("\n", "; ")
            assert status == "SUCCESS", docker("logs", code)
    assert (home / "data" / "shop.duckdb").is_file()
