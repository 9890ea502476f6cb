"""What can be brought in: a registry of formats, each with one reader.

A reader is a generator function ``read(source, *, user_id, **options)`` that yields conversations
(`Imported`) and what cannot be read (`Problem`). It reads the source as data, creates nothing at
it, and one bad record never takes its neighbours along.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from tsmemory.checks import DEFAULT_USER
from tsmemory.errors import InvalidInputError, MissingDependencyError
from tsmemory.store import Store
from tsmemory.transfer.copying import Progress, Report
from tsmemory.transfer.merging import import_sessions

__all__ = ["FORMATS", "Format", "import_from"]


class Format(NamedTuple):
    """One format."""

    reader: str
    """``module:function``, imported when it is used."""
    source: str
    """What to give as the source."""
    extra: str | None = None
    """The extra that brings what the reader needs."""


_HERE = "tsmemory.transfer.formats"
_LANGCHAIN = "langchain_tsmemory.importers"
_LLAMAINDEX = "llamaindex_tsmemory.importers"

FORMATS: dict[str, Format] = {
    "ai-kit": Format(f"{_HERE}.ai_kit:read", "Redis of @ainative/ai-kit's RedisStore"),
    "chatgpt": Format(f"{_HERE}.chatgpt:read", "ChatGPT's export: the zip, or conversations.json"),
    "claude": Format(f"{_HERE}.claude:read", "Claude's export: the zip, or conversations.json"),
    "langchain-file": Format(
        f"{_LANGCHAIN}:read_file", "file of FileChatMessageHistory", "langchain"
    ),
    "langchain-postgres": Format(
        f"{_LANGCHAIN}:read_postgres", "database of PostgresChatMessageHistory", "langchain"
    ),
    "langchain-redis": Format(
        f"{_LANGCHAIN}:read_redis_json", "Redis of langchain-redis's history", "langchain"
    ),
    "langchain-redis-list": Format(
        f"{_LANGCHAIN}:read_redis_lists", "Redis of langchain-community's history", "langchain"
    ),
    "langchain-sql": Format(
        f"{_LANGCHAIN}:read_sql", "database of SQLChatMessageHistory", "langchain"
    ),
    "langgraph": Format(
        f"{_LANGCHAIN}:read_checkpoints", "database of LangGraph checkpoints", "langchain"
    ),
    "llamaindex-postgres": Format(
        f"{_LLAMAINDEX}:read_postgres", "database of PostgresChatStore", "llamaindex"
    ),
    "llamaindex-redis": Format(
        f"{_LLAMAINDEX}:read_redis", "Redis of RedisChatStore", "llamaindex"
    ),
    "llamaindex-simple": Format(
        f"{_LLAMAINDEX}:read_simple", "file that SimpleChatStore persisted", "llamaindex"
    ),
    "llamaindex-sql": Format(
        f"{_LLAMAINDEX}:read_sql", "database of SQLAlchemyChatStore", "llamaindex"
    ),
    "open-webui": Format(f"{_HERE}.open_webui:read", "Open WebUI's export of chats"),
    "openai": Format(
        f"{_HERE}.openai_chat:read", "file in the OpenAI chat format, fine-tuning files too"
    ),
    "openai-agents": Format(
        f"{_HERE}.openai_agents:read", "database of the OpenAI Agents SDK's SQLiteSession"
    ),
    "picoclaw": Format(f"{_HERE}.picoclaw:read", "directory of picoclaw's JSONL store"),
    "picoclaw-json": Format(
        f"{_HERE}.picoclaw:read_older", "directory of its older sessions/*.json"
    ),
    "sharegpt": Format(f"{_HERE}.sharegpt:read", "file in the ShareGPT format"),
}


def import_from(
    store: Store,
    source: Any,
    *,
    format: str,  # noqa: A002  # what it is called everywhere
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Report:
    """Bring in what other software wrote. May be repeated: see `import_sessions`.

    Args:
        source: a path, a URL, or an open file or client; what fits the format. It is only read.
        format: one of `FORMATS`.
        user_id: whose sessions they become where the source does not say.
        progress: called after every batch of messages.
        options: of the format, as docs/moving.md lists them.

    Returns:
        What was read and written; what could not be read, and what differs from what is stored, is
        in its `problems`.

    Raises:
        InvalidInputError: an unknown format or option, or the source is not what it should be.
        MissingDependencyError: a package that the format needs is not installed.
        BackendError: the source or the store cannot be reached.
    """
    reader = _reader(format)
    names = list(inspect.signature(reader).parameters)[2:]
    unknown = sorted(options.keys() - set(names))
    if unknown:
        takes = f"its options are {', '.join(names)}" if names else "it has no options"
        raise InvalidInputError(f"the format {format} has no option {unknown[0]!r}; {takes}")
    sessions = reader(source, user_id=user_id, **options)
    return import_sessions(store, sessions, origin=format, progress=progress)


def _reader(name: str) -> Callable[..., Any]:
    entry = FORMATS.get(name)
    if entry is None:
        raise InvalidInputError(f"unknown format {name!r}; one of {', '.join(FORMATS)}")
    module, _, function = entry.reader.partition(":")
    try:
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        extra = f'; pip install "tsmemory[{entry.extra}]"' if entry.extra else ""
        raise MissingDependencyError(f"{name}: needs {error.name}{extra}") from error
