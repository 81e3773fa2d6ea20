"""Finds the macros that a node uses, directly or through other macros."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import msgspec

from floe_orchestrator_dagster.plan.jinja import (
    DISPATCHED,
    NO_READS,
    TextReads,
    may_call,
    may_read,
    reads_of,
    reads_of_python,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from floe_orchestrator_dagster.plan.manifest import DbtMacro, DbtManifest, DbtNode


class Macros:
    """The macros of one manifest, with a cache of the lookups that many nodes share."""

    def __init__(self, manifest: DbtManifest) -> None:
        self._macros = manifest.macros
        self._project = manifest.metadata.project_name or ""
        adapter = manifest.metadata.adapter_type or ""
        self._dbts_own = {"dbt", f"dbt_{adapter}"}
        self._named: defaultdict[str, list[tuple[str, DbtMacro]]] = defaultdict(list)
        packages = set()
        for uid, macro in self._macros.items():
            self._named[macro.name].append((uid, macro))
            packages.add(macro.package_name)
        # An adapter may be based on others: dbt_redshift brings dbt_postgres.
        self._adapters = sorted(
            {"default", adapter}
            | {name.removeprefix("dbt_") for name in packages if name.startswith("dbt_")}
        )
        self._used: dict[tuple[object, ...], frozenset[str]] = {}

    def reads_of_code(self, node: DbtNode) -> TextReads:
        """Return what the code of a node reads."""
        code = node.raw_code
        if not code:
            return NO_READS
        if is_python(node):
            return reads_of_python(code)
        if may_read(code) or may_call(code, self._named, node.depends_on.macros):
            return reads_of(code)
        return NO_READS

    def used_by(self, node: DbtNode, called: frozenset[str]) -> frozenset[str]:
        """Return the macros that a node uses.

        These are the macros that dbt lists, the macros that the code calls (`called`) in branches
        that dbt did not parse, the materialization, and the macros that all of these use.
        """
        listed, materialized = bytes(node.depends_on.macros), node.config.materialized
        key = (listed, materialized, called, node.package_name)
        used = self._used.get(key)
        if used is None:
            used = self._used[key] = self._closure(
                [
                    *(_unique_ids(listed) or ()),
                    *self._materializations(materialized),
                    *(uid for name in called for uid in self._named_by(name, node.package_name)),
                ]
            )
        return used

    def texts_and_reads(self, used: frozenset[str]) -> tuple[list[tuple[str, str]], TextReads]:
        """Return the unique ids and texts of macros, and what they read."""
        texts = [(uid, self._macros[uid].macro_sql) for uid in sorted(used)]
        return texts, reduce(or_, map(self._reads, used), NO_READS)

    def _closure(self, queue: list[str]) -> frozenset[str]:
        seen: set[str] = set()
        while queue:
            uid = queue.pop()
            if uid not in seen and uid in self._macros:
                seen.add(uid)
                queue += self._macros[uid].depends_on.macros
        return frozenset(seen)

    def _reads(self, uid: str) -> TextReads:
        macro = self._macros[uid]
        if not may_read(macro.macro_sql):
            return NO_READS
        reads = reads_of(macro.macro_sql)
        # dbt's own macros name every config, so their words say nothing about this node.
        return reads._replace(words=frozenset()) if macro.package_name in self._dbts_own else reads

    def _materializations(self, name: str | None) -> Iterator[str]:
        """Yield the macros that dbt may choose for this materialization."""
        for adapter in self._adapters:
            yield from self._ids(f"materialization_{name}_{adapter}")

    def _named_by(self, name: str, package: str) -> Iterator[str]:
        """Yield the macros that a name may mean in the code of a package."""
        if name.startswith(DISPATCHED):
            for adapter in self._adapters:
                yield from self._ids(f"{adapter}__{name.removeprefix(DISPATCHED)}")
            return
        prefix, _, bare = name.rpartition(".")
        places = [{package}, {self._project}, self._dbts_own]
        if prefix:
            places = [self._dbts_own if prefix == "dbt" else {prefix}]
        for packages in places:
            matches = [uid for uid, macro in self._of_name(bare) if macro.package_name in packages]
            if matches:
                yield from matches
                return

    def _ids(self, name: str) -> Iterator[str]:
        return (uid for uid, _ in self._of_name(name))

    def _of_name(self, name: str) -> list[tuple[str, DbtMacro]]:
        return self._named.get(name, [])


def is_python(node: DbtNode) -> bool:
    """Return whether a node is written in Python, without Jinja."""
    return node.original_file_path.endswith(".py")


_unique_ids = msgspec.json.Decoder(tuple[str, ...] | None).decode
