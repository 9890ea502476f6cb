"""A conversation from elsewhere, and what its messages are known by: where they came from and what
they say. `merging` says how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.checks import DEFAULT_USER, MAX_ID_BYTES, check_messages
from tsmemory.engine.codec import encode_message
from tsmemory.engine.records import Key
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message, Problem

__all__ = [
    "IMPORT_NOTE",
    "Imported",
    "Incoming",
    "Stored",
    "id_mark",
    "mark_of",
    "storable",
    "stored_message",
]

IMPORT_NOTE = "import"
"""The key of `Message.extensions` for messages that keep their ids."""


class Imported(msgspec.Struct, kw_only=True):
    """A conversation from elsewhere, as far as it is known there."""

    session_id: str
    user_id: str = DEFAULT_USER
    messages: Sequence[Message]
    """In order. Their `message_id` is not looked at: see `ids`. Times are kept where there are
    some; a message without one follows the one before it."""
    ids: Sequence[str | None] | None = None
    """The ids of the messages at the source, None for one that has none there. Leave it out where
    none has."""
    title: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    create_time: int | None = None
    """µs since the epoch."""
    update_time: int | None = None
    """µs since the epoch."""
    ttl: float | None = None
    """Seconds that are left of it; None where it stays."""
    problems: Sequence[Problem] = ()
    """What of this conversation could not be read."""


class Incoming(NamedTuple):
    message: Message
    own_id: str | None
    mark: str


class Stored(NamedTuple):
    message_id: str
    create_time: int
    mark: str | None
    """What it says now; None where it does not decode."""
    imported_mark: str | None
    """What it said when it was brought in from this origin; None where it was not."""


def mark_of(message: Message) -> str:
    """A digest of what a message says: its role, text, calls, and what else its content holds; not
    its id, its time, its metadata or what a framework adds to it."""
    content: Any = message.text
    if not isinstance(message.content, str):
        others = [
            {k: v for k, v in block.items() if k in ("type", "url", "base64", "file_id", "data")}
            for block in message.content
            if isinstance(block, dict) and "text" not in block and block.get("type") != "tool_call"
        ]
        content = [message.text, others] if others else message.text
    calls = [[call.name, call.arguments] for call in message.tool_calls]
    fields = [message.role, content, message.name, calls, message.tool_call_id]
    text = json.dumps(fields, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def id_mark(message_id: str, origin: str) -> str | None:
    """The mark in an id that was made here for this origin; None for any other id."""
    parts = message_id.split(":")
    ours = len(parts) == 3 and parts[0] == origin and len(parts[1]) == 20 and parts[2].isdigit()
    return parts[1] if ours else None


def stored_message(row: Message | CorruptRecordError, origin: str) -> Stored:
    """A row as step 1 needs it."""
    mark, imported_mark = None, id_mark(row.message_id or "", origin)
    if isinstance(row, Message):
        mark = mark_of(row)
        note = row.extensions.get(IMPORT_NOTE)
        if imported_mark is None and isinstance(note, dict) and note.get("origin") == origin:
            imported_mark = str(note.get("mark"))
    return Stored(row.message_id or "", row.create_time or 0, mark, imported_mark)


def storable(key: Key, conversation: Imported, problems: list[Problem]) -> list[Incoming]:
    """The messages that a store can hold; the others are added to `problems`. An id that is used
    already, or is not one, is left aside: such a message is known by what it says."""
    ids: Sequence[str | None] = conversation.ids or [None] * len(conversation.messages)
    incoming: list[Incoming] = []
    used: set[str] = set()
    for number, (message, own_id) in enumerate(zip(conversation.messages, ids, strict=False), 1):
        try:
            check_messages([message])
            encode_message(message)
        except (InvalidInputError, ValueError, RecursionError) as error:
            problems.append(Problem(*key, None, f"message {number} is left out: {error}"))
            continue
        if own_id is not None and (own_id in used or not _is_id(own_id)):
            own_id = None
        if own_id is not None:
            used.add(own_id)
        incoming.append(Incoming(message, own_id, mark_of(message)))
    return incoming


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False
