"""Conversation memory for AI agents: kept in the store you run, read by the framework you use.

from tsmemory import Message
from tsmemory import open_store

with open_store("sqlite:///chat.db") as store:
    chat = store.conversation("session-456", user_id="user-123")
    chat.append(Message.user("My name is Ada."), Message.assistant("Hi Ada!"))
    chat.window(20)     # the last 20, safe to send to a model
"""

from __future__ import annotations

from tsmemory.conversation import Conversation
from tsmemory.engine.records import UNSET
from tsmemory.engine.steps import Steps
from tsmemory.engine.urls import redact_url
from tsmemory.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    CorruptRecordError,
    InvalidInputError,
    MessageTooLargeError,
    MissingDependencyError,
    NotFoundError,
    ThrottledError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
)
from tsmemory.filters import Filter, where
from tsmemory.model import (
    Block,
    Erased,
    LeftOut,
    Message,
    MessageList,
    Page,
    Problem,
    Session,
    Stats,
    ToolCall,
    WindowReport,
)
from tsmemory.openai_format import from_openai, to_openai
from tsmemory.registry import open_store
from tsmemory.search import SearchHit, SessionHit
from tsmemory.store import Store
from tsmemory.window import Window, count_tokens, token_counter

__all__ = [
    "UNSET",
    "AuthenticationError",
    "BackendError",
    "Block",
    "ConflictError",
    "Conversation",
    "CorruptRecordError",
    "Erased",
    "Filter",
    "InvalidInputError",
    "LeftOut",
    "Message",
    "MessageList",
    "MessageTooLargeError",
    "MissingDependencyError",
    "NotFoundError",
    "Page",
    "Problem",
    "SearchHit",
    "Session",
    "SessionHit",
    "Stats",
    "Steps",
    "Store",
    "TSMemoryError",
    "ThrottledError",
    "TimeoutError",
    "ToolCall",
    "UnavailableError",
    "Window",
    "WindowReport",
    "count_tokens",
    "from_openai",
    "open_store",
    "redact_url",
    "to_openai",
    "token_counter",
    "where",
]
