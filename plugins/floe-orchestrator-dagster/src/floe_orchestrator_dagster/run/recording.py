"""The lineage of one step, recorded from its start to its end."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import UUID

from floe_orchestrator_dagster.lineage.events import StepRun, run_id_of
from floe_orchestrator_dagster.lineage.recorder import LineageRecorder, now, open_lineage
from floe_orchestrator_dagster.lineage.source_code import source_code
from floe_orchestrator_dagster.product.layout import spool_directory
from floe_orchestrator_dagster.telemetry import current_trace_ids, span, spool_depth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster import AssetExecutionContext

    from floe_orchestrator_dagster.product.product import Product
    from floe_orchestrator_dagster.run.launch import Launch

SCHEDULED_TAG = ".dagster/scheduled_execution_time"


@contextmanager
def recording(
    context: AssetExecutionContext, product: Product, launch: Launch
) -> Iterator[LineageRecorder | None]:
    """Record the lineage of the block, also if it fails or is canceled; None without a backend."""
    opened = open_lineage(
        product.lineage_backend,
        product.compiled.artifacts,
        spool_directory(product.layout, product.plan.name),
        required=product.config.lineage == "required",
    )
    if opened is None:
        yield None
        return
    delivery, namespace = opened
    facts = _step_run(context, product, launch, namespace)
    recorder = LineageRecorder(facts, product.plan, delivery, context.log)
    try:
        recorder.started()
        yield recorder
    except Exception as error:
        recorder.ended({}, str(error))
        raise
    except BaseException as error:
        recorder.aborted(f"Canceled ({type(error).__name__})")
        raise
    finally:
        with span("floe.lineage", product_name=product.plan.name):
            spool_depth(recorder.close().waiting)


def _step_run(
    context: AssetExecutionContext, product: Product, launch: Launch, namespace: str
) -> StepRun:
    """Return the lineage run of this step: the Dagster run itself, or a child of it per compute."""
    run, step = context.run, context.op_execution_context.op_handle.name
    job = product.plan.name
    try:
        run_id = str(UUID(run.run_id))
    except ValueError:
        run_id = run_id_of(run.run_id)
    root = None
    if product.config.isolation == "compute":
        root = (run_id, namespace, job)
        run_id, job = run_id_of(run_id, step), f"{job}.{step}"
    nominal = run.tags.get(SCHEDULED_TAG)
    return StepRun(
        namespace=namespace,
        job=job,
        run_id=run_id,
        started_at=now(),
        root=root,
        nominal_time=nominal,
        dagster={
            "version": version("dagster"),
            "run_id": run.run_id,
            "job": run.job_name,
            "step": step,
            "partitions": list(launch.partitions),
            **dict(zip(("trace_id", "span_id"), current_trace_ids() or (), strict=False)),
        },
        code=source_code(product.project_dir) if product.project_dir else None,
        dbt_version=version("dbt-core"),
        profile=product.profile,
        project_dir=str(product.project_dir or ""),
    )
