"""Generated conversations: every kind of message and call, interrupted anywhere."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from tsmemory import Message, ToolCall

KINDS = ("user", "assistant", "call", "call", "result", "result", "system", "empty", "server")


@st.composite
def conversations(draw: st.DrawFn, *, kinds: Any = KINDS, size: int = 25) -> list[Message]:
    """Parallel calls, interrupted calls, late and lost results, instructions in the middle, calls
    of the provider's own tools, empty messages, ids used again."""
    messages: list[Message] = []
    pending: list[str] = []
    for i in range(draw(st.integers(0, size))):
        kind = draw(st.sampled_from(kinds))
        if kind == "call":
            ids = [f"c{i}", f"d{i}"][: draw(st.integers(1, 2))]
            pending += ids
            messages.append(_call(draw, ids))
        elif kind == "result":
            late = draw(st.booleans())
            call = pending.pop(0 if late else -1) if pending else "nobody"
            messages.append(Message.tool(f"result {i}", tool_call_id=call, name="f"))
        elif kind == "server":
            messages.append(_server(draw, i))
        elif kind == "empty":
            messages.append(Message(draw(st.sampled_from(["assistant", "user", "system"])), " "))
        elif kind == "system":
            messages.append(Message(draw(st.sampled_from(["system", "developer"])), f"rule {i}"))
        else:
            messages.append(Message(kind, f"{kind} {i}"))
    return [
        msgspec.structs.replace(m, create_time=i, message_id=f"m{i}")
        for i, m in enumerate(messages)
    ]


def _call(draw: st.DrawFn, ids: list[str]) -> Message:
    calls = [ToolCall(call, "f", {"x": 1}) for call in ids]
    text = draw(st.sampled_from(["", "let me see"]))
    if draw(st.booleans()):
        return Message.assistant(text, tool_calls=calls)
    blocks: list[dict[str, Any]] = [{"type": "reasoning", "reasoning": "hm"}]
    blocks += [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_call", "id": c.id, "name": "f", "args": {"x": 1}} for c in calls]
    return Message.assistant(blocks, tool_calls=calls)


def _server(draw: st.DrawFn, i: int) -> Message:
    blocks: list[dict[str, Any]] = [
        {"type": "server_tool_call", "id": f"s{i}", "name": "web_search", "args": {"query": "x"}}
    ]
    if draw(st.booleans()):
        blocks.append({"type": "server_tool_result", "tool_call_id": f"s{i}", "output": []})
    if draw(st.booleans()):
        blocks.append({"type": "text", "text": "found"})
    return Message.assistant(blocks)
