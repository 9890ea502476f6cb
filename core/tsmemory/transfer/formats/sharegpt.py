"""The ShareGPT format: ``{"id": …, "conversations": [{"from": "human", "value": …}, …]}``, in an
array or one per line. The names of roles are those that its tools accept
(https://github.com/lm-sys/FastChat, https://llamafactory.readthedocs.io)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Problem, ToolCall
from tsmemory.transfer.formats.openai_chat import arguments_of, session_id_of
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import Source, attempt, documents, each, json_in, read_bytes

__all__ = ["read"]

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def read(source: Source, *, user_id: str) -> Iterator[Imported | Problem]:
    """The conversations of a file."""
    seen: Counter[str] = Counter()
    for where, line in documents(read_bytes(source)):
        problem = Problem(user_id, None, None, where)
        yield attempt(lambda: _conversation(line, user_id, where, seen), problem)  # noqa: B023


def _conversation(line: Any, user_id: str, where: str, seen: Counter[str]) -> Imported:
    if isinstance(line, ValueError):
        raise line
    if isinstance(line, list):
        line = {"conversations": line}
    turns = line.get("conversations", line.get("conversation", line.get("items")))
    if not isinstance(turns, list):
        raise InvalidInputError('not an object with "conversations"')

    def place(number: int) -> Problem:
        return Problem(user_id, None, None, f"{where}, message {number}")

    messages, problems = each(turns, _message, place)
    if isinstance(line.get("system"), str) and line["system"]:
        messages.insert(0, Message("system", line["system"]))
    session_id = line.get("id")
    if not isinstance(session_id, (str, int)) or session_id == "":
        session_id = session_id_of("sharegpt", messages, seen)
    title = line.get("title")
    return Imported(
        session_id=str(session_id),
        user_id=user_id,
        messages=messages,
        title=title if isinstance(title, str) else None,
        problems=[p._replace(session_id=str(session_id)) for p in problems],
    )


def _message(turn: Any) -> Message:
    name = str(turn.get("from", turn.get("role"))).lower()
    value = turn.get("value", turn.get("content"))
    role = _ROLES.get(name)
    if role is None:
        raise InvalidInputError(f"nobody is called {name!r}")
    if not isinstance(value, str):
        raise InvalidInputError(f"its value is not text: {value!r:.80}")
    if name == "function_call":
        try:
            raw = json_in(value)
            calls = raw if isinstance(raw, list) else [raw]
            return Message(
                role,
                "",
                tool_calls=tuple(
                    ToolCall(None, str(call["name"]), arguments_of(call.get("arguments")))
                    for call in calls
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return Message(role, value)
    return Message(role, value)
