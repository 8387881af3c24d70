"""Points in time as the wire wants them: ISO-8601 UTC for people, ms for the server; and spans as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

from streammesh.errors import InvalidPayload

__all__ = ["duration", "iso", "iso_now", "moment", "when"]


def when(delay: float | None, at: datetime | None) -> str:
    """When a task is to be queued, as the scripts want it: '' for at once. Raises InvalidPayload."""
    if delay is not None and at is not None:
        raise InvalidPayload("delay= and at= are both given; give one")
    if at is not None:
        if not isinstance(at, datetime):
            raise InvalidPayload(f"at={at!r} is not usable: expected a datetime with a time zone")
        return moment(at, "at")
    if delay is None or delay == 0:
        return ""
    return moment(delay, "delay")


def moment(value: object, what: str) -> str:
    """'+ms' for seconds from now by the server's clock, ms since 1970 for a point in time."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidPayload(f"{what}={value.isoformat()} has no time zone; use datetime.now(UTC) or .astimezone()")
        return str(int(value.timestamp() * 1000))
    if not isinstance(value, int | float) or not 0 <= value < 10**9:
        raise InvalidPayload(f"{what}={value!r} is not usable: expected seconds from now (0 to 10^9), or a datetime")
    return f"+{int(value * 1000)}"


def iso_now() -> str:
    """Now, by this machine's clock, for fields that only people read."""
    return _zulu(datetime.now(UTC))


def iso(ms: float) -> str:
    """ms since 1970 as ISO-8601 UTC."""
    return _zulu(datetime.fromtimestamp(ms / 1000, UTC))


def _zulu(point: datetime) -> str:
    return point.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float | None) -> str:
    """``0.4s 12s 3m12s 2h05m 3d4h``; '' for None."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"
