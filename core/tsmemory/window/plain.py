"""The common case: messages of plain text whose calls are answered right behind them.

What `groups`, `calls` and `roles` do to such messages is nothing, which one pass over them tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from tsmemory.model import Message
from tsmemory.window.calls import answered_ids, call_ids, says_something

__all__ = ["opens", "shown_as_they_are"]


def opens(message: Message) -> bool:
    """Whether a view may begin at the message: the user says something in it."""
    if message.role != "user":
        return False
    if type(message.content) is str and not message.tool_calls:
        return bool(message.content.strip())
    return not answered_ids(message) and says_something(message)


def shown_as_they_are(messages: Iterable[Message]) -> bool:
    """Whether the view of these messages is certainly these messages, each as it is and in its
    place: the groups need not be found. False also where it takes a closer look."""
    open_ids: list[str] = []
    for message in messages:
        role = message.role
        if role == "tool":
            call = message.tool_call_id or ""
            if call not in open_ids:
                return False
            open_ids.remove(call)
            continue
        content = message.content
        if open_ids or type(content) is not str:
            return False
        if message.tool_calls:
            if role != "assistant":
                return False
            open_ids = [call.id or "" for call in message.tool_calls]
        elif role == "assistant":
            if not content.strip() or (message.extensions and call_ids(message)):
                return False  # it says nothing, or calls a function in the way of long ago
        elif role != "user" or not content.strip():
            return False
    return not open_ids
