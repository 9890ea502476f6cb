"""Every operation of `Store` and `Conversation`, written once, as typed steps.

Each method is a generator over a backend's primitives (`engine.contract`): it checks its arguments,
decides, and returns the result. The sync and async methods of `store` and `conversation` only run
them. Compose your own with ``yield from``, and run the whole with `Store.run` or `Store.arun`.
"""

from __future__ import annotations

from tsmemory.usecases.arguments import OnError, Order, Where
from tsmemory.usecases.conversation import ConversationSteps
from tsmemory.usecases.store import StoreSteps
from tsmemory.usecases.windows import Appended

__all__ = ["Appended", "ConversationSteps", "OnError", "Order", "StoreSteps", "Where"]
