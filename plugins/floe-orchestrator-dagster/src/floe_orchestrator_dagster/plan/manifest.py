"""The fields of dbt's manifest.json that planning needs, as types.

dbt's manifest schema v12 (dbt-core 1.8 to 1.11) describes the fields.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from floe_orchestrator_dagster.dbt_json import decode_dbt_json

# dbt-core 1.8 to 1.11 write v12.
SUPPORTED_SCHEMAS = frozenset({"https://schemas.getdbt.com/dbt/manifest/v12.json"})


class DbtMetadata(msgspec.Struct, frozen=True):
    """The dbt version and the adapter of a manifest."""

    dbt_schema_version: str = ""
    dbt_version: str = ""
    adapter_type: str | None = None
    project_name: str | None = None


NOTHING = msgspec.Raw(b"null")


class DbtDependsOn(msgspec.Struct, frozen=True):
    """Unique ids of the nodes and the macros that a node refers to."""

    nodes: tuple[str, ...] = ()
    # This stays JSON, because 30,000 nodes have few different lists of macros.
    macros: msgspec.Raw = NOTHING


class DbtConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a node's config that shapes assets and runs."""

    materialized: str | None = None
    incremental_strategy: str | None = None
    begin: Any = None
    severity: str | None = None
    schema: str | None = None
    group: str | None = None
    file_format: str | None = None
    unique_key: Any = None
    updated_at: Any = None
    snapshot_meta_column_names: Any = None
    meta: dict[str, Any] = {}
    enabled: bool = True
    # dbt-duckdb reads a source from these places, and writes an external model to them.
    plugin: Any = None
    external_location: Any = None
    delta_table_path: Any = None
    location: Any = None
    format: Any = None
    options: Any = None


class DbtColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A declared column."""

    name: str
    description: str | None = None
    data_type: str | None = None
    quote: bool | None = None
    tags: tuple[str, ...] = ()


class DbtChecksum(msgspec.Struct, frozen=True):
    """Content hash of a node's file; for a seed over 1 MiB the path, with `name` "path"."""

    name: str = ""
    checksum: str | None = None


class DbtContract(msgspec.Struct, frozen=True):
    """Whether a model's columns are enforced, and dbt's digest of their types and constraints."""

    enforced: bool = False
    checksum: str | None = None


class DbtMacroDependsOn(msgspec.Struct, frozen=True):
    """Unique ids of the macros that a macro calls."""

    macros: tuple[str, ...] = ()


class DbtMacro(msgspec.Struct, frozen=True):
    """A macro, generic test or materialization."""

    name: str = ""
    package_name: str = ""
    macro_sql: str = ""
    depends_on: DbtMacroDependsOn = DbtMacroDependsOn()


class DbtTestMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The generic test of a test node."""

    name: str
    namespace: str | None = None
    kwargs: dict[str, Any] = {}


class DbtFacts(msgspec.Struct, frozen=True, array_like=True):
    """The fields of a dbt node in a plan, written by position.

    The fields up to `test_metadata` come first because a data test needs only these, and a product
    has many data tests.
    """

    unique_id: str
    name: str
    resource_type: str
    package_name: str = ""
    original_file_path: str = ""
    fqn: tuple[str, ...] = ()
    alias: str | None = None
    database: str | None = None
    schema: str | None = None
    description: str | None = None
    meta: dict[str, Any] = {}
    config: DbtConfig = DbtConfig()
    column_name: str | None = None
    test_metadata: DbtTestMetadata | None = None
    identifier: str | None = None
    source_name: str | None = None
    version: str | float | int | None = None
    columns: dict[str, DbtColumn] = {}
    raw_code: str | None = None

    @property
    def dagster_meta(self) -> dict[str, Any]:
        """Return `meta.dagster`, which contains the settings for dagster-dbt."""
        settings = (self.config.meta or self.meta).get("dagster")
        return settings if isinstance(settings, dict) else {}


class DbtNode(DbtFacts, frozen=True, array_like=False, omit_defaults=True):
    """A model, seed, snapshot, test, source, function or unit test, as dbt wrote it.

    `config` is the part of `whole_config` that planning uses by name.
    """

    config: DbtConfig = msgspec.field(name="_config", default=DbtConfig())
    whole_config: msgspec.Raw = msgspec.field(name="config", default=NOTHING)
    checksum: DbtChecksum | str | None = None
    contract: DbtContract = DbtContract()
    # `source_meta` is for a source outside the database, the next two are for a function.
    source_meta: dict[str, Any] = {}
    arguments: msgspec.Raw = NOTHING
    returns: msgspec.Raw = NOTHING
    relation_name: str | None = None
    tags: tuple[str, ...] = ()
    depends_on: DbtDependsOn = DbtDependsOn()
    attached_node: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        try:
            config = _config(bytes(self.whole_config))
        except msgspec.ValidationError as error:
            # msgspec adds the path of the node only to a ValueError.
            raise ValueError(f"config: {error}") from error
        msgspec.structs.force_setattr(self, "config", config)

    def facts(self) -> DbtFacts:
        """Return the fields that a plan keeps."""
        if self.resource_type != "test":
            return DbtFacts(*_ALL_FACTS(self))
        # Only dbt uses the arguments of a test.
        test = self.test_metadata
        kept = [*_FACTS_OF_TEST(self), DbtTestMetadata(test.name) if test else None]
        return DbtFacts(*kept)


# 30,000 nodes have few different configs, so each config is decoded once.
_decode_config = msgspec.json.Decoder(DbtConfig | None).decode


@lru_cache(maxsize=1024)
def _config(written: bytes) -> DbtConfig:
    return _decode_config(written) or DbtConfig()


_ALL_FACTS = attrgetter(*DbtFacts.__struct_fields__)
_FACTS_OF_TEST = attrgetter(
    *DbtFacts.__struct_fields__[: DbtFacts.__struct_fields__.index("test_metadata")]
)


class DbtOwner(msgspec.Struct, frozen=True):
    """Owner of a group or exposure."""

    name: str | None = None
    email: str | list[str] | None = None


class DbtGroup(msgspec.Struct, frozen=True):
    """A dbt group and its owner."""

    name: str
    owner: DbtOwner = DbtOwner()


class DbtExposure(msgspec.Struct, frozen=True):
    """A use of models outside dbt, such as a dashboard."""

    unique_id: str
    name: str
    type: str | None = None
    url: str | None = None
    description: str | None = None
    owner: DbtOwner = DbtOwner()
    depends_on: DbtDependsOn = DbtDependsOn()


class DbtManifest(msgspec.Struct, frozen=True):
    """The whole manifest of one dbt target."""

    metadata: DbtMetadata
    nodes: dict[str, DbtNode]
    sources: dict[str, DbtNode] = {}
    unit_tests: dict[str, DbtNode] = {}
    functions: dict[str, DbtNode] = {}
    groups: dict[str, DbtGroup] = {}
    exposures: dict[str, DbtExposure] = {}
    macros: dict[str, DbtMacro] = {}
    disabled: dict[str, msgspec.Raw] = {}


_decoder = msgspec.json.Decoder(DbtManifest)


def decode_manifest(data: bytes) -> DbtManifest:
    """Decode manifest.json.

    Raises:
        msgspec.DecodeError: the data is not JSON or not a manifest; the message names the path.
    """
    return decode_dbt_json(_decoder.decode, data)
