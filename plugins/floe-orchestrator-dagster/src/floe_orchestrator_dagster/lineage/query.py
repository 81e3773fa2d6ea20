"""Walks a parsed query once, from its tables outward, and finds the sources of each column.

sqlglot parses the query. This module resolves the names itself, because sqlglot's optimizer, which
qualifies a query and then traces one column at a time, costs several times as much as parsing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlglot.dialects.dialect import Dialect

IDENTITY = "IDENTITY"
TRANSFORMATION = "TRANSFORMATION"
AGGREGATION = "AGGREGATION"
JOIN = "JOIN"
FILTER = "FILTER"
GROUP_BY = "GROUP_BY"
SORT = "SORT"
WINDOW = "WINDOW"
CONDITIONAL = "CONDITIONAL"

STRENGTH = {IDENTITY: 0, TRANSFORMATION: 1, AGGREGATION: 2}
"""The direct kinds, weakest first: a path has the kind of its strongest step."""

MAX_WORK = 2_000_000
"""The limit of sources copied during one walk; it stops a query that keeps doubling its columns."""

Use = tuple[str, str, str, bool]
"""Relation, column, kind and whether the value is masked."""
Uses = dict[Use, None]
"""A set of uses that keeps its order."""

TreeNode: type[exp.Expr] = getattr(exp, "Expr", exp.Expression)
"""The class of every node; it had another name before sqlglot 30."""

_TRANSPARENT = (exp.Paren, exp.Alias, exp.IgnoreNulls, exp.RespectNulls)
_LEAVES = (exp.Literal, exp.DataType, exp.Identifier, exp.Var, exp.Null, exp.Boolean)
# Masking as in OpenLineage's Spark and Hive integrations: digests and counting. Matched by name,
# because sqlglot has classes for only some of these functions, in some versions.
_MASKS = re.compile(
    r"((xx|murmur|hive|sip|city|farm|standard)_?)?hash[0-9_]*(agg|text)?"
    r"|(sha|md5)[0-9_]*(hex|binary|digest|number_?lower64|number_?upper64)?"
    r"|crc32|checksum|(farm_?)?fingerprint|mask|count(_?if)?|approx_?(count_?)?distinct",
    re.IGNORECASE,
)
# Aggregates only by class: over a window they return the value of one row.
_PICKS = (exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue, exp.First, exp.Last)

# Functions whose name in sqlglot is the column name in PostgreSQL; for others it may differ.
_NAMED = (exp.Count, exp.Sum, exp.Min, exp.Max, exp.Avg, exp.Coalesce, exp.Upper, exp.Lower)

Step = tuple[object, "str | None", bool]
"""A part of an expression, its own kind if it has one, and whether it is masked."""


class TooMuchError(Exception):
    """The query needs more work than its lineage is worth."""


class Output:
    """The columns of a relation in order, and the sources that shape its rows (`effects`).

    `open` names the relations whose columns are not known: a name that is not a column here belongs
    to one of them. `anything`, if set, is the source of every column (for a table function).
    """

    __slots__ = ("anything", "columns", "effects", "exact", "folded", "open")

    def __init__(
        self,
        columns: list[tuple[str, Uses]],
        effects: Uses | None = None,
        unknown: tuple[str, ...] = (),
        anything: Uses | None = None,
    ) -> None:
        self.columns = columns
        self.effects: Uses = {} if effects is None else effects
        self.open = unknown
        self.anything = anything
        self.exact: dict[str, Uses] | None = None
        self.folded: dict[str, str] = {}

    def find(self, name: str) -> Uses | None:
        """Return the sources of a column, by its exact name, else by its name in any case."""
        if self.exact is None:
            self.exact = {}
            for column, sources in self.columns:
                self.exact.setdefault(column, sources)
                self.folded.setdefault(column.lower(), column)
        uses: Uses | None = self.exact.get(name)
        return self.exact.get(self.folded.get(name.lower(), "")) if uses is None else uses

    def spelled(self, name: str) -> str | None:
        """Return the spelling of a column's name; None if there is no such column."""
        return None if self.find(name) is None else self.folded[name.lower()]

    def content(self) -> list[tuple[str, set[Use]]]:
        """Return columns and effects, for a comparison with another output."""
        return [(name, set(uses)) for name, uses in (*self.columns, ("", self.effects))]

    def guess(self, name: str) -> Uses | None:
        """Return the sources of an unknown column, if there is only one possibility."""
        if self.anything is not None:
            return self.anything
        return {(self.open[0], name, IDENTITY, False): None} if len(self.open) == 1 else None


@dataclass(slots=True)
class Scope:
    """The meaning of names inside one SELECT."""

    parent: Scope | None
    ctes: dict[str, Output]
    named: dict[str, Output] = field(default_factory=dict)
    visible: list[Output] = field(default_factory=list)
    merged: dict[str, tuple[str, Uses]] = field(default_factory=dict)
    aliases: dict[str, Uses] = field(default_factory=dict)
    windows: dict[str, exp.Window] = field(default_factory=dict)

    def add(self, name: str, output: Output, qualified: str | None = None) -> None:
        """Bring a relation into scope under its alias and under its qualified name."""
        if name:
            self.named.setdefault(name.lower(), output)
        if qualified:
            self.named[qualified.lower()] = output
        self.visible.append(output)


class Walker:
    """Resolves one query; holds the tables that it may read and counts its work."""

    def __init__(self, dialect: Dialect, tables: Mapping[tuple[str, ...], Output | None]) -> None:
        self._tables = tables
        self._dialect = dialect
        case = dialect.normalization_strategy.value
        self._upper = case == "UPPERCASE"
        self._lower = case == "LOWERCASE"
        self._keeps_spelling = type(dialect).__name__ == "DuckDB"
        # Dialects in which RECURSIVE does not exist or is optional.
        self._recursive_is_implicit = type(dialect).__name__ in {"Snowflake", "TSQL", "Fabric"}
        self._work = 0
        # A source may be a call, such as `read_csv('a.csv')`, whose columns are known.
        self._reads_calls = any(len(parts) == 1 and "(" in parts[0] for parts in tables)

    # --- names and their sources ---------------------------------------------------------------

    def name(self, identifier: exp.Expr | str | None) -> str:
        """Return a name in the case in which the database stores it."""
        if isinstance(identifier, exp.Column):
            identifier = identifier.this
        if isinstance(identifier, str):
            return identifier
        if not isinstance(identifier, exp.Identifier):
            return identifier.name if identifier else ""
        name: str = identifier.this
        if identifier.args.get("quoted"):
            return name
        return name.upper() if self._upper else name.lower() if self._lower else name

    def through(self, uses: Uses, kind: str, into: Uses, *, masked: bool = False) -> None:
        """Add sources after one more step of the given kind."""
        self._work += len(uses)
        if self._work > MAX_WORK:
            raise TooMuchError
        if kind == IDENTITY and not masked:
            for use in uses:
                into.setdefault(use)
            return
        strength = STRENGTH.get(kind)
        for use in uses:
            relation, column, before, hidden = use
            if strength is None:
                into.setdefault((relation, column, kind, False))
            elif before in STRENGTH:
                step = kind if strength > STRENGTH[before] else before
                into.setdefault((relation, column, step, hidden or masked))
            else:
                into.setdefault(use)

    def _sources(self, node: exp.Expr, scope: Scope) -> Uses:
        """Return the sources of a column; for the star in `HASH(*)` or `f(t.*)` the whole row's."""
        if isinstance(node, exp.Star):
            # COUNT(*) reads no value.
            counted = isinstance(node.parent, exp.Count)
            return {} if counted else self._row(self._everything(scope))
        if isinstance(node.this, exp.Star):
            owner = scope.named.get(self.name(node.args.get("table")).lower())
            return self._row(owner) if owner else {}
        return self._resolve(node, scope) if isinstance(node, exp.Column) else {}

    def _resolve(self, column: exp.Column, scope: Scope) -> Uses:
        """Return the sources of a column in the SQL; empty if its name is not known."""
        name = self.name(column.this)
        table = column.args.get("table")
        if table is None:
            return self._bare(name, scope) or {}
        owner = self.name(table).lower()
        schema = column.args.get("db")
        keys = (f"{self.name(schema).lower()}.{owner}", owner) if schema is not None else (owner,)
        level: Scope | None = scope
        while level is not None:
            for key in keys:
                output = level.named.get(key)
                if output is not None:
                    uses = _first(name, (output,))
                    return {} if uses is None else uses
            level = level.parent
        return self._within(column, scope)

    def _within(self, column: exp.Column, scope: Scope) -> Uses:
        """Return the sources of a struct field: `column.field` or `table.column.field`."""
        parts = [self.name(part) for part in column.parts]
        output = scope.named.get(parts[0].lower())
        uses = output.find(parts[1]) if output and len(parts) > 1 else self._bare(parts[0], scope)
        into: Uses = {}
        self.through(uses or {}, TRANSFORMATION, into)
        return into

    def _bare(self, name: str, scope: Scope) -> Uses | None:
        key = name.lower()
        level: Scope | None = scope
        while level is not None:
            if key in level.merged:
                return level.merged[key][1]
            for output in level.visible:
                uses = output.find(name)
                if uses is not None:
                    return uses
            if key in level.aliases:
                return level.aliases[key]
            if key in level.named:
                return self._row(level.named[key])
            guesses = [
                guess for output in level.visible if (guess := output.guess(name)) is not None
            ]
            if len(guesses) == 1:
                return guesses[0]
            level = level.parent
        return None

    def _row(self, output: Output) -> Uses:
        """Return the sources of a whole row, named by its table."""
        into: Uses = dict(output.anything or {})
        for _, uses in output.columns:
            self.through(uses, TRANSFORMATION, into)
        return into

    # --- expressions ---------------------------------------------------------------------------

    def walk(self, root: exp.Expr, kind: str, scope: Scope, into: Uses) -> None:
        """Add the sources of an expression; a step inside it can only strengthen the kind.

        This is a loop, not a recursion: the tree of `a + b + c + ...` is as deep as it is long.
        """
        stack: list[tuple[object, str, bool]] = [(root, kind, False)]
        while stack:
            node, kind, masked = stack.pop()
            if isinstance(node, list):
                stack.extend((item, kind, masked) for item in node)
                continue
            if not isinstance(node, TreeNode) or isinstance(node, _LEAVES):
                continue
            if isinstance(node, (exp.Column, exp.Star)):
                self.through(self._sources(node, scope), kind, into, masked=masked)
            elif isinstance(node, _TRANSPARENT):
                stack.append((node.this, kind, masked))
            elif isinstance(node, exp.Query):
                output = self._nested(node, kind, scope, into)
                for _, uses in output.columns:
                    self.through(uses, kind, into, masked=masked)
            elif isinstance(node, exp.Exists) and isinstance(node.this, exp.Query):
                self._nested(node.this, kind, scope, into)
            else:
                direct = kind in STRENGTH
                step = TRANSFORMATION if kind == IDENTITY else kind
                stack.extend(
                    (child, then or step if direct else kind, masked or hides)
                    for child, then, hides in self._steps(node, step, scope)
                )

    def _steps(self, node: exp.Expr, step: str, scope: Scope) -> Iterator[Step]:
        rule = _RULES.get(type(node))
        if rule is not None:
            yield from rule(node)
        elif isinstance(node, exp.Window):
            yield from self._window(node, scope)
        else:
            kind = None
            if isinstance(node, exp.AggFunc):
                kind = step if isinstance(node, _PICKS) and _in_window(node) else AGGREGATION
            hides = isinstance(node, exp.Func) and _masks(
                node.name if isinstance(node, exp.Anonymous) else node.key
            )
            for part in node.args.values():
                yield part, kind, hides

    def _window(self, node: exp.Window, scope: Scope) -> Iterator[Step]:
        yield node.this, None, False
        seen: set[str] = set()
        over: exp.Window | None = node
        while over is not None:
            yield over.args.get("partition_by"), WINDOW, False
            order = over.args.get("order")
            for ordered in order.expressions if order else ():
                yield ordered.this, WINDOW, False
            name = self.name(over.args.get("alias")).lower()
            over = scope.windows.get(name) if name and name not in seen else None
            seen.add(name)

    def _nested(self, node: exp.Expr, kind: str, scope: Scope, into: Uses) -> Output:
        """Return the output of a subquery in an expression; add the effects on its rows."""
        output = self.query(node, scope, scope.ctes)
        self.through(output.effects, IDENTITY if kind in STRENGTH else kind, into)
        return output

    def _uses(self, node: exp.Expr, kind: str, scope: Scope) -> Uses:
        into: Uses = {}
        self.walk(node, kind, scope, into)
        return into

    # --- queries -------------------------------------------------------------------------------

    def query(self, node: exp.Expr, parent: Scope | None, ctes: dict[str, Output]) -> Output:
        """Return the output of a query; a correlated query also resolves names in `parent`."""
        with_ = _arg(node, "with")
        if with_ is not None:
            ctes = self._with(with_, parent, ctes)
        if isinstance(node, exp.Select):
            return self._select(node, parent, ctes)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, parent, ctes)
        if isinstance(node, exp.Pivot):
            return self._pivot_statement(node, parent, ctes)
        scope = Scope(parent, ctes)
        effects: Uses = {}
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query):
            output = self.query(node.this, parent, ctes)
        else:
            self._add(node.this if isinstance(node, exp.Subquery) else node, scope, effects)
            output = self._everything(scope)
        scope.visible = [output]
        effects.update(output.effects)
        self._sort(node, scope, output.columns, effects)
        return Output(output.columns, effects, output.open, output.anything)

    def _with(
        self, with_: exp.Expr, parent: Scope | None, ctes: dict[str, Output]
    ) -> dict[str, Output]:
        ctes = dict(ctes)
        for cte in with_.expressions:
            alias = cte.args["alias"]
            name = self.name(alias.this).lower()
            body = cte.this
            recursive = with_.args.get("recursive") or (
                self._recursive_is_implicit and _reads(body, cte.alias)
            )
            if recursive and isinstance(body, exp.SetOperation):
                ctes[name] = self._recursive(body, name, alias, parent, ctes)
            else:
                ctes[name] = self._renamed(self.query(body, parent, ctes), alias)
        return ctes

    def _recursive(
        self,
        body: exp.SetOperation,
        name: str,
        alias: exp.Expr,
        parent: Scope | None,
        ctes: dict[str, Output],
    ) -> Output:
        """Resolve a recursive query with its own output until the output no longer changes.

        It begins as a relation without known columns and without sources.
        """
        known = Output([], anything={})
        while True:
            output = self._renamed(self.query(body, parent, {**ctes, name: known}), alias)
            if output.content() == known.content():
                return output
            known = output

    def _renamed(self, output: Output, alias: exp.Expr | None) -> Output:
        """Return the output under the column names of `AS alias (a, b)`."""
        names = [self.name(column) for column in (alias.args.get("columns") or ())] if alias else []
        if not names:
            return output
        columns = [
            (names[at] if at < len(names) else column, uses)
            for at, (column, uses) in enumerate(output.columns)
        ]
        if output.anything is not None:
            columns += [(name, output.anything) for name in names[len(columns) :]]
        return Output(columns, output.effects, output.open, output.anything)

    def _select(self, node: exp.Select, parent: Scope | None, ctes: dict[str, Output]) -> Output:
        scope = Scope(parent, ctes)
        effects: Uses = {}
        args = node.args
        self._from(node, scope, effects)
        columns, unknown = self._projections(node.expressions, scope)
        for clause in ("prewhere", "where", "having", "qualify", "connect"):
            if (condition := args.get(clause)) is not None:
                for part in condition.args.values():
                    if isinstance(part, TreeNode):
                        self.walk(part, FILTER, scope, effects)
        if (group := args.get("group")) is not None:
            self._group(group, node.expressions, scope, columns, effects)
        if (distinct := args.get("distinct")) is not None:
            if (on := distinct.args.get("on")) is not None:
                self.walk(on, GROUP_BY, scope, effects)
            else:
                self._each(columns, GROUP_BY, effects)
        self._sort(node, scope, columns, effects)
        return Output(columns, effects, unknown)

    def _from(self, node: exp.Select, scope: Scope, effects: Uses) -> None:
        """Bring all relations into scope before any condition, which may name a later one."""
        joins = node.args.get("joins") or ()
        from_ = _arg(node, "from")
        if from_ is not None:
            self._add(from_.this, scope, effects)
        for join in joins:
            self._join(join, scope, effects)
        for lateral in node.args.get("laterals") or ():
            self._add(lateral, scope, effects)
        for join in joins:
            self._join_condition(join, scope, effects)
        for window in node.args.get("windows") or ():
            scope.windows[self.name(window.this).lower()] = window

    def _each(self, columns: Iterable[tuple[str, Uses]], kind: str, into: Uses) -> None:
        for _, uses in columns:
            self.through(uses, kind, into)

    def _projections(
        self, expressions: Sequence[exp.Expr], scope: Scope
    ) -> tuple[list[tuple[str, Uses]], tuple[str, ...]]:
        columns: list[tuple[str, Uses]] = []
        unknown: tuple[str, ...] = ()
        for at, item in enumerate(expressions):
            star = _star(item)
            if star is not None:
                named, more = self._star(star, item.args.get("table"), scope)
                columns += named
                unknown += more
                continue
            if isinstance(item, exp.Aliases):
                uses = self._uses(item.this, IDENTITY, scope)
                columns += [(self.name(alias), uses) for alias in item.expressions]
                continue
            uses = self._uses(item, IDENTITY, scope)
            name = self._output_name(item, at)
            if self._keeps_spelling and isinstance(item, exp.Column):
                name = self._spelled(item, name, scope)
            columns.append((name, uses))
            scope.aliases.setdefault(name.lower(), uses)
        return columns, unknown

    def _output_name(self, item: exp.Expr, at: int) -> str:
        """Return a column's name; `?` and its number if each database generates its own name.

        Of the databases that fold to lower case, only PostgreSQL names a column after its function.
        """
        if isinstance(item, exp.Alias):
            return self.name(item.args["alias"])
        while isinstance(item, exp.Paren) or (self._lower and isinstance(item, exp.Cast)):
            item = item.this
        if isinstance(item, (exp.Column, exp.Dot)):
            last = item.this if isinstance(item, exp.Column) else item.expression
            return self.name(last)
        if isinstance(item, exp.Subquery):
            selects = item.this.selects if isinstance(item.this, exp.Query) else []
            return self._output_name(selects[0], at) if len(selects) == 1 else f"?{at}"
        if self._lower:
            while isinstance(item, (exp.Window, exp.Filter)):
                item = item.this
            if isinstance(item, (exp.Anonymous, exp.Case, *_NAMED)):
                return item.name.lower() if isinstance(item, exp.Anonymous) else item.key
        return f"?{at}"

    def _spelled(self, column: exp.Column, name: str, scope: Scope) -> str:
        """Return a column's name in the spelling of its relation, if the relation has it."""
        owner = scope.named.get(self.name(column.args.get("table")).lower())
        for output in scope.visible if owner is None else (owner,):
            if (spelled := output.spelled(name)) is not None:
                return spelled
        return name

    def _star(
        self, star: exp.Expr, owner: exp.Expr | None, scope: Scope
    ) -> tuple[list[tuple[str, Uses]], tuple[str, ...]]:
        """Return the columns of a star, and the relations whose columns are not known."""
        columns: list[tuple[str, Uses]]
        if owner is not None:
            output = scope.named.get(self.name(owner).lower())
            if output is None:
                return [], ()
            columns, unknown = output.columns, output.open
        else:
            everything = self._everything(scope)
            columns, unknown = everything.columns, everything.open
        self._work += len(columns)
        if self._work > MAX_WORK:
            raise TooMuchError
        without = _arg(star, "except")
        if without:
            dropped = {item.name.lower() for item in without}
            columns = [column for column in columns if column[0].lower() not in dropped]
        if replace := star.args.get("replace"):
            new = {item.alias.lower(): self._uses(item, IDENTITY, scope) for item in replace}
            columns = [(name, new.get(name.lower(), uses)) for name, uses in columns]
        if rename := star.args.get("rename"):
            to = {item.this.name.lower(): self.name(item.args["alias"]) for item in rename}
            columns = [(to.get(name.lower(), name), uses) for name, uses in columns]
        return columns, unknown

    def _everything(self, scope: Scope) -> Output:
        """Return all columns in scope; those merged by a join come once and first."""
        if len(scope.visible) == 1 and not scope.merged:
            return scope.visible[0]
        columns = list(scope.merged.values())
        for output in scope.visible:
            columns += (item for item in output.columns if item[0].lower() not in scope.merged)
        return Output(columns, None, tuple(name for item in scope.visible for name in item.open))

    def _group(
        self,
        group: exp.Expr,
        expressions: Sequence[exp.Expr],
        scope: Scope,
        columns: list[tuple[str, Uses]],
        effects: Uses,
    ) -> None:
        if group.args.get("all"):
            for item, (_, uses) in zip(expressions, columns, strict=False):
                if item.find(exp.AggFunc) is None:
                    self.through(uses, GROUP_BY, effects)
        for part in group.args.values():
            for item in part if isinstance(part, list) else ():
                self._by(item, GROUP_BY, scope, columns, effects)

    def _sort(
        self, node: exp.Expr, scope: Scope, columns: list[tuple[str, Uses]], effects: Uses
    ) -> None:
        order: exp.Expr | None = node.args.get("order")
        if order is None:
            return
        for ordered in order.expressions:
            item = ordered.this
            if isinstance(item, exp.Var) and item.name.upper() == "ALL":
                self._each(columns, SORT, effects)
                continue
            if isinstance(item, exp.Column) and item.args.get("table") is None:
                key = self.name(item.this).lower()
                alias = next((uses for name, uses in columns if name.lower() == key), None)
                if alias is not None:
                    self.through(alias, SORT, effects)
                    continue
            self._by(item, SORT, scope, columns, effects)

    def _by(
        self,
        item: exp.Expr,
        kind: str,
        scope: Scope,
        columns: list[tuple[str, Uses]],
        effects: Uses,
    ) -> None:
        """Add the sources of a term in GROUP BY or ORDER BY, which may be a column number."""
        if isinstance(item, exp.Literal) and not item.is_string:
            at = int(item.this) - 1 if item.this.isdigit() else -1
            if 0 <= at < len(columns):
                self.through(columns[at][1], kind, effects)
        else:
            self.walk(item, kind, scope, effects)

    def _set_operation(
        self, node: exp.SetOperation, parent: Scope | None, ctes: dict[str, Output]
    ) -> Output:
        """Resolve a chain of UNION, EXCEPT and INTERSECT from the left, as the parser nests it."""
        chain: list[exp.SetOperation] = [node]
        while isinstance(left := chain[-1].this, exp.SetOperation) and _arg(left, "with") is None:
            chain.append(left)
        first = self.query(chain[-1].this, parent, ctes)
        columns = [(name, dict(uses)) for name, uses in first.columns]
        effects = dict(first.effects)
        unknown = first.open
        for step in reversed(chain):
            right = self.query(step.expression, parent, ctes)
            effects.update(right.effects)
            if not isinstance(step, exp.Union):
                self._each(right.columns, FILTER, effects)
                continue
            unknown += right.open
            self._union(columns, right.columns, by_name=bool(step.args.get("by_name")))
            if step.args.get("distinct"):
                self._each(columns, GROUP_BY, effects)
        scope = Scope(parent, ctes, visible=[Output(columns, None, unknown)])
        self._sort(node, scope, columns, effects)
        return Output(columns, effects, unknown)

    def _union(
        self, columns: list[tuple[str, Uses]], right: list[tuple[str, Uses]], *, by_name: bool
    ) -> None:
        """Add the columns of one more query of a union, by position or by name."""
        if not by_name:
            for (_, into), (_, uses) in zip(columns, right, strict=False):
                self.through(uses, IDENTITY, into)
            return
        names = {name.lower(): uses for name, uses in columns}
        for name, uses in right:
            if name.lower() in names:
                self.through(uses, IDENTITY, names[name.lower()])
            else:
                columns.append((name, dict(uses)))

    # --- relations -----------------------------------------------------------------------------

    def _add(self, node: exp.Expr, scope: Scope, effects: Uses) -> None:
        """Bring a relation, and the relations joined to it in parentheses, into scope."""
        alias = node.args.get("alias")
        name = self.name(alias.this) if isinstance(alias, exp.TableAlias) else ""
        qualified = None
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            output = self._table(node, scope)
            if not name:
                name = self.name(node.this)
                schema = node.args.get("db")
                qualified = f"{self.name(schema)}.{name}" if schema else None
        elif _joined_in_parentheses(node) and alias is None:
            self._add(node.this, scope, effects)
            self._joins(node, scope, effects)
            return
        else:
            output = self._derived(node, scope, effects)
        effects.update(output.effects)
        for pivot in node.args.get("pivots") or ():
            output = self._pivot(pivot, output, scope, effects)
            if (pivoted := pivot.args.get("alias")) is not None:
                output, name = self._renamed(output, pivoted), self.name(pivoted.this)
        output = self._renamed(output, alias if isinstance(alias, exp.TableAlias) else None)
        if not name and alias is not None and alias.args.get("columns"):
            name = self.name(alias.args["columns"][0])
        scope.add(name, output, qualified)
        self._joins(node, scope, effects)

    def _derived(self, node: exp.Expr, scope: Scope, effects: Uses) -> Output:
        """Return the output of a relation that is not a table: a function or a subquery."""
        if _joined_in_parentheses(node):
            inner = Scope(scope.parent, scope.ctes)
            self._add(node.this, inner, effects)
            return self._everything(inner)
        lateral = isinstance(node, exp.Lateral)
        if isinstance(node.this if lateral else node, (exp.Query, exp.Pivot)):
            # A lateral subquery sees the relations to its left, an ordinary one those outside.
            return self.query(_unwrapped(node), scope if lateral else scope.parent, scope.ctes)
        call = node.this if isinstance(node, exp.Table) else node
        known = self._tables.get((call.sql(self._dialect),)) if self._reads_calls else None
        return self._function(call, scope) if known is None else known

    def _joins(self, node: exp.Expr, scope: Scope, effects: Uses) -> None:
        for join in node.args.get("joins") or ():
            self._join(join, scope, effects)
            self._join_condition(join, scope, effects)

    def _table(self, node: exp.Table, scope: Scope) -> Output:
        parts = tuple(self.name(part) for part in node.parts)
        if len(parts) == 1 and parts[0].lower() in scope.ctes:
            return scope.ctes[parts[0].lower()]
        output = self._tables.get(parts)
        if output is None:
            output = self._tables.get(tuple(part.lower() for part in parts))
        if output is not None:
            return output
        return Output([], None, (".".join(part.sql(self._dialect) for part in node.parts),))

    def _function(self, node: exp.Expr, scope: Scope) -> Output:
        """Return the output of a table function: each column may come from every argument."""
        uses: Uses = {}
        for part in node.args.values():
            for item in part if isinstance(part, list) else (part,):
                if isinstance(item, TreeNode) and not isinstance(item, exp.TableAlias):
                    self.walk(item, TRANSFORMATION, scope, uses)
        return Output([], None, (), uses)

    def _join(self, join: exp.Join, scope: Scope, effects: Uses) -> None:
        """Bring the right side of a join into scope and merge the columns joined by name."""
        left = self._everything(scope) if join.args.get("using") or join.method else None
        merged = dict(scope.merged)
        before = len(scope.visible)
        self._add(join.this, scope, effects)
        if left is not None:
            self._merge(join, left, scope, scope.visible[before:], effects)
        if join.kind in {"SEMI", "ANTI"}:
            del scope.visible[before:]
            scope.merged = merged

    def _merge(
        self,
        join: exp.Join,
        left: Output,
        scope: Scope,
        right: Sequence[Output],
        effects: Uses,
    ) -> None:
        """Merge each pair of columns that a join matches by name into one column."""
        names = [self.name(item) for item in join.args.get("using") or ()]
        if join.method == "NATURAL":
            theirs = {name.lower() for output in right for name, _ in output.columns}
            names = [name for name, _ in left.columns if name.lower() in theirs]
        for name in names:
            ours, other = _first(name, (left,)) or {}, _first(name, right) or {}
            self.through(ours, JOIN, effects)
            self.through(other, JOIN, effects)
            uses = other if join.side == "RIGHT" else ours
            if join.side == "FULL":
                uses = {}
                for kind in (TRANSFORMATION, CONDITIONAL):
                    self.through(ours, kind, uses)
                    self.through(other, kind, uses)
            scope.merged[name.lower()] = (name, uses)

    def _join_condition(self, join: exp.Expr, scope: Scope, effects: Uses) -> None:
        for clause in ("on", "match_condition"):
            if (condition := join.args.get(clause)) is not None:
                self.walk(condition, JOIN, scope, effects)

    # --- pivots --------------------------------------------------------------------------------

    def _pivot(self, pivot: exp.Expr, source: Output, outer: Scope, effects: Uses) -> Output:
        scope = Scope(outer, outer.ctes, visible=[source], named=outer.named)
        fields = [item for item in pivot.args.get("fields") or () if isinstance(item, exp.In)]
        if pivot.args.get("unpivot"):
            return self._unpivoted(
                source,
                scope,
                names=[self.name(item.this) for item in fields],
                values=[self.name(item) for item in _flat(pivot.expressions)],
                rows=[list(_flat([row])) for item in fields for row in item.expressions],
            )
        by: Uses = {}
        for item in fields:
            self.walk(item.this, CONDITIONAL, scope, by)
        cells = [self._cell(item, by, scope) for item in pivot.expressions]
        used = {
            column.name.lower()
            for part in (*pivot.expressions, *(item.this for item in fields))
            for column in part.find_all(exp.Column)
        }
        kept = [item for item in source.columns if item[0].lower() not in used]
        self._each(kept, GROUP_BY, effects)
        pivoted = [
            (self.name(column), cells[at % len(cells)])
            for at, column in enumerate(pivot.args.get("columns") or ())
        ]
        return Output([*kept, *pivoted], None, source.open)

    def _cell(self, aggregate: exp.Expr, by: Uses, scope: Scope) -> Uses:
        uses = self._uses(aggregate, IDENTITY, scope)
        self.through(by, IDENTITY, uses)
        return uses

    def _unpivoted(
        self,
        source: Output,
        scope: Scope,
        *,
        names: list[str],
        values: list[str],
        rows: list[list[exp.Expr]],
    ) -> Output:
        """Return the output of an unpivot: other columns, names (without source) and values."""
        used = {column.name.lower() for row in rows for column in row}
        columns = [item for item in source.columns if item[0].lower() not in used]
        columns += [(name, {}) for name in names]
        for at, name in enumerate(values):
            uses: Uses = {}
            for row in rows:
                if at < len(row):
                    self.walk(row[at], IDENTITY, scope, uses)
            columns.append((name, uses))
        return Output(columns, None, source.open)

    def _pivot_statement(
        self, node: exp.Pivot, parent: Scope | None, ctes: dict[str, Output]
    ) -> Output:
        """Return the output of DuckDB's `PIVOT table ON ... USING ... GROUP BY ...`."""
        scope = Scope(parent, ctes)
        effects: Uses = {}
        self._add(node.this, scope, effects)
        source = self._everything(scope)
        if node.args.get("unpivot"):
            into = node.args.get("into")
            output = self._unpivoted(
                source,
                scope,
                names=[self.name(into.this)] if into else ["name"],
                values=[self.name(item) for item in into.expressions] if into else ["value"],
                rows=[list(_flat([item])) for item in node.expressions],
            )
            return Output(output.columns, effects, output.open)
        by: Uses = {}
        labels: list[str] = []
        for item in node.expressions:
            self.walk(item.this if isinstance(item, exp.In) else item, CONDITIONAL, scope, by)
            labels += [value.name for value in item.expressions] if isinstance(item, exp.In) else []
        using = node.args.get("using") or []
        used = {
            column.name.lower()
            for part in (*node.expressions, *using)
            for column in part.find_all(exp.Column)
        }
        kept = [item for item in source.columns if item[0].lower() not in used]
        if (group := node.args.get("group")) is not None:
            kept = [(item.name, self._uses(item, IDENTITY, scope)) for item in group.expressions]
        self._each(kept, GROUP_BY, effects)
        plain = len(using) == 1 and not isinstance(using[0], exp.Alias)
        pivoted = [
            (label if plain else f"{label}_{item.alias_or_name}", self._cell(item, by, scope))
            for label in labels
            for item in using
        ]
        return Output([*kept, *pivoted], effects)


def _case(node: exp.Expr) -> Iterator[Step]:
    yield node.args.get("this"), CONDITIONAL, False
    for branch in node.args["ifs"]:
        yield branch.this, CONDITIONAL, False
        yield branch.args.get("true"), None, False
    yield node.args.get("default"), None, False


def _if(node: exp.Expr) -> Iterator[Step]:
    yield node.this, CONDITIONAL, False
    yield node.args.get("true"), None, False
    yield node.args.get("false"), None, False


def _second_tested(node: exp.Expr) -> Iterator[Step]:
    yield node.this, None, False
    yield node.expression, CONDITIONAL, False


def _coalesce(node: exp.Expr) -> Iterator[Step]:
    # Each value decides the choice and may be the chosen one.
    for value in (node.this, *node.expressions):
        yield value, CONDITIONAL, False
        yield value, None, False


def _decode(node: exp.Expr) -> Iterator[Step]:
    value, *pairs = node.expressions
    yield value, CONDITIONAL, False
    for at, item in enumerate(pairs):
        tested = at % 2 == 0 and at < len(pairs) - 1
        yield item, CONDITIONAL if tested else None, False


def _within_group(node: exp.Expr) -> Iterator[Step]:
    # The sort key of a percentile is its value; that of LISTAGG is only the order.
    sorts = node.this.find(exp.Column) is not None
    yield node.this, None, False
    for ordered in node.expression.expressions:
        yield ordered.this, SORT if sorts else AGGREGATION, False


def _ordered(node: exp.Expr) -> Iterator[Step]:
    yield node.args.get("this"), None, False
    for ordered in node.expressions:
        yield ordered.this, SORT, False


_RULES: dict[type, Callable[[exp.Expr], Iterator[Step]]] = {
    exp.Case: _case,
    exp.If: _if,
    exp.Nvl2: _if,
    exp.Nullif: _second_tested,
    exp.Filter: _second_tested,
    exp.Coalesce: _coalesce,
    exp.DecodeCase: _decode,
    exp.WithinGroup: _within_group,
    exp.Order: _ordered,
}


@lru_cache(maxsize=1024)
def _masks(function: str) -> bool:
    return _MASKS.fullmatch(function) is not None


def _arg(node: exp.Expr, key: str) -> exp.Expr | None:
    """Return an argument whose name is a Python keyword; sqlglot 28 added an underscore to it."""
    value: exp.Expr | None = node.args.get(f"{key}_") or node.args.get(key)
    return value


def _reads(body: exp.Expr, name: str) -> bool:
    return any(table.name.lower() == name.lower() for table in body.find_all(exp.Table))


def _in_window(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, (exp.IgnoreNulls, exp.RespectNulls)):
        parent = parent.parent
    return isinstance(parent, exp.Window)


def _star(item: exp.Expr) -> exp.Expr | None:
    """Return the star of `*`, `t.*` or `COLUMNS(*)`."""
    if isinstance(item, exp.Star):
        return item
    if isinstance(item, (exp.Column, exp.Columns)) and isinstance(item.this, exp.Star):
        return item.this
    return None


def _first(name: str, outputs: Iterable[Output]) -> Uses | None:
    for output in outputs:
        uses = output.find(name)
        if uses is None:
            uses = output.guess(name)
        if uses is not None:
            return uses
    return None


def _flat(items: Iterable[exp.Expr]) -> Iterator[exp.Expr]:
    for item in items:
        if isinstance(item, exp.PivotAlias):
            yield from _flat([item.this])
        elif isinstance(item, exp.Tuple):
            yield from item.expressions
        else:
            yield item


def _joined_in_parentheses(node: exp.Expr) -> bool:
    return isinstance(node, exp.Subquery) and not isinstance(node.this, (exp.Query, exp.Pivot))


def _unwrapped(node: exp.Expr) -> exp.Expr:
    """Return the query inside a derived table or a LATERAL."""
    if isinstance(node, exp.Lateral):
        node = node.this
    inner = node.this if isinstance(node, exp.Subquery) else node
    plain = isinstance(node, exp.Subquery) and not any(
        node.args.get(key) for key in ("with_", "with", "order")
    )
    return inner if plain or isinstance(inner, exp.Pivot) else node
