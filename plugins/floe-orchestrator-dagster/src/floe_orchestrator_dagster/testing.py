"""For your own tests: a floe product in a few lines, and a lineage backend that records events.

    from floe_orchestrator_dagster import load_product_definitions
    from floe_orchestrator_dagster.testing import write_product

    def test_my_translator_names_the_assets(tmp_path):
        target = write_product(
            tmp_path, {"orders": "select 1 as id", "revenue": "select * from {{ ref('orders') }}"}
        )
        definitions = load_product_definitions("tested", target, translator=MyTranslator())

floe compiles the product and dbt builds it on DuckDB, so you need
`floe-orchestrator-dagster[duckdb]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import yaml
from floe_core.plugins.lineage import LineageBackendPlugin

from floe_orchestrator_dagster.errors import ProductError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

__all__ = ["PLATFORM", "RecordingBackend", "compile_product", "write_product"]

PLATFORM: Mapping[str, Any] = {
    "apiVersion": "floe.dev/v1",
    "kind": "Manifest",
    "metadata": {"name": "platform", "version": "1.0.0", "owner": "team@example.com"},
    "plugins": {
        "compute": {
            "type": "duckdb",
            "config": {"path": "target/{product_slug}.duckdb", "threads": 2},
        },
        "orchestrator": {"type": "dagster"},
    },
}
"""The manifest.yaml of a platform with one compute: a DuckDB file in the product's target."""


def write_product(  # noqa: PLR0913  a user gives one or two of them
    directory: Path,
    files: Mapping[str, str],
    *,
    name: str = "tested",
    transforms: Sequence[Mapping[str, Any]] | None = None,
    schedule: Mapping[str, Any] | None = None,
    platform: Mapping[str, Any] = PLATFORM,
) -> Path:
    """Write a product and compile it with floe; return its target directory.

    Args:
        directory: an existing directory; becomes the dbt project.
        files: contents by path; a name without a dot is a model (`a` is `models/a.sql`). If
            neither these files nor the directory have a dbt_project.yml, this writes one.
        name: the product's name.
        transforms: the `transforms` of floe.yaml; by default, each model of `files` on the default
            compute.
        schedule: the `schedule` of floe.yaml.
        platform: the content of manifest.yaml.

    Raises:
        ProductError: floe does not compile the product; includes the output of floe.
    """
    paths = {path if "." in path else f"models/{path}.sql": text for path, text in files.items()}
    if transforms is None:
        models = (Path(path) for path in paths if path.startswith("models/"))
        transforms = [{"name": path.stem} for path in models if path.suffix == ".sql"]
    spec: dict[str, Any] = {
        "apiVersion": "floe.dev/v1",
        "kind": "FloeSpec",
        "metadata": {"name": name, "version": "1.0.0"},
        "transforms": [dict(transform) for transform in transforms],
    }
    if schedule is not None:
        spec["schedule"] = dict(schedule)
    paths |= {"floe.yaml": yaml.safe_dump(spec), "manifest.yaml": yaml.safe_dump(dict(platform))}
    if not (directory / "dbt_project.yml").exists():
        project = {"name": name.replace("-", "_"), "profile": name, "version": "1.0"}
        paths.setdefault("dbt_project.yml", yaml.safe_dump(project))
    for path, text in paths.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return compile_product(directory)


def compile_product(directory: Path) -> Path:
    """Compile the floe.yaml and manifest.yaml of a directory; return its target directory.

    Raises:
        ProductError: floe does not compile the product; includes the output of floe.
    """
    target = directory / "target"
    done = subprocess.run(  # noqa: S603  the program is floe's own
        [
            *(sys.executable, "-c", "from floe_core.cli import main; main()"),
            *("platform", "compile", "--spec", "floe.yaml", "--manifest", "manifest.yaml"),
            *("--output", "target/compiled_artifacts.json", "--generate-definitions"),
        ],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise ProductError(
            f"Cannot compile the product in {directory}: `floe platform compile` ended with exit "
            f"code {done.returncode} and printed:\n{done.stdout.rstrip()}\n"
            "Correct the files that it names."
        )
    return target


class RecordingBackend(LineageBackendPlugin):
    """A lineage backend that records the events that it receives inside its `with` block.

        with RecordingBackend() as backend:
            plugin = DagsterOrchestratorPlugin(project_dir=directory, lineage_backend=backend)
            ...
        assert [event["eventType"] for event in backend.events] == ["START", "COMPLETE"]

    Events go over HTTP to a server on this machine, as to any other backend.
    """

    name = "recorder"
    version = "1.0.0"
    floe_api_version = "1.0"

    def __init__(self, port: int = 0) -> None:
        """Listen on this port; 0 means any free port."""
        super().__init__()
        self.port = port
        self.events: list[dict[str, Any]] = []
        """The OpenLineage events, in the order of their arrival."""

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"backend": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The URL that events are posted to."""
        return f"http://127.0.0.1:{self.port}/api/v1/lineage"

    def answer(self, request: BaseHTTPRequestHandler, event: dict[str, Any]) -> None:
        """Record an event and accept it; override this for a backend that behaves differently."""
        self.events.append(event)
        request.send_response(201)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def get_transport_config(self) -> dict[str, Any]:
        """Return the transport that leads to this server."""
        return {"type": "http", "url": self.url, "timeout": 5.0}

    def get_namespace_strategy(self) -> dict[str, Any]:
        """Return the strategy that puts all jobs in one namespace, `test.floe`."""
        return {"strategy": "centralized", "environment": "test", "platform": "floe"}

    def get_helm_values(self) -> dict[str, Any]:
        """Return nothing: there is nothing to deploy."""
        return {}

    def validate_connection(self) -> bool:
        """Return True: the server is part of this process."""
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: RecordingBackend
    # Buffer the response, so that it is one packet; two packets would wait for an acknowledgement.
    wbufsize = -1

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.backend.answer(self, event)

    def log_message(self, *_: object) -> None:
        """Print nothing, so that the output of a test stays clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Print nothing: a client may close its connection."""
