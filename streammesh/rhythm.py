"""When something comes again: a cron expression in a time zone, or an interval. Pure reckoning, in ms since 1970.

Times of a cron expression are wall-clock times of its zone. One that does not exist (clocks go forward) comes when the gap
ends; several in one gap come once. One that exists twice (clocks go back) comes at the first of the two. An expression for
every hour of the day goes by real hours instead, so that no hour is left out and none counts for two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from streammesh.errors import InvalidSchedule

__all__ = ["Rhythm", "zone_of"]

_WORDS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * sun", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
}  # fmt: skip
_ANY = datetime(2026, 1, 1)  # noqa: DTZ001 (the day on which an expression is tried does not matter)


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name. Raises InvalidSchedule."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError):
        raise InvalidSchedule(f"tz={name!r} is no time zone that is known here; expected a name such as Europe/Berlin or UTC") from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Either ``cron`` (five fields, six with seconds in front, or @daily and its kin) in the zone ``tz``, or ``every`` so many ms.

    An interval counts from ``anchor``; with a ``start`` it counts from there, and the first occurrence is the start itself.
    None comes before ``start`` or after ``end``. All in ms since 1970.
    """

    cron: str = ""
    every: int = 0
    tz: str = "UTC"
    anchor: int = 0
    start: int | None = None
    end: int | None = None

    def check(self) -> None:
        """Raises InvalidSchedule."""
        zone_of(self.tz)
        if bool(self.cron) == bool(self.every):
            raise InvalidSchedule("a schedule has either cron= or every=; give one of them")
        if self.cron:
            try:
                found = next(CronSim(self._expression, _ANY), None)
            except CronSimError as error:
                raise InvalidSchedule(
                    f"cron={self.cron!r} is not usable ({error}); expected minute, hour, day, month and weekday, such as '0 7 * * mon-fri'"
                ) from None
            if found is None:
                raise InvalidSchedule(f"cron={self.cron!r} names no day of the next 50 years")
        elif self.every < 1000 or self.every % 1000:
            raise InvalidSchedule(f"every={self.every / 1000:g} is not usable: expected whole seconds, 1 or more")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InvalidSchedule("end= is before start=")

    @property
    def _expression(self) -> str:
        return _WORDS.get(self.cron.strip().lower(), self.cron)

    def after(self, moment: int) -> Iterator[int]:
        """Every occurrence later than ``moment``, in order."""
        if self.start is not None:
            moment = max(moment, self.start - 1)
        walk = self._interval(moment) if self.every else self._cron(moment)
        return walk if self.end is None else takewhile(lambda at: at <= (self.end or 0), walk)

    def first_after(self, moment: int) -> int | None:
        """The first occurrence later than ``moment``; None when there is none."""
        return next(self.after(moment), None)

    def newest(self, since: int, until: int, limit: int) -> list[int]:
        """The last ``limit`` occurrences from ``since`` to ``until``, both included, oldest first.

        The time that it takes does not grow with the span.
        """
        window = self.every * limit if self.every else 3_600_000
        while True:
            begin = max(since, until - window)
            found = deque(takewhile(lambda at: at <= until, self.after(begin - 1)), maxlen=limit)
            if begin == since or len(found) == limit:
                return list(found)
            window *= 2

    def _interval(self, moment: int) -> Iterator[int]:
        origin, first = (self.anchor, 1) if self.start is None else (self.start, 0)
        count = max(first, (moment - origin) // self.every + 1)
        while True:
            yield origin + count * self.every
            count += 1

    def _cron(self, moment: int) -> Iterator[int]:
        zone = zone_of(self.tz)
        local = datetime.fromtimestamp(moment // 1000, UTC).astimezone(zone)
        hourly = len(CronSim(self._expression, _ANY).hours) == 24
        last = moment
        for wall in CronSim(self._expression, local if hourly else local.replace(tzinfo=None, fold=0)):
            at = int((wall if hourly else _real(wall, zone)).timestamp()) * 1000
            # What is in a gap comes at its end, where another one may be; and after the clocks went back, wall times come again.
            if at > last:
                last = at
                yield at


def _real(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment that clocks in the zone show ``wall``, or the end of the gap that it falls into."""
    while True:
        aware = wall.replace(tzinfo=zone, fold=0)
        if aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall:
            return aware
        wall = wall.replace(second=0) + timedelta(minutes=1)
