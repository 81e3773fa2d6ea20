"""Renders the Jinja of a dbt project's settings as dbt does, and without dbt where it can."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import ProductError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_JINJA = re.compile(r"\{\{|\{%|\{#")
_ENV_VAR = re.compile(r"""\benv_var\s*\(\s*(['"])(.+?)\1""")
# dbt has filters of these names that Jinja has not.
_DBT_FILTERS = frozenset({"as_text", "as_bool", "as_native", "as_number"})


def render(
    value: Any,
    where: str,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    target: Mapping[str, Any] | None = None,
) -> Any:
    """Return a setting as dbt reads it; `where` names the setting in errors.

    `target` is what dbt calls so: the output that is built on, where one is known.

    dbt takes seconds to import, so a template that calls nothing but `env_var` and `var` is
    rendered by Jinja itself, which comes to the same; dbt renders every other one.

    Raises:
        ProductError: the template is wrong, or asks for a variable that is not set.
    """
    if not isinstance(value, str) or not _JINJA.search(value):
        return value
    try:
        if _is_plain(value):
            return _rendered_by_jinja(value, variables, environment)
        return _rendered_by_dbt(value, variables, environment, target)
    except Exception as error:
        # Jinja, dbt, and whatever the template calls, each raise errors of their own.
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise ProductError(
            f"Cannot render {where}: {value!r}. {str(reason).strip().rstrip('.')}. Correct the "
            "template, or set the variable that it reads."
        ) from error


def asks_for_target(value: Any) -> bool:
    """Tell whether dbt needs to know the output that is built on to render a setting."""
    return any(
        "target" in text and _JINJA.search(text) and "target" in _undeclared(text)
        for _, text in texts(value)
    )


def environment_names(text: str) -> frozenset[str]:
    """Return the environment variables that templates in a text name."""
    return frozenset(match.group(2) for match in _ENV_VAR.finditer(text))


def _is_plain(template: str) -> bool:
    """Tell whether a template uses nothing that dbt adds to Jinja but `env_var` and `var`."""
    from jinja2 import Environment, nodes

    tree = Environment().parse(template)  # noqa: S701  never shown in a browser
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    return _names(tree) <= {"env_var", "var"} and not filters & _DBT_FILTERS


def _undeclared(template: str) -> set[str]:
    """Return the names that a template takes from dbt; none of one that cannot be parsed."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        return _names(Environment().parse(template))  # noqa: S701  never shown in a browser
    except TemplateSyntaxError:
        # Whoever renders it will say what is wrong.
        return set()


def _names(tree: Any) -> set[str]:
    from jinja2 import nodes

    names = [*tree.find_all(nodes.Name)]
    own = {name.name for name in names if name.ctx != "load"}
    return {name.name for name in names} - own


def _rendered_by_jinja(
    template: str, variables: Mapping[str, Any], environment: Mapping[str, str]
) -> str:
    from jinja2.sandbox import SandboxedEnvironment

    def env_var(name: str, default: str | None = None) -> str:
        found = environment.get(name, default)
        if found is None:
            raise LookupError(f"Environment variable '{name}' is not set")
        return found

    def var(name: str, *default: Any) -> Any:
        found = [variables[name]] if name in variables else [*default]
        if not found:
            raise LookupError(f"Variable '{name}' is not set")
        return found[0]

    made = SandboxedEnvironment().from_string(template)
    return made.render(env_var=env_var, var=var)


def _rendered_by_dbt(
    template: str,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    target: Mapping[str, Any] | None,
) -> Any:
    from dbt.clients.jinja import get_rendered
    from dbt.context.base import BaseContext
    from dbt.context.target import TargetContext
    from dbt_common.context import set_invocation_context

    set_invocation_context(dict(environment))
    asked = dict(variables)
    made = BaseContext(asked) if target is None else TargetContext(dict(target), asked)
    return get_rendered(template, made.to_dict(), native=True)


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text in nested mappings and lists, each with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from texts(item, (*path, str(number)))
    elif isinstance(value, str):
        yield path, value
