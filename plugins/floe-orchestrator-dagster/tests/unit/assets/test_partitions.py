"""Partitions begin and end where the meta of a model says."""

from __future__ import annotations

import pytest

from floe_orchestrator_dagster.assets.partitions import partitions_definition, plan_partitions
from floe_orchestrator_dagster.errors import PlanError
from floe_orchestrator_dagster.plan import PartitionSettings
from kit.plans import plan


def first_and_last(**settings: str) -> tuple[str | None, str | None]:
    partitions = partitions_definition(PartitionSettings.model_validate(settings))
    return partitions.get_first_partition_key(), partitions.get_last_partition_key()


@pytest.mark.parametrize(
    ("kind", "start", "end", "first", "last"),
    [
        ("hourly", "2020-01-01", "2020-01-02", "2020-01-01-00:00", "2020-01-01-23:00"),
        ("hourly", "2020-01-01-03:00", "2020-01-02", "2020-01-01-03:00", "2020-01-01-23:00"),
        ("hourly", "2020-01-01", "2020-01-02-04:00", "2020-01-01-00:00", "2020-01-02-03:00"),
        ("hourly", "2020-01-01-03:00", "2020-01-01-05:00", "2020-01-01-03:00", "2020-01-01-04:00"),
        ("daily", "2020-01-01", "2020-01-03", "2020-01-01", "2020-01-02"),
        ("weekly", "2020-01-05", "2020-01-19", "2020-01-05", "2020-01-12"),
        ("monthly", "2020-01-01", "2020-03-01", "2020-01-01", "2020-02-01"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_the_first_partition_begins_at_start_and_the_last_ends_at_end(
    kind: str, start: str, end: str, first: str, last: str, zone: str
) -> None:
    settings = {"type": kind, "start": start, "end": end, "timezone": zone}
    assert first_and_last(**settings) == (first, last)


@pytest.mark.parametrize("start", ["2020-01-01", "2020-01-01-00:00"])
def test_hourly_partitions_need_no_end(start: str) -> None:
    first, _ = first_and_last(type="hourly", start=start)
    assert first == "2020-01-01-00:00"


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"start": "2020-02-30"}, "2020-02-30"),
        ({"start": "2020-01-01", "end": "2020-13-01"}, "2020-13-01"),
        ({"start": "2020-01-01", "timezone": "Mars/Base"}, "Mars/Base"),
    ],
)
@pytest.mark.parametrize("kind", ["hourly", "daily"])
def test_partitions_that_dagster_cannot_define_are_a_problem(
    settings: dict[str, str], value: str, kind: str
) -> None:
    meta = {"dagster": {"partitions": {"type": kind, **settings}}}
    with pytest.raises(PlanError) as error:
        plan_partitions(plan("a", change={"a": {"config": {"meta": meta}}}))
    [problem] = error.value.problems
    assert problem.path == "dbt model 'a' meta.dagster.partitions"
    assert value in str(problem)
    assert str(problem).endswith(
        "Expected {type: hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', end?, timezone?}."
    )
