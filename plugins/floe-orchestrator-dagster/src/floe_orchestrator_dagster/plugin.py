"""The plugin that floe finds: a thin facade over the rooms of this package."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_core.plugin_metadata import HealthState, HealthStatus
from floe_core.plugins.orchestrator import OrchestratorPlugin, ResourceSpec, ValidationResult

from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.errors import FloeDagsterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from dagster import AssetsDefinition, Definitions, SensorDefinition
    from floe_core.lineage import LineageDataset, LineageEmitter, RunState
    from floe_core.plugins.lineage import LineageBackendPlugin
    from floe_core.plugins.orchestrator import TransformConfig
    from pydantic import BaseModel

    from floe_orchestrator_dagster.lineage.backend import Destination
    from floe_orchestrator_dagster.product.finding import FoundProject
    from floe_orchestrator_dagster.schedules import Schedule
    from floe_orchestrator_dagster.webserver import Answer

# floe-core's FLOE_NAME_PATTERN for products, with its longest name.
_PRODUCT_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FALLBACK_VERSION = "0.0.0"

logger = logging.getLogger(__name__)


class DagsterOrchestratorPlugin(OrchestratorPlugin):
    """Runs floe data products on Dagster."""

    def __init__(
        self,
        project_dir: str | Path | None = None,
        lineage_backend: LineageBackendPlugin | None = None,
    ) -> None:
        """Remember where the dbt project is and which backend takes lineage, if any is given."""
        super().__init__()
        self._project_dir = Path(project_dir) if project_dir is not None else None
        self._lineage_backend = lineage_backend
        self._schedules: dict[str, Schedule] = {}
        self._artifacts: Mapping[str, Any] | None = None
        # What was read or made last, with what it was made of.
        self._read: tuple[tuple[Path, int, int], dict[str, Any]] | None = None
        self._named: tuple[Mapping[str, Any], LineageBackendPlugin | None] | None = None
        self._sends = False
        self._trouble = ""

    @property
    def name(self) -> str:
        """Return the key that manifest.yaml names: ``plugins.orchestrator.type: dagster``."""
        return "dagster"

    @property
    def version(self) -> str:
        """Return the installed version of this package, as X.Y.Z."""
        try:
            found = version("floe-orchestrator-dagster")
        except PackageNotFoundError:
            return _FALLBACK_VERSION
        numbers = re.match(r"\d+\.\d+\.\d+", found)
        return numbers.group() if numbers else _FALLBACK_VERSION

    @property
    def floe_api_version(self) -> str:
        """Return the plugin API of floe-core that this package implements."""
        return "1.0"

    @property
    def description(self) -> str:
        """Return one sentence for listings of plugins."""
        return "Runs data products on Dagster: every dbt node an asset, each on its own compute."

    @property
    def tracer_name(self) -> str:
        """Return the name of this package's OpenTelemetry tracer."""
        return "floe.orchestrator.dagster"

    def get_config_schema(self) -> type[BaseModel]:
        """Return the model of ``plugins.orchestrator.config``."""
        return PluginConfig

    @property
    def config(self) -> PluginConfig:
        """The configuration given to `configure`, else the defaults."""
        return self._config if isinstance(self._config, PluginConfig) else PluginConfig()

    def create_definitions(self, artifacts: dict[str, Any]) -> Definitions:
        """Return the Dagster Definitions of compiled artifacts.

        The dbt project is that of the constructor, of the plugin's config, of
        ``FLOE_PROJECT_DIR``, or the one around the working directory. Without any, names, graph,
        tags and computes come from the artifacts, and only materializing asks for the project.
        floe-core's own `CompiledArtifacts` do as well as a dictionary.

        Raises:
            PlanError: (a ValueError) listing everything that is wrong with the product.
            ProductError: a file of the project is missing or cannot be read.
        """
        from floe_orchestrator_dagster.arguments import as_artifacts
        from floe_orchestrator_dagster.definitions.build import build_definitions
        from floe_orchestrator_dagster.product.artifacts import compiled_product
        from floe_orchestrator_dagster.product.opening import product_of_artifacts

        checked = as_artifacts(artifacts)
        compiled = compiled_product(checked)
        project = self._found_project(compiled.config, compiled.name)
        product = product_of_artifacts(compiled, project)
        self._artifacts = checked
        product = replace(product, lineage_backend=self._given_backend(checked))
        return build_definitions(product, schedules=list(self._schedules.values()))

    def create_assets_from_transforms(
        self, transforms: list[TransformConfig]
    ) -> list[AssetsDefinition]:
        """Return one asset per transform; each runs dbt for its own node.

        Raises:
            PlanError: (a ValueError) listing what is not a transform, duplicate names, cycles and
                computes without a dbt output.
        """
        from floe_orchestrator_dagster.arguments import as_transforms
        from floe_orchestrator_dagster.definitions.build import build_transform_assets

        checked, project = as_transforms(transforms), self._found_project(self.config)
        directory = project.directory if project else None
        return build_transform_assets(checked, directory, self.config)

    def _found_project(self, config: PluginConfig, product: str = "") -> FoundProject | None:
        """Return the dbt project; `config` goes before the one that was given to `configure`."""
        from floe_orchestrator_dagster.product.finding import PROJECT_ENV, Clues, find_project

        clues = Clues(
            start=Path.cwd(),
            given=self._project_dir,
            configured=config.project_dir or self.config.project_dir,
            environment=os.environ.get(PROJECT_ENV),
            product=product,
        )
        return find_project(clues)

    def get_helm_values(self) -> dict[str, Any]:
        """Return values for the chart ``charts/floe-dagster`` at the configured workload size.

        Where computes of the configuration ask for resources, run pods get the most of each.
        """
        from floe_orchestrator_dagster.deploy.values import helm_values

        return helm_values(self.config.workload_size, self.config.computes)

    def validate_connection(self) -> ValidationResult:
        """Ask the configured Dagster webserver how it does; see `health.ask_webserver`."""
        from floe_orchestrator_dagster.webserver import DEADLINE_SECONDS

        answer = self._ask(DEADLINE_SECONDS)
        if answer.version is None:
            return ValidationResult(
                success=False, message=f"No Dagster at {answer.url}", errors=[answer.problem]
            )
        return ValidationResult(
            success=True,
            message=f"Dagster {answer.version} at {answer.url}",
            warnings=[*answer.warnings],
        )

    def health_check(self, timeout: float | None = None) -> HealthStatus:
        """Return HEALTHY if the webserver answers within `timeout` seconds (10 at most).

        DEGRADED is one that answers and has a daemon or a code location in trouble.
        """
        from floe_orchestrator_dagster.webserver import DEADLINE_SECONDS

        deadline = DEADLINE_SECONDS if timeout is None else min(timeout, DEADLINE_SECONDS)
        answer = self._ask(deadline)
        if answer.version is None:
            return HealthStatus(HealthState.UNHEALTHY, answer.problem)
        state = HealthState.DEGRADED if answer.warnings else HealthState.HEALTHY
        said = " ".join((f"Dagster {answer.version} at {answer.url}.", *answer.warnings))
        return HealthStatus(state, said)

    def _ask(self, deadline: float) -> Answer:
        from floe_orchestrator_dagster.webserver import ask_webserver, webserver_address

        return ask_webserver(
            webserver_address(self.config.url), deadline, ca_bundle=self.config.ca_bundle
        )

    def get_resource_requirements(self, workload_size: str) -> ResourceSpec:
        """Return what webserver and daemon need for "small", "medium" or "large".

        Raises:
            ValueError: for another size, listing the sizes.
        """
        from floe_orchestrator_dagster.deploy.sizes import service_resources

        found = service_resources(workload_size)
        return ResourceSpec(
            cpu_request=found.cpu_request,
            cpu_limit=found.cpu_limit,
            memory_request=found.memory_request,
            memory_limit=found.memory_limit,
        )

    def emit_lineage_event(
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
        """Send one OpenLineage event to the product's lineage backend; without one do nothing.

        The backend is the constructor's, else that of the product's artifacts, else the one that
        is configured in floe's registry. The event is on disk when this returns, and is delivered
        in the background, at the latest when `shutdown` is called, the process ends, or a later
        run takes it along. Trouble, wrong arguments too, is logged, never raised. Returns the run
        id, new if none was given.
        """
        from floe_orchestrator_dagster.lineage.emit import emit

        destination, spool = self._lineage()
        return emit(
            destination.transport if destination else None,
            spool,
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

    def shutdown(self) -> None:
        """Wait a little for lineage events on their way."""
        if self._sends:
            from floe_orchestrator_dagster.lineage.emit import finish

            finish()

    def get_lineage_emitter(self) -> LineageEmitter | None:
        """Return floe-core's emitter over the spool to the same backend; None without one."""
        destination, spool = self._lineage()
        if destination is None or spool is None:
            return None
        from floe_core.lineage import EventBuilder, LineageEmitter

        from floe_orchestrator_dagster.lineage.emit import SpoolTransport
        from floe_orchestrator_dagster.lineage.facets import PRODUCER

        transport = SpoolTransport(destination.transport, spool)
        builder = EventBuilder(producer=PRODUCER, default_namespace=destination.namespace)
        return LineageEmitter(transport, builder, destination.namespace)

    def _lineage(self) -> tuple[Destination | None, Path | None]:
        """Return where single events go, and the spool in which they wait for that.

        Never raises: nobody's job fails for lineage.
        """
        from floe_orchestrator_dagster.lineage.backend import lineage_destination

        try:
            artifacts = self._known_artifacts()
            destination = lineage_destination(artifacts, self._backend(artifacts))
            spool = self._spool(artifacts, "events") if destination else None
        except Exception as error:  # noqa: BLE001  a file of the product, a plugin of others
            ours = isinstance(error, FloeDagsterError)
            said = str(error) if ours else f"{type(error).__name__} from the lineage backend"
            # Once: a job may send thousands.
            level = logging.DEBUG if said == self._trouble else logging.WARNING
            logger.log(level, "Lineage events of the plugin are not sent: %s", said)
            self._trouble = said
            return None, None
        if destination is None:
            logger.debug("No lineage backend is configured: lineage events go nowhere.")
        self._sends = self._sends or destination is not None
        return destination, spool

    def _given_backend(self, artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
        """Return the constructor's backend; that of floe's registry where artifacts name none."""
        from floe_orchestrator_dagster.lineage.backend import registered_backend, why_off

        if self._lineage_backend is not None or not why_off(artifacts):
            return self._lineage_backend
        return registered_backend()

    def _backend(self, artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
        """Return the constructor's backend, that of the artifacts, or that of floe's registry."""
        from floe_orchestrator_dagster.lineage.backend import backend_of

        given = self._given_backend(artifacts)
        if given is not None:
            return given
        if self._named is None or self._named[0] is not artifacts:
            self._named = (artifacts, backend_of(artifacts))
        return self._named[1]

    def _known_artifacts(self) -> Mapping[str, Any]:
        """Return the artifacts given to `create_definitions`, else those of the project, if any."""
        if self._artifacts is not None:
            return self._artifacts
        from floe_orchestrator_dagster.product.artifacts import artifacts_beside, read_artifacts

        project = self._found_project(self.config)
        path = artifacts_beside(project.directory) if project else None
        if path is None:
            return {}
        stat = path.stat()
        version = (path, stat.st_mtime_ns, stat.st_size)
        if self._read is None or self._read[0] != version:
            self._read = (version, read_artifacts(path))
        return self._read[1]

    def _spool(self, artifacts: Mapping[str, Any], product: str) -> Path:
        """Return the spool of the dbt project that artifacts are built on, else the user's own."""
        from floe_orchestrator_dagster.dbt.project import read_project
        from floe_orchestrator_dagster.product.artifacts import plugin_config
        from floe_orchestrator_dagster.product.layout import layout_of, spool_directory

        config = plugin_config(artifacts)
        project = self._found_project(config, product)
        variables = {**self.config.vars, **config.vars}
        if project is None:
            return spool_directory(None, product)
        layout = layout_of(read_project(project.directory, variables))
        return spool_directory(layout, product)

    def sensor_definition(self) -> SensorDefinition | None:
        """Return the sensor that delivers waiting lineage; None for a product that sends none.

        The backend is found as for `emit_lineage_event`.

        Raises:
            LineageError: the backend is named, but not installed or not usable.
        """
        from floe_orchestrator_dagster.lineage.backend import lineage_destination

        artifacts = self._known_artifacts()
        backend = self._backend(artifacts)
        if lineage_destination(artifacts, backend) is None:
            return None
        from floe_orchestrator_dagster.definitions.sensors import lineage_drain

        def transport() -> Mapping[str, Any] | None:
            destination = lineage_destination(artifacts, backend)
            return destination.transport if destination else None

        product = artifacts["metadata"]["product_name"] if artifacts else "events"
        return lineage_drain(transport, self._spool(artifacts, product))

    def schedule_job(self, job_name: str, cron: str, timezone: str) -> None:
        """Schedule a job of the Definitions that this plugin creates next; again: replace.

        Raises:
            ScheduleError: (a ValueError) Dagster cannot run this cron schedule or time zone, or
                the job has no name.
        """
        from floe_orchestrator_dagster.schedules import Schedule, checked

        schedule = checked(Schedule(job_name, cron, timezone))
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
            ValueError: the name is none that floe allows.
            ProductError: the file cannot be written.
        """
        from floe_orchestrator_dagster.files import write_atomically
        from floe_orchestrator_dagster.product.entry_point import entry_point_code

        if not _PRODUCT_NAME.fullmatch(product_name):
            raise ValueError(
                f"Cannot generate definitions.py: '{product_name}' is no product name. Use "
                "lower-case letters, digits and hyphens, starting with a letter, 63 at most."
            )
        path = Path(output_dir) / "definitions.py"
        write_atomically(path, entry_point_code(product_name))
        return str(path)
