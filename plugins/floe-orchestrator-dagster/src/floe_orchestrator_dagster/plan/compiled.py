"""The product as compiled_artifacts.json describes it, with the problems of that file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping  # noqa: TC003  needed to decode a plan
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from floe_orchestrator_dagster.config import ComputeConfig, PluginConfig
from floe_orchestrator_dagster.errors import MAX_LISTED, Problem, did_you_mean, known
from floe_orchestrator_dagster.plan.cycles import cycles
from floe_orchestrator_dagster.plan.model import Compute, QualityCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Transform:
    """A model of floe.yaml, compiled."""

    name: str
    compute: str
    depends_on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tier: str | None = None
    quality_checks: tuple[QualityCheck, ...] = ()


@dataclass(frozen=True)
class CompiledProduct:
    """A product as compiled_artifacts.json describes it."""

    name: str
    transforms: tuple[Transform, ...] = ()
    default_compute: str = ""
    version: str = ""
    owner: str | None = None
    profiles: Mapping[str, Any] = field(default_factory=dict)
    config: PluginConfig = field(default_factory=PluginConfig)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def computes_named(self) -> tuple[str, ...]:
        """Names of the computes that the product uses, the default first."""
        names = [self.default_compute, *(transform.compute for transform in self.transforms)]
        return tuple(dict.fromkeys(filter(None, names)))


class Names:
    """Known names, for errors about an unknown one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._left = MAX_LISTED

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @cached_property
    def listed(self) -> str:
        """The first of the names, as text."""
        return known(self._names)

    def near(self, name: str) -> str:
        """Return a suggestion of a similar name; only for the first names, because it is slow."""
        self._left -= 1
        return did_you_mean(name, self._names) if self._left >= 0 else ""


def resolve_computes(
    product: CompiledProduct, outputs: Mapping[str, str], preferred: Sequence[str] = ()
) -> tuple[dict[str, Compute], list[Problem]]:
    """Return the computes with their dbt profile outputs, and the problems.

    The output of a compute is the first of these that exists: the target in the plugin's config,
    the output with the name of the compute, the best preferred output of that adapter type, the
    only output of that adapter type.

    Args:
        product: the compiled product.
        outputs: adapter types by the name of the output.
        preferred: outputs that the profile itself uses, best first.
    """
    computes: dict[str, Compute] = {}
    problems = [*_misspelled_computes(product)]
    user = {transform.compute: transform.name for transform in reversed(product.transforms)}
    for name in product.computes_named:
        setting = product.config.computes.get(name, ComputeConfig())
        target = _output_for(name, setting.target, outputs, preferred)
        if isinstance(target, Problem):
            where = f"models[{user[name]}].compute" if name in user else "default_compute"
            problems.append(replace(target, path=f"transforms.{where}"))
            continue
        computes[name] = Compute(
            name,
            target=target,
            adapter=outputs[target],
            pool=setting.pool,
            pool_limit=setting.pool_limit,
            resources=setting.resources,
            dbt_executable=setting.dbt_executable,
        )
    problems += _two_dbts(computes)
    return computes, problems


def _two_dbts(computes: Mapping[str, Compute]) -> Iterator[Problem]:
    """Yield a problem for each target for which two computes name different dbt executables."""
    first: dict[str, Compute] = {}
    for compute in computes.values():
        other = first.setdefault(compute.target, compute)
        if other.dbt_executable != compute.dbt_executable:
            yield Problem(
                f"plugins.orchestrator.config.computes.{compute.name}.dbt_executable",
                f"Computes '{other.name}' and '{compute.name}' share the dbt output "
                f"'{compute.target}' but name different dbt executables "
                f"({other.dbt_executable or 'dbt-core'}, {compute.dbt_executable or 'dbt-core'}).",
                "Name the same dbt_executable for both, or a different target for one of them.",
            )


def _misspelled_computes(product: CompiledProduct) -> Iterator[Problem]:
    # A platform may configure computes that this product does not use, so only a name that is
    # similar to a compute of the product is a mistake.
    for name in sorted(product.config.computes.keys() - {*product.computes_named}):
        near = did_you_mean(name, product.computes_named)
        if near:
            yield Problem(
                f"plugins.orchestrator.config.computes.{name}",
                f"No model runs on compute '{name}'.{near}",
                f"Computes of this product: {known(product.computes_named)}.",
            )


def _output_for(
    name: str, target: str | None, outputs: Mapping[str, str], preferred: Sequence[str]
) -> str | Problem:
    listed = known(f"{output} ({adapter})" for output, adapter in outputs.items())
    fix = (
        f"Outputs of the dbt profile: {listed}. Name one under "
        f"plugins.orchestrator.config.computes.{name}.target, add an output '{name}' to "
        f"profiles.yml, or choose another compute in floe.yaml."
    )
    if target is not None:
        if target in outputs:
            return target
        near = did_you_mean(target, outputs)
        return Problem(
            "",
            f"Compute '{name}' is mapped to target '{target}', which is not an output of the dbt "
            f"profile.{near}",
            fix,
        )
    if name in outputs:
        return name
    of_type = sorted(output for output, adapter in outputs.items() if adapter == name)
    best = next((output for output in preferred if output in of_type), None)
    if best is not None or len(of_type) == 1:
        return best or of_type[0]
    if of_type:
        return Problem(
            "", f"Compute '{name}' matches {len(of_type)} dbt outputs ({known(of_type)}).", fix
        )
    return Problem("", f"Compute '{name}' has no dbt output.{did_you_mean(name, outputs)}", fix)


def transform_problems(product: CompiledProduct) -> Iterator[Problem]:
    """Yield a problem for each duplicate name and each circular dependency."""
    seen: dict[str, int] = {}
    graph: defaultdict[str, list[str]] = defaultdict(list)
    for index, transform in enumerate(product.transforms):
        first = seen.setdefault(transform.name, index)
        graph[transform.name] += transform.depends_on
        if first != index:
            yield Problem(
                f"transforms.models[{index}].name",
                f"Duplicate name '{transform.name}' (first at models[{first}]).",
                "Keep one of them in floe.yaml.",
            )
    for ring in cycles(graph) if any(graph.values()) else ():
        yield Problem(
            "transforms.models",
            f"Circular dependency: {' -> '.join(ring)}.",
            "Remove one of these dependsOn entries from floe.yaml.",
        )


def unknown_dependencies(product: CompiledProduct) -> Iterator[Problem]:
    """Yield a problem for each `depends_on` that does not name another transform.

    This is only for a plan without manifests. A manifest also has seeds and sources.
    """
    names = Names(transform.name for transform in product.transforms)
    for index, transform in enumerate(product.transforms):
        for parent in transform.depends_on:
            if parent not in names:
                yield unknown_dependency(index, transform, parent, names)


def unknown_dependency(index: int, transform: Transform, parent: str, names: Names) -> Problem:
    """Return the problem of a `depends_on` that names an unknown node."""
    return Problem(
        f"transforms.models[{index}].depends_on",
        f"'{transform.name}' depends on unknown '{parent}'.{names.near(parent)}",
        f"Correct dependsOn in floe.yaml; known: {names.listed}.",
    )
