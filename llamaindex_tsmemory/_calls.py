"""Tool calls, in whatever shape an integration has left them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamaindex_tsmemory._values import LEFT_OUT, encode, plain
from tsmemory import ToolCall

__all__ = ["claim", "make_call", "read_call"]

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
    return {} if encoded is LEFT_OUT else plain(encoded)


def read_call(raw: Any, path: str) -> ToolCall | None:
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


def claim(calls: Sequence[ToolCall], taken: set[int], call_id: str | None, name: str) -> int | None:
    """The first of `calls` with this id and name that is not in `taken`, which it joins."""
    for i, call in enumerate(calls):
        if i not in taken and call.id == call_id and call.name == name:
            taken.add(i)
            return i
    return None
