"""The dg component `FloeProduct`: a compiled floe product as part of a Dagster project."""

# No `from __future__ import annotations` here: dg resolves the annotations of these fields.
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from floe_orchestrator_dagster.errors import ConfigError
from floe_orchestrator_dagster.files import write_atomically

if not hasattr(dg, "Component"):
    raise ConfigError(
        f"Cannot load component FloeProduct: Dagster {dg.__version__} exports no components. Use "
        "Dagster 1.10.21 or newer, or load_product_definitions() in definitions.py."
    )


class FloeProductScaffolder(dg.Scaffolder):
    """Writes a defs.yaml for a product; the user fills in the product's directory."""

    def scaffold(self, request: Any) -> None:
        """Write the component's defs.yaml."""
        content = {"type": request.type_name, "attributes": {"product_dir": "."}}
        write_atomically(
            Path(request.target_path) / "defs.yaml", yaml.safe_dump(content, sort_keys=False)
        )


@dg.scaffold_with(FloeProductScaffolder)
class FloeProduct(dg.Component, dg.Model, dg.Resolvable):
    """A floe data product. Each dbt node is an asset, and each model is built on its own compute.

    `product_dir` is the directory of compiled_artifacts.json or of the dbt project above it. The
    path is relative to the component's own directory.
    """

    product_dir: str
    product_name: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the Definitions of the product."""
        from floe_orchestrator_dagster.definitions.build import build_definitions
        from floe_orchestrator_dagster.product.opening import open_product

        directory = (Path(context.path) / self.product_dir).resolve()
        return build_definitions(open_product(directory, product_name=self.product_name))
