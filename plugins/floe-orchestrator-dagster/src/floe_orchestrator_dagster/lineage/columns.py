"""Finds the source columns of a model's columns in its compiled SQL.

The terms are those of OpenLineage's ColumnLineageDatasetFacet 1-2-0, with the meaning that they
have in OpenLineage's Spark and Hive integrations:

- DIRECT: IDENTITY (unchanged, even if renamed), TRANSFORMATION (including a cast), AGGREGATION.
- INDIRECT on a column: CONDITIONAL (the condition of a CASE), WINDOW, and the filters and sorting
  of a subquery or an aggregate.
- INDIRECT on the dataset: JOIN, FILTER (WHERE, HAVING, QUALIFY, the right side of EXCEPT and
  INTERSECT), GROUP_BY (including DISTINCT and UNION), SORT.
- Masking: digests and COUNT.

Several steps in a row have the name of the strongest: a renamed sum is an AGGREGATION.

dbt inlines ephemeral models as common table expressions, a seed has no upstream, and the query of a
snapshot is compiled like that of a model; `snapshot_lineage` adds the columns that dbt adds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.lineage.query import Output, Uses

MAX_SQL = 1_000_000
"""The limit of characters of SQL; time and memory grow with them (1 to 5 s at the limit)."""

MAX_NESTING = 150
"""The limit of nested brackets, nested CASEs and repeated words."""

MAX_OPEN_JOINS = 8
"""The limit of joins in a row without a condition; each doubles sqlglot's time (14 take 0.1 s)."""

MAX_PIPES = 50
"""The limit of steps in pipe syntax; sqlglot's time grows with their square."""

MAX_LINKS = 50
"""The limit of subscripts or method calls in a row; sqlglot's time grows with their cube."""

# dbt adapters whose name differs from that of their sqlglot dialect.
_DIALECTS = {
    "glue": "spark",
    "materialize": "postgres",
    "sqlserver": "tsql",
    "synapse": "tsql",
}


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One way in which one upstream column contributes.

    `relation` is its key in `relation_columns`, or its name in the SQL if the caller did not pass
    that relation.
    """

    relation: str
    column: str
    type: Literal["DIRECT", "INDIRECT"]
    subtype: str
    masking: bool = False


@dataclass(frozen=True, slots=True)
class ColumnLineage:
    """The sources of each output column, in column order, and of the dataset as a whole."""

    fields: dict[str, tuple[Source, ...]]
    dataset: tuple[Source, ...] = ()


def column_lineage(
    sql: str, dialect: str, relation_columns: Mapping[str, Mapping[str, str]]
) -> tuple[ColumnLineage | None, str]:
    """Return the column lineage of one query and "", or None and why there is none.

    Args:
        sql: compiled SQL, one query, at most `MAX_SQL` characters.
        dialect: a dbt adapter's type or a sqlglot dialect; an unknown one means plain SQL.
        relation_columns: upstream relations by dbt's `relation_name`, quoted or not, each with
            its columns (name to type; the types are ignored). A relation without columns is not
            known: every column that the SQL reads from it is assumed to exist.

    Nothing is raised or logged. A column is left out if only the database knows its name (an
    unnamed expression), or if it depends on an unknown schema.
    """
    from sqlglot.errors import SqlglotError

    from floe_orchestrator_dagster.lineage.query import MAX_WORK, TooMuchError

    if len(sql) > MAX_SQL:
        return None, f"its SQL has {len(sql):,} characters, more than {MAX_SQL:,}"
    language = _dialect(dialect)
    try:
        output = _read(sql, language, relation_columns)
        return _lineage(output, language), ""
    except _UnreadError as error:
        return None, str(error)
    except TooMuchError:
        return None, f"its columns pass through more than {MAX_WORK:,} sources"
    except SqlglotError:
        return None, f"its SQL cannot be parsed as {language or 'plain SQL'}"
    except Exception as error:  # noqa: BLE001  a syntax tree of unexpected shape
        return None, f"its SQL has an unexpected form ({type(error).__name__})"


class _UnreadError(Exception):
    """The SQL is not read; the text says why."""


def _read(sql: str, dialect: str, relation_columns: Mapping[str, Mapping[str, str]]) -> Output:
    from sqlglot.dialects.dialect import Dialect

    from floe_orchestrator_dagster.lineage.query import Walker

    language = Dialect.get_or_raise(dialect)
    tokens = language.tokenize(sql)
    if not _is_query(tokens):
        raise _UnreadError("its SQL is not a query")
    if _is_hostile(tokens):
        raise _UnreadError("its SQL is nested too deeply, or repeats itself too often")
    statements = [item for item in language.parser().parse(tokens, sql) if item is not None]
    if len(statements) != 1:
        raise _UnreadError(f"its SQL has {len(statements)} statements")
    output = Walker(language, _tables(relation_columns, dialect)).query(statements[0], None, {})
    if not (output.columns or output.open):
        raise _UnreadError("its query has no columns that are known")
    return output


def snapshot_lineage(
    query: ColumnLineage,
    unique_key: Sequence[str],
    updated_at: str | None,
    names: Mapping[str, str],
) -> ColumnLineage:
    """Return the lineage of a snapshot: the columns of its query and those that dbt adds.

    Args:
        query: the lineage of the snapshot's own query.
        unique_key: its key; a part that is not a column of the query adds nothing.
        updated_at: the column with the time of a row's last change; None if dbt uses the time of
            the run, as with the strategy `check`.
        names: other names of dbt's columns (`snapshot_meta_column_names`), by the standard name.

    dbt-core 1.11 derives the validity from `updated_at`, and `dbt_scd_id` is a digest of
    `updated_at` and the key.
    """

    def changed(column: str, *, masking: bool = False) -> list[Source]:
        weaker = "AGGREGATION", "TRANSFORMATION"
        return [
            replace(
                source,
                subtype=source.subtype if source.subtype in weaker else "TRANSFORMATION",
                masking=source.masking or masking,
            )
            if source.type == "DIRECT"
            else source
            for source in of.get(column.lower(), ())
        ]

    of = {name.lower(): sources for name, sources in query.fields.items()}
    time = updated_at or ""
    digested = {part for column in (*unique_key, time) for part in changed(column, masking=True)}
    added = {
        "dbt_scd_id": tuple(sorted(digested)),
        "dbt_updated_at": of.get(time.lower(), ()),
        "dbt_valid_from": of.get(time.lower(), ()),
        "dbt_valid_to": tuple(sorted(set(changed(time)))),
    }
    more = {names.get(name, name): sources for name, sources in added.items()}
    return replace(query, fields={**query.fields, **more})


@lru_cache(maxsize=64)
def _dialect(name: str) -> str:
    from sqlglot.dialects.dialect import Dialect

    name = _DIALECTS.get(name.lower(), name.lower())
    try:
        Dialect.get_or_raise(name)
    except ValueError:
        return ""
    return name


def _is_query(tokens: list[Any]) -> bool:
    """Return whether this is a query; sqlglot may log warnings about other statements."""
    from sqlglot import TokenType

    if not tokens:
        return False
    first = tokens[0]
    return first.token_type in {
        TokenType.SELECT,
        TokenType.WITH,
        TokenType.FROM,
        TokenType.L_PAREN,
        TokenType.VALUES,
        TokenType.PIVOT,
        TokenType.UNPIVOT,
    }


def _is_hostile(tokens: list[Any]) -> bool:
    """Return whether the parser could overflow the C stack, or need unlimited time."""
    return _is_deep(tokens) or _is_repetitive(tokens)


def _is_deep(tokens: list[Any]) -> bool:
    """Return whether brackets are nested too deeply or chains of subscripts or calls too long."""
    from sqlglot import TokenType as Type

    opening = {Type.L_PAREN, Type.L_BRACKET, Type.L_BRACE, Type.CASE}
    closing = {Type.R_PAREN, Type.R_BRACKET, Type.R_BRACE, Type.END}
    linking = {Type.L_BRACKET, Type.DOT}
    between = opening | closing | linking
    links = [0]  # links in a row, for each open bracket
    before = None
    for token in tokens:
        kind = token.token_type
        if kind in between:
            links[-1] += kind in linking and before in closing
            if links[-1] > MAX_LINKS or len(links) > MAX_NESTING + 1:
                return True
            if kind in opening:
                links.append(0)
            elif kind in closing and len(links) > 1:
                links.pop()
        elif before != Type.DOT:
            links[-1] = 0
        before = kind
    return len(links) > MAX_NESTING + 1


def _is_repetitive(tokens: list[Any]) -> bool:
    """Return whether words, joins without conditions, pipes or nested types repeat too often."""
    from sqlglot import TokenType as Type

    nested_types = {Type.STRUCT, Type.ARRAY, Type.MAP, Type.NESTED}
    free_joins = {Type.CROSS, Type.NATURAL}
    types = pipes = open_joins = run = 0
    before = None
    for token in tokens:
        kind = token.token_type
        run = run + 1 if kind == before else 0
        if kind == Type.JOIN:
            open_joins += before not in free_joins
        elif kind in {Type.ON, Type.USING}:
            open_joins = max(0, open_joins - 1)
        elif kind == Type.PIPE_GT:
            pipes += 1
        elif kind == Type.LT and before in nested_types:
            types += 1
        if max(run, types) > MAX_NESTING or open_joins > MAX_OPEN_JOINS or pipes > MAX_PIPES:
            return True
        before = kind
    return False


def _tables(
    relation_columns: Mapping[str, Mapping[str, str]], dialect: str
) -> dict[tuple[str, ...], Output | None]:
    """Return each relation by its full name and by each shorter name that is not ambiguous.

    Each name is also there in lower case; the original spelling has precedence.
    """
    from floe_orchestrator_dagster.lineage.query import IDENTITY, Output

    outputs: list[tuple[tuple[str, ...], Output]] = []
    for relation, names in relation_columns.items():
        columns: list[tuple[str, Uses]] = [
            (name, {(relation, name, IDENTITY, False): None}) for name in names
        ]
        unknown = () if names else (relation,)
        outputs.append((_parts(relation, dialect), Output(columns, unknown=unknown)))
    tables: dict[tuple[str, ...], Output | None] = dict(outputs)
    for parts, output in outputs:
        tables.setdefault(tuple(part.lower() for part in parts), output)
    whole = set(tables)
    for parts, output in outputs:
        for at in range(1, len(parts)):
            for key in {parts[at:], tuple(part.lower() for part in parts[at:])} - whole:
                tables[key] = None if key in tables else output
    return tables


@lru_cache(maxsize=4096)
def _parts(relation: str, dialect: str) -> tuple[str, ...]:
    """Return the parts of a relation name in the case of the database.

    An expression in place of a name, such as `read_csv('a.csv')`, is one part: its SQL.
    """
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import SqlglotError

    from floe_orchestrator_dagster.lineage.query import Walker

    try:
        table = exp.to_table(relation, dialect=dialect)
    except SqlglotError:
        return (relation,)
    if not isinstance(table.this, exp.Identifier):
        return (table.this.sql(dialect),)
    walker = Walker(Dialect.get_or_raise(dialect), {})
    return tuple(walker.name(part) for part in table.parts)


def _lineage(output: Output, dialect: str) -> ColumnLineage:
    fields: dict[str, tuple[Source, ...]] = {}
    repeats: Counter[str] = Counter()
    for name, uses in output.columns:
        unused = name
        while unused in fields and dialect == "duckdb":
            # Only DuckDB allows a name twice; it numbers the copies.
            repeats[name] += 1
            unused = f"{name}_{repeats[name]}"
        if name.startswith("?") or unused in fields:
            continue
        fields[unused] = _sources(uses)
    return ColumnLineage(fields, _sources(output.effects))


def _sources(uses: Uses) -> tuple[Source, ...]:
    from floe_orchestrator_dagster.lineage.query import STRENGTH

    return tuple(
        sorted(
            Source(relation, column, "DIRECT" if kind in STRENGTH else "INDIRECT", kind, masked)
            for relation, column, kind, masked in uses
        )
    )
