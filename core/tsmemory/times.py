"""Times: integer microseconds since the Unix epoch (UTC), and what may be given for one."""

from __future__ import annotations

import datetime as dt
from typing import TypeAlias

import msgspec

from tsmemory.errors import InvalidInputError, shown

__all__ = ["MAX_TIME", "Time", "as_datetime", "micros", "minute"]

Time: TypeAlias = int | dt.datetime | str
"""A point in time, as an argument: µs since the epoch, an aware datetime, or ISO 8601 text with a
time zone (RFC 3339), as ``"2026-01-31T12:00:00Z"``."""

MAX_TIME = 2**63 - 2
"""The largest time: one less than the largest signed 64-bit integer, so that the next is one."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)


def micros(what: str, value: Time | None) -> int | None:
    """`value` as µs since the epoch; None stays None.

    Raises:
        InvalidInputError: not a time, negative, or without a time zone.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse(what, value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise InvalidInputError(
                f"{what} has no time zone; use datetime.now(timezone.utc), or text that ends in Z"
            )
        value = (value - _EPOCH) // _MICROSECOND
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TIME:
        raise InvalidInputError(
            f"{what} is {shown(value)}; give microseconds since the epoch, 0 to 2**63 - 2, an "
            "aware datetime, or ISO text"
        )
    return value


def as_datetime(time: int) -> dt.datetime | None:
    """`time` (µs) as an aware datetime in UTC; None after the year 9999, which has none."""
    try:
        return _EPOCH + dt.timedelta(microseconds=time)
    except OverflowError:
        return None


def minute(time: int | None) -> str:
    """`time` (µs) to the minute, for a model to read: ``2026-01-31 12:00 UTC``. Empty where it is
    None or after the year 9999."""
    moment = None if time is None else as_datetime(time)
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _parse(what: str, text: str) -> dt.datetime:
    try:
        return msgspec.convert(text, dt.datetime)
    except (msgspec.ValidationError, UnicodeError):
        raise InvalidInputError(
            f"{what} is {shown(text)}, which is not an ISO 8601 time; write it as "
            "2026-01-31T12:00:00Z"
        ) from None
