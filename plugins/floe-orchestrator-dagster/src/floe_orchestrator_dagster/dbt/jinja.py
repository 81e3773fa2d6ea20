"""Renders the Jinja in a dbt project's settings exactly as dbt does, without dbt if possible."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.errors import ProductError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_JINJA = re.compile(r"\{\{|\{%|\{#")
_ENV_VAR = re.compile(r"""\benv_var\s*\(\s*(['"])(.+?)\1""")
# Filters that dbt adds to Jinja.
_DBT_FILTERS = frozenset({"as_text", "as_bool", "as_native", "as_number"})


def render(
    value: Any,
    where: str,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    target: Mapping[str, Any] | None = None,
) -> Any:
    """Return a setting as dbt renders it; `where` names the setting in errors.

    `target` is dbt's `target` variable: the current output, if it is known.

    dbt takes seconds to import. So Jinja itself renders a template that calls only `env_var` and
    `var`, with the same result. dbt renders every other template.

    Raises:
        ProductError: the template is wrong, or a variable that it reads is not set.
    """
    if not isinstance(value, str) or not _JINJA.search(value):
        return value
    try:
        if _is_plain(value):
            return _rendered_by_jinja(value, variables, environment)
        return _rendered_by_dbt(value, variables, environment, target)
    except Exception as error:
        # Jinja, dbt and every function that a template calls raise different errors.
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise ProductError(
            f"Cannot render {where}: {value!r}. {str(reason).strip().rstrip('.')}. Correct the "
            "template, or set the variable that it reads."
        ) from error


def needs_target(value: Any) -> bool:
    """Return whether dbt needs to know the current output to render a setting."""
    return any(
        "target" in text and _JINJA.search(text) and "target" in _undeclared(text)
        for _, text in texts(value)
    )


def environment_names(text: str) -> frozenset[str]:
    """Return the environment variables that templates in a text name."""
    return frozenset(match.group(2) for match in _ENV_VAR.finditer(text))


def _is_plain(template: str) -> bool:
    """Return whether a template uses only `env_var` and `var` of dbt's additions to Jinja."""
    from jinja2 import Environment, nodes

    tree = Environment().parse(template)  # noqa: S701  never shown in a browser
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    return _names(tree) <= {"env_var", "var"} and not filters & _DBT_FILTERS


def _undeclared(template: str) -> set[str]:
    """Return the names that a template takes from dbt; none if the template cannot be parsed."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        return _names(Environment().parse(template))  # noqa: S701  never shown in a browser
    except TemplateSyntaxError:
        # `render` reports what is wrong.
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
        value = environment.get(name, default)
        if value is None:
            raise LookupError(f"Environment variable '{name}' is not set")
        return value

    def var(name: str, *default: Any) -> Any:
        values = [variables[name]] if name in variables else [*default]
        if not values:
            raise LookupError(f"Variable '{name}' is not set")
        return values[0]

    return SandboxedEnvironment().from_string(template).render(env_var=env_var, var=var)


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
    cli_vars = dict(variables)
    context = BaseContext(cli_vars) if target is None else TargetContext(dict(target), cli_vars)
    return get_rendered(template, context.to_dict(), native=True)


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
