"""Small rules of reading that several engines need: one truth for each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from tsmemory.engine.records import Key, MessageQuery, Position
from tsmemory.errors import CorruptRecordError
from tsmemory.filters import Filter
from tsmemory.model import Message, Session

__all__ = [
    "corrupt_message",
    "corrupt_record",
    "corrupt_session",
    "may_end",
    "passes",
    "session_sort_key",
    "walk",
]


def corrupt_record(
    user_id: str, session_id: str, time: int, error: Exception, message_id: str | None = None
) -> CorruptRecordError:
    """The error object in place of a record that does not decode.

    Args:
        time: µs; the message's `create_time`, or the session's `update_time`.
        message_id: None for a session's own record.
    """
    broken = CorruptRecordError(
        f"does not decode: {error}",
        user_id=user_id,
        session_id=session_id,
        message_id=message_id,
        create_time=time,
    )
    broken.__cause__ = error
    return broken


def corrupt_message(key: Key, position: Position, error: Exception) -> CorruptRecordError:
    """The error object in place of a message that does not decode."""
    return corrupt_record(*key, position.create_time, error, position.message_id)


def corrupt_session(session: Session, error: Exception) -> CorruptRecordError:
    """The error object in place of a session record that does not decode."""
    return corrupt_record(session.user_id, session.session_id, session.update_time, error)


def passes(row: Message | Session | CorruptRecordError, where: Filter | None) -> bool:
    """Whether a filter lets the row through; a broken record is never hidden by one."""
    return where is None or isinstance(row, CorruptRecordError) or where.matches(row.metadata)


def session_sort_key(row: Session | CorruptRecordError) -> tuple[int, str, str]:
    """The order of sessions: last activity, then id."""
    time = row.update_time if isinstance(row, Session) else row.create_time
    return time, row.user_id, row.session_id


def may_end(query: MessageQuery, rows: Sequence[Message | CorruptRecordError]) -> bool:
    """Whether a read may end with its newest row of these: see `MessageQuery.until`."""
    if query.until is None or len(rows) < query.least:
        return False
    last = rows[-1]
    return type(last) is Message and query.until(last)


def walk(order: Sequence[Position], query: MessageQuery) -> Iterator[Position]:
    """The positions of a query's range, in its direction.

    Args:
        order: all positions of the session, sorted.
    """
    low, high = 0, len(order)
    if query.created_from is not None:
        low = bisect_left(order, Position(query.created_from, ""))
    if query.created_to is not None:
        high = bisect_left(order, Position(query.created_to + 1, ""))
    if query.after is not None:
        if query.descending:
            high = min(high, bisect_left(order, query.after))
        else:
            low = max(low, bisect_right(order, query.after))
    indexes = range(high - 1, low - 1, -1) if query.descending else range(low, high)
    return (order[i] for i in indexes)
