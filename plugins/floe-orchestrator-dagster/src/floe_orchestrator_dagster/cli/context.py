"""`floe-dagster build-context`: what an image of a product is built from."""

from __future__ import annotations

import hashlib
import io
import tarfile
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.entry_point import entry_point_code
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_bytes, read_yaml, write_atomically
from floe_orchestrator_dagster.product import (
    ARTIFACTS,
    COMPILE,
    DBT_PROJECT,
    PROJECT_FILES,
    PROJECT_PATHS,
    compiled_product,
    files_below,
    find_artifacts,
    find_project,
    read_artifacts,
)
from floe_orchestrator_dagster.profiles import merged_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floe_orchestrator_dagster.plan import CompiledProduct

# Files of a product besides those of dbt; what a local .env holds stays at home.
EXTRA_FILES = ("floe.yaml", "profiles.yml", "requirements.txt")
LEFT_OUT = {".env"}
SKIPPED_FOLDERS = {"__pycache__", ".git"}
MAX_FILE_BYTES = 256 * 2**20
SECRETS = ("password", "pass", "token", "secret", "private_key", "api_key", "access_key", "dsn")
# What the chart's processes need besides the plugin; each is released with one of the plugin's.
COMPANIONS = {
    "dagster-webserver": "dagster",
    "dagster-postgres": "dagster-dbt",
    "dagster-k8s": "dagster-dbt",
}
DIRECT = ("floe-orchestrator-dagster", "floe-core", "dagster", "dagster-dbt", "dbt-core")


def write_context(directory: Path, output: Path, wheels: Path | None, *, as_json: bool) -> None:
    """Write the build context of a product to a directory, or to a tar archive (`*.tar`).

    Raises:
        ProductError: a file is missing, a profile holds a secret, or `output` is in use.
    """
    content = _context(directory.absolute(), wheels)
    if output.suffix == ".tar":
        write_atomically(output, _archive(content))
    else:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ProductError(f"Cannot write {output}: it is there already. Name an empty one.")
        for name, data in content.items():
            write_atomically(output / name, data)
    size = sum(map(len, content.values()))
    digest = hashlib.sha256(_archive(content)).hexdigest()
    if as_json:
        told = {"output": str(output), "files": [*content], "bytes": size, "sha256": digest}
        respond(told)
    else:
        click.echo(f"{output}: {len(content)} files, {size:,} bytes, sha256 {digest}")


def _context(directory: Path, wheels: Path | None) -> dict[str, bytes]:
    """Return every file of the context by its name, in order."""
    artifacts = find_artifacts(directory)
    compiled = compiled_product(read_artifacts(artifacts))
    project = find_project(compiled, artifacts.parent)
    if project is None:
        raise ProductError(
            f"Cannot package product '{compiled.name}': no {DBT_PROJECT} in {artifacts.parent} or "
            f"above it. Compile into the dbt project (`{COMPILE}`)."
        )
    dbt_project = read_yaml(project / DBT_PROJECT, "Correct it.")
    _, outputs, _ = merged_outputs(compiled, project, dbt_project, project / "target" / "floe")
    _refuse_secrets(project / "profiles.yml")
    content = {
        "Dockerfile": package_files("floe_orchestrator_dagster.deploy")
        .joinpath("Dockerfile")
        .read_bytes(),
        "requirements.txt": _requirements(project, outputs).encode(),
        f"app/target/{ARTIFACTS}": _read(artifacts),
        "app/target/definitions.py": _definitions(artifacts.parent, compiled),
        **{
            f"app/{path.relative_to(project).as_posix()}": _read(path)
            for path in _product_files(project, dbt_project)
        },
        **({f"wheels/{path.name}": _read(path) for path in wheels.glob("*.whl")} if wheels else {}),
    }
    return dict(sorted(content.items()))


def _read(path: Path) -> bytes:
    return read_bytes(path, MAX_FILE_BYTES, "Remove it from the product.")


def _product_files(project: Path, dbt_project: Mapping[str, Any]) -> Iterator[Path]:
    """Yield what dbt parses and what is read beside it; paths outside the project are left out."""
    names = [name for name in PROJECT_FILES if name not in LEFT_OUT]
    roots = [project / name for name in (*names, *EXTRA_FILES)]
    for setting, default in PROJECT_PATHS.items():
        roots += [project / str(name) for name in dbt_project.get(setting) or default]
    roots.append(project / str(dbt_project.get("packages-install-path") or "dbt_packages"))
    for path in dict.fromkeys(map(Path, files_below(roots))):
        if not path.resolve().is_relative_to(project.resolve()):
            raise ProductError(
                f"Cannot package {path}: it is outside of {project}. Copy it into the project."
            )
        if not SKIPPED_FOLDERS & set(path.relative_to(project).parts):
            yield path


def _definitions(folder: Path, compiled: CompiledProduct) -> bytes:
    """Return definitions.py: the one beside the artifacts, which may be the user's own."""
    path = folder / "definitions.py"
    return _read(path) if path.is_file() else entry_point_code(compiled.name).encode()


def _refuse_secrets(profiles: Path) -> None:
    """Refuse a secret that an image would show to whoever can pull it.

    In the compiled artifacts floe-core has refused them already.
    """
    if not profiles.is_file():
        return
    found = [
        ".".join(path)
        for path, value in _texts(read_yaml(profiles, "Correct it."))
        if path[-1].lower().endswith(SECRETS) and value and "env_var(" not in value
    ]
    if found:
        raise ProductError(
            f"Cannot package {profiles}: it holds secrets, at {', '.join(found)}. Write "
            "\"{{ env_var('NAME') }}\" there, and give the variable from a Secret (envSecrets)."
        )


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, str(key)))
    elif isinstance(value, str) and path:
        yield path, value


def _requirements(project: Path, outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the image installs, in the versions of this environment where it has them."""
    adapters = sorted({f"dbt-{output['type']}" for output in outputs.values() if "type" in output})
    names = {name: name for name in (*DIRECT, *adapters)} | COMPANIONS
    lines = [_pinned(name, like) for name, like in sorted(names.items())]
    own = project / "requirements.txt"
    if own.is_file():
        lines += ["# The product's own:", _read(own).decode().strip()]
    return "\n".join(lines) + "\n"


def _pinned(name: str, like: str) -> str:
    try:
        return f"{name}=={version(like)}"
    except PackageNotFoundError:
        return name


def _archive(content: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without anything that differs between two runs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
