"""The plugin's configuration: `plugins.orchestrator.config` of the platform manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from floe_orchestrator_dagster.errors import ConfigError, did_you_mean, known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WorkloadSize = Literal["small", "medium", "large"]


class ComputeConfig(BaseModel):
    """Settings of one compute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="dbt profile output that this compute uses."
    )
    output: dict[str, Any] | None = Field(
        default=None,
        description="A dbt profile output for this compute, with secrets as env_var() references.",
    )
    pool: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Dagster pool of its steps (isolation: compute)."
    )
    pool_limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Slots of the pool; `floe-dagster run` sets them on the instance."
    )
    dbt_executable: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A different dbt, such as dbt 2 (Fusion): a path, or a name on PATH.",
    )
    resources: WorkloadSize | dict[str, dict[str, str]] | None = Field(
        default=None,
        description="Kubernetes resources of its run pods: a size, or requests and limits.",
    )


class PluginConfig(BaseModel):
    """Configuration of the Dagster orchestrator plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_dir: str | None = Field(
        default=None, description="dbt project directory, if it is not at or above the artifacts."
    )
    vars: dict[str, Any] = Field(
        default_factory=dict,
        description="dbt vars for parsing and running; a launch may change them.",
    )
    default_schedule: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Cron schedule for products whose floe.yaml has none."
    )
    default_timezone: str = Field(default="UTC", description="IANA time zone of that schedule.")
    computes: dict[str, ComputeConfig] = Field(
        default_factory=dict, description="Settings by the name of the compute."
    )
    isolation: Literal["product", "compute"] = Field(
        default="product",
        description="One Dagster step for the product, or one per wave (a dbt run on one compute).",
    )
    retries: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="How many times a run retries a dbt node with an error."
    )
    row_counts: bool = Field(
        default=True, description="Count the rows of tables, seeds and snapshots after each build."
    )
    lineage: Literal["best_effort", "required"] = Field(
        default="best_effort", description="Whether a run may continue without its lineage."
    )
    workload_size: WorkloadSize = Field(
        default="small", description="Preset of Kubernetes resources."
    )
    url: str | None = Field(default=None, description="URL of the Dagster webserver.")
    ca_bundle: str | None = Field(
        default=None,
        description="File of PEM certificates that replace the default ones for https.",
    )


def parse_config(raw: Mapping[str, Any] | None) -> PluginConfig:
    """Return the validated configuration; None and {} give the defaults.

    Raises:
        ConfigError: lists every wrong key, with similar names.
    """
    try:
        return PluginConfig.model_validate({} if raw is None else raw)
    except ValidationError as error:
        # pydantic reports a field with two accepted shapes once per shape.
        problems = dict.fromkeys(
            _explain(item["loc"], item["type"], item["msg"]) for item in error.errors()
        )
    raise ConfigError(
        "Cannot use plugins.orchestrator.config of the platform manifest: "
        + "; ".join(problems)
        + ". Fix manifest.yaml and compile again."
    )


def _explain(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    if "resources" in loc:
        loc = loc[: loc.index("resources") + 1]
        message = "expected small, medium, large, or {requests: {cpu: '1', ...}, limits: {...}}"
    path = ".".join(map(str, loc)) or "(the whole section)"
    if kind == "model_type":
        message = "expected keys with values"
    if kind != "extra_forbidden":
        return f"{path}: {message[:1].lower()}{message[1:]}"
    siblings: Iterable[str] = (
        ComputeConfig.model_fields if loc[0] == "computes" else PluginConfig.model_fields
    )
    near = did_you_mean(str(loc[-1]), siblings).rstrip("?").strip()
    return f"{path}: unknown key ({f'{near}?' if near else f'known: {known(siblings)}'})"
