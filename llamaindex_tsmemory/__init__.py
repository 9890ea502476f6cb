"""tsmemory for LlamaIndex: conversations in the store you run, as a LlamaIndex chat store.

from llama_index.core.memory import ChatMemoryBuffer
from llamaindex_tsmemory import TSMemoryChatStore

store = TSMemoryChatStore("sqlite:///chat.db", user_id="user-123")
memory = ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="session-456")

`TSMemoryAsyncChatStore` is the same for `Memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tsmemory import MissingDependencyError

try:
    import llama_index.core  # noqa: F401  # what everything below imports
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("llama_index"):
        raise
    raise MissingDependencyError(
        'llamaindex_tsmemory needs llama-index-core; pip install "tsmemory[llamaindex]"'
    ) from error

from llamaindex_tsmemory.async_chat_store import TSMemoryAsyncChatStore
from llamaindex_tsmemory.chat_store import TSMemoryChatStore
from llamaindex_tsmemory.mapping import from_neutral, to_neutral

if TYPE_CHECKING:
    from llamaindex_tsmemory.search import TSMemoryRecallBlock, TSMemoryRetriever

__all__ = [
    "TSMemoryAsyncChatStore",
    "TSMemoryChatStore",
    "TSMemoryRecallBlock",
    "TSMemoryRetriever",
    "from_neutral",
    "to_neutral",
]


def __getattr__(name: str) -> Any:
    if name in ("TSMemoryRecallBlock", "TSMemoryRetriever"):
        from llamaindex_tsmemory import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
