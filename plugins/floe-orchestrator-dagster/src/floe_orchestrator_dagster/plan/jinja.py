"""Finds the vars, environment variables, macros and meta that a Jinja text of dbt reads."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from jinja2 import Environment, nodes
    from jinja2.parser import Parser
    from msgspec import Raw

# Replaces a name that the text computes: the text may read every var.
EVERY = "*"
# The prefix of a macro that `adapter.dispatch` chooses by the adapter.
DISPATCHED = "*__"
_META = frozenset({"meta", "meta_get", "meta_require", "tags"})
_READS = re.compile(r"\b(?:(?:env_)?var|meta(?:_get|_require)?|tags)\b")
_CALLS = re.compile(r"\b(\w+)\s*\(|\bdispatch\b")


class TextReads(NamedTuple):
    """What a text reads.

    `macros` are the names in its calls, with or without a package. `words` are the attributes and
    strings in the text.
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
        """Whether the text reads the meta or tags of a node."""
        return not self.words.isdisjoint(_META)

    @property
    def environment_names(self) -> Iterator[str]:
        """Environment variables that it may read: a computed name may be any of the words."""
        names = self.environment | self.words if EVERY in self.environment else self.environment
        # dbt renders secrets only in profiles and packages.
        return (
            name for name in names if name.isidentifier() and not name.startswith("DBT_ENV_SECRET")
        )


NO_READS = TextReads()


def may_read(text: str) -> bool:
    """Return, with little work, whether a text may read vars, environment variables or meta."""
    return ("var" in text or "meta" in text or "tags" in text) and bool(_READS.search(text))


def may_call(text: str, macros: Container[str], listed: Raw) -> bool:
    """Return, with little work, whether a text may call a macro that dbt did not list for it.

    dbt lists the macros that it calls while it parses, without those in a false condition.
    `listed` is this list of unique ids as JSON.
    """
    # This runs for every node, and a regular expression takes five times as long.
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
    """Return what a text reads; a text that is not valid Jinja may read every var."""
    from jinja2 import TemplateSyntaxError

    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError:
        return TextReads(variables=frozenset({EVERY}))
    return _reads(tree)


def reads_of_python(text: str) -> TextReads:
    """Return what a Python model reads: it can read the config, but not vars."""
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
    # If the text passes `var` on as a value, it may read any var.
    loaded = sum(
        1 for node in tree.find_all(nodes.Name) if node.name == "var" and node.ctx == "load"
    ) + sum(1 for node in tree.find_all(nodes.Getattr) if node.attr == "var")
    if loaded > known:
        variables.add(EVERY)
    return TextReads(*map(frozenset, (variables, environment, macros, words)))


def _path(node: nodes.Expr) -> Iterator[str]:
    """Yield the names of a path such as `a.b.c`; nothing for any other expression."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Getattr):
        yield from _path(node.node)
        yield node.attr


def _name(call: nodes.Call, keyword: str) -> str:
    """Return the name in a call if it is a constant, else EVERY."""
    from jinja2 import nodes

    named = [*call.args[:1], *(item.value for item in call.kwargs if item.key == keyword)]
    first = named[0] if named else None
    if isinstance(first, nodes.Const) and isinstance(first.value, str):
        return first.value
    return EVERY


@cache
def _environment() -> Environment:
    """Return a Jinja environment with the blocks of dbt."""
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension

    class Blocks(Extension):
        """The blocks of dbt, parsed as macros, because only their content matters."""

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

    # Autoescape does not matter, because nothing is rendered.
    return Environment(  # noqa: S701
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols", Blocks]
    )
