"""The build context of a product's image: every file by its name, the same bytes each time."""

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

# Files of a product besides those of dbt; what a local .env holds stays at home.
EXTRA_FILES = ("floe*.yaml", "floe*.yml", "requirements.txt")
LEFT_OUT = {".env"}
SKIPPED_FOLDERS = {"__pycache__", ".git"}
# Where packages are named, maybe by an address that holds a password.
PACKAGE_FILES = ("packages.yml", "dependencies.yml", "package-lock.yml")
# Names at the top of a context that are its own.
OWN_NAMES = frozenset({"Dockerfile", "requirements.txt", "app", "wheels"})
MAX_FILE_BYTES = 256 * 2**20
# What the chart's processes need besides the plugin; each is released with one of the plugin's.
COMPANIONS = {
    "dagster-webserver": "dagster",
    "dagster-postgres": "dagster-dbt",
    "dagster-k8s": "dagster-dbt",
}
DIRECT = ("floe-orchestrator-dagster", "floe-core", "dagster", "dagster-dbt", "dbt-core")


def image_context(
    directory: Path, wheels: Path | None, progress: Callable[[str], None]
) -> dict[str, bytes]:
    """Return every file that the image of the product in `directory` is built from, in order.

    `wheels` is a folder of wheels to install instead of asking an index.

    Raises:
        ProductError: a file is missing, or would carry a secret into the image.
    """
    found = find_product(directory)
    artifacts, compiled = found.artifacts, found.compiled
    project = found.required_project("package").directory
    outline = outline_product(compiled, project)
    if any("local" in package for package in _packages(project)):
        # A package beside the project is not beside the image's.
        install_packages(outline, progress)
    _refuse_addresses(project)
    product = {_place(path, project): _read(path) for path in _product_files(outline)}
    content = {
        "Dockerfile": _dockerfile(product),
        "requirements.txt": _requirements(project, outline.profile).encode(),
        f"app/target/{ARTIFACTS}": _read(artifacts),
        "app/target/definitions.py": _definitions(artifacts.parent, compiled),
        **product,
        **_profiles(outline),
        **({f"wheels/{path.name}": _read(path) for path in wheels.glob("*.whl")} if wheels else {}),
    }
    return dict(sorted(content.items()))


def _read(path: Path) -> bytes:
    return read_bytes(path, MAX_FILE_BYTES, "Remove it from the product.")


def _product_files(outline: Outline) -> Iterator[Path]:
    """Yield what dbt reads on any of the product's targets, and what is read beside it."""
    project = outline.project
    found = [path for name in EXTRA_FILES for path in sorted(project.root.glob(name))]
    for target in sorted(outline.targets):
        found += map(Path, project.on(outline.profile.target(target)).files())
    for path in dict.fromkeys(found):
        if path.name not in LEFT_OUT and not SKIPPED_FOLDERS & {*path.parent.parts}:
            yield path


def _place(path: Path, project: Path) -> str:
    """Return the name in the context of a file that dbt reads, whose content may be a link's.

    The project becomes `app`, so that what is named beside it is beside `app`.
    """
    name = PurePosixPath(os.path.relpath(path, project))
    place = PurePosixPath(os.path.normpath("app" / name))
    if ".." in place.parts or (place.parts[0] in OWN_NAMES and place.parts[0] != "app"):
        raise ProductError(
            f"Cannot package {path}: in an image nothing is there from {project}. Name it by a "
            f"path inside the project, or directly beside it, in {DBT_PROJECT}."
        )
    return place.as_posix()


def _dockerfile(product: Iterable[str]) -> bytes:
    """Return the Dockerfile, which also copies what lies beside the project."""
    text = (
        package_files("floe_orchestrator_dagster.deploy").joinpath("Dockerfile").read_text("utf-8")
    )
    for name in sorted({name.partition("/")[0] for name in product} - {"app"}):
        for line in ("COPY app /app\n", "COPY --from=build /app /app\n"):
            text = text.replace(line, line + line.replace("app", name))
    return text.encode()


def _profiles(outline: Outline) -> dict[str, bytes]:
    """Return profiles.yml as a file of the image: the project's own, or the one profile it uses."""
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
        found = read_yaml(path, "Correct it.") if path.is_file() and path.stat().st_size else {}
        yield from (item for item in found.get("packages") or () if isinstance(item, dict))


def _definitions(folder: Path, compiled: CompiledProduct) -> bytes:
    """Return definitions.py: the one beside the artifacts, which may be the user's own."""
    path = folder / "definitions.py"
    return _read(path) if path.is_file() else entry_point_code(compiled.name).encode()


def _refuse_secrets(path: Path, profiles: Mapping[str, Any]) -> None:
    """Refuse a secret that an image would show to whoever can pull it.

    In the compiled artifacts floe-core has refused them already.
    """
    found = [
        ".".join(keys)
        for keys, value in texts(dict(profiles))
        if keys[-1].lower().endswith(SECRETS) and value and "env_var(" not in value
    ]
    if found:
        raise ProductError(
            f"Cannot package {path}: it holds secrets, at {', '.join(found)}. Write "
            "\"{{ env_var('NAME') }}\" there, and give the variable from a Secret (envSecrets)."
        )


def _refuse_addresses(project: Path) -> None:
    """Refuse a package's address that holds a password or a token."""
    for path in (project / name for name in PACKAGE_FILES):
        if not path.is_file() or not path.stat().st_size:
            continue
        found = [
            ".".join(keys)
            for keys, value in texts(read_yaml(path, "Correct it."))
            if "://" in value and "env_var(" not in value and holds_secret(value)
        ]
        if found:
            raise ProductError(
                f"Cannot package {path}: an address holds a secret, at {', '.join(found)}. Write "
                "\"{{ env_var('DBT_ENV_SECRET_NAME') }}\" there instead."
            )


def _requirements(project: Path, profile: Profile) -> str:
    """Return what the image installs, in the versions of this environment where it has them."""
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
    """Return a tar archive without anything that differs between two runs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
