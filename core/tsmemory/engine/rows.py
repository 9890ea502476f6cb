"""Small rules of reading that several engines need: one truth for each."""

from __future__ import annotations

from collections.abc import Iterable

from tsmemory.engine.records import Key, Position, SessionQuery
from tsmemory.errors import CorruptRecordError
from tsmemory.filters import Filter
from tsmemory.model import Message, Session

__all__ = ["corrupt_message", "corrupt_session", "passes", "session_rows"]


def corrupt_message(key: Key, position: Position, error: Exception) -> CorruptRecordError:
    """What stands in the place of a message that does not decode."""
    broken = CorruptRecordError(
        f"does not decode: {error}",
        user_id=key.user_id,
        session_id=key.session_id,
        message_id=position.message_id,
        create_time=position.create_time,
    )
    broken.__cause__ = error
    return broken


def corrupt_session(session: Session, error: Exception) -> CorruptRecordError:
    """What stands in the place of a session record that does not decode."""
    broken = CorruptRecordError(
        f"does not decode: {error}",
        user_id=session.user_id,
        session_id=session.session_id,
        create_time=session.update_time,
    )
    broken.__cause__ = error
    return broken


def passes(row: Message | Session | CorruptRecordError, where: Filter | None) -> bool:
    """Whether a filter lets the row through; a broken record is never hidden by one."""
    return where is None or isinstance(row, CorruptRecordError) or where.matches(row.metadata)


def session_sort_key(row: Session | CorruptRecordError) -> tuple[int, str, str]:
    """The order of sessions: last activity, then id."""
    time = row.update_time if isinstance(row, Session) else row.create_time
    return time, row.user_id, row.session_id


def session_rows(
    live: Iterable[Session | CorruptRecordError], query: SessionQuery
) -> list[Session | CorruptRecordError]:
    """`query` answered from all of a user's live sessions, for engines without an index."""
    rows = sorted(live, key=session_sort_key, reverse=query.descending)
    found: list[Session | CorruptRecordError] = []
    for row in rows:
        place = session_sort_key(row)
        if query.after is not None:
            beyond = place < query.after if query.descending else place > query.after
            if not beyond:
                continue
        if query.updated_from is not None and place[0] < query.updated_from:
            continue
        if query.updated_to is not None and place[0] > query.updated_to:
            continue
        if not passes(row, query.where):
            continue
        found.append(row)
        if query.limit is not None and len(found) >= query.limit:
            break
    return found
