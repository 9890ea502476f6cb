"""Conversations in the OpenAI chat format: one JSON object a line, ``{"id": …, "messages": […]}``.

The shape that fine-tuning files, evaluation sets and most chat front ends share. What the format
has no place for (ids, times, metadata, other frameworks' extensions) stays behind on the way out:
to move a store, use `export_jsonl`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from tsmemory.checks import DEFAULT_USER
from tsmemory.engine.records import UNSET, Unset
from tsmemory.errors import InvalidInputError
from tsmemory.model import Problem
from tsmemory.openai_format import from_openai, to_openai
from tsmemory.store import Store
from tsmemory.transfer._copy import Progress, Report
from tsmemory.transfer._export import opened
from tsmemory.transfer._imports import Imported, import_sessions, numbered

__all__ = ["export_openai", "import_openai"]


def export_openai(
    store: Store, file: str | os.PathLike[str] | BinaryIO, *, user_id: str | Unset = UNSET
) -> Report:
    """Write conversations in the OpenAI chat format, one a line: ``id``, ``user_id``, ``messages``.

    Args:
        file: a path, or a binary file open for writing.
        user_id: whose sessions; leave it out for every user's.

    Raises:
        CorruptRecordError: a record does not decode.
    """
    report = Report()
    with opened(file, "wb") as out:
        for session in store.iter_sessions(user_id=user_id, order="asc"):
            chat = store.conversation(session.session_id, user_id=session.user_id)
            messages = [to_openai(message) for message in chat.iter_messages()]
            line = {"id": session.session_id, "user_id": session.user_id, "messages": messages}
            out.write(_encode(line) + b"\n")
            report.sessions += 1
            report.messages += len(messages)
    return report


def _encode(line: object) -> bytes:
    try:
        return msgspec.json.encode(line)
    except UnicodeEncodeError:
        # Lone surrogates, which UTF-8 cannot hold and JSON's own escapes can.
        import json  # rarely needed

        return json.dumps(line).encode()


def import_openai(
    store: Store,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in a file of conversations in the OpenAI chat format.

    Each line is an object with ``messages``; its ``id`` becomes the session's, its ``user_id``, if
    any, the user's. The n-th message is ``openai:n``, so that the file, or a longer one, may be
    brought in again. Lines that are nothing of the kind are told in the report.

    Args:
        file: a path, or a binary file open for reading.
        user_id: whose sessions they become where the lines do not say.
        progress: called after every batch of messages.

    Raises:
        InvalidInputError: an id or a message that no store can hold.
    """
    with opened(file, "rb") as source:
        return import_sessions(store, _conversations(source, user_id), progress=progress)


def _conversations(source: BinaryIO, user_id: str) -> Iterator[Imported | Problem]:
    for number, raw in enumerate(source, 1):
        if not raw.strip():
            continue
        try:
            line = msgspec.json.decode(raw)
            if not isinstance(line, dict) or not isinstance(line.get("messages"), list):
                raise InvalidInputError('not an object with "messages"')
            if not isinstance(line.get("id"), str):
                raise InvalidInputError('it has no text "id" to be the session\'s')
            messages = [from_openai(message) for message in line["messages"]]
        except (ValueError, AttributeError) as error:
            yield Problem(None, None, None, f"line {number}: {error}")
            continue
        yield Imported(
            session_id=line["id"],
            user_id=line.get("user_id") or user_id,
            messages=numbered(messages, "openai"),
        )
