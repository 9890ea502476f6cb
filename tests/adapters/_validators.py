"""What each provider's API refuses in a request, written from its documentation.

Each function takes what an integration would send and gives the faults in it, empty where the API
would take it. Sources, read November 2026:

- OpenAI Chat: platform.openai.com/docs/guides/function-calling and the API reference of messages.
- OpenAI Responses: the same guide and /docs/guides/reasoning ("keep reasoning items with their
  function calls"); the errors "No tool output found for function call", "reasoning … without its
  required following item", "Duplicate item found".
- Anthropic: docs.anthropic.com, Messages, "Implement tool use", "Extended thinking".
- Gemini: ai.google.dev/gemini-api/docs/function-calling, and the error "ensure that function call
  turn comes immediately after a user turn or after a function response turn".
- Mistral: mistral-common's `MistralRequestValidator` (roles that may follow each role).
- Ollama: templates take any order; messages have to say something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["anthropic", "gemini", "mistral", "ollama", "openai_chat", "openai_responses"]

Faults = list[str]


def _says(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return any(
        not isinstance(b, Mapping) or b.get("type") != "text" or (b.get("text") or "").strip()
        for b in content or ()
    )


# -- OpenAI ------------------------------------------------------------------------------------


def openai_chat(messages: Sequence[Mapping[str, Any]]) -> Faults:
    """Chat Completions: results right behind their calls, nothing empty, known roles."""
    faults: Faults = []
    open_ids: list[Any] = []
    legacy: str | None = None
    for i, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            if message.get("tool_call_id") in open_ids:
                open_ids.remove(message["tool_call_id"])
            else:
                faults.append(f"{i}: a tool message that answers no call before it")
            continue
        if role == "function":
            if legacy != message.get("name"):
                faults.append(f"{i}: a function message that answers no function_call")
            legacy = None
            continue
        if open_ids:
            faults.append(f"{i}: calls without results: {open_ids}")
            open_ids = []
        if legacy is not None:
            faults.append(f"{i}: function_call {legacy} without a result")
            legacy = None
        calls = message.get("tool_calls") or []
        if role == "assistant":
            if not calls and not message.get("function_call") and not _says(message.get("content")):
                faults.append(f"{i}: an assistant message that says nothing")
            open_ids = [call["id"] for call in calls]
            legacy = (message.get("function_call") or {}).get("name")
        elif role not in ("system", "developer", "user"):
            faults.append(f"{i}: unknown role {role}")
        elif not _says(message.get("content")):
            faults.append(f"{i}: an empty {role} message")
    if open_ids or legacy:
        faults.append(f"at the end: calls without results: {open_ids or legacy}")
    return faults


_ANSWERED_BY = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "apply_patch_call": "apply_patch_call_output",
}
_REASONED = {
    *_ANSWERED_BY, "message", "web_search_call", "code_interpreter_call", "file_search_call",
    "image_generation_call", "mcp_call", "reasoning",
}  # fmt: skip


def openai_responses(items: Sequence[Mapping[str, Any]]) -> Faults:
    """Responses: every call has one output behind it, reasoning has its item behind it."""
    faults: Faults = []
    calls: dict[str, str] = {}
    answered: set[str] = set()
    ids: set[str] = set()
    for i, item in enumerate(items):
        kind = item.get("type") or ("message" if "role" in item else None)
        name = item.get("id")
        if isinstance(name, str):
            if name in ids:
                faults.append(f"{i}: duplicate item {name}")
            ids.add(name)
        if kind in _ANSWERED_BY:
            calls[item["call_id"]] = _ANSWERED_BY[kind]
        elif kind in _ANSWERED_BY.values():
            call = item["call_id"]
            if calls.get(call) != kind:
                faults.append(f"{i}: {kind} of {call} without its call")
            if call in answered:
                faults.append(f"{i}: a second {kind} of {call}")
            answered.add(call)
        elif kind == "reasoning":
            follower = items[i + 1] if i + 1 < len(items) else {}
            found = follower.get("type") or ("message" if "role" in follower else None)
            if found not in _REASONED or follower.get("role") in ("user", "system", "developer"):
                faults.append(f"{i}: reasoning {name} without its required following item")
        elif kind == "message" and not item.get("content"):
            faults.append(f"{i}: a message without content")
    faults += [f"no tool output found for {call}" for call in calls if call not in answered]
    return faults


# -- Anthropic ---------------------------------------------------------------------------------

_SERVER_RESULTS = frozenset(
    {"web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
     "mcp_tool_result", "bash_code_execution_tool_result"}
)  # fmt: skip
_BLOCKS = _SERVER_RESULTS | {
    "text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result",
    "server_tool_use", "mcp_tool_use", "search_result", "container_upload",
}  # fmt: skip


def anthropic(payload: Mapping[str, Any]) -> Faults:
    """Messages: begins with the user, results in the next message and first in it, no blank text,
    no thinking at an end, server tools with their results."""
    faults: Faults = []
    messages = list(payload["messages"])
    merged: list[tuple[str, list[Any]]] = []
    for message in messages:  # the API joins neighbours of one role
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if merged and merged[-1][0] == message["role"]:
            merged[-1][1].extend(blocks)
        else:
            merged.append((message["role"], blocks))
    if merged and merged[0][0] != "user":
        faults.append("the first message is not the user's")
    pending: list[Any] = []
    for i, (role, blocks) in enumerate(merged):
        if role not in ("user", "assistant"):
            faults.append(f"{i}: role {role}")
        if not blocks:
            faults.append(f"{i}: empty content")
        faults += _anthropic_blocks(i, role, blocks)
        results = [b.get("tool_use_id") for b in blocks if b.get("type") == "tool_result"]
        if pending and sorted(map(str, results)) != sorted(map(str, pending)):
            faults.append(f"{i}: tool_use {pending} answered by {results}")
        if results and not pending:
            faults.append(f"{i}: tool_result without tool_use in the previous message")
        kinds = [b.get("type") for b in blocks]
        if "tool_result" in kinds and kinds[: kinds.count("tool_result")].count(
            "tool_result"
        ) != kinds.count("tool_result"):
            faults.append(f"{i}: tool_result blocks have to come first")
        pending = [b["id"] for b in blocks if b.get("type") == "tool_use"]
    if pending:
        faults.append(f"at the end: tool_use {pending} without results")
    return faults


def _anthropic_blocks(i: int, role: str, blocks: Sequence[Mapping[str, Any]]) -> Faults:
    faults: Faults = []
    for j, block in enumerate(blocks):
        kind = block.get("type")
        if kind not in _BLOCKS:
            faults.append(f"{i}.{j}: unknown block {kind}")
        if kind == "text" and not (block.get("text") or "").strip():
            faults.append(f"{i}.{j}: blank text")
    if role == "assistant" and blocks:
        if blocks[-1].get("type") in ("thinking", "redacted_thinking"):
            faults.append(f"{i}: the final block is thinking")
        called = [b["id"] for b in blocks if b.get("type") in ("server_tool_use", "mcp_tool_use")]
        found = [b.get("tool_use_id") for b in blocks if b.get("type") in _SERVER_RESULTS]
        if sorted(map(str, called)) != sorted(map(str, found)):
            faults.append(f"{i}: server tools {called} with results {found}")
    return faults


# -- Gemini ------------------------------------------------------------------------------------


def gemini(contents: Sequence[Mapping[str, Any]]) -> Faults:
    """generateContent: function calls follow the user or a function's response, and are answered by
    as many responses in the next content; it ends with the user's turn."""
    faults: Faults = []
    previous: Mapping[str, Any] | None = None
    pending = 0
    for i, content in enumerate(contents):
        parts = content.get("parts") or []
        if not parts:
            faults.append(f"{i}: no parts")
        calls = sum(1 for p in parts if p.get("function_call"))
        responses = sum(1 for p in parts if p.get("function_response"))
        if pending != responses:
            faults.append(f"{i}: {pending} function calls, {responses} responses")
        if calls and (previous is None or previous.get("role") == "model"):
            faults.append(f"{i}: a function call turn behind {previous and previous.get('role')}")
        pending = calls
        previous = content
    if pending:
        faults.append("at the end: function calls without responses")
    if contents and contents[0].get("role") == "model":
        faults.append("the first content is the model's")
    return faults


# -- Mistral, Ollama ---------------------------------------------------------------------------

_MAY_FOLLOW = {
    None: {"system", "user"},
    "system": {"system", "user", "assistant"},
    "user": {"assistant", "system", "user"},
    "assistant": {"assistant", "user", "tool", "system"},
    "tool": {"assistant", "tool"},
}


def mistral(messages: Sequence[Mapping[str, Any]], *, strict: bool = True) -> Faults:
    """Chat: roles in an order that the validator takes, as many results as calls, ends with the
    user or a tool; `strict`: user and assistant alternate, as templates of open models want."""
    faults = openai_chat(messages)
    previous = None
    for i, message in enumerate(messages):
        role = message["role"]
        if role not in _MAY_FOLLOW[previous]:
            faults.append(f"{i}: {role} behind {previous}")
        if strict and role == previous and role in ("user", "assistant"):
            faults.append(f"{i}: two messages of {role}")
        previous = role
    if messages and previous not in ("user", "tool"):
        faults.append(f"the last message is of {previous}")
    return faults


def ollama(messages: Sequence[Mapping[str, Any]]) -> Faults:
    """Chat: every message says something, and results are behind calls that have them."""
    faults: Faults = []
    calls = 0
    for i, message in enumerate(messages):
        role = message["role"]
        if role == "tool":  # of a call that did not parse, which its integration does not send
            calls = max(0, calls - 1)
            continue
        if calls:
            faults.append(f"{i}: {calls} calls without results")
        calls = len(message.get("tool_calls") or ())
        answered = i + 1 < len(messages) and messages[i + 1]["role"] == "tool"
        if (
            not calls
            and not answered
            and not _says(message.get("content"))
            and not message.get("images")
        ):
            faults.append(f"{i}: an empty message of {role}")
    if calls:
        faults.append("at the end: calls without results")
    return faults
