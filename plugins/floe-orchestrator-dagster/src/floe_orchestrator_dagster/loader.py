"""The function that generated `definitions.py` files call."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import Definitions


def load_product_definitions(
    product_name: str, project_dir: str | Path, *, translator: Any = None
) -> Definitions:
    """Return the Dagster Definitions of a compiled product.

    Args:
        product_name: the name in floe.yaml; the compiled artifacts must have the same name.
        project_dir: the directory of `compiled_artifacts.json`, in the dbt project or below it.
        translator: your own `dagster_dbt.DagsterDbtTranslator`, used for every asset.

    Raises:
        ProductError: a file is missing or cannot be read.
        PlanError: the product contradicts itself; lists every problem.
    """
    from floe_orchestrator_dagster.definitions.build import build_definitions
    from floe_orchestrator_dagster.product.opening import open_product, uncollected

    with uncollected():
        product = open_product(Path(project_dir), product_name=product_name)
        definitions = build_definitions(product, translator=translator)
        # Definitions live as long as their code location, so exclude them from later collections.
        gc.freeze()
    return definitions
