"""LangChain on tsmemory: a chat history that loses nothing.

from langchain_tsmemory import TSMemoryChatMessageHistory

with TSMemoryChatMessageHistory("session-456", store="sqlite:///chat.db", window=20) as history:
    history.add_user_message("My name is Ada.")
    history.messages
"""

from __future__ import annotations

from langchain_tsmemory._mapping import from_neutral, to_neutral
from langchain_tsmemory.history import (
    USER_HISTORY_FIELDS,
    TSMemoryChatMessageHistory,
    history_factory,
    user_history_factory,
)

__all__ = [
    "USER_HISTORY_FIELDS",
    "TSMemoryChatMessageHistory",
    "from_neutral",
    "history_factory",
    "to_neutral",
    "user_history_factory",
]
