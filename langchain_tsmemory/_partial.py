"""What a model had said of an answer when its stream was stopped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables.config import var_child_runnable_config

__all__ = ["PARTIAL", "RECORD", "Heard", "heard", "listening"]

RECORD = "langgraph"
"""The key of a message's metadata under which ``partial`` marks an answer that was stopped, and an
agent's messages have where they come from (`middleware.branches`)."""
PARTIAL = {RECORD: {"partial": True}}
"""The metadata of an answer that was stopped, outside of an agent."""


class Heard(BaseCallbackHandler):
    """Collects the chunks of the model that streamed last."""

    run_inline = True  # in the model's own task: a thread would be told too late

    def __init__(self) -> None:
        self._run: uuid.UUID | None = None
        self._chunks: list[AIMessageChunk] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Nothing; LangChain would make one text of the messages for a handler without it."""

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: uuid.UUID, **kwargs: Any
    ) -> None:
        """Keep a chunk of an answer."""
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            if run_id != self._run:
                self._run, self._chunks = run_id, []
            self._chunks.append(chunk.message)

    def answer(self) -> AIMessage | None:
        """What was said, as a message: its text. None where there is none."""
        text = "".join(str(chunk.text) for chunk in self._chunks)
        if not text.strip():
            return None
        name = next((chunk.id for chunk in self._chunks if chunk.id), None)
        return AIMessage(text, id=name or str(uuid.uuid4()))


@contextmanager
def heard() -> Iterator[Heard]:
    """Listen to the models that are called within."""
    listener = Heard()
    config = var_child_runnable_config.get()
    callbacks = listening((config or {}).get("callbacks"), listener)
    token = var_child_runnable_config.set({**(config or {}), "callbacks": callbacks})
    try:
        yield listener
    finally:
        var_child_runnable_config.reset(token)


def listening(callbacks: Callbacks, listener: Heard) -> Callbacks:
    """A config's callbacks with the listener, which hears a run and those within."""
    if isinstance(callbacks, BaseCallbackManager):
        manager: BaseCallbackManager = callbacks.copy()
        manager.add_handler(listener, inherit=True)
        return manager
    return [*(callbacks or ()), listener]
