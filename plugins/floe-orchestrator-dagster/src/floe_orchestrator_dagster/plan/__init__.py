"""Planning: which nodes exist, what feeds what, and on which compute each is built."""

from floe_orchestrator_dagster.plan.build import plan_product
from floe_orchestrator_dagster.plan.compiled import (
    CompiledProduct,
    Transform,
    resolve_computes,
    unknown_dependencies,
)
from floe_orchestrator_dagster.plan.manifest import DbtManifest, DbtNode, decode_manifest
from floe_orchestrator_dagster.plan.model import (
    ASSET_KINDS,
    CHECK_KINDS,
    LAYOUT,
    Compute,
    Node,
    ProductPlan,
    QualityCheck,
)
from floe_orchestrator_dagster.plan.names import asset_path, dagster_name
from floe_orchestrator_dagster.plan.preflight import preflight
from floe_orchestrator_dagster.plan.versions import Surroundings, version_of
from floe_orchestrator_dagster.plan.waves import Wave, blocked_by_check, downstream, waves

__all__ = [
    "ASSET_KINDS",
    "CHECK_KINDS",
    "LAYOUT",
    "CompiledProduct",
    "Compute",
    "DbtManifest",
    "DbtNode",
    "Node",
    "ProductPlan",
    "QualityCheck",
    "Surroundings",
    "Transform",
    "Wave",
    "asset_path",
    "blocked_by_check",
    "dagster_name",
    "decode_manifest",
    "downstream",
    "plan_product",
    "preflight",
    "resolve_computes",
    "unknown_dependencies",
    "version_of",
    "waves",
]
