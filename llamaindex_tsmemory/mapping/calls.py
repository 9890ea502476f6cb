"""Tool calls, in whatever shape an integration has left them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamaindex_tsmemory.mapping.values import encode, without_tags
from tsmemory import ToolCall
from tsmemory.mapping import LEFT_OUT

__all__ = ["CALLS_KEY", "calls_in_kwargs", "claim", "drop_raw_calls", "make_call"]

CALLS_KEY = "tool_calls"
"""The key of ``additional_kwargs`` under which integrations keep calls."""

_NAMES = ("name", "tool_name")
_IDS = ("id", "tool_id", "tool_call_id", "call_id")
_ARGUMENTS = ("arguments", "args", "input", "tool_kwargs")


def make_call(call_id: str | None, name: str, arguments: Any, path: str) -> ToolCall:
    """A neutral call. Arguments that are JSON text of an object become that object.

    Args:
        path: what to call the arguments in a warning, where a part of them cannot be stored.
    """
    if isinstance(arguments, str):
        return _parse(call_id, name, arguments)
    return ToolCall(call_id, name, _plain(arguments, path))


def _parse(call_id: str | None, name: str, text: str) -> ToolCall:
    if not text.strip():
        return ToolCall(call_id, name, {})  # how streaming APIs say: no arguments
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        return ToolCall(call_id, name, text, f"the arguments are not JSON: {error}")
    if not isinstance(arguments, dict):
        return ToolCall(call_id, name, text, "the arguments are not a JSON object")
    return ToolCall(call_id, name, _plain(arguments, "arguments"))


def _plain(arguments: Any, path: str) -> Any:
    encoded = encode(arguments, path)
    if encoded is arguments:
        return arguments
    return {} if encoded is LEFT_OUT else without_tags(encoded)


def _read_call(raw: Any, path: str) -> ToolCall | None:
    """The call that an entry of ``additional_kwargs["tool_calls"]`` makes; None if it is none.

    Known are OpenAI's form (``function`` or ``custom`` within, dict or object), LangChain's
    (``name``, ``args``), Anthropic's (``name``, ``input``) and LlamaIndex's `ToolSelection`.
    """
    inner = _get(raw, ("function", "custom")) or raw
    name, call_id = _get(inner, _NAMES), _get(raw, _IDS)
    arguments = _get(inner, _ARGUMENTS)
    if type(name) is not str or not (call_id is None or type(call_id) is str):
        return None
    if arguments is None:
        arguments = {}
    if type(arguments) is not str and type(arguments) is not dict:
        return None
    return make_call(call_id, name, arguments, path)


def _get(raw: Any, names: Iterable[str]) -> Any:
    values = raw if isinstance(raw, Mapping) else getattr(raw, "__dict__", {})
    return next((values[name] for name in names if values.get(name) is not None), None)


def claim(calls: Sequence[ToolCall], claimed: set[int], call_id: str | None, name: str) -> bool:
    """Whether one of `calls` has this id and name and is not in `claimed`; the first joins it."""
    for i, call in enumerate(calls):
        if i not in claimed and call.id == call_id and call.name == name:
            claimed.add(i)
            return True
    return False


def calls_in_kwargs(raw: Any, in_blocks: list[ToolCall]) -> list[ToolCall]:
    """The calls of ``additional_kwargs["tool_calls"]`` that are not in the blocks as well."""
    claimed: set[int] = set()
    return [
        call
        for _, call in _read_calls(raw)
        if call is not None and not claim(in_blocks, claimed, call.id, call.name)
    ]


def _read_calls(raw: Any) -> list[tuple[Any, ToolCall | None]]:
    if type(raw) is not list and type(raw) is not tuple:
        return []
    path = f"additional_kwargs[{CALLS_KEY!r}]"
    return [(entry, _read_call(entry, f"{path}[{i}]")) for i, entry in enumerate(raw)]


def drop_raw_calls(kwargs: dict[str, Any], calls: Sequence[ToolCall]) -> set[int]:
    """Take what is not in `calls`, because a window left it out, out of ``kwargs["tool_calls"]``.

    Returns:
        Which of `calls` it has.
    """
    claimed: set[int] = set()
    raw_calls: Any = kwargs.get(CALLS_KEY)
    entries = _read_calls(raw_calls)
    remaining = [
        entry
        for entry, call in entries
        if call is None or claim(calls, claimed, call.id, call.name)
    ]
    if len(remaining) < len(entries):
        if remaining:
            kwargs[CALLS_KEY] = type(raw_calls)(remaining)
        else:
            del kwargs[CALLS_KEY]  # chat APIs refuse an empty list
    return claimed
