"""Validates the schedule of a product: Dagster must be able to run it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from floe_orchestrator_dagster.errors import PlanError, Problem, ScheduleError, did_you_mean
from floe_orchestrator_dagster.plan import dagster_name

if TYPE_CHECKING:
    from floe_orchestrator_dagster.config import PluginConfig

SPEC_ORIGIN = "`schedule` of floe.yaml"
KEYS = ("cron", "enabled", "timezone")
# Number of values of each cron field: minute, hour, day of month, month, day of week.
_FIELD_SIZES = (60, 24, 31, 12, 7)
_NO_ZONES = frozenset({"Factory", "localtime", "posixrules"})
_NO_ZONE_FOLDERS = ("posix/", "right/")
_RANDOM = re.compile(r"(^|[\s,/])R(\(|[\s,/]|$)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of a job."""

    job_name: str
    cron: str
    timezone: str = "UTC"
    enabled: bool = True
    origin: str = "schedule_job()"

    @property
    def name(self) -> str:
        """Name of the Dagster schedule."""
        return f"{dagster_name(self.job_name)}_schedule"


def product_schedule(
    product_name: str, spec: Mapping[str, Any], config: PluginConfig
) -> Schedule | None:
    """Return the schedule of floe.yaml, else the default of the plugin's config, else None.

    Raises:
        ScheduleError: the schedule cannot be used. floe-core accepts any `schedule`.
    """
    schedule, problems = _product_schedule(product_name, spec, config)
    _refuse(problems)
    return schedule


def validated_schedule(schedule: Schedule) -> Schedule:
    """Return the schedule if Dagster can run it.

    Raises:
        ScheduleError: lists every problem of the job's name, the cron and the time zone, with
            similar names.
    """
    _refuse([*_problems(schedule)])
    return schedule


@contextmanager
def adding_schedule_problems(
    product_name: str, spec: Mapping[str, Any], config: PluginConfig
) -> Iterator[None]:
    """Add the problems of the product's schedule to a `PlanError` that the block raises."""
    try:
        yield
    except PlanError as error:
        _, problems = _product_schedule(product_name, spec, config)
        if problems:
            raise PlanError(error.doing, [*error.problems, *problems]) from error
        raise


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        details = " ".join(f"{problem.message} {problem.fix}" for problem in problems)
        raise ScheduleError(f"Cannot use {problems[0].path}: {details}")


def _product_schedule(
    product_name: str, spec: Mapping[str, Any], config: PluginConfig
) -> tuple[Schedule | None, Sequence[Problem]]:
    """Return the schedule of a product, if it has one, and its problems."""
    if spec.get("schedule") is not None:
        schedule, problems = _schedule_of_spec(product_name, spec["schedule"], config)
    elif config.default_schedule is not None:
        origin = "plugins.orchestrator.config.default_schedule"
        cron, zone = config.default_schedule, config.default_timezone
        schedule, problems = Schedule(product_name, cron, zone, origin=origin), []
    else:
        return None, []
    return schedule, [*problems, *(_problems(schedule) if schedule is not None else ())]


def _schedule_of_spec(
    product_name: str, content: Any, config: PluginConfig
) -> tuple[Schedule | None, Sequence[Problem]]:
    """Return the schedule in floe.yaml, if any, and the problems of its structure."""
    if not isinstance(content, Mapping):
        example = "Write {cron: '0 6 * * *', timezone: UTC, enabled: true}."
        return None, [Problem(SPEC_ORIGIN, f"{content!r} is not a mapping.", example)]
    problems = []
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        known_keys = f"Known: {', '.join(KEYS)}."
        problems.append(Problem(SPEC_ORIGIN, f"unknown keys {unknown}.", known_keys))
    enabled = content.get("enabled", True)
    if not isinstance(enabled, bool):
        problems.append(Problem(SPEC_ORIGIN, f"enabled is {enabled!r}.", "Write true or false."))
    cron = content.get("cron") or config.default_schedule
    if cron is None:
        return None, problems
    zone = str(content.get("timezone") or config.default_timezone)
    schedule = Schedule(product_name, str(cron), zone, enabled=enabled is True, origin=SPEC_ORIGIN)
    return schedule, problems


def _problems(schedule: Schedule) -> Iterator[Problem]:
    """Yield the problems of a schedule."""
    if not _is_text(schedule.job_name):
        yield Problem(
            schedule.origin,
            f"{schedule.job_name!r} is not the name of a job.",
            "Write the product's name as in floe.yaml.",
        )
    zones = time_zones()
    # A list, for example, cannot be hashed, so it cannot be looked up.
    zone = schedule.timezone if isinstance(schedule.timezone, str) else None
    if zone not in zones:
        near = did_you_mean(zone, zones) if zone else ""
        yield Problem(
            schedule.origin,
            f"{schedule.timezone!r} is not an IANA time zone.{near}",
            "Write one such as 'Europe/Vienna' or 'UTC'.",
        )
    if _is_text(schedule.cron):
        # The time zone does not decide whether the schedule ever occurs.
        reason = _refusal(schedule.cron, zone if zone in zones and zone else "UTC")
    else:
        reason = "is not a string of five fields"
    if reason:
        yield Problem(
            schedule.origin,
            f"cron {schedule.cron!r} {reason}.",
            "Write five fields (minute hour day month weekday) such as '0 6 * * MON-FRI', or "
            "@hourly, @daily, @weekly, @monthly, @yearly.",
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def time_zones() -> frozenset[str]:
    """Return the IANA time zones that name a place or an offset from UTC.

    `zoneinfo` also lists other files of the system's database, whose meaning depends on the
    machine: `Factory` is a machine without a time zone, `localtime` is the setting of this
    machine, and `right/` counts leap seconds.
    """
    return frozenset(
        name
        for name in available_timezones()
        if name not in _NO_ZONES and not name.startswith(_NO_ZONE_FOLDERS)
    )


def _refusal(cron: str, zone: str) -> str | None:
    """Return why Dagster cannot run a cron schedule, as Dagster decides; None if it can."""
    from dagster import DagsterError, ScheduleDefinition

    if not cron.startswith("@"):
        if _RANDOM.search(cron):
            return "contains random times (R), which differ at every reload"
        for value, size in zip(cron.split(), _FIELD_SIZES, strict=False):
            for part in value.split(","):
                step = part.partition("/")[2]
                if step.isdigit() and int(step) >= size:
                    return f"steps by {step} in a field of {size} values, so it runs at other times"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ScheduleDefinition(
                name="probe", cron_schedule=cron, job_name="probe", execution_timezone=zone
            )
    except (DagsterError, ValueError, TypeError):
        return "is not one that Dagster accepts"
    return None if _occurs(cron, zone) else "never occurs, such as on February 30"


def _occurs(cron: str, zone: str) -> bool:
    """Return whether a valid cron schedule occurs within ten years."""
    from dagster import TimeWindowPartitionsDefinition

    try:
        windows = TimeWindowPartitionsDefinition(
            start="2010-01-01", end="2020-01-01", fmt="%Y-%m-%d", cron_schedule=cron, timezone=zone
        )
        return windows.get_first_partition_key() is not None
    except Exception:  # noqa: BLE001  Dagster's iterator raises errors of many types
        return False
