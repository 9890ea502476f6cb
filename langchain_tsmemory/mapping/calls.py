"""Tool calls: LangChain's valid and invalid ones, and the neutral ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage

from langchain_tsmemory.mapping.values import plain
from tsmemory import ToolCall

__all__ = ["drop_raw_calls", "set_calls", "to_calls"]


def to_calls(fields: Mapping[str, Any], extension: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The neutral calls of an answer with these `fields`; in `extension`, LangChain's own where
    the neutral ones do not say all of it."""
    valid = [
        ToolCall(call.get("id"), call.get("name") or "", plain(call.get("args")))
        for call in fields["tool_calls"]
    ]
    invalid = [
        ToolCall(call.get("id"), call.get("name") or "", call.get("args") or "", call.get("error"))
        for call in fields["invalid_tool_calls"]
    ]
    if [_valid_call(call) for call in valid] != fields["tool_calls"]:
        extension["tool_calls"] = fields["tool_calls"]
    if [_invalid_call(call) for call in invalid] != fields["invalid_tool_calls"]:
        extension["invalid_tool_calls"] = fields["invalid_tool_calls"]
    return (*valid, *invalid)


def set_calls(
    message: BaseMessage, calls: tuple[ToolCall, ...], extension: Mapping[str, Any]
) -> None:
    """Give an answer the neutral `calls`, those that are in `extension` in the form there."""
    valid: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for call in calls:
        if call.error is None and not isinstance(call.arguments, str):
            valid.append(_valid_call(call))
        else:
            invalid.append(_invalid_call(call))
    ai_message = cast("AIMessage", message)
    ai_message.tool_calls = _in_own_form(  # type: ignore[assignment]  # dicts of that shape
        valid, extension.get("tool_calls")
    )
    ai_message.invalid_tool_calls = _in_own_form(  # type: ignore[assignment]
        invalid, extension.get("invalid_tool_calls")
    )


def drop_raw_calls(message: BaseMessage, calls: tuple[ToolCall, ...]) -> None:
    """Take what is not in `calls`, because a window left it out, from the provider's own copy of
    them in ``additional_kwargs`` too, which integrations send where they find one."""
    ids = {call.id for call in calls}
    kwargs = dict(message.additional_kwargs)
    raw = [c for c in kwargs.pop("tool_calls", ()) if isinstance(c, dict) and c.get("id") in ids]
    if raw:
        kwargs["tool_calls"] = raw
    message.additional_kwargs = kwargs


def _valid_call(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "args": call.arguments, "id": call.id, "type": "tool_call"}


def _invalid_call(call: ToolCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "args": call.arguments,
        "id": call.id,
        "error": call.error,
        "type": "invalid_tool_call",
    }


def _in_own_form(
    calls: list[dict[str, Any]], own_calls: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """`calls`, those that are in `own_calls` in the form that they have there.

    A window may have left some out, so they are matched in order, by what both forms say.
    """
    if own_calls is None:
        return calls
    candidates = iter(own_calls)
    return [
        next((own for own in candidates if _identity(own) == _identity(call)), call)
        for call in calls
    ]


def _identity(call: Mapping[str, Any]) -> tuple[Any, ...]:
    return (call.get("id"), call.get("name") or "", call.get("args") or "")
