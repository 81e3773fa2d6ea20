"""The door that generated `definitions.py` files use."""

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
        product_name: name in floe.yaml; must be that of the compiled artifacts.
        project_dir: directory of `compiled_artifacts.json`, in the dbt project or below it.
        translator: a `dagster_dbt.DagsterDbtTranslator` of yours, honoured for every asset.

    Raises:
        ProductError: a file is missing or cannot be read.
        PlanError: the product contradicts itself; lists every problem.
    """
    from floe_orchestrator_dagster.definitions.build import build_definitions
    from floe_orchestrator_dagster.product.opening import open_product, uncollected

    with uncollected():
        product = open_product(Path(project_dir), product_name=product_name)
        definitions = build_definitions(product, translator=translator)
        # They live as long as their code location: no later collection need look at them again.
        gc.freeze()
    return definitions
