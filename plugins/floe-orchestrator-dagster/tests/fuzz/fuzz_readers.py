"""Coverage-guided fuzzing of the readers of untrusted bytes, with atheris; see `make fuzz`.

Usage: ``python tests/fuzz/fuzz_readers.py READER [libFuzzer options]``. Any error that is not an
error of this package stops the fuzzer and shows the input.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["floe_orchestrator_dagster"]):
    from floe_orchestrator_dagster.config import PluginConfig
    from floe_orchestrator_dagster.dbt.events import EventReader
    from floe_orchestrator_dagster.errors import FloeDagsterError
    from floe_orchestrator_dagster.product.artifacts import compiled_product, read_artifacts
    from floe_orchestrator_dagster.product.prepare import parse_manifest
    from floe_orchestrator_dagster.product.spec import read_spec
    from floe_orchestrator_dagster.schedules import product_schedule
    from floe_orchestrator_dagster.urls import shown
    from floe_orchestrator_dagster.webserver.graphql import read_state, read_version
    from floe_orchestrator_dagster.webserver.refusal import RefusalError

FOLDER = Path(tempfile.mkdtemp())


def artifacts(data: bytes) -> None:
    """Read compiled_artifacts.json."""
    path = FOLDER / "compiled_artifacts.json"
    path.write_bytes(data)
    compiled_product(read_artifacts(path))


def manifest(data: bytes) -> None:
    """Read dbt's manifest.json."""
    path = FOLDER / "manifest.json"
    path.write_bytes(data)
    parse_manifest(path, path.read_bytes())


def spec(data: bytes) -> None:
    """Read floe.yaml."""
    (FOLDER / "floe.yaml").write_bytes(data)
    product_schedule("fuzz", read_spec(FOLDER / "floe.yaml"), PluginConfig())


def line(data: bytes) -> None:
    """Read a line of the dbt process."""
    EventReader().read(data)


def answer(data: bytes) -> None:
    """Read a webserver's answer, and a URL."""
    shown(data.decode(errors="replace"))
    for read in (read_version, read_state):
        with suppress(RefusalError):
            read(data)


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (artifacts, manifest, spec, line, answer)
}


def main() -> None:
    """Fuzz the reader that the command line names."""
    read = READERS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        with suppress(FloeDagsterError):
            read(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
