"""What a chat API accepts, and conversations to try on it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tsmemory import Message
from tsmemory.model import is_pinned


def refusal(messages: Sequence[Message]) -> str | None:
    """Why a chat API would refuse `messages`; None where it would not."""
    open_ids: list[str | None] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_ids:
                return f"{i}: a result of {message.tool_call_id!r} without its call before it"
            open_ids.remove(message.tool_call_id)
            continue
        if open_ids:
            return f"{i}: calls {open_ids} without their results"
        open_ids = [call.id for call in message.tool_calls]
        if message.role == "assistant" and not message.content and not message.tool_calls:
            return f"{i}: an assistant message that says nothing"
    if open_ids:
        return f"the calls {open_ids} have no results"
    return None


def first_other(messages: Sequence[Message]) -> str | None:
    """The role of the first message that is no instruction."""
    return next((m.role for m in messages if not is_pinned(m.role)), None)


@cache
def _conversations() -> dict[str, list[dict[str, Any]]]:
    lines = Path(os.environ["TSMEMORY_CONVERSATIONS"]).read_text(encoding="utf-8").splitlines()
    return {found["id"]: found["messages"] for found in map(json.loads, lines)}


def conversations() -> dict[str, list[dict[str, Any]]]:
    """The real conversations that TSMEMORY_CONVERSATIONS names, by id, in the OpenAI format."""
    if not os.environ.get("TSMEMORY_CONVERSATIONS"):
        pytest.skip("TSMEMORY_CONVERSATIONS names no file of conversations")
    return _conversations()
