"""The schedule of a product comes from one place, and one error lists all its problems."""

from __future__ import annotations

from typing import Any

import pytest

from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.errors import PlanError, Problem, ScheduleError
from floe_orchestrator_dagster.schedules import (
    Schedule,
    adding_schedule_problems,
    product_schedule,
    validated_schedule,
)

SPEC = "`schedule` of floe.yaml"
DAILY = PluginConfig(default_schedule="@daily", default_timezone="Europe/Vienna")


@pytest.mark.parametrize(
    ("spec", "config", "schedule"),
    [
        ({}, PluginConfig(), None),
        ({"schedule": {"timezone": "UTC"}}, PluginConfig(), None),
        (
            {"schedule": {"cron": "0 6 * * *", "enabled": False}},
            DAILY,
            Schedule("shop", "0 6 * * *", "Europe/Vienna", enabled=False, origin=SPEC),
        ),
        (
            {"schedule": {"timezone": "UTC"}},
            DAILY,
            Schedule("shop", "@daily", "UTC", origin=SPEC),
        ),
        (
            {},
            DAILY,
            Schedule(
                "shop",
                "@daily",
                "Europe/Vienna",
                origin="plugins.orchestrator.config.default_schedule",
            ),
        ),
    ],
)
def test_the_schedule_of_floe_yaml_comes_before_the_default(
    spec: dict[str, Any], config: PluginConfig, schedule: Schedule | None
) -> None:
    assert product_schedule("shop", spec, config) == schedule


def test_one_error_lists_every_problem_of_the_schedule_of_floe_yaml() -> None:
    spec = {"schedule": {"corn": 1, "enabled": "yes", "cron": "0 6 * *", "timezone": "Viena"}}
    with pytest.raises(ScheduleError) as error:
        product_schedule("shop", spec, PluginConfig())
    assert str(error.value) == (
        "Cannot use `schedule` of floe.yaml: unknown keys ['corn']. Known: cron, enabled, "
        "timezone. enabled is 'yes'. Write true or false. 'Viena' is not an IANA time zone. Write "
        "one such as 'Europe/Vienna' or 'UTC'. cron '0 6 * *' is not one that Dagster accepts. "
        "Write five fields (minute hour day month weekday) such as '0 6 * * MON-FRI', or @hourly, "
        "@daily, @weekly, @monthly, @yearly."
    )


def test_a_plan_error_also_lists_the_problems_of_the_schedule() -> None:
    spec = {"schedule": {"cron": "0 6 * * *. R", "timezone": "Nowhere. Else"}}
    plan = Problem("transforms.a", "Twice.", "Rename one.")
    with (
        pytest.raises(PlanError) as error,
        adding_schedule_problems("shop", spec, PluginConfig()),
    ):
        raise PlanError("Cannot plan product 'shop'", [plan])
    first, zone, cron = error.value.problems
    assert first == plan
    assert (zone.path, zone.message) == (SPEC, "'Nowhere. Else' is not an IANA time zone.")
    assert zone.fix == "Write one such as 'Europe/Vienna' or 'UTC'."
    assert (cron.path, cron.message) == (
        SPEC,
        "cron '0 6 * * *. R' contains random times (R), which differ at every reload.",
    )


def test_a_plan_error_with_a_valid_schedule_does_not_change() -> None:
    plan = PlanError("Cannot plan product 'shop'", [Problem("a", "Twice.", "Rename one.")])
    with pytest.raises(PlanError) as error, adding_schedule_problems("shop", {}, DAILY):
        raise plan
    assert error.value is plan


def test_a_schedule_that_dagster_can_run_is_returned_unchanged() -> None:
    schedule = Schedule("shop", "0 6 * * *", "Europe/Vienna")
    assert validated_schedule(schedule) is schedule
