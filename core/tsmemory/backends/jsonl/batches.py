"""A change as lines of a file: those of a batch, and those of a file that is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.session_index import EMPTY_RECORD, Row, SessionIndex
from tsmemory.engine.codec import encode_session
from tsmemory.engine.commit import Head, Plan
from tsmemory.engine.records import Change, Position

__all__ = ["batch_of", "plain_lines", "rewritten"]

_Writer = Callable[[int], bytes]
"""Makes a line, given how many of its batch follow."""


def plain_lines(
    index: SessionIndex, plan: Plan, change: Change, bodies: Mapping[str, bytes]
) -> list[bytes] | None:
    """The lines of a batch that is nothing but new messages in order, and whose record follows from
    them; None where it is another. Most batches are such, and are written the short way."""
    if plan.head is None or not plan.insert or change.session:
        return None
    if plan.overwrite or plan.delete or change.delete_through:
        return None
    session, old = plan.head.session, index.head
    if session.ttl is not None or old.expires_at is not None:
        return None
    reached = old.last_time
    for message in plan.insert:
        if (message.create_time or 0) <= reached:
            return None
        reached = message.create_time or 0
    if session.update_time != max(old.update_time, reached):
        return None
    last = len(plan.insert) - 1
    return [
        lines.message_line(
            Position(m.create_time or 0, m.message_id), bodies[m.message_id], None, last - i
        )
        for i, m in enumerate(plan.insert)
    ]


def _head_of(head: Head) -> lines.Head:
    session = head.session
    return lines.Head(
        version=session.version,
        create_time=session.create_time,
        update_time=session.update_time,
        message_count=session.message_count,
        last_time=head.last_time,
        ttl=session.ttl,
        expires_at=session.expires_at,
    )


def batch_of(
    index: SessionIndex | None,
    planned: Plan,
    change: Change,
    encoded: Mapping[str, bytes],
    through: int,
) -> bytes:
    """The lines that `planned` appends to the file of `index`, or with which a new file begins.

    Args:
        encoded: the bodies by message id.
        through: how many messages `change.delete_through` covers.

    Raises:
        InvalidInputError: the session's metadata cannot be stored.
    """
    assert planned.head is not None
    session = planned.head.session
    head = _head_of(planned.head)
    old = index.head if index else lines.empty_head(session.create_time)
    old_record = index.record if index else EMPTY_RECORD
    record = encode_session(session) if index is None or change.session else old_record

    replaced = {m.message_id for m in planned.overwrite}
    positions = sorted(
        Position(m.create_time or 0, m.message_id) for m in planned.insert + planned.overwrite
    )
    high = index.head.last_time if index else -1
    writers: list[_Writer] = []
    if index is not None and through and change.delete_through is not None:
        skip = index.skip_after(change.delete_through)
        writers.append(partial(lines.truncate_line, change.delete_through, skip))
    if index is not None and planned.delete:
        writers.append(partial(lines.delete_line, planned.delete))
    plain = not writers
    for position in positions:
        op = None
        if position.message_id in replaced:
            op = "replace"
        elif position.create_time <= high:
            op = "insert"
        plain = plain and op is None
        high = max(high, position.create_time)
        body = encoded[position.message_id]
        writers.append(partial(lines.message_line, position, body, op))
    # A plain append implies the new record; anything else states it.
    newest = positions[-1].create_time if positions else 0
    if not plain or record != old_record or head != lines.advance_head(old, len(positions), newest):
        free = record if record != old_record else None
        writers.append(partial(lines.session_line, head, free))
    last = len(writers) - 1
    return b"".join(write(last - i) for i, write in enumerate(writers))


def rewritten(index: SessionIndex, rows: Iterable[Row]) -> bytes:
    """Everything that is left, in order, as plain messages where possible; broken lines as they
    are."""
    content = []
    last = -1
    for (position, _, _), raw in rows:
        body = lines.body_of(raw)
        if body is None:
            content.append(raw)
            continue
        op = None if position.create_time > last else "insert"
        last = max(last, position.create_time)
        content.append(lines.message_line(position, body, op, 0))
    content.append(lines.session_line(index.head, index.record))
    return b"".join(content)
