"""The OpenAI chat format: ``{"messages": […]}`` per line, in an array, or by itself.

Also without an ``id``, as in fine-tuning files (https://platform.openai.com/docs/guides/fine-tuning):
such a conversation is known by what it says. Its messages may be those of the Chat Completions API
or items of the Responses API.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Problem, ToolCall
from tsmemory.openai_format import from_openai
from tsmemory.transfer.formats.responses import is_item, read_items
from tsmemory.transfer.imported import Imported, mark_of
from tsmemory.transfer.sources import Source, attempt, documents, each, micros_of, read_bytes

__all__ = ["chat_message", "read", "read_messages", "session_id_of"]


def read(source: Source, *, user_id: str) -> Iterator[Imported | Problem]:
    """The conversations of a file."""
    seen: Counter[str] = Counter()
    for where, line in documents(read_bytes(source)):
        problem = Problem(user_id, None, None, where)
        conversation = attempt(lambda: _conversation(line, user_id, where, seen), problem)  # noqa: B023
        yield conversation


def _conversation(line: Any, user_id: str, where: str, seen: Counter[str]) -> Imported:
    if isinstance(line, ValueError):
        raise line
    if isinstance(line, list):
        line = {"messages": line}
    if not isinstance(line, dict) or not isinstance(line.get("messages"), list):
        raise InvalidInputError('not an object with "messages"')
    whose = line.get("user_id")
    whose = whose if isinstance(whose, str) and whose else user_id
    messages, problems = read_messages(line["messages"], whose, where)
    session_id = line.get("id", line.get("session_id"))
    if session_id is None and not messages:
        raise InvalidInputError("it has neither an id nor messages")
    if session_id is None:
        session_id = session_id_of("openai", messages, seen)
    elif isinstance(session_id, (int, str)):
        session_id = str(session_id)
    else:
        raise InvalidInputError(f'its "id" is not text: {session_id!r:.80}')
    title = line.get("title")
    return Imported(
        session_id=session_id,
        user_id=whose,
        messages=messages,
        title=title if isinstance(title, str) else None,
        problems=[p._replace(session_id=session_id) for p in problems],
    )


def session_id_of(origin: str, messages: list[Message], seen: Counter[str]) -> str:
    """An id for a conversation that has none: of what it says, and which of those it is."""
    digest = blake2b(" ".join(map(mark_of, messages)).encode(), digest_size=10).hexdigest()
    seen[digest] += 1
    return f"{origin}-{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else "")


def read_messages(
    raw_messages: list[Any], user_id: str, where: str
) -> tuple[list[Message], list[Problem]]:
    """Messages of the Chat Completions API, or items of the Responses API."""
    if any(is_item(raw) for raw in raw_messages):
        return read_items(raw_messages, user_id, where)

    def place(number: int) -> Problem:
        return Problem(user_id, None, None, f"{where}, message {number}")

    return each(raw_messages, chat_message, place)


def chat_message(raw: Any) -> Message:
    """A message of the OpenAI chat format, also as others write it: calls whose arguments are an
    object, custom tools, the legacy ``function_call``, calls without ``function``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"not a message: {raw!r:.80}")
    fields = dict(raw)
    calls = fields.pop("tool_calls", None)
    legacy = fields.pop("function_call", None)
    if isinstance(legacy, Mapping) and not calls:
        calls = [{"id": None, "type": "function", "function": legacy}]
    if calls is not None and not isinstance(calls, list):
        raise InvalidInputError(f"tool_calls is not a list: {calls!r:.80}")
    create_time = micros_of(fields.get("created_at") or fields.get("timestamp"))
    if calls and all(_is_usual(call) for call in calls):
        return from_openai({**fields, "tool_calls": calls}, create_time=create_time)
    message = from_openai(fields, create_time=create_time)
    if not calls:
        return message
    parsed = tuple(_call(call) for call in calls)
    extensions = {**message.extensions}
    ours = dict(extensions.get("openai") or {})
    ours.pop("content", None)
    extensions = {**extensions, "openai": ours} if ours else {}
    return Message(
        message.role,
        message.content,
        message.message_id,
        create_time,
        message.name,
        parsed,
        message.tool_call_id,
        extensions=extensions,
    )


def _is_usual(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return (
        isinstance(function, Mapping)
        and isinstance(function.get("arguments"), str)
        and isinstance(call.get("id"), str)
        and isinstance(function.get("name"), str)
    )


def _call(raw: Any) -> ToolCall:
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"not a tool call: {raw!r:.80}")
    body = raw.get("function") or raw.get("custom") or raw
    if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
        raise InvalidInputError(f"a tool call without a name: {raw!r:.80}")
    arguments = body.get("arguments", body.get("input", body.get("args")))
    call_id = raw.get("id") or raw.get("call_id")
    return ToolCall(
        None if call_id is None else str(call_id), body["name"], arguments_of(arguments)
    )


def arguments_of(value: Any) -> dict[str, Any] | str:
    """A call's arguments, from JSON text, an object, or whatever else was written."""
    if isinstance(value, dict):
        return value
    if value is None:
        return {}
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, dict) else value
