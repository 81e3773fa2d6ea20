"""Decides whether a product sends lineage, where to, and under which job namespace.

Runs, the drain sensor, the command line and the plugin's own methods all use this module. The first
rule that applies decides:

1. `observability` of the compiled artifacts: `lineage: false` or `lineage_transport: noop` switch
   lineage off, even if a backend is named.
2. `lineage_transport: console` writes events to the log instead of sending them.
3. A backend that is passed in code, else `plugins.lineage_backend` of the artifacts.
4. `observability.lineage_endpoint`, which needs no plugin.
5. For the plugin's own methods, the backend that is configured in floe's registry.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import LineageError, known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from floe_core.plugins.lineage import LineageBackendPlugin

logger = logging.getLogger(__name__)

# floe-core removes secrets from compiled artifacts, so the key comes from this variable of
# openlineage-python.
API_KEY_ENV = "OPENLINEAGE_API_KEY"
DEFAULT_NAMESPACE = "floe"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where lineage goes: a transport config, which is never printed, and the job namespace."""

    transport: Mapping[str, Any]
    namespace: str

    def __repr__(self) -> str:
        """Return only the type of the transport: its config may hold a key."""
        return f"Destination({self.transport.get('type')!r}, {self.namespace!r})"


@dataclass(frozen=True, slots=True)
class _Settings:
    """The lineage settings in `observability` of the artifacts; each may be missing."""

    is_off: bool = False
    transport: str = ""
    endpoint: str = ""
    namespace: str = ""


def why_off(artifacts: Mapping[str, Any], backend: LineageBackendPlugin | None = None) -> str:
    """Return why a product sends no lineage and how to change that; "" if it sends lineage.

    This loads no plugin. `backend` is one that is passed in code.
    """
    settings = _settings(artifacts)
    if settings.is_off:
        return (
            "observability.lineage switches lineage off. Enable it in manifest.yaml and compile "
            "again."
        )
    if (
        backend is not None
        or _named(artifacts)
        or settings.transport == "console"
        or settings.endpoint
    ):
        return ""
    return (
        "its platform manifest names no lineage backend. Add plugins.lineage_backend to "
        "manifest.yaml and compile again."
    )


def lineage_destination(
    artifacts: Mapping[str, Any], backend: LineageBackendPlugin | None = None
) -> Destination | None:
    """Return where a product's lineage goes; None if it sends none.

    `backend` is one that is passed in code; it wins over the one that the artifacts name.

    Raises:
        LineageError: the named backend is not installed or cannot be used.
    """
    if why_off(artifacts, backend):
        return None
    settings = _settings(artifacts)
    if settings.transport == "console":
        return Destination({"type": "console"}, _namespace(artifacts, settings, backend))
    backend = backend or backend_of(artifacts)
    transport = transport_of(backend) if backend else _with_key(_endpoint(settings))
    if transport is None or transport.get("type") in {None, "noop"}:
        return None
    return Destination(transport, _namespace(artifacts, settings, backend))


def backend_of(artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
    """Return the configured plugin of `plugins.lineage_backend`; None if none is named.

    Raises:
        LineageError: the plugin is not installed, cannot be loaded, or rejects its config.
    """
    named = _named(artifacts)
    if not named:
        return None
    # floe-core takes a second to import; only products with a backend pay for it.
    from floe_core.plugin_errors import PluginConfigurationError, PluginError, PluginNotFoundError
    from floe_core.plugin_registry import PluginRegistry, get_registry
    from floe_core.plugin_types import PluginType
    from floe_core.plugins.lineage import LineageBackendPlugin

    kind = named["type"]
    with _quiet():
        # A separate registry: in the shared one, one product would configure another's backend.
        registry = PluginRegistry()
        registry.discover_all()
        installed = registry.list_all().get(PluginType.LINEAGE_BACKEND, [])
        if kind not in installed:
            registry = get_registry()  # may have a plugin that was registered in code
        try:
            plugin = registry.get(PluginType.LINEAGE_BACKEND, kind)
            registry.configure(PluginType.LINEAGE_BACKEND, kind, dict(named.get("config") or {}))
        except PluginNotFoundError as error:
            raise LineageError(
                f"Cannot send lineage: the platform manifest names lineage backend '{kind}', and "
                f"no plugin of that name is installed (installed: {known(installed)}). Install it, "
                f"usually with `pip install floe-lineage-{kind}`, or remove "
                "plugins.lineage_backend from manifest.yaml and compile again."
            ) from error
        except PluginConfigurationError as error:
            # Only the field names: the error texts may contain values, and a value may be a secret.
            fields = known({str(item.get("field", "?")) for item in error.errors})
            raise LineageError(
                f"Cannot send lineage: lineage backend '{kind}' rejects its config (invalid: "
                f"{fields}). Correct plugins.lineage_backend.config in manifest.yaml and compile "
                "again."
            ) from None
        except PluginError as error:
            raise LineageError(
                f"Cannot send lineage: lineage backend '{kind}' cannot be loaded "
                f"({type(error).__name__}). Install a version that fits this floe-core."
            ) from error
    if not isinstance(plugin, LineageBackendPlugin):
        raise LineageError(
            f"Cannot send lineage: the plugin that is installed as lineage backend '{kind}' is not "
            "a LineageBackendPlugin. Install one that is."
        )
    return plugin


def registered_backend() -> LineageBackendPlugin | None:
    """Return the lineage backend that is configured in floe's registry; None if none is.

    A plugin that is only installed or loaded is not configured. If several are configured, the
    choice is ambiguous: return None and log a warning.
    """
    # If the registry's module is not imported, nothing is configured; creating one takes 0.2 s.
    if "floe_core.plugin_registry" not in sys.modules:
        return None
    from floe_core.plugin_registry import get_registry
    from floe_core.plugin_types import PluginType
    from floe_core.plugins.lineage import LineageBackendPlugin

    kind = PluginType.LINEAGE_BACKEND
    with _quiet():
        registry = get_registry()
        installed = registry.list_all().get(kind, [])
        backends = {
            name: plugin
            for (type_, name), plugin in registry._loaded.items()  # noqa: SLF001  list() omits plugins registered in code
            if type_ is kind
            and isinstance(plugin, LineageBackendPlugin)
            # A plugin without an entry point was created and registered in code.
            and (registry.get_config(kind, name) is not None or name not in installed)
        }
    if len(backends) > 1:
        logger.warning(
            "No lineage is sent: several lineage backends are configured in floe's registry (%s). "
            "Name one as plugins.lineage_backend in manifest.yaml, or pass it to "
            "DagsterOrchestratorPlugin(lineage_backend=...).",
            known(backends),
        )
        return None
    return next(iter(backends.values()), None)


def transport_of(backend: LineageBackendPlugin | None) -> dict[str, Any] | None:
    """Return a backend's transport config; add the key of `API_KEY_ENV` if it has none.

    Raises:
        LineageError: the backend fails to return one.
    """
    if backend is None:
        return None
    try:
        return _with_key(dict(backend.get_transport_config()))
    except Exception as error:  # noqa: BLE001  code of a plugin, whose message may quote a key
        raise LineageError(
            f"Cannot send lineage: lineage backend '{backend.name}' fails to return its transport "
            f"config ({type(error).__name__}). Correct plugins.lineage_backend in manifest.yaml "
            "and compile again, or report this to the author of the backend."
        ) from None


def _with_key(transport: dict[str, Any]) -> dict[str, Any]:
    key = os.environ.get(API_KEY_ENV)
    if key and transport.get("type") == "http" and not transport.keys() & {"auth"}:
        transport["api_key"] = transport.get("api_key") or key
    return transport


def _endpoint(settings: _Settings) -> dict[str, Any]:
    return {"type": "http", "url": settings.endpoint}


def _settings(artifacts: Mapping[str, Any]) -> _Settings:
    """Return the lineage settings of the artifacts; the keys are those of floe-core's schema."""
    section = artifacts.get("observability")
    if not isinstance(section, Mapping):
        return _Settings()
    transport, endpoint, namespace = (
        str(section.get(f"lineage_{name}") or "") for name in ("transport", "endpoint", "namespace")
    )
    is_off = section.get("lineage") is False or transport == "noop"
    return _Settings(is_off, transport, endpoint, namespace)


def _named(artifacts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return (artifacts.get("plugins") or {}).get("lineage_backend") or None


def _namespace(
    artifacts: Mapping[str, Any], settings: _Settings, backend: LineageBackendPlugin | None
) -> str:
    """Return the namespace of jobs.

    floe-core fills in the product's name if no namespace is configured. In that case the backend's
    own strategy is better, because it separates environments.
    """
    product = (artifacts.get("metadata") or {}).get("product_name")
    if settings.namespace and settings.namespace != product:
        return settings.namespace
    resolved = namespace_of(backend) if backend is not None else ""
    return resolved or settings.namespace or DEFAULT_NAMESPACE


def namespace_of(backend: LineageBackendPlugin) -> str:
    """Return the job namespace that the backend's own strategy gives; "" if it has none."""
    from floe_core.lineage import NamespaceResolver

    try:
        strategy = NamespaceResolver(**backend.get_namespace_strategy())
        return strategy.resolve_job_namespace()
    except Exception as error:  # noqa: BLE001  code of a plugin
        logger.warning(
            "The namespace strategy of lineage backend '%s' is not used: floe-core cannot apply "
            "it (%s).",
            backend.name,
            error,
        )
        return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep floe-core's registry from printing to stdout, which may be a JSON document."""
    with redirect_stdout(io.StringIO()) as output:
        yield
    logger.debug("%s", output.getvalue())
