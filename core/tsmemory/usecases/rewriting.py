"""The decisions of operations that rewrite a session: pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsmemory.engine.commit import at_time, same_content
from tsmemory.engine.records import Change, SessionPatch
from tsmemory.errors import CorruptRecordError, InvalidInputError, NotFoundError
from tsmemory.model import Message, Session

__all__ = ["check_duplicates", "check_unique", "forked", "replacement"]


def check_duplicates(batch: tuple[Message, ...]) -> None:
    """Check that an id is in a batch twice only with the same content.

    Raises:
        InvalidInputError: two messages of the batch differ and share an id.
    """
    by_id: dict[str, Message] = {}
    for message in batch:
        first = by_id.setdefault(message.message_id, message)
        if first is not message and not same_content(message, first):
            raise InvalidInputError(
                f"duplicate message id {message.message_id!r}: two messages of one batch have it, "
                "with different content; give each an id of its own"
            )


def check_unique(messages: Sequence[Message]) -> None:
    """Check that no two of `messages` share an id.

    Raises:
        InvalidInputError: two do.
    """
    seen: set[str] = set()
    for message in messages:
        if message.message_id in seen:
            raise InvalidInputError(
                f"duplicate message id {message.message_id!r}: ids must be unique within a session"
            )
        seen.add(message.message_id)


def replacement(
    target: Sequence[Message], stored: Sequence[Message | CorruptRecordError], now: int
) -> tuple[list[Message], Change | None]:
    """The session as it becomes, and the change that makes it so; None where it is so already.

    Args:
        target: what the session is to hold, in order; ids are unique.
        stored: what it holds, in order.
        now: the engine's clock, µs.
    """
    current = {row.message_id or "": row for row in stored}
    last = stored[-1].create_time if stored else 0
    placed = _place(target, current, max(now, (last or 0) + 1))
    target_ids = {m.message_id for m in target}
    surplus = tuple(mid for mid in current if mid not in target_ids)
    written = tuple(m for m in placed if current.get(m.message_id) != m)
    if not written and not surplus:
        return placed, None
    return placed, Change(put=written, delete=surplus)


def _place(
    target: Sequence[Message], current: Mapping[str, Message | CorruptRecordError], fresh: int
) -> list[Message]:
    """`target` with strictly increasing times, moving as few of the stored messages as can be.

    A stored message keeps its time where the order allows; a new one goes right after its
    predecessor, or, after the last stored one, to `fresh` and later.
    """
    stored_indexes = [i for i, m in enumerate(target) if m.message_id in current]
    last_stored = stored_indexes[-1] if stored_indexes else -1
    previous = -1
    if stored_indexes:
        first = stored_indexes[0]
        previous = max(-1, (current[target[first].message_id].create_time or 0) - first - 1)
    placed: list[Message] = []
    for i, message in enumerate(target):
        row = current.get(message.message_id)
        if row is not None:
            time = max(row.create_time or 0, previous + 1)
        elif i > last_stored:
            time = max(fresh, previous + 1)
        else:
            time = previous + 1
        placed.append(at_time(message, time))
        previous = time
    return placed


def forked(origin: Session, messages: Sequence[Message], until: str | None) -> Change:
    """What begins a session as a copy of another, up to the message `until` or whole.

    Raises:
        NotFoundError: there is no such message.
    """
    if until is not None:
        index = next((i for i, m in enumerate(messages) if m.message_id == until), None)
        if index is None:
            raise NotFoundError(f"session {origin.session_id!r} has no message {until!r}")
        messages = messages[: index + 1]
    patch = SessionPatch(
        title=origin.title, summary=origin.summary, metadata=origin.metadata, ttl=origin.ttl
    )
    return Change(put=tuple(messages), session=patch, if_version=0)
