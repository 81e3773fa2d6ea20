"""Validates `meta.dagster` of a dbt node."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec.structs import force_setattr, replace
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from floe_orchestrator_dagster.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from floe_orchestrator_dagster.plan.manifest import DbtNode

_OWNER = re.compile(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s]{2,}")
PARTITIONS_EXPECTED = (
    "Expected {type: hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', end?, timezone?}."
)
_MAX_SHOWN = 60
# These values may have several types, and pydantic would report each type separately.
_EXPECTED = {
    "asset_key": "expected a string or a list of strings",
    "ref": "expected a mapping with the `name` of a model",
}


# Thousands of assets share a few owners.
@lru_cache(maxsize=1024)
def is_owner(owner: str) -> bool:
    """Return whether Dagster accepts an owner: an email address or ``team:name``."""
    return _OWNER.fullmatch(owner) is not None


def _owner(owner: str) -> str:
    if not is_owner(owner):
        raise ValueError("expected an email address or 'team:name'")
    return owner


# Dagster reports a day that does not exist.
_Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(-\d{2}:\d{2})?$")]


def has_time(day: str) -> bool:
    """Return whether `YYYY-MM-DD` or `YYYY-MM-DD-HH:MM` has the time of day."""
    return len(day) > len("YYYY-MM-DD")


class PartitionSettings(BaseModel):
    """`meta.dagster.partitions` of an incremental model: one time window per partition."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["hourly", "daily", "weekly", "monthly"]
    start: _Day
    end: _Day | None = None
    timezone: str = "UTC"

    @field_validator("start", "end")
    @classmethod
    def _time_is_for_hourly(cls, day: str | None, info: ValidationInfo) -> str | None:
        # A wrong type has its own problem and is not in `data`.
        kind = info.data.get("type", "hourly")
        if day is not None and kind != "hourly" and has_time(day):
            # Dagster would read the time as an offset from UTC and shift the first partition.
            raise ValueError(f"{day!r} has a time of day, which `type: {kind}` does not take")
        return day


class _Reference(BaseModel):
    name: StrictStr
    package: StrictStr | None = None
    version: StrictStr | StrictInt | StrictFloat | None = None


class _Policy(BaseModel):
    type: Literal["eager", "lazy"] | None = None


class DagsterMeta(BaseModel):
    """The keys of `meta.dagster` that dagster-dbt and this package read; others are ignored."""

    asset_key: StrictStr | list[Annotated[StrictStr, Field(min_length=1)]] | None = None
    group: StrictStr | None = None
    owners: list[Annotated[StrictStr, AfterValidator(_owner)]] | None = None
    partitions: PartitionSettings | None = None
    ref: _Reference | None = None
    auto_materialize_policy: _Policy | None = None
    has_self_dependency: StrictBool | None = None


def with_usable_meta(dbt: DbtNode) -> tuple[DbtNode, Sequence[str], Sequence[Problem]]:
    """Return a node without the invalid values of `meta.dagster`, with warnings and problems.

    Each value that is left out gives a warning. Invalid partitions are a problem instead: without
    them, dbt would build the whole model.
    """
    raw = (dbt.config.meta or dbt.meta).get("dagster")
    if raw is None:
        return dbt, (), ()
    usable, errors = _usable(raw)
    if not errors and usable == raw:
        return dbt, (), ()
    where = f"dbt {dbt.resource_type.replace('_', ' ')} '{dbt.name}'"
    problems = [
        Problem(f"{where} meta.dagster.{path}", f"{reason}.", PARTITIONS_EXPECTED)
        for path, reason, _ in errors
        if path.partition(".")[0] == "partitions"
    ]
    file = f" ({dbt.original_file_path})" if dbt.original_file_path else ""
    warnings = [
        f"{where}{file}: meta.dagster{'.' * bool(path)}{path} is {_short(value)} and is left out: "
        f"{reason}."
        for path, reason, value in errors
        if path.partition(".")[0] != "partitions"
    ]
    config = replace(dbt.config, meta=_with_dagster(dbt.config.meta, usable))
    checked = replace(dbt, meta=_with_dagster(dbt.meta, usable))
    # `replace` decodes the config of the node from `whole_config`, so it is set afterwards.
    force_setattr(checked, "config", config)
    return checked, warnings, problems


def _usable(raw: Any) -> tuple[dict[str, Any], Sequence[tuple[str, str, Any]]]:
    """Return the valid raw, and the path, reason and value of each invalid one."""
    if not isinstance(raw, dict):
        return {}, [("", "expected a mapping", raw)]
    # As in dagster-dbt, an empty value is not set.
    usable = {key: value for key, value in raw.items() if value or key == "has_self_dependency"}
    if isinstance(usable.get("owners"), str):
        usable["owners"] = [usable["owners"]]
    try:
        DagsterMeta.model_validate(usable)
    except ValidationError as error:
        details = error.errors()
    else:
        return usable, ()
    errors: dict[str, tuple[str, str, Any]] = {}
    for item in details:
        key, path = str(item["loc"][0]), _path(item["loc"])
        if key in _EXPECTED:
            errors[key] = (key, _EXPECTED[key], usable[key])
        elif path not in errors:
            reason = str(item["msg"]).removeprefix("Value error, ")
            errors[path] = (path, reason, _value_at(usable, item["loc"]))
    for key in {path.partition(".")[0] for path in errors}:
        kept = usable.pop(key)
        bad = [path for path in errors if path.startswith(f"{key}.")]
        if key == "owners" and bad:
            owners = [one for at, one in enumerate(kept) if f"{key}.{at}" not in bad]
            usable |= {key: owners} if owners else {}
    return usable, [*errors.values()]


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc))


def _value_at(value: Any, loc: tuple[int | str, ...]) -> Any:
    for part in loc:
        # A missing key has no value, and pydantic adds names of types to the path.
        with suppress(KeyError, TypeError):
            value = value[part]
    return value


def _with_dagster(meta: dict[str, Any], usable: Mapping[str, Any]) -> dict[str, Any]:
    return {**meta, "dagster": usable} if "dagster" in meta else meta


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
