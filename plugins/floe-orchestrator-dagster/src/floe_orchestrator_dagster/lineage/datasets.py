"""Holds the names of a dataset, its catalog, and the table that it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.lineage.addresses import first_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Symlink:
    """Another name of the same dataset, for the `symlinks` facet."""

    namespace: str
    name: str
    type: str = "TABLE"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog that holds a dataset, for the `catalog` facet; its URIs carry no credentials."""

    framework: str
    type: str
    name: str
    metadata_uri: str | None = None
    warehouse_uri: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetName:
    """The namespace and name of a dataset, its other names, and its catalog."""

    namespace: str
    name: str
    symlinks: tuple[Symlink, ...] = ()
    catalog: Catalog | None = field(default=None, compare=False)

    @property
    def uri(self) -> str:
        """The namespace as a URI; some namespaces, such as that of local files, are bare words."""
        return self.namespace if ":" in self.namespace else f"{self.namespace}:///"

    def as_symlink(self) -> Symlink:
        """Return this name as an alternative name of another dataset."""
        return Symlink(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class TableName:
    """The name of a table or view in dbt.

    Attributes:
        database: dbt's `database` of the relation; None means that of the output.
        schema: dbt's `schema` of the relation; None means that of the output.
        identifier: the name of the table; for a source its `identifier`, not its `name`.
    """

    database: str | None
    schema: str | None
    identifier: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the profile output that reaches it; a part that is not known is "".

    Relative paths start from `root`. `scope` distinguishes databases in memory.
    """

    output: Mapping[str, Any]
    database: str
    schema: str
    identifier: str
    root: str
    scope: str

    def get(self, *keys: str) -> str:
        """Return the first value of the output under `keys` that is not empty."""
        return first_text(*(self.output.get(key) for key in keys))

    def full(self) -> str:
        """Return database, schema and identifier with dots between them."""
        return dotted(self.database, self.schema, self.identifier)

    def cased(self, fold: Callable[[str], str]) -> Table:
        """Return the table with its names in the case of the database's unquoted names."""
        return replace(
            self,
            database=fold(self.database),
            schema=fold(self.schema),
            identifier=fold(self.identifier),
        )


def dotted(*parts: str) -> str:
    """Return the parts that are not empty with dots between them."""
    return ".".join(filter(None, parts))
