"""Computes code versions: digests of everything that decides what a node builds.

A code version contains the node's code, the macros that it uses directly or through others, its
materialization, the ephemeral models that dbt inlines into it, the functions that it calls, its
config, the relation that it builds, the sources and models that it names, its enforced columns, the
content of a seed, the adapter, the target, and the values of the vars and environment variables
that any of this code reads.

An upgrade of dbt changes a code version only if it changes a macro that the node uses. Hooks of the
project (on-run-start, on-run-end) do not belong to a node and are not in a code version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping  # noqa: TC003  types of a dataclass's fields
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from floe_orchestrator_dagster.plan.jinja import EVERY, NO_READS, may_read, reads_of
from floe_orchestrator_dagster.plan.macros import Macros, is_python
from floe_orchestrator_dagster.plan.manifest import DbtNode  # noqa: TC001  likewise
from floe_orchestrator_dagster.plan.model import ASSET_KINDS, INLINED_KINDS, Reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from floe_orchestrator_dagster.plan.jinja import TextReads
    from floe_orchestrator_dagster.plan.manifest import DbtManifest
    from floe_orchestrator_dagster.plan.model import Compute, Node

# Config that does not decide a result, with the reason. All other config counts, because adapters
# and macros may read keys that dbt does not know.
LEFT_OUT: Mapping[str, str] = {
    "enabled": "every planned node is enabled",
    "alias": "part of the relation's name",
    "schema": "part of the relation's name",
    "database": "part of the relation's name",
    "target_schema": "part of the relation's name",
    "target_database": "part of the relation's name",
    "quoting": "part of the relation's name",
    "tags": "for selections; counts if the code reads it",
    "meta": "for people and tools; counts if the code reads it",
    "docs": "for dbt's documentation",
    "group": "names the owner",
    "access": "limits which nodes may refer to it",
    "freshness": "decides when to build",
    "event_time": "filters it for other nodes; counts for these nodes",
    "concurrent_batches": "decides how to build, not what",
    "static_analysis": "decides how dbt checks the SQL",
    "persist_docs": "counts together with the descriptions that it persists",
}


@dataclass(frozen=True)
class Surroundings:
    """Inputs of code versions that are not in a manifest.

    `variables` returns the vars of the nodes of a dbt package. `seed_content` returns a digest of
    a seed's file that is too large for dbt to read.
    """

    variables: Callable[[str], Mapping[str, Any]] = lambda _: {}
    seed_content: Callable[[DbtNode], str] = lambda _: ""


def with_versions(
    nodes: Mapping[str, Node],
    computes: Mapping[str, Compute],
    manifests: Mapping[str, DbtManifest],
    surroundings: Surroundings,
) -> dict[str, Node]:
    """Return the nodes, with a code version for each asset."""
    inlined = [uid for uid, node in nodes.items() if node.kind in INLINED_KINDS]
    targets = {
        target: _Target(target, manifest, inlined, surroundings)
        for target, manifest in manifests.items()
    }
    versioned = dict(nodes)
    for uid, node in nodes.items():
        if node.kind not in ASSET_KINDS:
            continue
        target = targets.get(computes[node.compute].target)
        dbt = target.manifest.nodes.get(uid) if target else None
        if target and dbt:
            code_version, reads = target.version(dbt)
            versioned[uid] = replace(node, code_version=code_version, reads=reads)
    return versioned


def version_of(
    node: Node, environment: Mapping[str, str], variables: Mapping[str, Any] | None = None
) -> str | None:
    """Return the code version of a node; None for a node that is not from dbt.

    Args:
        node: an asset of the plan.
        environment: the environment variables that dbt runs with.
        variables: vars of a launch, which override those of the configuration. They must not
            contain the window of a partition, because partitions differ only in their data.
    """
    reads = node.reads
    if reads is None:
        return node.code_version or None
    values = dict(reads.variables)
    for name, value in (variables or {}).items():
        if reads.every or name in values or name in reads.unset:
            values[name] = _digest(value)
    present = {name: environment[name] for name in reads.environment if name in environment}
    return _digest([node.code_version, sorted(values.items()), sorted(present.items())])


class _Config(NamedTuple):
    """The part of a node's config that decides results."""

    counted: str
    meta: bytes
    reads: TextReads
    event_time: Any
    persisted: Mapping[str, Any]
    is_microbatch: bool


class _Target:
    """The code versions of the nodes of one target, with a cache of what nodes share."""

    def __init__(
        self,
        target: str,
        manifest: DbtManifest,
        inlined: Iterable[str],
        surroundings: Surroundings,
    ) -> None:
        self.manifest = manifest
        self._built_by = [manifest.metadata.adapter_type, target]
        self._sources = manifest.sources
        self._surroundings = surroundings
        self._macros = Macros(manifest)
        self._inlined_nodes = {
            uid: node
            for uid in inlined
            if (node := manifest.functions.get(uid) or manifest.nodes.get(uid))
            and (node.resource_type == "function" or node.config.materialized == "ephemeral")
        }
        self._configs: dict[bytes, _Config] = {}
        self._digests: dict[frozenset[str], tuple[str, TextReads]] = {}

    def version(self, node: DbtNode) -> tuple[str, Reads | None]:
        """Return the code version of a node, and what its code reads at run time."""
        inlined: Sequence[DbtNode] = ()
        if self._inlined_nodes:
            inlined = self._inlined(node)
        config = self._config(node)
        reads = config.reads | self._macros.reads_of_code(node)
        used = self._macros.used_by(node, reads.macros)
        for each in inlined:
            own = self._macros.reads_of_code(each)
            reads |= own
            used |= self._macros.used_by(each, own.macros)
        macros, macros_read = self._summed(used)
        reads |= macros_read
        if EVERY in reads.environment:
            # A string in the code may be a name that the code passes to a macro.
            for each in (node, *inlined):
                reads |= NO_READS if is_python(each) else reads_of(each.raw_code or "")
        code_version = _digest(
            [
                *self._built_by,
                macros,
                self._own(node, config, meta=reads.meta),
                [self._own_of_inlined(each, meta=reads.meta) for each in inlined],
            ]
        )
        if reads is NO_READS:
            return code_version, None
        return code_version, self._noted(reads, {each.package_name for each in (node, *inlined)})

    # --- the node itself

    def _own(self, node: DbtNode, config: _Config, *, meta: bool) -> list[Any]:
        contract = node.contract
        parents = node.depends_on.nodes
        return [
            node.unique_id,
            node.relation_name,
            config.counted,
            self._content(node) if node.resource_type == "seed" else node.raw_code,
            sorted(parents),
            [self._source(uid) for uid in parents if uid in self._sources],
            [
                contract.checksum,
                # The statement that creates the table contains these, dbt's checksum does not.
                [(column.name, column.quote) for column in node.columns.values()],
            ]
            if contract.enforced
            else None,
            _descriptions(node, config.persisted) if config.persisted else None,
            self._event_times(parents) if config.is_microbatch else None,
            config.meta if meta else None,
        ]

    def _own_of_inlined(self, node: DbtNode, *, meta: bool) -> list[Any]:
        return [
            *self._own(node, self._config(node), meta=meta),
            [_signature(argument) for argument in _decoded(node.arguments) or ()],
            _signature(_decoded(node.returns) or {}),
        ]

    def _content(self, seed: DbtNode) -> str | None:
        checksum = seed.checksum
        if checksum is None or isinstance(checksum, str):
            return checksum
        if checksum.name == "path":
            return self._surroundings.seed_content(seed)
        return checksum.checksum

    def _source(self, uid: str) -> list[Any]:
        """Return the relation of a source, and its meta if the adapter reads it from elsewhere."""
        source = self._sources[uid]
        meta = {**source.source_meta, **source.meta, **source.config.meta}
        external = "external_location" in meta or "plugin" in meta
        return [source.relation_name, _canonical(_without_dagster(meta)) if external else None]

    def _event_times(self, parents: Iterable[str]) -> list[tuple[str, Any]]:
        """Return the columns by which dbt filters the parents of a microbatch model."""
        nodes = ((uid, self.manifest.nodes.get(uid, self._sources.get(uid))) for uid in parents)
        return sorted((uid, self._config(parent).event_time) for uid, parent in nodes if parent)

    def _inlined(self, node: DbtNode) -> Sequence[DbtNode]:
        """Return the ephemerals and functions that a node reads, also through others, by id."""
        seen: set[str] = set()
        queue = [node]
        while queue:
            for uid in self._inlined_nodes.keys() & queue.pop().depends_on.nodes:
                if uid not in seen:
                    seen.add(uid)
                    queue.append(self._inlined_nodes[uid])
        return [self._inlined_nodes[uid] for uid in sorted(seen)]

    def _config(self, node: DbtNode) -> _Config:
        written = bytes(node.whole_config)
        config = self._configs.get(written)
        if config is None:
            config = self._configs[written] = self._read_config(msgspec.json.decode(written) or {})
        return config

    def _read_config(self, config: Mapping[str, Any]) -> _Config:
        hooks = (
            str(hook.get("sql", hook) if isinstance(hook, dict) else hook)
            for key in ("pre-hook", "post-hook")
            for hook in config.get(key) or ()
        )
        persisted = config.get("persist_docs")
        return _Config(
            counted=_digest({key: config[key] for key in config if key not in LEFT_OUT}),
            meta=_canonical([_without_dagster(config.get("meta") or {}), config.get("tags")]),
            reads=reduce(or_, (reads_of(hook) for hook in hooks if "{" in hook), NO_READS),
            event_time=config.get("event_time"),
            persisted=persisted if isinstance(persisted, dict) else {},
            is_microbatch=config.get("incremental_strategy") == "microbatch",
        )

    # --- what the code reads

    def _summed(self, used: frozenset[str]) -> tuple[str, TextReads]:
        """Return a digest of macros, with what they read."""
        summed = self._digests.get(used)
        if summed is None:
            texts, reads = self._macros.texts_and_reads(used)
            summed = self._digests[used] = _digest(texts), reads
        return summed

    def _noted(self, reads: TextReads, packages: set[str]) -> Reads | None:
        """Return what a plan keeps, for a launch, of what the code of some packages reads."""
        environment = tuple(sorted(reads.environment_names))
        if not reads.variables and not environment:
            return None
        every = EVERY in reads.variables
        digests: defaultdict[str, set[str]] = defaultdict(set)
        names = set(reads.variables - {EVERY})
        for package in packages:
            configured = self._surroundings.variables(package)
            wanted = {*configured, *names} if every else _with_nested(names, configured)
            for name in wanted:
                if name in configured:
                    digests[name].add(_digest(configured[name]))
            names |= wanted
        return Reads(
            variables={
                name: next(iter(values)) if len(values) == 1 else _digest(sorted(values))
                for name, values in sorted(digests.items())
            },
            unset=tuple(sorted(names - digests.keys())),
            every=every,
            environment=environment,
        )


def _with_nested(names: set[str], configured: Mapping[str, Any]) -> set[str]:
    """Return vars with the vars that their values read, because dbt renders Jinja in a value."""
    all_names = set(names)
    queue = [*names]
    while queue:
        value = configured.get(queue.pop())
        if isinstance(value, str) and may_read(value):
            further = reads_of(value).variables - all_names
            all_names |= further
            queue += further
    return all_names


def _descriptions(node: DbtNode, persisted: Mapping[str, Any]) -> list[Any]:
    """Return the descriptions that dbt writes into the database."""
    return [
        node.description if persisted.get("relation") else None,
        sorted((column.name, column.description) for column in node.columns.values())
        if persisted.get("columns")
        else None,
    ]


def _signature(argument: Mapping[str, Any]) -> list[Any]:
    return [argument.get(key) for key in ("name", "data_type", "default_value")]


def _without_dagster(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in meta.items() if key != "dagster"}


def _decoded(written: msgspec.Raw) -> Any:
    return msgspec.json.decode(written)


_canonical = msgspec.json.Encoder(order="sorted", enc_hook=str).encode
_packed = msgspec.msgpack.Encoder(order="sorted", enc_hook=str).encode


def _digest(value: Any) -> str:
    # Different values never have the same packed bytes.
    return blake2b(_packed(value), digest_size=16).hexdigest()
