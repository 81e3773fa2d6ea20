"""The anchor: a dbt project on Dagster, written as in dagster-dbt's documentation."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetSelection, Definitions, define_asset_job
from dagster_dbt import DbtCliResource, dbt_assets


def definitions(
    manifest: Path,
    *,
    with_job: bool,
    project_dir: Path,
    dbt_executable: str = "dbt",
) -> Definitions:
    """Return raw dagster-dbt's Definitions of a manifest and its project."""

    @dbt_assets(manifest=manifest)
    def models(context: AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        yield from dbt.cli(["build"], context=context).stream()

    dbt = DbtCliResource(
        project_dir=str(project_dir), profiles_dir=str(project_dir), dbt_executable=dbt_executable
    )
    jobs = [define_asset_job("everything", selection=AssetSelection.all())] if with_job else []
    return Definitions(assets=[models], jobs=jobs, resources={"dbt": dbt})


if "BENCH_RAW_PROJECT" in os.environ:
    # `dagster job execute -m benchmarks.raw` looks for it here.
    defs = definitions(
        Path(os.environ["BENCH_RAW_MANIFEST"]),
        with_job=True,
        project_dir=Path(os.environ["BENCH_RAW_PROJECT"]),
    )
