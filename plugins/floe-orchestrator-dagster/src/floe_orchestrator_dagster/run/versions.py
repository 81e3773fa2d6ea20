"""Data versions and provenance of assets, as Dagster records them for outputs."""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dagster import AssetKey, DagsterInstance, EventLogRecord, deserialize_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from floe_orchestrator_dagster.assets.specs import Specs

INITIAL_VERSION = "INITIAL"


class Versions:
    """Computes the data version, provenance tags and check targets of assets."""

    def __init__(
        self, instance: DagsterInstance, specs: Specs, variables: Mapping[str, Any]
    ) -> None:
        self._instance = instance
        self._variables = variables
        self._specs = specs
        self._records: dict[AssetKey, EventLogRecord | None] = {}

    def forget(self, key: AssetKey) -> None:
        """Drop the cached record of an asset that is about to be materialized."""
        self._records.pop(key, None)

    def _record(self, key: AssetKey) -> EventLogRecord | None:
        if key not in self._records:
            records = self._instance.fetch_materializations(key, limit=1).records
            self._records[key] = records[0] if records else None
        return self._records[key]

    def of(self, uid: str) -> tuple[str, dict[str, str]]:
        """Return the data version and the provenance tags of a node that was just built."""
        code = self._specs.code_version(uid, self._variables) or ""
        tags = {"dagster/code_version": code}
        inputs: dict[str, str] = {}
        for parent in self._specs.plan.folded_parents[uid]:
            key = self._specs.keys[parent]
            record = self._record(key)
            latest = record.asset_materialization if record else None
            version = (latest.tags or {}).get("dagster/data_version") if latest else None
            name = key.to_user_string()
            inputs[name] = version or INITIAL_VERSION
            tags[f"dagster/input_data_version/{name}"] = inputs[name]
            tags[f"dagster/input_event_pointer/{name}"] = (
                str(record.storage_id) if record else "NULL"
            )
        # Dagster's own rule: hash the code version and the versions of the inputs, sorted by key.
        ordered = "".join(inputs[name] for name in sorted(inputs))
        version = sha256(f"{code}{ordered}".encode()).hexdigest()
        tags["dagster/data_version"] = version
        return version, tags

    def target(self, key: AssetKey) -> Any:
        """Return the link from a check to the materialization that it checked."""
        record = self._record(key)
        if record is None:
            return None
        return self._link(
            storage_id=record.storage_id,
            run_id=record.event_log_entry.run_id,
            timestamp=record.event_log_entry.timestamp,
        )

    @cached_property
    def _link(self) -> Callable[..., Any]:
        """The class of the link: Dagster does not export it, but can load its stored form."""
        stored = {
            "__class__": "AssetCheckEvaluationTargetMaterializationData",
            "storage_id": 0,
            "run_id": "",
            "timestamp": 0.0,
        }
        return type(deserialize_value(json.dumps(stored)))
