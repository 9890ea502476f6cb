"""The second process: a LlamaIndex chat engine that goes on with the same session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_tsmemory import TSMemoryChatStore
from tsmemory.demo._model import Said, answer
from tsmemory.demo._show import exchange

__all__ = ["ASKS", "EXPECTED", "main"]

ASKS = ("What am I allergic to?", "When do I visit Grace?", "What is the capital of Norway?")
EXPECTED = ("peanuts", "June", "I do not know")
"""A word of each answer: the first two stand only in the half that the other process held."""


class ContextModel(CustomLLM):
    """The demo's model as a LlamaIndex LLM."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="tsmemory-demo", is_chat_model=True)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        context = [Said(m.role.value, m.content or "") for m in messages]
        reply = ChatMessage(role="assistant", content=answer(context))
        return ChatResponse(message=reply)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=answer([Said("user", prompt)]))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        yield self.complete(prompt, formatted, **kwargs)


def main(url: str, user_id: str, session_id: str) -> None:
    """Go on with the conversation, and ask for what only its first half says."""
    with TSMemoryChatStore.from_url(url, user_id=user_id) as chat_store:
        memory = ChatMemoryBuffer.from_defaults(
            chat_store=chat_store,
            chat_store_key=session_id,
            token_limit=3000,
            tokenizer_fn=str.split,  # the default one would fetch its vocabulary from the network
        )
        engine = SimpleChatEngine.from_defaults(llm=ContextModel(), memory=memory)
        for text, expected in zip(ASKS, EXPECTED, strict=True):
            reply = str(engine.chat(text))
            exchange(text, reply)
            if expected not in reply:
                raise SystemExit(f"the answer does not say {expected!r}: the memory was lost")
