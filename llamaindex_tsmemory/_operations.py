"""What a chat store does with a conversation, as typed steps: once for sync and async.

Positions are those of the list that `get_messages` gives: of the transcript, or of its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, TypeAlias

import msgspec
from llama_index.core.base.llms.types import ChatMessage

from llamaindex_tsmemory.mapping import from_neutral, to_neutral
from llamaindex_tsmemory.mapping.values import same
from tsmemory import (
    Conversation,
    CorruptRecordError,
    InvalidInputError,
    Message,
    Steps,
    Store,
    Window,
)

__all__ = [
    "Policy",
    "add",
    "add_many",
    "delete_all",
    "delete_at",
    "get",
    "keys",
    "read",
    "replace",
    "replace_rows",
]

Policy: TypeAlias = "Window | int | None"
_PAGE = 500  # messages per read: few round trips, bounded memory


# -- reading -----------------------------------------------------------------------------------


def get(chat: Conversation, policy: Policy) -> Steps[list[ChatMessage]]:
    return [read(chat, m) for m in (yield from _view(chat, policy))]


def keys(store: Store, user_id: str) -> Steps[list[str]]:
    """The session ids of a user, the most recently active first."""
    sessions = yield from store.steps.all_sessions(user_id=user_id)
    return [session.session_id for session in sessions]


def read(chat: Conversation, message: Message) -> ChatMessage:
    """The LlamaIndex message of a record.

    Raises:
        CorruptRecordError: what LlamaIndex's adapter keeps in it does not read.
    """
    try:
        return from_neutral(message)
    except InvalidInputError as error:
        raise CorruptRecordError(
            str(error),
            user_id=chat.user_id,
            session_id=chat.session_id,
            message_id=message.message_id,
            create_time=message.create_time or 0,
        ) from error


def _view(chat: Conversation, policy: Policy) -> Steps[list[Message]]:
    """What `get_messages` shows."""
    if policy is None:
        return (yield from chat.steps.all_messages())
    return (yield from chat.steps.window(policy)).messages


def _is_stored(message: Message, view: Sequence[Message]) -> bool:
    """False for what a window adds: the summary, a result for a call that never got one."""
    caller, mark, _ = message.message_id.rpartition("#")
    made_up = mark and any(m.message_id == caller and m.tool_calls for m in view)
    return message.create_time is not None and not made_up


# -- adding ------------------------------------------------------------------------------------


def add(
    chat: Conversation, policy: Policy, message: ChatMessage, position: int | None
) -> Steps[None]:
    new = to_neutral(message)
    if position is None:
        yield from chat.steps.append(new)
        return
    view = yield from _view(chat, policy)
    behind = view[_check_position(position) :]
    yield from _insert(chat, [new], next((m for m in behind if _is_stored(m, view)), None))


def add_many(chat: Conversation, messages: Sequence[ChatMessage]) -> Steps[None]:
    """Add `messages` at the end, in one commit."""
    new = [to_neutral(message) for message in messages]
    if new:
        yield from chat.steps.append(new)


def _check_position(position: Any) -> int:
    if not isinstance(position, int):
        raise InvalidInputError(f"idx is an int, not {type(position).__name__}")
    return position


def _insert(chat: Conversation, new: list[Message], anchor: Message | None) -> Steps[None]:
    """Write `new` right before `anchor`; at the end, where that is None.

    By giving them times between it and what stands before. Only where there is no room (a batch
    gets successive microseconds) the messages from `anchor` on move, by as little as can be.
    """
    if anchor is None:
        yield from chat.steps.append(new)
        return
    end = anchor.create_time or 0
    before = (yield from chat.steps.list_messages(order="desc", created_to=end, limit=_PAGE)).items
    at = next((i for i, m in enumerate(before) if m.message_id == anchor.message_id), -1)
    previous = next((m.create_time or 0 for m in before[at + 1 :]), max(-1, end - len(new) - 1))
    placed = [msgspec.structs.replace(m, create_time=previous + 1 + i) for i, m in enumerate(new)]
    last = previous + len(new)
    if last >= end:
        # Those that share anchor's time and stand before it stay where they are.
        ahead = {m.message_id for m in before[at + 1 :]}
        for message in (yield from chat.steps.all_messages(created_from=end)):
            if message.message_id in ahead:
                continue
            if (message.create_time or 0) > last:
                break
            last += 1
            placed.append(msgspec.structs.replace(message, create_time=last))
    yield from chat.steps.put_messages(placed)


# -- replacing ---------------------------------------------------------------------------------


def replace(chat: Conversation, policy: Policy, messages: Sequence[ChatMessage]) -> Steps[None]:
    """Make `messages` what `get_messages` shows, by writing only what differs.

    A message that stands in both lists keeps its record. What a window does not show stays.
    """
    view = yield from _view(chat, policy)
    pairs = align([read(chat, m) for m in view], messages)
    kept_positions = {i for i, _ in pairs}
    removed = [
        m.message_id for i, m in enumerate(view) if i not in kept_positions and _is_stored(m, view)
    ]
    records = {j: view[i] for i, j in pairs}
    new = {j: to_neutral(m) for j, m in enumerate(messages) if j not in records}
    if not new:
        if removed:
            yield from chat.steps.delete_message(*removed)
        return
    if not removed and min(new) >= len(records):
        yield from chat.steps.append(new.values())
        return
    if policy is None:
        whole = [records[j] if j in records else new[j] for j in range(len(messages))]
        yield from chat.steps.replace(whole)
        return
    yield from _rewrite(chat, len(messages), records, new, removed, view)


def replace_rows(
    chat: Conversation, view: Sequence[Message], messages: Sequence[ChatMessage], **fields: Any
) -> Steps[list[Message]]:
    """Same as `replace`, where `view` was read already; what is new gets `fields`.

    Returns:
        The records that `messages` leave out, which are still there.
    """
    pairs = align([read(chat, m) for m in view], messages)
    kept_positions = {i for i, _ in pairs}
    records = {j: view[i] for i, j in pairs}
    new = {
        j: msgspec.structs.replace(to_neutral(m), **fields)
        for j, m in enumerate(messages)
        if j not in records
    }
    yield from _rewrite(chat, len(messages), records, new, [], view)
    return [m for i, m in enumerate(view) if i not in kept_positions]


def _rewrite(
    chat: Conversation,
    length: int,
    records: dict[int, Message],
    new: dict[int, Message],
    removed: list[str],
    view: Sequence[Message],
) -> Steps[None]:
    """Make of `view` the list of `length` that has `records` and `new` at their positions."""
    # In this order a crash in between leaves a message too many, never one too few.
    batch: list[Message] = []
    for j in range(length):
        if j in new:
            batch.append(new[j])
        elif batch and _is_stored(records[j], view):
            yield from _insert(chat, batch, records[j])
            batch = []
    if batch:
        yield from _insert(chat, batch, None)
    if removed:
        yield from chat.steps.delete_message(*removed)


def align(old: Sequence[ChatMessage], new: Sequence[ChatMessage]) -> list[tuple[int, int]]:
    """Pairs of positions of equal messages, both ascending: what a change of the list leaves."""
    most = min(len(old), len(new))
    head = next((i for i in range(most) if not same(old[i], new[i])), most)
    tail = 0
    while tail < most - head and same(old[-1 - tail], new[-1 - tail]):
        tail += 1
    pairs = [(i, i) for i in range(head)]
    names = _Names()
    a = [names.of(m) for m in old[head : len(old) - tail]]
    b = [names.of(m) for m in new[head : len(new) - tail]]
    if a and b:
        for i, j, size in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
            pairs += [(head + i + k, head + j + k) for k in range(size)]
    pairs += [(len(old) - k, len(new) - k) for k in range(tail, 0, -1)]
    return pairs


class _Names:
    """A number for each distinct message, which have no hash of their own."""

    def __init__(self) -> None:
        self._alike: dict[tuple[Any, Any], list[tuple[ChatMessage, int]]] = {}
        self._next = 0

    def of(self, message: ChatMessage) -> int:
        if not isinstance(message, ChatMessage):
            return -1  # refused where it is converted
        alike = self._alike.setdefault((message.role, message.content), [])
        for name, number in alike:
            if same(name, message):
                return number
        self._next += 1
        alike.append((message, self._next))
        return self._next


# -- deleting ----------------------------------------------------------------------------------


def delete_at(
    chat: Conversation, policy: Policy, position: int, *, again: bool = False
) -> Steps[ChatMessage | None]:
    """Remove the message at `position` of the view; None where there is none.

    Args:
        again: where another writer removes it first, take what is at `position` then.
    """
    _check_position(position)
    while True:
        if policy is None:
            # No more than is needed to see what stands there.
            count = position + 1 if position >= 0 else -position
            page = yield from chat.steps.list_messages(
                order="asc" if position >= 0 else "desc", limit=count
            )
            target: Message | None = page.items[-1] if len(page.items) == count else None
        else:
            view = yield from _view(chat, policy)
            target = view[position] if -len(view) <= position < len(view) else None
            if target is not None and not _is_stored(target, view):
                raise InvalidInputError(
                    "the window made this message up (a summary, or the result of an interrupted "
                    "call); it is not stored, so it cannot be deleted"
                )
        if target is None:
            return None
        message = read(chat, target)
        if (yield from chat.steps.delete_message(target.message_id)):
            return message
        if not again:
            return None


def delete_all(chat: Conversation) -> Steps[list[ChatMessage] | None]:
    """Remove the session; what it kept, as far as it reads; None where there was none."""
    found = yield from chat.steps.all_messages(on_error="skip")
    existed = bool(found) or (yield from chat.steps.session()) is not None
    yield from chat.steps.delete()
    messages = []
    for message in found:
        try:
            messages.append(from_neutral(message))
        except InvalidInputError:  # a broken record must not keep its session from going
            continue
    return messages if existed else None
