"""Reads the variables of `--vars` as dbt reads them."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import click

HINT = "--vars"


def read_variables(text: str | None) -> dict[str, Any]:
    """Return the mapping in a YAML text; JSON is a part of YAML.

    The variables go to Dagster and dbt as JSON, so a date becomes the string that dbt would print
    for it.

    Raises:
        click.BadParameter: the text is not a mapping, or cannot be written as JSON.
    """
    import yaml

    try:
        value = yaml.safe_load(text or "{}")
    except (yaml.YAMLError, RecursionError) as error:
        raise click.BadParameter(f"{text!r} is neither JSON nor YAML.", param_hint=HINT) from error
    if not isinstance(value, dict):
        raise click.BadParameter(
            f"{text!r} is not a mapping. Write '{{name: value}}'.", param_hint=HINT
        )
    try:
        written = json.dumps(value, default=_dated, allow_nan=False, ensure_ascii=False)
        written.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"{text!r} cannot be written as JSON ({error}). Use strings, numbers, true, false, "
            "null, lists and mappings.",
            param_hint=HINT,
        ) from error
    variables: dict[str, Any] = json.loads(written)
    return variables


def _dated(value: object) -> str:
    if isinstance(value, date):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
