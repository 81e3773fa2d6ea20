"""A product that a command has loaded: its plan, its specs, its Definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster import Definitions

    from floe_orchestrator_dagster.assets.specs import Specs
    from floe_orchestrator_dagster.plan import ProductPlan
    from floe_orchestrator_dagster.product.product import Product


@dataclass(frozen=True, slots=True)
class LoadedProduct:
    """A product with its asset specs and Definitions."""

    product: Product
    specs: Specs
    definitions: Definitions

    @property
    def plan(self) -> ProductPlan:
        """The plan of the product."""
        return self.product.plan

    @property
    def jobs(self) -> Sequence[str]:
        """The names of the product's jobs."""
        return [job.name for job in self.definitions.jobs or ()]
