"""Loads a dagster.yaml with the installed Dagster, launches a run, and prints the result as JSON.

DAGSTER_HOME names the directory of dagster.yaml. The arguments are the image of the code server and
its container context. There is no cluster: the script prints the Job that Dagster would create.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dagster as dg
import kubernetes
from dagster._core.code_pointer import FileCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun

created: list[Any] = []


class Cluster:
    """Replaces the Kubernetes API."""

    def create_namespaced_job_with_retries(self, body: Any, **_: Any) -> None:
        created.append(kubernetes.client.ApiClient().sanitize_for_serialization(body))


kubernetes.config.load_incluster_config = lambda: None
image, context = sys.argv[1:]
with dg.DagsterInstance.get() as instance:
    launcher: Any = instance.run_launcher
    launcher._api_client = Cluster()
    origin = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=FileCodePointer("definitions.py", "__repository__"),
        container_image=image,
        entry_point=["dagster"],
        container_context=json.loads(context),
    )
    run = DagsterRun(
        job_name="shop",
        job_code_origin=JobPythonOrigin("shop", origin),
        tags={},
    )
    instance.add_run(run)
    launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    concurrency: Any = instance.get_concurrency_config()
    answer = {
        "dagster": dg.__version__,
        "launcher": type(launcher).__name__,
        "coordinator": type(instance.run_coordinator).__name__,
        "run_storage": type(instance.run_storage).__name__,
        "event_storage": type(instance.event_log_storage).__name__,
        "compute_logs": type(instance.compute_log_manager).__name__,
        "telemetry": instance.telemetry_enabled,
        "run_monitoring": instance.run_monitoring_enabled,
        "start_timeout": instance.run_monitoring_start_timeout_seconds,
        "run_retries": instance.run_retries_enabled,
        "max_concurrent_runs": concurrency.run_queue_config.max_concurrent_runs,
        "retention": instance.get_settings("retention"),
        "jobs": created,
    }
json.dump(answer, sys.stdout)
