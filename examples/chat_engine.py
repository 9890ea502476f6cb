"""A LlamaIndex chat engine that continues the chain's conversation.

``python chain.py "My name is Ada."``, then ``python chat_engine.py "What is my name?"``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import LLM, ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_tsmemory import TSMemoryChatStore


class NoModel(MockLLM):
    """In the place of a model: says how much it was shown."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        from llama_index.core.llms import ChatResponse

        text = f"I was shown {len(messages)} messages."
        return ChatResponse(message=ChatMessage(role="assistant", content=text))


def model() -> LLM:
    """Yours, or one that says what it was shown."""
    if "MODEL" in os.environ:
        from llama_index.llms.openai import OpenAI  # or another integration

        return OpenAI(model=os.environ["MODEL"].split(":")[-1])
    return NoModel()


def main(arguments: Sequence[str]) -> None:
    """Say each of `arguments`, in one conversation."""
    url = os.environ.get("TSMEMORY_URL", "sqlite:///chat.db")
    with TSMemoryChatStore.from_url(url, user_id="ada") as chat_store:
        memory = ChatMemoryBuffer.from_defaults(
            chat_store=chat_store, chat_store_key="trip", tokenizer_fn=str.split
        )
        engine = SimpleChatEngine.from_defaults(llm=model(), memory=memory)
        for text in arguments:
            print(f"{text} → {engine.chat(text).response}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["What is my name?"])
