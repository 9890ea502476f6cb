"""Bringing in what LlamaIndex's chat stores have kept.

from llamaindex_tsmemory.importers import import_simple_chat_store

with open_store("sqlite:///chat.db") as store:
    report = import_simple_chat_store(store, "chat_store.json")

Their data is read as data: JSON that is validated as `ChatMessage`s. A key becomes a session of one
user, as `TSMemoryChatStore` reads it. Each may be run again (see
`tsmemory.transfer.import_sessions`): the n-th message of a key is ``llamaindex:n``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from llamaindex_tsmemory._mapping import to_neutral
from tsmemory import Problem, Store
from tsmemory.transfer import Imported, Report, import_sessions, numbered

__all__ = ["import_redis_chat_store", "import_simple_chat_store"]


def import_simple_chat_store(
    store: Store, path: str | os.PathLike[str], *, user_id: str = "default"
) -> Report:
    """Bring in a file that `SimpleChatStore.persist` wrote: every key in it.

    Args:
        user_id: whose sessions they become.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(data, str):  # as older releases wrote it: JSON in JSON
        data = json.loads(data)
    keys = data.get("store") if isinstance(data, dict) else None
    if not isinstance(keys, dict):
        raise ValueError(f"{os.fspath(path)} is not what SimpleChatStore.persist writes")
    return import_sessions(store, (_conversation(user_id, *item) for item in keys.items()))


def import_redis_chat_store(
    store: Store, client: Any, *, match: str = "*", user_id: str = "default"
) -> Report:
    """Bring in what LlamaIndex's `RedisChatStore` keeps.

    It uses its keys as they are, without a prefix, so every list in the database that `match` lets
    through is taken for a conversation; one that holds something else is told in the report. What
    is left of a key's time to live is left to the session.

    Args:
        client: a ``redis.Redis`` or ``valkey.Valkey``, whatever its ``decode_responses``.
        match: which keys, as Redis's ``SCAN … MATCH`` understands it.
        user_id: whose sessions they become.
    """

    def conversations() -> Iterator[Imported | Problem]:
        for key in sorted(client.scan_iter(match=match), key=_text):
            if _text(client.type(key)) != "list":
                continue
            found = _conversation(user_id, _text(key), client.lrange(key, 0, -1))
            left = client.pttl(key)
            if isinstance(found, Imported) and left > 0:
                found.ttl = left / 1000
            yield found

    return import_sessions(store, conversations())


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _conversation(user_id: str, key: str, rows: Iterable[Any]) -> Imported | Problem:
    """One conversation, or why it cannot be read."""
    try:
        found = [
            ChatMessage.model_validate(row if isinstance(row, dict) else json.loads(row))
            for row in rows
        ]
        messages = numbered(map(to_neutral, found), "llamaindex")
        return Imported(session_id=key, user_id=user_id, messages=messages)
    except (ValueError, TypeError) as error:  # pydantic's are ValueErrors
        what = f"not what LlamaIndex writes: {type(error).__name__}: {error}"
        return Problem(user_id, key, None, what)
