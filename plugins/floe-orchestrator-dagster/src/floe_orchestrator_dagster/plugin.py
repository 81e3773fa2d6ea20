"""The plugin class that floe loads: a thin facade over the rooms of this package."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_core.plugin_metadata import HealthState, HealthStatus
from floe_core.plugins.orchestrator import OrchestratorPlugin, ResourceSpec, ValidationResult

from floe_orchestrator_dagster.config import PluginConfig

if TYPE_CHECKING:
    from uuid import UUID

    from dagster import AssetsDefinition, Definitions, SensorDefinition
    from floe_core.lineage import LineageDataset, LineageEmitter, RunState
    from floe_core.plugins.lineage import LineageBackendPlugin
    from floe_core.plugins.orchestrator import TransformConfig
    from pydantic import BaseModel

    from floe_orchestrator_dagster.product.finding import PluginSettings
    from floe_orchestrator_dagster.product.outlet import LineageOutlet
    from floe_orchestrator_dagster.schedules import Schedule
    from floe_orchestrator_dagster.webserver import WebserverState

_FALLBACK_VERSION = "0.0.0"


class DagsterOrchestratorPlugin(OrchestratorPlugin):
    """Runs floe data products on Dagster."""

    def __init__(
        self,
        project_dir: str | Path | None = None,
        lineage_backend: LineageBackendPlugin | None = None,
    ) -> None:
        """Create the plugin, optionally with its dbt project and its lineage backend."""
        super().__init__()
        self._project_dir = Path(project_dir) if project_dir is not None else None
        self._lineage_backend = lineage_backend
        self._schedules: dict[str, Schedule] = {}
        self._outlet: LineageOutlet | None = None

    @property
    def name(self) -> str:
        """Return the plugin's key in manifest.yaml: ``plugins.orchestrator.type: dagster``."""
        return "dagster"

    @property
    def version(self) -> str:
        """Return the installed version of this package, as X.Y.Z."""
        try:
            installed = version("floe-orchestrator-dagster")
        except PackageNotFoundError:
            return _FALLBACK_VERSION
        numbers = re.match(r"\d+\.\d+\.\d+", installed)
        return numbers.group() if numbers else _FALLBACK_VERSION

    @property
    def floe_api_version(self) -> str:
        """Return the plugin API of floe-core that this package implements."""
        return "1.0"

    @property
    def description(self) -> str:
        """Return one sentence for lists of plugins."""
        return "Runs data products on Dagster. Each dbt node is an asset, built on its own compute."

    @property
    def tracer_name(self) -> str:
        """Return the name of this package's OpenTelemetry tracer."""
        return "floe.orchestrator.dagster"

    def get_config_schema(self) -> type[BaseModel]:
        """Return the model of ``plugins.orchestrator.config``."""
        return PluginConfig

    @property
    def config(self) -> PluginConfig:
        """The configuration from `configure`, or the defaults."""
        return self._config if isinstance(self._config, PluginConfig) else PluginConfig()

    def create_definitions(self, artifacts: dict[str, Any]) -> Definitions:
        """Return the Dagster Definitions of compiled artifacts.

        The dbt project is the first of these: the constructor's, the plugin config's, the one in
        ``FLOE_PROJECT_DIR``, the one in or above the working directory. Without a project, names,
        graph, tags and computes come from the artifacts, and assets cannot be materialized.
        `artifacts` may also be floe-core's own `CompiledArtifacts`.

        Raises:
            PlanError: (a ValueError) the product has problems; lists all of them.
            ProductError: a file of the project is missing or cannot be read.
        """
        from floe_orchestrator_dagster.arguments import as_artifacts
        from floe_orchestrator_dagster.definitions.build import build_definitions
        from floe_orchestrator_dagster.product.artifacts import compiled_product
        from floe_orchestrator_dagster.product.opening import product_of_artifacts

        checked = as_artifacts(artifacts)
        compiled = compiled_product(checked)
        project = self._settings.find_project(compiled.config, compiled.name)
        product = product_of_artifacts(compiled, project)
        product = replace(product, lineage_backend=self._lineage.load(checked))
        return build_definitions(product, schedules=list(self._schedules.values()))

    def create_assets_from_transforms(
        self, transforms: list[TransformConfig]
    ) -> list[AssetsDefinition]:
        """Return one asset per transform; each runs dbt for its own node.

        Raises:
            PlanError: (a ValueError) an item is not a transform, a name occurs twice, there is a
                cycle, or a compute has no dbt output; lists all problems.
        """
        from floe_orchestrator_dagster.arguments import as_transforms
        from floe_orchestrator_dagster.definitions.transforms import build_transform_assets

        checked, project = as_transforms(transforms), self._settings.find_project(self.config)
        directory = project.directory if project else None
        return build_transform_assets(checked, directory, self.config)

    @property
    def _settings(self) -> PluginSettings:
        from floe_orchestrator_dagster.product.finding import PluginSettings

        return PluginSettings(self._project_dir, self.config)

    def get_helm_values(self) -> dict[str, Any]:
        """Return values for the chart ``charts/floe-dagster`` at the configured workload size.

        If computes of the configuration request resources, run pods get the maximum of each.
        """
        from floe_orchestrator_dagster.deploy.values import helm_values

        return helm_values(self.config.workload_size, self.config.computes)

    def validate_connection(self) -> ValidationResult:
        """Return whether the configured Dagster webserver answers, and with which warnings.

        The result has ``success``, ``message``, ``errors`` and ``warnings``.
        """
        from floe_orchestrator_dagster.webserver import DEADLINE_SECONDS

        state = self._webserver_state(DEADLINE_SECONDS)
        if state.version is None:
            return ValidationResult(
                success=False,
                message=f"Cannot connect to Dagster at {state.url}",
                errors=[state.problem],
            )
        return ValidationResult(
            success=True,
            message=f"Dagster {state.version} at {state.url}",
            warnings=[*state.warnings],
        )

    def health_check(self, timeout: float | None = None) -> HealthStatus:
        """Return HEALTHY if the webserver answers within `timeout` seconds (10 at most).

        Return DEGRADED if it answers, but has a daemon or a code location in trouble.
        """
        from floe_orchestrator_dagster.webserver import DEADLINE_SECONDS

        deadline = DEADLINE_SECONDS if timeout is None else min(timeout, DEADLINE_SECONDS)
        state = self._webserver_state(deadline)
        if state.version is None:
            return HealthStatus(HealthState.UNHEALTHY, state.problem)
        health = HealthState.DEGRADED if state.warnings else HealthState.HEALTHY
        message = " ".join((f"Dagster {state.version} at {state.url}.", *state.warnings))
        return HealthStatus(health, message)

    def _webserver_state(self, deadline: float) -> WebserverState:
        from floe_orchestrator_dagster.webserver import ask_webserver, webserver_address

        return ask_webserver(
            webserver_address(self.config.url), deadline, ca_bundle=self.config.ca_bundle
        )

    def get_resource_requirements(self, workload_size: str) -> ResourceSpec:
        """Return the resources of webserver and daemon for "small", "medium" or "large".

        Raises:
            ValueError: the size is not one of these; lists the sizes.
        """
        from floe_orchestrator_dagster.deploy.sizes import service_resources

        resources = service_resources(workload_size)
        return ResourceSpec(
            cpu_request=resources.cpu_request,
            cpu_limit=resources.cpu_limit,
            memory_request=resources.memory_request,
            memory_limit=resources.memory_limit,
        )

    def emit_lineage_event(  # noqa: PLR0913, PLR0917  the signature is floe-core's
        self,
        event_type: RunState,
        job_name: str,
        job_namespace: str | None = None,
        run_id: UUID | None = None,
        inputs: list[LineageDataset] | None = None,
        outputs: list[LineageDataset] | None = None,
        run_facets: dict[str, Any] | None = None,
        job_facets: dict[str, Any] | None = None,
        producer: str | None = None,
    ) -> UUID:
        """Send one OpenLineage event to the lineage backend, and return its run id.

        The backend is the constructor's, else that of the product's artifacts, else the one that
        is configured in floe's registry. Without a backend, this does nothing. The event is on
        disk when this returns. Delivery happens in the background: at the latest when `shutdown`
        is called, when the process ends, or in a later run. Problems are logged and never raised,
        and so are wrong arguments. Without `run_id`, the event gets a new one.
        """
        from floe_orchestrator_dagster.lineage.emit import SingleEvent, emit

        destination, spool = self._lineage.destination()
        event = SingleEvent(
            state=event_type,
            job_name=job_name,
            job_namespace=job_namespace or (destination.namespace if destination else None),
            run_id=run_id,
            inputs=inputs,
            outputs=outputs,
            run_facets=run_facets,
            job_facets=job_facets,
            producer=producer,
        )
        return emit(destination.transport if destination else None, spool, event)

    def shutdown(self) -> None:
        """Wait a few seconds for lineage events that are not delivered yet."""
        if self._outlet is not None:
            from floe_orchestrator_dagster.lineage.deliveries import PROCESS

            PROCESS.close()

    def get_lineage_emitter(self) -> LineageEmitter | None:
        """Return floe-core's emitter, through the spool to the same backend; None without one."""
        destination, spool = self._lineage.destination()
        if destination is None or spool is None:
            return None
        from floe_core.lineage import EventBuilder, LineageEmitter

        from floe_orchestrator_dagster.lineage.emit import SpoolTransport
        from floe_orchestrator_dagster.lineage.facets import PRODUCER

        transport = SpoolTransport(destination.transport, spool)
        builder = EventBuilder(producer=PRODUCER, default_namespace=destination.namespace)
        return LineageEmitter(transport, builder, destination.namespace)

    @property
    def _lineage(self) -> LineageOutlet:
        from floe_orchestrator_dagster.product.outlet import LineageOutlet

        if self._outlet is None:
            self._outlet = LineageOutlet(self._lineage_backend, lambda: self._settings)
        return self._outlet

    def sensor_definition(self) -> SensorDefinition | None:
        """Return the sensor that delivers waiting lineage; None for a product that sends none.

        The backend is the one of `emit_lineage_event`.

        Raises:
            LineageError: the named backend is not installed or not usable.
        """
        from floe_orchestrator_dagster.definitions.sensors import plugin_sensor

        return plugin_sensor(self._lineage)

    def schedule_job(self, job_name: str, cron: str, timezone: str) -> None:
        """Schedule a job of the Definitions that this plugin creates next.

        A second call for the same job replaces the schedule.

        Raises:
            ScheduleError: (a ValueError) Dagster does not accept the cron schedule or the time
                zone, or the job has no name.
        """
        from floe_orchestrator_dagster.schedules import Schedule, validated_schedule

        schedule = validated_schedule(Schedule(job_name, cron, timezone))
        self._schedules[schedule.name] = schedule

    def generate_entry_point_code(
        self,
        product_name: str,
        output_dir: str,
        *,
        lineage_enabled: bool = False,  # noqa: ARG002  decided when the product is loaded
        iceberg_enabled: bool = False,  # noqa: ARG002  decided when the product is loaded
    ) -> str:
        """Write ``definitions.py`` for Dagster into `output_dir`, whole or not at all.

        Returns:
            The path of the file.

        Raises:
            ValueError: floe does not allow the name.
            ProductError: the file cannot be written.
        """
        from floe_orchestrator_dagster.product.entry_point import write_entry_point

        return str(write_entry_point(product_name, Path(output_dir)))
