"""Reads the SQL that dbt has compiled for a node from the directory of the dbt run."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from floe_orchestrator_dagster.plan import Node


def compiled_sql(run_dir: Path, node: Node | None) -> str | None:
    """Return the SQL that dbt has compiled for a model; for microbatch, of the last batch.

    Return None if the node is not an SQL model, or if dbt wrote no file for it.
    """
    dbt = node.dbt if node else None
    if node is None or dbt is None or node.kind != "model":
        return None
    path = run_dir / "compiled" / dbt.package_name / dbt.original_file_path
    if path.suffix != ".sql":
        return None
    if not path.is_file():
        batches = path.with_suffix("").glob(f"{glob.escape(path.stem)}_*.sql")
        path = max(batches, default=path)
    return path.read_text(errors="replace") if path.is_file() else None


def compiled_in_results(run_dir: Path) -> dict[str, str]:
    """Return the compiled SQL in dbt's run_results.json by unique id; {} if there is no file."""
    try:
        content = (run_dir / "run_results.json").read_bytes()
    except FileNotFoundError:  # dbt was killed
        return {}
    decoded = msgspec.json.decode(content, type=_Results)
    return {item.unique_id: item.compiled_code for item in decoded.results if item.compiled_code}


class _Result(msgspec.Struct):
    unique_id: str
    compiled_code: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]
