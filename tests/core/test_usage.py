"""Token usage that messages keep, summed by session and user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tsmemory import Message, open_store
from tsmemory.usage import TokenUsage, UsageStats, token_usage


def answer(**extensions: Any) -> Message:
    return Message.assistant("x", extensions=extensions)


def langchain(read: int, written: int, **details: Any) -> Message:
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return answer(langchain={"usage_metadata": {**usage, **details}})


@pytest.mark.parametrize(
    ("message", "usage"),
    [
        (Message.user("x"), None),
        (answer(langchain={"usage_metadata": None}), None),
        (answer(llamaindex={"additional_kwargs": {"tool_calls": []}}), None),
        (answer(langchain={"usage_metadata": {"input_tokens": "many"}}), None),
        (
            langchain(
                10, 5, input_token_details={"cache_read": 4}, output_token_details={"reasoning": 2}
            ),
            (10, 5, 15, 4, 2),
        ),
        (
            answer(llamaindex={"additional_kwargs": {"prompt_tokens": 7, "completion_tokens": 1}}),
            (7, 1, 8, 0, 0),
        ),
        (
            answer(
                llamaindex={
                    "additional_kwargs": {
                        "usage": {
                            "prompt_tokens": 7,
                            "completion_tokens": 1,
                            "total_tokens": 9,
                            "prompt_tokens_details": {"cached_tokens": 3},
                        }
                    }
                }
            ),
            (7, 1, 9, 3, 0),
        ),
    ],
)
def test_of_a_message(message: Message, usage: tuple[int, ...] | None) -> None:
    found = token_usage(message)
    if usage is None:
        assert found is None
        return
    assert found is not None
    assert (
        found.input_tokens, found.output_tokens, found.total_tokens, found.cached_tokens,
        found.reasoning_tokens,
    ) == usage  # fmt: skip


def test_summed_by_session_and_user() -> None:
    with open_store("memory:") as store:
        store.conversation("a", user_id="ada").append(Message.user("x"), langchain(10, 5))
        store.conversation("b", user_id="ada").append(langchain(100, 50), langchain(1, 1))
        store.conversation("a", user_id="bob").append(*(langchain(1, 0) for _ in range(700)))
        store.conversation("quiet", user_id="eve").append(Message.user("x"))
        found = store.stats(usage=True)
        again = asyncio.run(store.astats(usage=True))
    assert found == again
    assert (found.users, found.messages) == (3, 705)
    assert found.usage == TokenUsage(
        messages=703, input_tokens=811, output_tokens=56, total_tokens=867
    )
    assert [(u.user_id, u.total_tokens) for u in found.usage_by_user] == [
        ("bob", 700), ("ada", 167)
    ]  # fmt: skip
    assert [(s.user_id, s.session_id, s.total_tokens) for s in found.usage_by_session] == [
        ("bob", "a", 700), ("ada", "b", 152), ("ada", "a", 15)
    ]  # fmt: skip
    assert UsageStats.from_dict(found.to_dict()) == found


def test_of_what_langchain_stores() -> None:
    messages = pytest.importorskip("langchain_core.messages")
    from langchain_tsmemory import to_neutral

    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    found = token_usage(to_neutral(messages.AIMessage("hi", usage_metadata=usage)))
    assert found is not None
    assert found.total_tokens == 5
