"""Checks the arguments of the plugin's methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from floe_core.plugins.orchestrator import TransformConfig
from pydantic import BaseModel

from floe_orchestrator_dagster.errors import PlanError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOAD = "load_product_definitions(name, directory)"
_ARTIFACTS_FIX = (
    "Pass the content of compiled_artifacts.json as json.load() returns it, or an instance of "
    f"floe-core's CompiledArtifacts. To load a product from its directory, call {_LOAD}."
)
_TRANSFORMS_FIX = "Pass a list of floe_core.plugins.orchestrator.TransformConfig."
_LISTS_OF_STRINGS = ("tags", "depends_on")


def as_artifacts(value: object) -> Mapping[str, Any]:
    """Return compiled artifacts as a dictionary, from a dictionary or from floe-core's model.

    Raises:
        PlanError: `value` is neither.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return value
    raise PlanError(
        "Cannot create Definitions",
        [Problem("artifacts", f"Expected a dictionary, got {_described(value)}.", _ARTIFACTS_FIX)],
    )


def as_transforms(value: object) -> list[TransformConfig]:
    """Return transforms as a list.

    Raises:
        PlanError: lists each item that is not a transform, and each field that cannot be used.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        message = f"Expected a list of transforms, got {_described(value)}."
        problems = [Problem("transforms", message, _TRANSFORMS_FIX)]
    else:
        transforms = list(value)
        problems = [
            problem
            for index, item in enumerate(transforms)
            for problem in _transform_problems(f"transforms[{index}]", item)
        ]
        if not problems:
            return transforms
    raise PlanError("Cannot create assets", problems)


def _transform_problems(path: str, item: object) -> Iterator[Problem]:
    if not isinstance(item, TransformConfig):
        yield Problem(path, f"Expected a TransformConfig, got {_described(item)}.", _TRANSFORMS_FIX)
        return
    # A dataclass does not check the types of its fields.
    fields: dict[str, Any] = vars(item)
    name, compute = fields["name"], fields["compute"]
    if not isinstance(name, str) or not name.strip():
        yield Problem(f"{path}.name", f"{name!r} is not a name.", "Pass the name of the model.")
    if compute is not None and not isinstance(compute, str):
        message = f"{compute!r} is not the name of a compute."
        fix = "Pass the name of a compute, or None for the default."
        yield Problem(f"{path}.compute", message, fix)
    for field in _LISTS_OF_STRINGS:
        value = fields[field]
        if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
            yield Problem(f"{path}.{field}", f"{value!r} is not a list of strings.", "Pass one.")


def _described(value: object) -> str:
    """Return a short value as it is written, and the type of any other value."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a {kind} of {len(value)}"
    # A string may be the whole artifacts, with the secrets of a profile.
    return f"a {kind}"
