"""Schedules tick at the wall-clock times of their zones, computed without Dagster."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo

import httpx
import pytest

from floe_orchestrator_dagster.webserver import Address, ask_webserver
from kit.servers import dagster_home, webserver

UTC = timezone.utc
START, END = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 12, 31, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
# Summer time of one hour in both hemispheres, of half an hour, and from midnight; negative winter
# time (two zones); offsets of half and of three quarters of an hour; no change at all.
ZONES = (
    "Europe/Vienna",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Europe/Dublin",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "UTC",
)


def every_day(_: date) -> bool:
    return True


def month_end(day: date) -> bool:
    return day.day == calendar.monthrange(day.year, day.month)[1]


def last_friday(day: date) -> bool:
    return day.weekday() == calendar.FRIDAY and (day + 7 * DAY).month != day.month


# Schedules at a fixed time on the days that a rule selects.
FIXED: dict[str, tuple[time, Callable[[date], bool]]] = {
    "30 2 * * *": (time(2, 30), every_day),
    "30 1 * * *": (time(1, 30), every_day),
    "45 1 * * *": (time(1, 45), every_day),
    "15 2 * * *": (time(2, 15), every_day),
    "@daily": (time(0), every_day),
    "30 0 * * *": (time(0, 30), every_day),
    "0 6 * * MON-FRI": (time(6), lambda day: day.weekday() < calendar.SATURDAY),
    "0 0 29 2 *": (time(0), lambda day: (day.month, day.day) == (2, 29)),
    "30 2 L * *": (time(2, 30), month_end),
    "0 12 * * L5": (time(12), last_friday),
    "0 0 31 * *": (time(0), lambda day: day.day == 31),
}
# Schedules at regular steps of the clock on every day.
STEPS: dict[str, Callable[[datetime], bool]] = {
    "0 * * * *": lambda local: local.minute == 0,
    "*/15 * * * *": lambda local: local.minute % 15 == 0,
}


def exists(local: datetime) -> bool:
    """Return whether the wall clock ever shows a time."""
    back = local.astimezone(UTC).astimezone(local.tzinfo)
    return back.replace(tzinfo=None) == local.replace(tzinfo=None)


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return when the wall clock shows a time: the later of two, or the end of its gap."""
    local = datetime.combine(day, at, zone)
    later = local.replace(fold=1).astimezone(UTC)
    if exists(local):
        return later
    # If a day begins in a gap, Dagster starts the day at the end of the gap and counts from there.
    if not exists(datetime.combine(day, time(0), zone)) and at != time(0):
        return local.replace(fold=0).astimezone(UTC)
    moment = min(later, local.replace(fold=0).astimezone(UTC)) - DAY / 4
    before = moment.astimezone(zone).utcoffset()
    while moment.astimezone(zone).utcoffset() == before:
        moment += MINUTE
    return moment - timedelta(hours=1) if zone.key in EARLY else moment


@cache
def fixed(cron: str, name: str) -> list[datetime]:
    at, rule = FIXED[cron]
    zone = ZoneInfo(name)
    days = (START.date() + DAY * number for number in range(-1, (END - START).days + 2))
    moments = {instant(day, at, zone) for day in days if rule(day)}
    return sorted(moment for moment in moments if START < moment < END)


@cache
def changes(name: str) -> list[datetime]:
    """Return the hours in which the offset of a zone changes."""
    zone, hours, hour = ZoneInfo(name), [], START
    while hour < END:
        following = hour + timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            hours.append(hour)
        hour = following
    return hours


def steps(cron: str, name: str, begin: datetime, end: datetime) -> list[datetime]:
    by_utc = (name, cron) == (HOURLY_BY_UTC, "0 * * * *")
    zone, rule = ZoneInfo("UTC" if by_utc else name), STEPS[cron]
    count = int((end - begin) / MINUTE)
    minutes = (begin + MINUTE * number for number in range(1, count))
    return [moment for moment in minutes if rule(moment.astimezone(zone))]


# Dagster (1.13.27) does not follow the wall clock here; docs/operations.md documents it.
# Negative winter time: a time in the spring gap ticks one hour before the end of the gap.
EARLY = frozenset({"Africa/Casablanca", "Europe/Dublin"})
# Summer time of half an hour: hourly schedules stay on full hours of UTC.
HOURLY_BY_UTC = "Australia/Lord_Howe"

CASES = [(cron, zone) for zone in ZONES for cron in (*FIXED, *STEPS)]

_DEFINITIONS = """
import dagster as dg
from floe_orchestrator_dagster.definitions.schedules import dagster_schedule
from floe_orchestrator_dagster.schedules import Schedule, validated_schedule

@dg.job
def probe(): ...

defs = dg.Definitions(
    jobs=[probe],
    schedules=[
        dagster_schedule(validated_schedule(Schedule(f"s{{number}}", cron, zone)), probe)
        for number, (cron, zone) in enumerate({cases!r})
    ],
)
"""


@pytest.fixture(scope="module")
def ticking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real webserver with one schedule per case."""
    directory = tmp_path_factory.mktemp("ticking")
    definitions = directory / "probe_definitions.py"
    definitions.write_text(_DEFINITIONS.format(cases=CASES))
    with webserver(definitions, dagster_home(directory)) as url:
        yield url


Window = tuple[datetime, datetime]


def ticks(url: str, zone: str, crons: Iterable[str], window: Window) -> dict[str, list[datetime]]:
    """Query Dagster for the ticks of each schedule of a zone within a window, ends excluded."""
    begin, end = window
    named = {f"s{CASES.index((cron, zone))}": cron for cron in crons}
    fields = " ".join(
        f"""{name}: scheduleOrError(scheduleSelector: {{
          repositoryName: "__repository__"
          repositoryLocationName: "probe_definitions.py"
          scheduleName: "{name}_schedule"
        }}) {{ ... on Schedule {{
          futureTicks(cursor: {begin.timestamp()}, until: {end.timestamp()}) {{
            results {{ timestamp }}
          }}
        }} }}"""
        for name in named
    )
    answer = httpx.post(f"{url}/graphql", json={"query": f"{{ {fields} }}"}, timeout=300).json()
    return {
        cron: [
            moment
            for tick in answer["data"][name]["futureTicks"]["results"]
            if begin < (moment := datetime.fromtimestamp(tick["timestamp"], UTC)) < end
        ]
        for name, cron in named.items()
    }


def windows(zone: str) -> list[Window]:
    """Return windows around difficult times: clock changes, a leap day, the end of a month."""
    difficult = [
        *changes(zone),
        datetime(2028, 2, 29, 12, tzinfo=UTC),
        datetime(2027, 4, 30, tzinfo=UTC),
    ]
    return [(moment - 2 * DAY, moment + 2 * DAY) for moment in difficult]


@pytest.mark.parametrize("zone", ZONES)
def test_ticks_follow_the_wall_clock_on_difficult_days(ticking: str, zone: str) -> None:
    for begin, end in windows(zone):
        dagsters_ticks = ticks(ticking, zone, (*FIXED, *STEPS), (begin, end))
        for cron in FIXED:
            inside = [moment for moment in fixed(cron, zone) if begin < moment < end]
            assert dagsters_ticks[cron] == inside, cron
        for cron in STEPS:
            assert dagsters_ticks[cron] == steps(cron, zone, begin, end), cron


@pytest.mark.heavy
@pytest.mark.parametrize("zone", ZONES)
def test_every_tick_of_two_years_follows_the_wall_clock(ticking: str, zone: str) -> None:
    dagsters_ticks = ticks(ticking, zone, FIXED, (START, END))
    for cron in FIXED:
        assert dagsters_ticks[cron] == fixed(cron, zone), cron


def test_the_zones_have_the_changes_that_the_tests_need() -> None:
    assert {zone for zone in ZONES if not changes(zone)} == {"UTC", "Asia/Tokyo", "Asia/Kathmandu"}
    howe, change = ZoneInfo("Australia/Lord_Howe"), changes("Australia/Lord_Howe")[0]
    before, after = (
        (change + DAY * side).astimezone(howe).utcoffset() or timedelta() for side in (-1, 1)
    )
    assert abs(before - after) == timedelta(minutes=30)


def test_a_real_webserver_answers_and_its_missing_daemon_is_reported(ticking: str) -> None:
    answer = ask_webserver(Address(ticking, "--url"))
    assert answer.version
    [daemon] = answer.warnings
    assert "scheduler" in daemon
    assert "start dagster-daemon" in daemon
