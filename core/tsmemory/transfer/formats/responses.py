"""Items of OpenAI's Responses API, as its ``input`` and the sessions of the Agents SDK hold them.

A message of ours is one turn: the reasoning of a model goes with the call or text that follows it,
calls made together are one message, and the output of a call is a tool's message. The items
themselves are kept in ``extensions["openai_responses"]``, so that nothing of them is lost
(https://platform.openai.com/docs/api-reference/responses/input-items).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message, Problem, ToolCall
from tsmemory.transfer.sources import attempt

__all__ = ["is_item", "read_items"]

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def is_item(raw: Any) -> bool:
    """Whether this is an item of the Responses API, and not a message of Chat Completions."""
    if not isinstance(raw, Mapping):
        return False
    content = raw.get("content")
    parts = content if isinstance(content, list) else []
    types = [part.get("type") for part in parts if isinstance(part, Mapping)]
    return isinstance(raw.get("type"), str) or any(t in _TEXTS[:2] for t in types)


def read_items(entries: list[Any], user_id: str, where: str) -> tuple[list[Message], list[Problem]]:
    """The messages that the items are; what cannot be read among them is reported."""
    messages: list[Message] = []
    problems: list[Problem] = []
    turn: list[Mapping[str, Any]] = []
    for number, raw in enumerate(entries, 1):
        problem = Problem(user_id, None, None, f"{where}, item {number}")
        kind = attempt(lambda: _kind(raw), problem)  # noqa: B023  # called at once
        if isinstance(kind, Problem):
            problems.append(kind)
            continue
        if turn and not (kind == "assistant" and _continues(turn)):
            _finish(turn, messages, problems, problem)
            turn = []
        if kind == "assistant":
            turn.append(raw)
        else:
            role = kind
            message = attempt(lambda: _single(raw, role), problem)  # noqa: B023
            (problems if isinstance(message, Problem) else messages).append(message)  # type: ignore[arg-type]
        if turn and raw.get("type", "message") == "message":
            _finish(turn, messages, problems, problem)
            turn = []
    if turn:
        _finish(turn, messages, problems, Problem(user_id, None, None, where))
    return messages, problems


def _kind(raw: Any) -> str:
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"not an item: {raw!r:.80}")
    kind = raw.get("type", "message")
    if kind in _OUTPUTS or (isinstance(kind, str) and kind.endswith("_call_output")):
        return "tool"
    if kind == "message":
        if not isinstance(raw.get("role"), str):
            raise InvalidInputError("a message item without a role")
        return str(raw["role"])
    if not isinstance(kind, str):
        raise InvalidInputError(f"an item of no type: {raw!r:.80}")
    return "assistant"


def _continues(turn: list[Mapping[str, Any]]) -> bool:
    return bool(turn[-1].get("type", "message") != "message")


def _finish(
    turn: list[Mapping[str, Any]],
    messages: list[Message],
    problems: list[Problem],
    problem: Problem,
) -> None:
    entries = list(turn)
    message = attempt(lambda: _assistant(entries), problem)
    (problems if isinstance(message, Problem) else messages).append(message)  # type: ignore[arg-type]


def _single(raw: Mapping[str, Any], kind: str) -> Message:
    extensions = {"openai_responses": {"items": [dict(raw)]}}
    if kind == "tool":
        output = raw.get("output")
        call_id = raw.get("call_id")
        return Message(
            "tool",
            output if isinstance(output, str) else _blocks(output),
            tool_call_id=None if call_id is None else str(call_id),
            extensions=extensions if not isinstance(output, str) else {},
        )
    content = raw.get("content")
    if isinstance(content, str):
        return Message(kind, content)
    return Message(kind, _blocks(content), extensions=extensions)


def _assistant(entries: list[Mapping[str, Any]]) -> Message:
    blocks: list[Block] = []
    calls: list[ToolCall] = []
    for entry in entries:
        kind = entry.get("type", "message")
        if kind == "message":
            content = entry.get("content")
            blocks += (
                [{"type": "text", "text": content}]
                if isinstance(content, str)
                else _blocks(content)
            )
        elif kind == "reasoning":
            parts = [*(entry.get("summary") or ()), *(entry.get("content") or ())]
            texts = [part["text"] for part in parts if isinstance(part, Mapping) and "text" in part]
            if texts:
                blocks.append({"type": "reasoning", "reasoning": "\n\n".join(map(str, texts))})
        elif kind in _CALLS:
            call_id = entry.get("call_id", entry.get("id"))
            arguments = _arguments(entry.get(_CALLS[str(kind)]))
            calls.append(
                ToolCall(None if call_id is None else str(call_id), str(entry["name"]), arguments)
            )
        else:
            blocks.append({"type": "non_standard", "value": dict(entry)})
    text_only = len(blocks) == 1 and blocks[0].get("type") == "text"
    plain = text_only and len(entries) == 1 and isinstance(entries[0].get("content"), str)
    return Message(
        "assistant",
        str(blocks[0]["text"]) if plain else blocks or "",
        tool_calls=tuple(calls),
        extensions={} if plain else {"openai_responses": {"items": [dict(i) for i in entries]}},
    )


def _arguments(value: Any) -> dict[str, Any] | str:
    if isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return str(value) if value is not None else {}
    return parsed if isinstance(parsed, dict) else str(value)


def _blocks(content: Any) -> list[Block]:
    if content is None:
        return []
    if not isinstance(content, list):
        return [{"type": "text", "text": content if isinstance(content, str) else str(content)}]
    blocks: list[Block] = []
    for part in content:
        if isinstance(part, str):
            blocks.append({"type": "text", "text": part})
            continue
        if not isinstance(part, Mapping):
            raise InvalidInputError(f"not a part of a content: {part!r:.80}")
        kind = part.get("type")
        if kind in _TEXTS and isinstance(part.get("text"), str):
            blocks.append({"type": "text", "text": part["text"]})
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            blocks.append({"type": "refusal", "refusal": part["refusal"]})
        elif kind == "input_image" and isinstance(part.get("image_url"), str):
            blocks.append({"type": "image", "url": part["image_url"]})
        else:
            blocks.append({"type": "non_standard", "value": dict(part)})
    return blocks
