"""Conversations out in the OpenAI chat format: ``{"id": …, "messages": …}`` per line.

The shape that fine-tuning files, evaluation sets and most chat front ends share. What the format
has no place for (ids, times, metadata, other frameworks' extensions) is left out: to move a store,
use `export_jsonl`. The way in is `tsmemory.transfer.formats.openai_chat`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from tsmemory.checks import DEFAULT_USER
from tsmemory.engine.records import UNSET, Unset
from tsmemory.openai_format import to_openai
from tsmemory.store import Store
from tsmemory.transfer.archive import opened
from tsmemory.transfer.copying import Progress, Report
from tsmemory.transfer.formats import import_from
from tsmemory.transfer.sources import Source

__all__ = ["export_openai", "import_openai"]


def export_openai(
    store: Store, file: str | os.PathLike[str] | BinaryIO, *, user_id: str | Unset = UNSET
) -> Report:
    """Write conversations in the OpenAI chat format, one per line: ``id``, ``user_id``,
    ``messages``.

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
        return json.dumps(line).encode()


def import_openai(
    store: Store,
    source: Source,
    *,
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in a file in the OpenAI chat format; same as `import_from` with ``format="openai"``."""
    return import_from(store, source, format="openai", user_id=user_id, progress=progress)
