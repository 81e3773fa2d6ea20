"""Plans a product: which nodes exist, what they read, and which compute builds each."""

from floe_orchestrator_dagster.plan.build import plan_product
from floe_orchestrator_dagster.plan.compiled import (
    CompiledProduct,
    Transform,
    resolve_computes,
    unknown_dependencies,
)
from floe_orchestrator_dagster.plan.manifest import DbtManifest, DbtNode, decode_manifest
from floe_orchestrator_dagster.plan.meta import (
    PARTITIONS_EXPECTED,
    PartitionSettings,
    has_time,
    is_owner,
)
from floe_orchestrator_dagster.plan.model import (
    ASSET_KINDS,
    CHECK_KINDS,
    LAYOUT,
    QUALITY_CHECK,
    Compute,
    Node,
    ProductPlan,
    QualityCheck,
)
from floe_orchestrator_dagster.plan.names import (
    Ports,
    asset_path,
    check_name,
    dagster_name,
    distinct_checks,
    distinct_keys,
    has_meta_key,
)
from floe_orchestrator_dagster.plan.preflight import preflight
from floe_orchestrator_dagster.plan.versions import Surroundings, version_of
from floe_orchestrator_dagster.plan.waves import (
    Wave,
    blocked_by_check,
    downstream,
    read_by_check,
    segments,
    waves,
)

__all__ = [
    "ASSET_KINDS",
    "CHECK_KINDS",
    "LAYOUT",
    "PARTITIONS_EXPECTED",
    "QUALITY_CHECK",
    "CompiledProduct",
    "Compute",
    "DbtManifest",
    "DbtNode",
    "Node",
    "PartitionSettings",
    "Ports",
    "ProductPlan",
    "QualityCheck",
    "Surroundings",
    "Transform",
    "Wave",
    "asset_path",
    "blocked_by_check",
    "check_name",
    "dagster_name",
    "decode_manifest",
    "distinct_checks",
    "distinct_keys",
    "downstream",
    "has_meta_key",
    "has_time",
    "is_owner",
    "plan_product",
    "preflight",
    "read_by_check",
    "resolve_computes",
    "segments",
    "unknown_dependencies",
    "version_of",
    "waves",
]
