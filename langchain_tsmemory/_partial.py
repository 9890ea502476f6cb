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
    """Collects the chunks of the model that streamed last.

    What a model has said to the end is no answer once another model or a retriever begins: it was
    a question put in other words, or a plan.
    """

    run_inline = True  # in the model's own task: a thread would be told too late

    def __init__(self) -> None:
        self._chunks: dict[uuid.UUID, list[AIMessageChunk]] = {}
        self._last: uuid.UUID | None = None
        self._whole: set[uuid.UUID] = set()

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Forget what was said to the end before."""
        for run_id in tuple(self._whole):
            self._chunks.pop(run_id, None)
        self._whole.clear()

    def on_retriever_start(self, *args: Any, **kwargs: Any) -> None:
        """Same as `on_chat_model_start`."""
        self.on_chat_model_start()

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: uuid.UUID, **kwargs: Any
    ) -> None:
        """Keep a chunk of an answer."""
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            self._chunks.setdefault(run_id, []).append(chunk.message)
            self._last = run_id

    def on_llm_end(self, response: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Note that an answer is whole."""
        self._whole.add(run_id)

    def answer(self) -> AIMessage | None:
        """What was said, as a message: its text. None where there is none."""
        chunks = self._chunks.get(self._last, []) if self._last is not None else []
        text = "".join(str(chunk.text) for chunk in chunks)
        if not text.strip():
            return None
        name = next((chunk.id for chunk in chunks if chunk.id), None)
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
