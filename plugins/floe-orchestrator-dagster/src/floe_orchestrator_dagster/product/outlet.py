"""The outlet of a plugin's own lineage events: a backend, with a spool in front of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.errors import FloeDagsterError
from floe_orchestrator_dagster.lineage.backend import (
    backend_of,
    lineage_destination,
    registered_backend,
    why_off,
)
from floe_orchestrator_dagster.product.artifacts import (
    nearby_artifacts,
    plugin_config,
    read_artifacts,
)
from floe_orchestrator_dagster.product.layout import layout_of, spool_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from floe_core.plugins.lineage import LineageBackendPlugin

    from floe_orchestrator_dagster.lineage.backend import Destination
    from floe_orchestrator_dagster.product.finding import PluginSettings

logger = logging.getLogger(__name__)

# The spool of events that do not belong to a run of a product.
EVENTS = "events"


class LineageOutlet:
    """Finds the backend and the spool of a plugin, even if it has not loaded a product.

    `backend` is the one of the plugin's constructor, if any. `settings` returns the plugin's
    current settings.
    """

    def __init__(
        self, backend: LineageBackendPlugin | None, settings: Callable[[], PluginSettings]
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._loaded: Mapping[str, Any] | None = None
        # The last artifacts with the state of their file, and the last backend with its artifacts.
        self._read: tuple[tuple[Path, int, int], Mapping[str, Any]] | None = None
        self._named: tuple[Mapping[str, Any], LineageBackendPlugin | None] | None = None
        self._trouble = ""

    def load(self, artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
        """Keep the artifacts of the plugin's product; return the backend that they do not name."""
        self._loaded = artifacts
        return self._unnamed(artifacts)

    def destination(self) -> tuple[Destination | None, Path | None]:
        """Return the destination of single events, and the spool in which they wait for it.

        Never raises: lineage does not make a job fail.
        """
        try:
            artifacts = self.artifacts()
            destination = lineage_destination(artifacts, self.backend(artifacts))
            spool = self.spool(artifacts) if destination else None
        except Exception as error:  # noqa: BLE001  bad files of a product, bugs of other plugins
            ours = isinstance(error, FloeDagsterError)
            reason = str(error) if ours else f"{type(error).__name__} from the lineage backend"
            # Once: a job may send thousands.
            level = logging.DEBUG if reason == self._trouble else logging.WARNING
            logger.log(level, "Lineage events of the plugin are not sent: %s", reason)
            self._trouble = reason
            return None, None
        if destination is None:
            logger.debug("No lineage backend is configured: lineage events are dropped.")
        return destination, spool

    def artifacts(self) -> Mapping[str, Any]:
        """Return the loaded artifacts, else those of the dbt project, else {}."""
        if self._loaded is not None:
            return self._loaded
        settings = self._settings()
        project = settings.find_project(settings.config)
        path = nearby_artifacts(project.directory) if project else None
        if path is None:
            return {}
        stat = path.stat()
        version = (path, stat.st_mtime_ns, stat.st_size)
        if self._read is None or self._read[0] != version:
            self._read = (version, read_artifacts(path))
        return self._read[1]

    def backend(self, artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
        """Return the backend of the plugin, else that of the artifacts or of floe's registry.

        Raises:
            LineageError: the artifacts name a backend that is not installed or not usable.
        """
        backend = self._unnamed(artifacts)
        if backend is not None:
            return backend
        if self._named is None or self._named[0] is not artifacts:
            self._named = (artifacts, backend_of(artifacts))
        return self._named[1]

    def _unnamed(self, artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
        """Return the plugin's backend; that of floe's registry if the artifacts name none."""
        if self._backend is not None or not why_off(artifacts):
            return self._backend
        return registered_backend()

    def spool(self, artifacts: Mapping[str, Any]) -> Path:
        """Return the spool that the product's runs deliver too, else a private one."""
        settings, config = self._settings(), plugin_config(artifacts)
        name = artifacts["metadata"]["product_name"] if artifacts else EVENTS
        project = settings.find_project(config, name)
        if project is None:
            return spool_directory(None, name)
        variables = {**settings.config.vars, **config.vars}
        return spool_directory(layout_of(read_project(project.directory, variables)), name)
