"""LangChain on tsmemory: a chat history and an agent's memory that lose nothing.

from langchain_tsmemory import TSMemoryChatMessageHistory

with TSMemoryChatMessageHistory("session-456", store="sqlite:///chat.db", window=20) as history:
    history.add_user_message("My name is Ada.")
    history.messages

`TSMemoryMiddleware`, for ``create_agent``, needs the extra ``langchain-agents``, and imports
``langchain`` where it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tsmemory import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # what everything below imports
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        'langchain_tsmemory needs langchain-core; pip install "tsmemory[langchain]"'
    ) from error

from langchain_tsmemory._tokens import model_token_counter
from langchain_tsmemory.history import (
    USER_HISTORY_FIELDS,
    TSMemoryChatMessageHistory,
    history_factory,
    user_history_factory,
)
from langchain_tsmemory.mapping import from_neutral, to_neutral

if TYPE_CHECKING:
    from langchain_tsmemory.middleware import TSMemoryMiddleware
    from langchain_tsmemory.search import TSMemoryRetriever, search_tool

__all__ = [
    "USER_HISTORY_FIELDS",
    "TSMemoryChatMessageHistory",
    "TSMemoryMiddleware",
    "TSMemoryRetriever",
    "from_neutral",
    "history_factory",
    "model_token_counter",
    "search_tool",
    "to_neutral",
    "user_history_factory",
]


def __getattr__(name: str) -> Any:
    if name == "TSMemoryMiddleware":
        from langchain_tsmemory.middleware import TSMemoryMiddleware

        return TSMemoryMiddleware
    if name in ("TSMemoryRetriever", "search_tool"):
        from langchain_tsmemory import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
