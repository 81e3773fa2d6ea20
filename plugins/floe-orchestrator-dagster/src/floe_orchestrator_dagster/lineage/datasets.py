"""What a dataset is called: its name, its other names, its catalog, and the table it stands for."""

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
    """Where a dataset is and what it is called there, its other names, and its catalog."""

    namespace: str
    name: str
    symlinks: tuple[Symlink, ...] = ()
    catalog: Catalog | None = field(default=None, compare=False)

    @property
    def uri(self) -> str:
        """The namespace as a URI; that of local files, and some others, is a bare word."""
        return self.namespace if ":" in self.namespace else f"{self.namespace}:///"

    def as_symlink(self) -> Symlink:
        """Return this as another dataset's other name."""
        return Symlink(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class TableName:
    """What dbt calls a table or view.

    Attributes:
        database: dbt's `database` of the relation; None means the output's own.
        schema: dbt's `schema` of the relation; None means the output's own.
        identifier: the table's name; of a source its `identifier`, not its `name`.
    """

    database: str | None
    schema: str | None
    identifier: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table to be named, and the profile output that reaches it; "" for what nobody says.

    `root` is the directory that relative paths start from, and `scope` tells databases in memory
    apart.
    """

    output: Mapping[str, Any]
    database: str
    schema: str
    identifier: str
    root: str
    scope: str

    def get(self, *keys: str) -> str:
        """Return the first of the output's values that says something."""
        return first_text(*(self.output.get(key) for key in keys))

    def full(self) -> str:
        """Return database, schema and identifier with dots between them."""
        return dotted(self.database, self.schema, self.identifier)

    def cased(self, fold: Callable[[str], str]) -> Table:
        """Return the table in the case in which the database keeps unquoted names."""
        return replace(
            self,
            database=fold(self.database),
            schema=fold(self.schema),
            identifier=fold(self.identifier),
        )


def dotted(*parts: str) -> str:
    """Return the parts that are not empty with dots between them."""
    return ".".join(filter(None, parts))
