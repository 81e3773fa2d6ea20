"""What callers of the plugin hand over, checked to be what its methods are about."""

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
    "Give the content of compiled_artifacts.json as json.load() returns it, or floe-core's "
    f"CompiledArtifacts. To load a product from its directory, call {_LOAD}."
)
_TRANSFORMS_FIX = "Give a list of TransformConfig of floe_core.plugins.orchestrator."
_LISTS_OF_TEXTS = ("tags", "depends_on")


def as_artifacts(given: object) -> Mapping[str, Any]:
    """Return compiled artifacts as a dictionary, whether given as one or as floe-core's model.

    Raises:
        PlanError: it is neither.
    """
    if isinstance(given, BaseModel):
        return given.model_dump(mode="json", by_alias=True)
    if isinstance(given, Mapping):
        return given
    raise PlanError(
        "Cannot create Definitions",
        [Problem("artifacts", f"Expected a dictionary, got {_described(given)}.", _ARTIFACTS_FIX)],
    )


def as_transforms(given: object) -> list[TransformConfig]:
    """Return transforms as a list.

    Raises:
        PlanError: listing everything that is not a transform, or whose fields cannot be used.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        found = f"Expected a list of transforms, got {_described(given)}."
        problems = [Problem("transforms", found, _TRANSFORMS_FIX)]
    else:
        transforms = list(given)
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
    # A dataclass checks none of its types.
    fields: dict[str, Any] = vars(item)
    name, compute = fields["name"], fields["compute"]
    if not isinstance(name, str) or not name.strip():
        yield Problem(f"{path}.name", f"{name!r} is not a name.", "Give the model's name.")
    if compute is not None and not isinstance(compute, str):
        found = f"{compute!r} is not the name of a compute."
        yield Problem(f"{path}.compute", found, "Give one, or None for the default.")
    for field in _LISTS_OF_TEXTS:
        value = fields[field]
        if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
            yield Problem(f"{path}.{field}", f"{value!r} is not a list of texts.", "Give one.")


def _described(value: object) -> str:
    """Return what a value is, and a short one as it is written."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a {kind} of {len(value)}"
    # A long text may be the whole artifacts, secrets of a user's own profile included.
    return f"a {kind}"
