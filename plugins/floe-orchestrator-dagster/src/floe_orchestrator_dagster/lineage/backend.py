"""Finds the lineage backend that compiled artifacts name, and the way to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import LineageError, known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floe_core.plugins.lineage import LineageBackendPlugin

# floe-core removes secrets from compiled artifacts; this is openlineage-python's own variable.
API_KEY_ENV = "OPENLINEAGE_API_KEY"


def backend_of(artifacts: Mapping[str, Any]) -> LineageBackendPlugin | None:
    """Return the plugin of `plugins.lineage_backend`, configured; None if none is named.

    Raises:
        LineageError: the plugin is not installed, does not fit, or refuses its config.
    """
    named = (artifacts.get("plugins") or {}).get("lineage_backend")
    if not named:
        return None
    # floe-core takes a second to import; only products with a backend pay for it.
    from floe_core.plugin_errors import PluginConfigurationError, PluginError, PluginNotFoundError
    from floe_core.plugin_registry import get_registry
    from floe_core.plugin_types import PluginType
    from floe_core.plugins.lineage import LineageBackendPlugin

    kind, registry = named["type"], get_registry()
    try:
        plugin = registry.get(PluginType.LINEAGE_BACKEND, kind)
        registry.configure(PluginType.LINEAGE_BACKEND, kind, dict(named.get("config") or {}))
    except PluginNotFoundError as error:
        installed = registry.list_all().get(PluginType.LINEAGE_BACKEND, [])
        raise LineageError(
            f"Cannot send lineage: the platform manifest names lineage backend '{kind}', and no "
            f"plugin of that name is installed (installed: {known(installed)}). Install it, as a "
            f"rule `pip install floe-lineage-{kind}`, or remove plugins.lineage_backend from "
            "manifest.yaml and compile again."
        ) from error
    except PluginConfigurationError as error:
        # Its texts name fields and rules; a value could be a secret.
        fields = known({str(item.get("field", "?")) for item in error.errors})
        raise LineageError(
            f"Cannot send lineage: lineage backend '{kind}' refuses its config (wrong: {fields}). "
            "Correct plugins.lineage_backend.config in manifest.yaml and compile again."
        ) from None
    except PluginError as error:
        raise LineageError(
            f"Cannot send lineage: lineage backend '{kind}' cannot be loaded "
            f"({type(error).__name__}). Install a version that fits this floe-core."
        ) from error
    if not isinstance(plugin, LineageBackendPlugin):
        raise LineageError(
            f"Cannot send lineage: what is installed as lineage backend '{kind}' is no "
            "LineageBackendPlugin. Install one that is."
        )
    return plugin


def transport_of(backend: LineageBackendPlugin | None) -> dict[str, Any] | None:
    """Return a backend's transport config, with the key of `API_KEY_ENV` if it has none itself."""
    if backend is None:
        return None
    transport = dict(backend.get_transport_config())
    key = os.environ.get(API_KEY_ENV)
    if key and transport.get("type") == "http" and not transport.keys() & {"auth"}:
        transport["api_key"] = transport.get("api_key") or key
    return transport
