"""When schedules come: cron in time zones over both changes of the clocks, intervals, bounds, and what cannot work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammesh.errors import InvalidSchedule
from streammesh.rhythm import Rhythm

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def comes(rhythm: Rhythm, since: str, count: int) -> list[str]:
    """Local times with their offset, after ``since``."""
    zone = ZoneInfo(rhythm.tz)
    found = islice(rhythm.after(ms(since)), count)
    return [datetime.fromtimestamp(at / 1000, zone).isoformat()[5:].replace(":00-0", " -0").replace(":00+0", " +0") for at in found]  # fmt: skip


def test_on_weekdays_at_seven() -> None:
    assert comes(Rhythm("0 7 * * mon-fri", tz=BERLIN), "2026-11-19T12:00Z", 3) == [
        "11-20T07:00 +01:00",
        "11-23T07:00 +01:00",
        "11-24T07:00 +01:00",
    ]


@pytest.mark.parametrize(
    ("tz", "spring", "expected"),
    [
        (BERLIN, "2027-03-26T12:00Z", ["03-27T02:30 +01:00", "03-28T03:00 +02:00", "03-29T02:30 +02:00"]),
        (NEW_YORK, "2027-03-12T12:00Z", ["03-13T02:30 -05:00", "03-14T03:00 -04:00", "03-15T02:30 -04:00"]),
    ],
)
def test_a_time_that_does_not_exist_comes_once_when_the_gap_ends(tz: str, spring: str, expected: list[str]) -> None:
    assert comes(Rhythm("30 2 * * *", tz=tz), spring, 3) == expected


@pytest.mark.parametrize(
    ("tz", "autumn", "cron", "expected"),
    [
        (BERLIN, "2026-10-24T12:00Z", "30 2 * * *", ["10-25T02:30 +02:00", "10-26T02:30 +01:00"]),
        (NEW_YORK, "2026-10-31T12:00Z", "30 1 * * *", ["11-01T01:30 -04:00", "11-02T01:30 -05:00"]),
    ],
)
def test_a_time_that_exists_twice_comes_once_at_the_first(tz: str, autumn: str, cron: str, expected: list[str]) -> None:
    assert comes(Rhythm(cron, tz=tz), autumn, 2) == expected


def test_asked_in_the_second_of_two_equal_hours_it_does_not_come_again() -> None:
    second = "2026-10-25T01:10Z"  # 02:10 in Berlin, the second time
    assert comes(Rhythm("30 2 * * *", tz=BERLIN), second, 1) == ["10-26T02:30 +01:00"]


def test_several_in_one_gap_come_once() -> None:
    assert comes(Rhythm("0,30 2,3 * * *", tz=BERLIN), "2027-03-28T00:00Z", 3) == [
        "03-28T03:00 +02:00",
        "03-28T03:30 +02:00",
        "03-29T02:00 +02:00",
    ]


def test_every_hour_is_a_real_hour_on_both_days() -> None:
    for day in ("2026-10-24T22:00Z", "2027-03-27T22:00Z"):
        found = list(islice(Rhythm("0 * * * *", tz=BERLIN).after(ms(day)), 6))
        assert {b - a for a, b in pairwise(found)} == {3_600_000}


def test_every_other_hour_comes_once_at_each_of_its_times() -> None:
    assert comes(Rhythm("30 */2 * * *", tz=BERLIN), "2026-10-24T21:00Z", 3) == [
        "10-25T00:30 +02:00",
        "10-25T02:30 +02:00",
        "10-25T04:30 +01:00",
    ]


def test_an_interval_counts_from_its_anchor_or_its_start() -> None:
    noon = ms("2026-11-22T12:00Z")
    assert list(islice(Rhythm(every=90_000, anchor=noon).after(noon - 1), 2)) == [noon + 90_000, noon + 180_000]
    later = Rhythm(every=90_000, anchor=noon, start=noon + 1000, end=noon + 100_000)
    assert list(later.after(noon - 86_400_000)) == [noon + 1000, noon + 91_000]


def test_none_comes_after_the_end() -> None:
    assert Rhythm("0 7 * * *", end=ms("2026-11-23T06:59Z")).first_after(ms("2026-11-22T07:00Z")) is None


def test_the_newest_of_a_long_absence_are_found_at_once() -> None:
    now = ms("2036-11-22T12:00:30Z")
    minutes = Rhythm("* * * * *").newest(0, now, 3)
    assert [now - at for at in minutes] == [150_000, 90_000, 30_000]
    assert Rhythm(every=1000, anchor=0).newest(0, now, 2) == [now - 1000, now]
    assert Rhythm("0 0 29 2 *").newest(0, now, 2) == [ms("2032-02-29T00:00Z"), ms("2036-02-29T00:00Z")]
    assert Rhythm("0 0 29 2 *").newest(ms("2033-01-01T00:00Z"), now, 2) == [ms("2036-02-29T00:00Z")]


@pytest.mark.parametrize(
    ("rhythm", "says"),
    [
        (Rhythm(), "either cron= or every="),
        (Rhythm("0 7 * * *", every=1000), "either cron= or every="),
        (Rhythm("0 25 * * *"), "Bad hour"),
        (Rhythm("whenever"), "expected minute, hour, day, month and weekday"),
        (Rhythm("0 0 30 2 *"), "Bad day-of-month"),
        (Rhythm("0 7 * * *", tz="Europe/Atlantis"), "no time zone"),
        (Rhythm("0 7 * * *", tz="../../etc/passwd"), "no time zone"),
        (Rhythm(every=500), "whole seconds"),
        (Rhythm(every=1500), "whole seconds"),
        (Rhythm(every=1000, start=2, end=1), "before"),
    ],
)
def test_what_cannot_work_is_said(rhythm: Rhythm, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        rhythm.check()


FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/15", "*", "5,35", "59"]),
    st.sampled_from(["2", "*", "*/2", "1-3", "0", "23", "1,2,3"]),
    st.sampled_from(["*", "1", "L", "28-31"]),
    st.sampled_from(["*", "3", "10,11"]),
    st.sampled_from(["*", "sun", "mon-fri"]),
)


@given(
    fields=FIELDS,
    tz=st.sampled_from([BERLIN, NEW_YORK, "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "UTC"]),
    since=st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31)),  # noqa: DTZ001 (made aware below)
)
@settings(max_examples=200, deadline=None)
def test_laws(fields: tuple[str, ...], tz: str, since: datetime) -> None:
    """Strictly later each time; asked anew after any one, the next is the same; no local time comes twice unless hourly."""
    rhythm, zone = Rhythm(" ".join(fields), tz=tz), ZoneInfo(tz)
    rhythm.check()
    begin = int(since.replace(tzinfo=UTC).timestamp() * 1000)
    found = list(islice(rhythm.after(begin), 12))
    assert begin < found[0]
    assert all(a < b for a, b in pairwise(found))
    for a, b in pairwise(found):
        assert rhythm.first_after(a) == b
        assert rhythm.first_after(b - 1) == b
    if fields[1] != "*":
        walls = [datetime.fromtimestamp(at / 1000, zone).replace(tzinfo=None, fold=0) for at in found]
        assert len(set(walls)) == len(walls)
    assert rhythm.newest(begin + 1, found[-1], 5) == found[-5:]
    assert rhythm.newest(begin + 1, found[-1], 100) == found
    assert timedelta(milliseconds=found[0] - begin) < timedelta(days=366 * 29)
