"""The Redis keys of @ainative/ai-kit's ``RedisStore`` (github.com/AINative-Studio/ai-kit,
``packages/core/src/store``): ``{keyPrefix}:{conversationId}`` is a string of JSON with
``conversationId``, ``messages`` (``id``, ``role``, ``content``, ``timestamp`` in ms) and
``metadata`` (``createdAt``, ``updatedAt`` in ms, ``ttl`` in seconds, and the user's own)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Problem
from tsmemory.transfer.formats.openai_chat import chat_message
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import (
    Source,
    attempt,
    glob_of,
    json_in,
    mapping_of,
    micros_of,
    open_redis,
    text_of,
)

__all__ = ["read"]

_OWN = frozenset(
    {"conversationId", "createdAt", "updatedAt", "messageCount", "metadata", "title", "ttl"}
)
_FIELDS = frozenset({"id", "role", "content", "timestamp", "metadata", "name", "toolCalls"})


def read(
    source: Source, *, user_id: str, key_prefix: str = "aikit:conversation"
) -> Iterator[Imported | Problem]:
    """The conversations under a prefix.

    Args:
        key_prefix: as it was given to the store.
    """
    prefix = f"{key_prefix}:"
    with open_redis(source) as client:
        for key in sorted(client.scan_iter(match=glob_of(prefix)), key=_name):
            name = _name(key)
            problem = Problem(user_id, name.removeprefix(prefix), None, "not what ai-kit writes")
            if _name(client.type(key)) != "string":
                yield problem._replace(what=f"{name} is not a string")
                continue
            value, ttl_ms = client.get(key), client.pttl(key)
            if value is None:  # it expired meanwhile
                continue
            ttl = ttl_ms / 1000 if ttl_ms > 0 else None
            yield attempt(
                lambda: _conversation(value, name.removeprefix(prefix), user_id, ttl),  # noqa: B023
                problem,
            )


def _name(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _conversation(value: bytes | str, name: str, user_id: str, ttl: float | None) -> Imported:
    raw = json_in(text_of(value))
    metadata = mapping_of(raw.get("metadata"))
    own = mapping_of(metadata.get("metadata"))
    whose = metadata.get("userId") or own.get("userId")
    whose = whose if isinstance(whose, str) else user_id
    messages: list[Message] = []
    ids: list[str | None] = []
    problems: list[Problem] = []
    for number, raw_message in enumerate(raw["messages"], 1):
        problem = Problem(whose, name, None, f"message {number}")
        message = attempt(lambda: _message(raw_message), problem)  # noqa: B023  # called at once
        if isinstance(message, Problem):
            problems.append(message)
            continue
        messages.append(message)
        ids.append(raw_message["id"] if isinstance(raw_message.get("id"), str) else None)
    title = metadata.get("title")
    return Imported(
        session_id=name,
        user_id=whose,
        messages=messages,
        ids=ids,
        title=title if isinstance(title, str) else None,
        metadata={k: v for k, v in {**metadata, **own}.items() if k not in _OWN},
        create_time=micros_of(metadata.get("createdAt")),
        update_time=micros_of(metadata.get("updatedAt")),
        ttl=ttl,
        problems=problems,
    )


def _message(raw: Any) -> Message:
    if not isinstance(raw, dict):
        raise InvalidInputError(f"not a message: {raw!r:.80}")
    fields = {k: raw[k] for k in ("role", "content", "name") if raw.get(k) is not None}
    if raw.get("toolCalls"):
        fields["tool_calls"] = raw["toolCalls"]
    message = chat_message({**fields, "timestamp": raw.get("timestamp")})
    own = mapping_of(raw.get("metadata"))
    others = {k: v for k, v in raw.items() if k not in _FIELDS}
    return Message(
        message.role,
        message.content,
        message.message_id,
        message.create_time,
        message.name,
        message.tool_calls,
        message.tool_call_id,
        metadata={**others, **own},
    )
