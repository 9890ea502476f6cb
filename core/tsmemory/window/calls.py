"""Which messages call something, and which answer: the calls of every provider.

A call is not one field. What has to be followed by a result:

- a neutral tool call, and its block in the content;
- a provider's own call that the application runs, as a block: computer use, ``apply_patch``,
  shells, custom tools, client-side tool search (OpenAI's Responses API, which names it by
  ``call_id``);
- OpenAI's legacy ``function_call``, which is answered by a message of role ``function``.

A result is a message of role ``tool`` or ``function``, or a block of a user message
(``apply_patch_call_output``, Anthropic's ``tool_result``). A call that the provider runs itself
(``server_tool_call``) has its result in the same message, or both are left out. Reasoning that
leads to a call which is left out is left out with it: providers refuse it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from tsmemory.model import Block, Message

__all__ = [
    "answered_ids",
    "call_ids",
    "legacy_extensions",
    "legacy_name",
    "plain_call_ids",
    "says_something",
    "tidy",
    "with_answers",
    "with_calls",
]

T = TypeVar("T")

_CALL_ID = {
    "tool_call": "id",
    "invalid_tool_call": "id",
    "tool_use": "id",
    "function_call": "call_id",
    "custom_tool_call": "call_id",
    "computer_call": "call_id",
    "local_shell_call": "call_id",
    "shell_call": "call_id",
    "apply_patch_call": "call_id",
    "tool_search_call": "call_id",
}
"""Blocks that are calls, and which of their keys the result names."""
_OWN_CALLS = frozenset(_CALL_ID) - {"tool_call", "invalid_tool_call", "tool_use", "function_call"}
"""Those that a neutral tool call cannot stand for."""
_SERVER_CALLS = frozenset({"server_tool_call", "server_tool_use", "mcp_tool_use"})
_REASONING = frozenset({"reasoning", "thinking", "redacted_thinking", "reasoning_content"})
_LEGACY = "function_call:"
"""Before the name in a legacy call's id, which it has none of its own."""


def _raw(block: Block) -> Block:
    """The block, or the provider's own that it carries."""
    if block.get("type") == "non_standard" and isinstance(block.get("value"), dict):
        return block["value"]  # type: ignore[no-any-return]  # a dict, as just seen
    return block


def _call_of(block: Block) -> str | None:
    """The id of the client-side call that a block makes; None where it makes none."""
    raw = _raw(block)
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _CALL_ID:
        return None
    call = raw.get(_CALL_ID[kind])
    if kind == "tool_search_call" and (call is None or raw.get("execution") == "server"):
        return None
    if kind in ("tool_call", "invalid_tool_call"):
        return str(call or "")
    return call if isinstance(call, str) else None


def _result_of(block: Block) -> str | None:
    """The id of the client-side call that a block answers; None where it answers none."""
    raw = _raw(block)
    kind = raw.get("type")
    if kind == "tool_result":
        call = raw.get("tool_use_id")
    elif isinstance(kind, str) and (kind.endswith("_call_output") or kind == "tool_search_output"):
        call = raw.get("call_id")
    else:
        return None
    return call if isinstance(call, str) else None


def _is_reasoning(block: Block) -> bool:
    return _raw(block).get("type") in _REASONING


def call_ids(message: Message) -> list[str]:
    """The ids of the calls that results have to follow, in order; "" for one without an id."""
    ids = [call.id or "" for call in message.tool_calls]
    if message.role != "assistant":
        return ids
    if not isinstance(message.content, str):
        neutral = set(ids)
        inside = {_result_of(block) for block in message.content}
        for block in message.content:
            call = _call_of(block)
            if call is not None and call not in neutral and call not in inside:
                ids.append(call)
    if not ids and message.extensions:
        name = _legacy_name(message)
        if name is not None:
            ids.append(_LEGACY + name)
    return ids


def plain_call_ids(message: Message) -> set[str]:
    """The ids of the calls that a text can answer: a provider's own tools want their own form."""
    own: set[str | None] = set()
    if not isinstance(message.content, str):
        own = {_call_of(b) for b in message.content if _raw(b).get("type") in _OWN_CALLS}
    return set(call_ids(message)) - own


def answered_ids(message: Message) -> list[str]:
    """The ids of the calls that the message answers."""
    if message.role == "tool":
        return [message.tool_call_id or ""]
    if message.role == "function":
        return [_LEGACY + (message.name or "")]
    if message.role == "user" and not isinstance(message.content, str):
        return [call for block in message.content if (call := _result_of(block)) is not None]
    return []


def legacy_name(call: str) -> str | None:
    """The function's name, where the call id is one that `call_ids` gives to a legacy call."""
    return call[len(_LEGACY) :] if call.startswith(_LEGACY) else None


def with_answers(message: Message, ids: Iterable[str]) -> Message:
    """A user message with those of its result blocks that answer `ids`, and all else."""
    calls = set(ids)
    content = [
        b for b in message.content if isinstance(b, dict) and _result_of(b) in {None, *calls}
    ]
    return msgspec.structs.replace(message, content=content)


def with_calls(message: Message, ids: Sequence[str], *, alone: bool = False) -> Message:
    """`message` with those of its calls that `ids` names, each as often.

    Where one id stands on two calls, the first are kept: results go to them.

    Args:
        alone: the rest of the message is shown elsewhere: give nothing but the calls.
    """
    calls = _keep(message.tool_calls, ids, lambda call: call.id or "")
    content = message.content
    if alone:
        blocks = [] if isinstance(content, str) else content
        own = [block for block in blocks if _raw(block).get("type") in _OWN_CALLS]
        return Message(
            message.role,
            _keep(own, ids, _call_of) or "",
            message_id=f"{message.message_id}#{ids[0] if ids else ''}",
            create_time=message.create_time,
            tool_calls=tuple(calls),
            extensions=legacy_extensions(message),
        )
    if not isinstance(content, str):
        inside = {_result_of(block) for block in content}
        content = _without_calls(
            content, ids, lambda b: None if (call := _call_of(b)) in inside else call
        )
    extensions = message.extensions
    if _LEGACY + (_legacy_name(message) or "") not in ids:
        extensions = _without_legacy(extensions)
    return msgspec.structs.replace(
        message, tool_calls=tuple(calls), content=content, extensions=extensions
    )


def _keep(candidates: Sequence[T], ids: Sequence[str], id_of: Callable[[T], str | None]) -> list[T]:
    """The first candidates that have these ids, as many of each as `ids` holds."""
    open_ids, chosen = list(ids), []
    for candidate in candidates:
        call = id_of(candidate)
        if call is not None and call in open_ids:
            open_ids.remove(call)
            chosen.append(candidate)
    return chosen


def _without_calls(
    content: Sequence[Block], ids: Sequence[str], id_of: Callable[[Block], str | None]
) -> list[Block]:
    """`content` without the call blocks that `ids` does not name, and without the reasoning that
    led to them alone."""
    open_ids = list(ids)
    removed: set[int] = set()
    for i, block in enumerate(content):
        call = id_of(block)
        if call is None:
            continue
        if call in open_ids:
            open_ids.remove(call)
        else:
            removed.add(i)
    for i in sorted(removed):
        after = next((b for k, b in enumerate(content[i:], i) if k not in removed), None)
        if after is not None and id_of(after) is not None:
            continue  # the reasoning leads to a call that is kept
        k = i - 1
        while k >= 0 and (k in removed or _is_reasoning(content[k])):
            removed.add(k)
            k -= 1
    return [block for i, block in enumerate(content) if i not in removed]


# -- the legacy function call --------------------------------------------------------------------


def _legacy(extension: Any) -> dict[str, Any] | None:
    kwargs = extension.get("additional_kwargs") if isinstance(extension, dict) else None
    call = kwargs.get("function_call") if isinstance(kwargs, dict) else None
    return call if isinstance(call, dict) else None


def _legacy_name(message: Message) -> str | None:
    """The name of the function that an OpenAI ``function_call`` calls. Integrations of others put
    a copy of a tool call there, which is none."""
    if message.tool_calls:
        return None
    for extension in message.extensions.values():
        call = _legacy(extension)
        if call is not None:
            return str(call.get("name") or "")
    return None


def legacy_extensions(message: Message) -> dict[str, Any]:
    """Of the extensions, what makes the message a legacy call."""
    if message.tool_calls:
        return {}
    return {
        framework: {"additional_kwargs": {"function_call": call}}
        for framework, extension in message.extensions.items()
        if (call := _legacy(extension)) is not None
    }


def _without_legacy(extensions: dict[str, Any]) -> dict[str, Any]:
    without = dict(extensions)
    for framework, extension in extensions.items():
        if _legacy(extension) is not None:
            kwargs = dict(extension["additional_kwargs"])
            del kwargs["function_call"]
            without[framework] = {**extension, "additional_kwargs": kwargs}
    return without


# -- what a message says beside its calls --------------------------------------------------------


def _is_blank(block: Block) -> bool:
    raw = _raw(block)
    return raw.get("type") in ("text", "output_text", "input_text") and (
        not isinstance(raw.get("text"), str) or not raw["text"].strip()
    )


def says_something(message: Message) -> bool:
    """Whether anything is left of the message but blank text and reasoning."""
    if message.tool_calls or answered_ids(message) or call_ids(message):
        return True
    if isinstance(message.content, str):
        return bool(message.content.strip())
    return any(not _is_blank(b) and not _is_reasoning(b) for b in message.content)


def tidy(message: Message) -> Message:
    """`message` without what providers refuse in it: blank text blocks, calls of the provider's own
    tools without their results, reasoning at the end that leads to nothing."""
    content = message.content
    if isinstance(content, str) or message.role == "tool":
        return message
    blocks = [block for block in content if not _is_blank(block)]
    if message.role == "assistant":
        blocks = _whole_server_calls(blocks)
        if not message.tool_calls:
            while blocks and _is_reasoning(blocks[-1]):
                blocks.pop()
    if len(blocks) == len(content):
        return message
    return msgspec.structs.replace(message, content=blocks)


def _whole_server_calls(blocks: list[Block]) -> list[Block]:
    called: dict[Any, int] = {}
    paired: set[int] = set()
    involved: set[int] = set()
    for i, block in enumerate(blocks):
        raw = _raw(block)
        kind = raw.get("type")
        if kind in _SERVER_CALLS:
            called[raw.get("id")] = i
            involved.add(i)
        elif isinstance(kind, str) and (
            kind == "server_tool_result" or kind.endswith("_tool_result")
        ):
            involved.add(i)
            call = called.get(raw.get("tool_call_id", raw.get("tool_use_id")))
            if call is not None:
                paired |= {i, call}
    removed = involved - paired
    for i in sorted(removed):
        k = i - 1
        while k >= 0 and _is_reasoning(blocks[k]):
            removed.add(k)
            k -= 1
    return [block for i, block in enumerate(blocks) if i not in removed]
