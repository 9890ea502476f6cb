"""Which messages of a session are active, and reading no more of them than is asked for.

Archiving writes one value, whatever the number of messages: the session's metadata say up to where
it is archived (`MARK`). A message that is archived behind the mark says so itself, in its metadata
(`STATUS`), and the session's metadata say that there are such.

What is active is shown without what a chat API would refuse (`repair`). A part of the session shows
the same as the whole does where no call and its result are on different sides of the cut:

1. the newest messages are read back to one that is no result, and answers no call further back;
2. the oldest are read up to a user's text, before which every call has its result.

Until that is so, twice as many are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from llama_index.core.storage.chat_store.base_db import MessageStatus

from tsmemory import Conversation, Message, Session, Steps, Window
from tsmemory.window import cut

__all__ = [
    "MARK", "START", "STATUS", "Position", "Stored", "active", "archived", "count", "mark_of",
    "position", "rows", "shown", "stored",
]  # fmt: skip

MARK = "llamaindex_archived"
"""The key in a session's metadata: ``[create_time, message_id]`` of the last archived message."""
STATUS = "llamaindex_status"
"""The key in a message's metadata, ``"archived"``, of one that is archived behind `MARK`; in a
session's metadata, ``true``: it may have such messages."""

Position: TypeAlias = "tuple[int, str]"
START: Position = (-1, "")
_PAGE = 500  # messages per read: few round trips, bounded memory
_MARGIN = 12  # messages read beyond those asked for: enough for a turn with some calls
_WHOLE = Window(system="in_place")


class Stored(NamedTuple):
    """Records of a status, in reading order."""

    messages: list[Message]
    session: Session | None
    """As it was before they were read."""
    complete: bool
    """Whether these are all that have the status."""


def position(message: Message) -> Position:
    return (message.create_time or 0, message.message_id)


def mark_of(session: Session) -> Position:
    """The position of the last message that is archived by the mark."""
    mark = session.metadata.get(MARK)
    if isinstance(mark, (list, tuple)) and len(mark) == 2:
        return (int(mark[0]), str(mark[1]))
    return START


def archived(message: Message) -> Message:
    """The message, marked as archived."""
    return msgspec.structs.replace(message, metadata={**message.metadata, STATUS: "archived"})


def _status(message: Message, mark: Position) -> MessageStatus:
    is_archived = position(message) <= mark or message.metadata.get(STATUS) == "archived"
    return MessageStatus.ARCHIVED if is_archived else MessageStatus.ACTIVE


def count(chat: Conversation, status: MessageStatus | None) -> Steps[int]:
    """How many messages of a status are stored: from the session's record, and where some are
    archived, from the messages behind the mark."""
    session = yield from chat.steps.session()
    if session is None:
        return 0
    active = session.message_count
    if status is not None and (mark_of(session) > START or session.metadata.get(STATUS)):
        active = len((yield from stored(chat, MessageStatus.ACTIVE)).messages)
    return session.message_count - active if status is MessageStatus.ARCHIVED else active


def stored(
    chat: Conversation,
    status: MessageStatus | None,
    *,
    most: int | None = None,
    newest: bool = False,
) -> Steps[Stored]:
    """The oldest `most` records of a status, or the newest; None for all."""
    session = yield from chat.steps.session()
    messages: list[Message] = []
    if session is None or most == 0:
        return Stored(messages, session, session is None)
    mark = mark_of(session)
    query: dict[str, Any] = {"order": "desc" if newest else "asc"}
    if status is MessageStatus.ACTIVE and mark > START:
        query["created_from"] = mark[0]
    query["limit"] = _PAGE if most is None else min(_PAGE, most)
    cursor = None
    while True:
        page = yield from chat.steps.list_messages(**query, cursor=cursor)
        messages += (m for m in page.items if status is None or _status(m, mark) is status)
        cursor = page.next_cursor
        if cursor is None or (most is not None and len(messages) >= most):
            break
    complete = cursor is None and (most is None or len(messages) <= most)
    messages = messages[:most]
    return Stored(messages[::-1] if newest else messages, session, complete)


def shown(messages: list[Message], repair: bool) -> list[Message]:
    """Active records less what a chat API would refuse, as a window gives them."""
    if not repair:
        return messages
    report = cut(messages, (), _WHOLE, complete=True, explain=False)
    return messages if report is None else report.messages


def rows(
    chat: Conversation,
    status: MessageStatus | None,
    repair: bool,
    limit: int | None = None,
    offset: int = 0,
) -> Steps[list[Message]]:
    """What `get_messages` gives, as records."""
    newest = offset < 0
    most = -offset if newest else (None if limit is None else offset + limit)
    if status is MessageStatus.ACTIVE:
        part = (yield from active(chat, repair, most, newest))[1]
    else:
        part = (yield from stored(chat, status, most=most, newest=newest)).messages
    start = offset if not newest else max(0, len(part) + offset)
    return part[start:] if limit is None else part[start : start + limit]


def active(
    chat: Conversation, repair: bool, most: int | None, newest: bool = False
) -> Steps[tuple[Stored, list[Message]]]:
    """What is active of the oldest or newest messages: the records that were read, and those of
    them that are shown, at least `most` where there are as many."""
    extent = None if most is None else most + (_MARGIN if repair else 0)
    while True:
        part = yield from stored(chat, MessageStatus.ACTIVE, most=extent, newest=newest)
        if part.complete or extent is None or not repair:
            return part, shown(part.messages, repair)
        closed = _from_the_end(part.messages) if newest else _from_the_beginning(part.messages)
        visible = shown(closed, repair)
        if most is not None and len(visible) >= most:
            return Stored(closed, part.session, False), visible
        extent *= 2


def _from_the_end(messages: Sequence[Message]) -> list[Message]:
    """Step 1: the longest end of `messages` that shows the same without those before it."""
    for start, first in enumerate(messages):
        if first.role in ("tool", "function") or type(first.content) is not str:
            continue
        calls = {call.id for m in messages[start:] for call in m.tool_calls}
        results = {m.tool_call_id for m in messages[start:] if m.role == "tool"}
        if results <= calls:
            return list(messages[start:])
        return []
    return []


def _from_the_beginning(messages: Sequence[Message]) -> list[Message]:
    """Step 2: the longest beginning of `messages` that shows the same without those behind it."""
    for end in range(len(messages) - 1, 0, -1):
        if messages[end].role == "user" and type(messages[end].content) is str:
            calls = {call.id for m in messages[:end] for call in m.tool_calls}
            answered = {m.tool_call_id for m in messages[:end] if m.role == "tool"}
            return list(messages[:end]) if calls <= answered else []
    return []
