"""Forms in which a message is shown that are not the stored one: notes, stubs, merged runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tsmemory.model import Block, Message
from tsmemory.window.calls import call_ids

__all__ = ["INTERRUPTED", "merged", "note", "shortened", "stub", "summary_message"]

_NOTE = ("<system>\n", "\n</system>")
_LEAST_STUBBED = 200  # characters: a shorter result is hardly longer than its stub
INTERRUPTED = "(This turn was interrupted.)"
"""What the assistant says between a tool's result and the next question, where `merge_roles` asks
for turns that alternate."""


def note(message: Message) -> Message:
    """An instruction as a user message, for a place where providers refuse a system message."""
    opening, closing = _NOTE
    content = message.content
    if isinstance(content, str):
        wrapped: str | list[Block] = f"{opening}{content}{closing}"
    else:
        wrapped = [_text(opening.strip()), *content, _text(closing.strip())]
    return Message(
        "user",
        wrapped,
        message_id=message.message_id,
        create_time=message.create_time,
        metadata=message.metadata,
    )


def summary_message(summary: str) -> Message:
    """The session's summary as an instruction."""
    return Message.system(
        f"Summary of the conversation so far:\n{summary}", message_id="tsmemory:summary"
    )


def stub(message: Message) -> Message:
    """A tool result as one line that says where the whole is; a short one as it is."""
    size = _size(message)
    if not _is_text(message) or size < _LEAST_STUBBED:
        return message
    return _result(
        message, f"[Result of {size} characters, not repeated here: message {message.message_id}]"
    )


def shortened(message: Message, tokens: int, count: Callable[[Message], int]) -> Message:
    """The beginning of a tool result, as much as takes `tokens`, and how much is left out."""
    if count(message) <= tokens or not _is_text(message):
        return message
    text = message.text
    low, high, best = 0, len(text), _cut(message, "", len(text))
    while low <= high:
        middle = (low + high) // 2
        attempt = _cut(message, text[:middle], len(text) - middle)
        if count(attempt) <= tokens:
            low, best = middle + 1, attempt
        else:
            high = middle - 1
    return best


def _cut(message: Message, beginning: str, left_out: int) -> Message:
    return _result(
        message, f"{beginning}[… {left_out} more characters: message {message.message_id}]"
    )


def _result(message: Message, text: str) -> Message:
    return msgspec.structs.replace(message, content=text, extensions={})


def _is_text(message: Message) -> bool:
    """Whether a result may be given other text: not one of a provider's own tool, whose API wants
    its form (a screenshot, the output of a custom tool)."""
    if message.role not in ("tool", "function"):
        return False
    if any("additional_kwargs" in e for e in message.extensions.values() if isinstance(e, dict)):
        return False
    return isinstance(message.content, str) or not any(
        block.get("type") == "non_standard"
        and str((block.get("value") or {}).get("type", "")).endswith("_output")
        for block in message.content
        if isinstance(block.get("value", {}), dict)
    )


def _size(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(str(block)) for block in message.content)


def merged(messages: Sequence[Message]) -> list[Message]:
    """`messages` with neighbours of one role made one, and a word of the assistant between a tool's
    result and a user message. A message with calls ends a run: its results follow it."""
    out: list[Message] = []
    for message in messages:
        previous = out[-1] if out else None
        if previous is None:
            out.append(message)
        elif previous.role == message.role and previous.role != "tool" and not call_ids(previous):
            out[-1] = _joined(previous, message)
        elif previous.role in ("tool", "function") and message.role == "user":
            name = f"{previous.message_id}#interrupted"
            out += [Message.assistant(INTERRUPTED, message_id=name), message]
        else:
            out.append(message)
    return out


def _joined(first: Message, second: Message) -> Message:
    content: str | list[Block]
    if isinstance(first.content, str) and isinstance(second.content, str):
        content = "\n\n".join(text for text in (first.content, second.content) if text)
    else:
        content = [*_blocks(first), *_blocks(second)]
    return Message(
        first.role,
        content,
        message_id=first.message_id,
        create_time=first.create_time,
        name=first.name,
        tool_calls=second.tool_calls,
        metadata=first.metadata,
        extensions=second.extensions if call_ids(second) else first.extensions,
    )


def _blocks(message: Message) -> list[Block]:
    if isinstance(message.content, str):
        return [_text(message.content)] if message.content else []
    return message.content


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
