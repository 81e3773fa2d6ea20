"""The build context of a product's image: files by name, with the same bytes each time."""

from __future__ import annotations

import io
import os
import tarfile
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from floe_orchestrator_dagster.dbt.jinja import texts
from floe_orchestrator_dagster.dbt.project import DBT_PROJECT
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import read_bytes, read_yaml
from floe_orchestrator_dagster.product.artifacts import ARTIFACTS
from floe_orchestrator_dagster.product.entry_point import entry_point_code
from floe_orchestrator_dagster.product.finding import find_product
from floe_orchestrator_dagster.product.prepare import Outline, install_packages, outline_product
from floe_orchestrator_dagster.product.profiles import PROFILES, SECRETS, profiles_file
from floe_orchestrator_dagster.urls import holds_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from floe_orchestrator_dagster.plan import CompiledProduct
    from floe_orchestrator_dagster.product.profiles import Profile

# Files of a product that dbt does not read. A local .env may contain secrets.
EXTRA_FILES = ("floe*.yaml", "floe*.yml", "requirements.txt")
LEFT_OUT = {".env"}
SKIPPED_FOLDERS = {"__pycache__", ".git"}
# Files that name packages, perhaps by an address with a password.
PACKAGE_FILES = ("packages.yml", "dependencies.yml", "package-lock.yml")
# Names at the top of a context that no file of a product may take.
OWN_NAMES = frozenset({"Dockerfile", "requirements.txt", "app", "wheels"})
MAX_FILE_BYTES = 256 * 2**20
# Packages that only the chart's processes need, each with the package that shares its version.
COMPANIONS = {
    "dagster-webserver": "dagster",
    "dagster-postgres": "dagster-dbt",
    "dagster-k8s": "dagster-dbt",
}
DIRECT = ("floe-orchestrator-dagster", "floe-core", "dagster", "dagster-dbt", "dbt-core")


def image_context(
    directory: Path, wheels: Path | None, progress: Callable[[str], None]
) -> dict[str, bytes]:
    """Return the files that the image of the product in `directory` is built from, by name.

    `wheels` is a folder of wheels to install from instead of a package index.

    Raises:
        ProductError: a file is missing, or would bring a secret into the image.
    """
    product = find_product(directory)
    artifacts, compiled = product.artifacts, product.compiled
    project = product.required_project("package").directory
    outline = outline_product(compiled, project)
    if any("local" in package for package in _packages(project)):
        # The image does not contain a package from outside the project, so install it first.
        install_packages(outline, progress)
    _refuse_addresses(project)
    files = {_place(path, project): _read(path) for path in _product_files(outline)}
    content = {
        "Dockerfile": _dockerfile(files),
        "requirements.txt": _requirements(project, outline.profile).encode(),
        f"app/target/{ARTIFACTS}": _read(artifacts),
        "app/target/definitions.py": _definitions(artifacts.parent, compiled),
        **files,
        **_profiles(outline),
        **({f"wheels/{path.name}": _read(path) for path in wheels.glob("*.whl")} if wheels else {}),
    }
    return dict(sorted(content.items()))


def _read(path: Path) -> bytes:
    return read_bytes(path, MAX_FILE_BYTES, "Remove it from the product.")


def _product_files(outline: Outline) -> Iterator[Path]:
    """Yield the files that dbt reads on any of the product's targets, and `EXTRA_FILES`."""
    project = outline.project
    paths = [path for name in EXTRA_FILES for path in sorted(project.root.glob(name))]
    for target in sorted(outline.targets):
        paths += map(Path, project.on(outline.profile.target(target)).files())
    for path in dict.fromkeys(paths):
        if path.name not in LEFT_OUT and not SKIPPED_FOLDERS & {*path.parent.parts}:
            yield path


def _place(path: Path, project: Path) -> str:
    """Return the name of a product's file in the context.

    The project becomes `app`, so a file in a folder next to the project is in one next to `app`.
    """
    name = PurePosixPath(os.path.relpath(path, project))
    place = PurePosixPath(os.path.normpath("app" / name))
    if ".." in place.parts or (place.parts[0] in OWN_NAMES and place.parts[0] != "app"):
        raise ProductError(
            f"Cannot package {path}: the image cannot keep its place relative to {project}. In "
            f"{DBT_PROJECT}, name a path inside the project or in a folder next to it."
        )
    return place.as_posix()


def _dockerfile(names: Iterable[str]) -> bytes:
    """Return the Dockerfile; it also copies the folders of these files next to `app`."""
    text = (
        package_files("floe_orchestrator_dagster.deploy").joinpath("Dockerfile").read_text("utf-8")
    )
    for name in sorted({name.partition("/")[0] for name in names} - {"app"}):
        for line in ("COPY app /app\n", "COPY --from=build /app /app\n"):
            text = text.replace(line, line + line.replace("app", name))
    return text.encode()


def _profiles(outline: Outline) -> dict[str, bytes]:
    """Return the image's profiles.yml: the project's own, or else only the profile it uses."""
    path = profiles_file(outline.project)
    if path is None:
        return {}
    content = read_yaml(path, "Correct it.")
    if path.parent != outline.project.root:
        name = outline.profile.name
        content = {key: value for key, value in content.items() if key in {name, "config"}}
    _refuse_secrets(path, content)
    own = path.parent == outline.project.root
    return {f"app/{PROFILES}": _read(path) if own else yaml.safe_dump(content).encode()}


def _packages(project: Path) -> Iterator[Mapping[str, Any]]:
    for name in PACKAGE_FILES[:2]:
        path = project / name
        content = read_yaml(path, "Correct it.") if path.is_file() and path.stat().st_size else {}
        yield from (item for item in content.get("packages") or () if isinstance(item, dict))


def _definitions(folder: Path, compiled: CompiledProduct) -> bytes:
    """Return the definitions.py next to the artifacts, which users may edit, or a new one."""
    path = folder / "definitions.py"
    return _read(path) if path.is_file() else entry_point_code(compiled.name).encode()


def _refuse_secrets(path: Path, profiles: Mapping[str, Any]) -> None:
    """Refuse secrets in profiles, because anyone who can pull the image could read them.

    floe-core has already refused secrets in the compiled artifacts.
    """
    secrets = [
        ".".join(keys)
        for keys, value in texts(dict(profiles))
        if keys[-1].lower().endswith(SECRETS) and value and "env_var(" not in value
    ]
    if secrets:
        raise ProductError(
            f"Cannot package {path}: it contains secrets, at {', '.join(secrets)}. Write "
            "\"{{ env_var('NAME') }}\" there, and set the variable from a Secret (envSecrets)."
        )


def _refuse_addresses(project: Path) -> None:
    """Refuse package addresses with a password or a token."""
    for path in (project / name for name in PACKAGE_FILES):
        if not path.is_file() or not path.stat().st_size:
            continue
        addresses = [
            ".".join(keys)
            for keys, value in texts(read_yaml(path, "Correct it."))
            if "://" in value and "env_var(" not in value and holds_secret(value)
        ]
        if addresses:
            raise ProductError(
                f"Cannot package {path}: it contains secrets, at {', '.join(addresses)}. Write "
                "\"{{ env_var('DBT_ENV_SECRET_NAME') }}\" there instead."
            )


def _requirements(project: Path, profile: Profile) -> str:
    """Return the image's requirements, pinned to the versions that this environment has."""
    adapters = sorted({f"dbt-{adapter}" for adapter in profile.adapters.values() if adapter})
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


def archive(content: Mapping[str, bytes]) -> bytes:
    """Return a tar archive that has the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
