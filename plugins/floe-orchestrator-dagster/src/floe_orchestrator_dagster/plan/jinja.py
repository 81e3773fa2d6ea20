"""Reads dbt's Jinja: which vars, environment variables, macros and meta a text looks at."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from jinja2 import Environment, nodes
    from jinja2.parser import Parser
    from msgspec import Raw

# Stands for every var: the name of one is computed.
EVERY = "*"
# A macro that `adapter.dispatch` chooses by the adapter has this before its name.
DISPATCHED = "*__"
_META = frozenset({"meta", "meta_get", "meta_require", "tags"})
_READS = re.compile(r"\b(?:(?:env_)?var|meta(?:_get|_require)?|tags)\b")
_CALLS = re.compile(r"\b(\w+)\s*\(|\bdispatch\b")


class TextReads(NamedTuple):
    """What a text reads.

    `macros` are the names by which it calls them, with their package or without; `words` are the
    attributes and strings that it spells.
    """

    variables: frozenset[str] = frozenset()
    environment: frozenset[str] = frozenset()
    macros: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()

    def __or__(self, other: TextReads) -> TextReads:
        if other is NO_READS or self is NO_READS:
            return self if other is NO_READS else other
        return TextReads(*(mine | theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def meta(self) -> bool:
        """Whether it looks at a node's meta or tags."""
        return not self.words.isdisjoint(_META)

    @property
    def environment_names(self) -> Iterator[str]:
        """Environment variables that it may read: a computed name is among what it spells."""
        names = self.environment | self.words if EVERY in self.environment else self.environment
        # dbt gives secrets to profiles and packages alone.
        return (
            name for name in names if name.isidentifier() and not name.startswith("DBT_ENV_SECRET")
        )


NO_READS = TextReads()


def may_read(text: str) -> bool:
    """Tell cheaply whether a text might read vars, environment variables or meta."""
    return ("var" in text or "meta" in text or "tags" in text) and bool(_READS.search(text))


def may_call(text: str, macros: Container[str], listed: Raw) -> bool:
    """Tell cheaply whether a text might call one of these macros that is not `listed` for it.

    dbt lists what is called while it parses, which leaves out what a condition kept from that.
    `listed` is a list of unique ids as JSON.
    """
    # Spelled out: this is asked of every node, and a regular expression takes five times as long.
    if not (
        "{%" in text
        or ("if " in text or "and " in text or "or " in text)
        or (" if" in text or " and" in text or " or" in text)
    ):
        return False
    return any(
        not name or (name in macros and f'.{name}"'.encode() not in bytes(listed))
        for name in _CALLS.findall(text)
    )


def reads_of(text: str) -> TextReads:
    """Return what a text reads; what is no Jinja reads every var."""
    from jinja2 import TemplateSyntaxError

    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError:
        return TextReads(variables=frozenset({EVERY}))
    return _reads(tree)


def reads_of_python(text: str) -> TextReads:
    """Return what a Python model reads: it sees no vars, but the config."""
    return TextReads(words=_META & {*re.findall(r"\w+", text)})


def _reads(tree: nodes.Template) -> TextReads:
    from jinja2 import nodes

    variables, environment, macros = set[str](), set[str](), set[str]()
    known = 0
    for call in tree.find_all(nodes.Call):
        called = ".".join(_path(call.node)).removeprefix("builtins.")
        if called in {"var", "var.has_var"}:
            known += 1
            variables.add(_name(call, "var_name"))
        elif called == "env_var":
            environment.add(_name(call, "var"))
        elif called == "adapter.dispatch":
            macros.add(DISPATCHED + _name(call, "macro_name"))
        elif called:
            macros.add(called)
    words = {node.attr for node in tree.find_all(nodes.Getattr)}
    words |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    # Handed on as a value, it may be asked for any name.
    loaded = sum(
        1 for node in tree.find_all(nodes.Name) if node.name == "var" and node.ctx == "load"
    ) + sum(1 for node in tree.find_all(nodes.Getattr) if node.attr == "var")
    if loaded > known:
        variables.add(EVERY)
    return TextReads(*map(frozenset, (variables, environment, macros, words)))


def _path(node: nodes.Expr) -> Iterator[str]:
    """Yield the names of `a.b.c`; nothing for what is no such path."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Getattr):
        yield from _path(node.node)
        yield node.attr


def _name(call: nodes.Call, keyword: str) -> str:
    """Return the constant name that a call asks for, else EVERY."""
    from jinja2 import nodes

    named = [*call.args[:1], *(item.value for item in call.kwargs if item.key == keyword)]
    first = named[0] if named else None
    if isinstance(first, nodes.Const) and isinstance(first.value, str):
        return first.value
    return EVERY


@cache
def _environment() -> Environment:
    """Return a Jinja that knows the blocks of dbt."""
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension

    class Blocks(Extension):
        """dbt's blocks, read as macros: only what is in them matters."""

        tags = {"materialization", "test", "data_test", "snapshot", "docs"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            tag = next(parser.stream)
            block = nodes.Macro(tag.value, [], [], [], lineno=tag.lineno)
            parser.parse_assign_target(name_only=True)
            if parser.stream.current.type == "lparen":
                parser.parse_signature(block)
            while parser.stream.current.type != "block_end":
                next(parser.stream)
            block.body = parser.parse_statements((f"name:end{tag.value}",), drop_needle=True)
            return block

    # It parses and never renders.
    return Environment(  # noqa: S701
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols", Blocks]
    )
