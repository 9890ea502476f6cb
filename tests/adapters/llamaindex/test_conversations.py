"""Real conversations, written through LlamaIndex and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock

from llamaindex_tsmemory import TSMemoryChatStore
from tests.adapters.llamaindex.conftest import Call
from tsmemory import Store

FILE = os.environ.get("TSMEMORY_CONVERSATIONS")

pytestmark = pytest.mark.skipif(
    not FILE, reason="TSMEMORY_CONVERSATIONS names no file of conversations (JSONL, OpenAI format)"
)


def in_kwargs(message: dict[str, Any]) -> ChatMessage:
    """The older form: calls as OpenAI sent them, in additional_kwargs."""
    more = {k: v for k, v in message.items() if k not in ("role", "content")}
    return ChatMessage(role=message["role"], content=message["content"], additional_kwargs=more)


def in_blocks(message: dict[str, Any]) -> ChatMessage:
    """The form of llama-index-core 0.14: calls as blocks, their arguments as JSON text."""
    blocks: list[Any] = [TextBlock(text=message["content"])] if message["content"] else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        blocks.append(
            ToolCallBlock(
                tool_call_id=call["id"],
                tool_name=function["name"],
                tool_kwargs=function["arguments"],
            )
        )
    more = {k: message[k] for k in ("name", "tool_call_id") if k in message}
    return ChatMessage(role=message["role"], blocks=blocks, additional_kwargs=more)


@pytest.mark.parametrize("form", [in_kwargs, in_blocks])
def test_they_read_back_equal(store: Store, call: Call, form: Any) -> None:
    assert FILE is not None
    lines = Path(FILE).read_text(encoding="utf-8").splitlines()
    conversations = [json.loads(line) for line in lines]
    assert conversations
    chats = TSMemoryChatStore(store, user_id="traveller")
    for conversation in conversations:
        written = [form(m) for m in conversation["messages"]]
        call(chats, "set_messages", conversation["id"], written)
        assert call(chats, "get_messages", conversation["id"]) == written
        # What another framework sees of it.
        stored = list(store.conversation(conversation["id"], user_id="traveller").iter_messages())
        for raw, neutral in zip(conversation["messages"], stored, strict=True):
            assert (neutral.role, neutral.text) == (raw["role"], raw["content"] or "")
            assert (neutral.name, neutral.tool_call_id) == (
                raw.get("name"),
                raw.get("tool_call_id"),
            )
            assert [(c.id, c.name, c.arguments) for c in neutral.tool_calls] == [
                (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
                for c in raw.get("tool_calls", ())
            ]
    assert len(call(chats, "get_keys")) == len(conversations)
