"""Items of OpenAI's Responses API among what is brought in (`tsmemory.responses_format`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmemory.model import Message, Problem
from tsmemory.responses_format import check_item, from_items
from tsmemory.transfer.sources import attempt

__all__ = ["is_item", "read_items"]


def is_item(raw: Any) -> bool:
    """Whether this is an item of the Responses API, and not a message of Chat Completions."""
    if not isinstance(raw, Mapping):
        return False
    content = raw.get("content")
    parts = content if isinstance(content, list) else []
    types = [part.get("type") for part in parts if isinstance(part, Mapping)]
    return isinstance(raw.get("type"), str) or any(
        t in ("input_text", "output_text") for t in types
    )


def read_items(entries: list[Any], user_id: str, where: str) -> tuple[list[Message], list[Problem]]:
    """The messages that the items are; what cannot be read among them is reported."""
    items: list[Mapping[str, Any]] = []
    problems: list[Problem] = []
    for number, raw in enumerate(entries, 1):
        problem = Problem(user_id, None, None, f"{where}, item {number}")
        refused = attempt(lambda: check_item(raw), problem)  # noqa: B023  # called at once
        if refused is None:
            items.append(raw)
        else:
            problems.append(refused)
    return from_items(items), problems
