"""`floe-dagster build-context`: the files that a product's image is built from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import click

from floe_orchestrator_dagster.cli.output import respond
from floe_orchestrator_dagster.cli.screen import Screen
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import write_atomically
from floe_orchestrator_dagster.product.image import archive, image_context

if TYPE_CHECKING:
    from pathlib import Path


def write_context(directory: Path, output: Path, wheels: Path | None, *, as_json: bool) -> None:
    """Write the build context of a product to a directory, or to a tar archive (`*.tar`).

    Raises:
        ProductError: a file is missing, a file contains a secret, or `output` is not empty.
    """
    content = image_context(directory.absolute(), wheels, Screen.opened(as_json=as_json).progress)
    archived = archive(content)
    if output.suffix == ".tar":
        write_atomically(output, archived)
    else:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ProductError(
                f"Cannot write {output}: it already exists and is not an empty directory. Name a "
                "new or empty directory, or a .tar file."
            )
        for name, data in content.items():
            write_atomically(output / name, data)
    size = sum(map(len, content.values()))
    digest = hashlib.sha256(archived).hexdigest()
    if as_json:
        respond({"output": str(output), "files": [*content], "bytes": size, "sha256": digest})
    else:
        click.echo(f"{output}: {len(content)} files, {size:,} bytes, sha256 {digest}")
