"""LangChain's classes of messages, each with the neutral role that it has."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

__all__ = [
    "AI", "CHAT", "DEVELOPER", "EXTENSION", "FUNCTION", "KINDS", "MAPPED_FIELDS", "OPENAI_ROLE",
    "ROLES", "SYSTEM", "TOOL", "TYPES", "Kind",
]  # fmt: skip

EXTENSION = "langchain"
"""The key of ``extensions`` that holds what the neutral fields cannot say."""
OPENAI_ROLE = "__openai_role__"
DEVELOPER = {OPENAI_ROLE: "developer"}

MAPPED_FIELDS = frozenset(
    {"content", "id", "invalid_tool_calls", "name", "role", "tool_call_id", "tool_calls", "type"}
)
"""LangChain's fields that neutral ones carry. The others are kept under their own names, those of
later releases too."""


class Kind(NamedTuple):
    cls: type[BaseMessage]
    type: str
    role: str
    """Empty for `ChatMessage`, which says its own."""
    extension_fields: tuple[tuple[str, Any], ...]
    """The fields that are not `MAPPED_FIELDS`, with their defaults."""


def _kind(cls: type[BaseMessage], type_: str, role: str) -> Kind:
    extension_fields = tuple(
        (name, field.get_default(call_default_factory=True))
        for name, field in cls.model_fields.items()
        if name not in MAPPED_FIELDS
    )
    return Kind(cls, type_, role, extension_fields)


KINDS = {
    kind.cls: kind
    for kind in (
        _kind(HumanMessage, "human", "user"),
        _kind(AIMessage, "ai", "assistant"),
        _kind(SystemMessage, "system", "system"),
        _kind(ToolMessage, "tool", "tool"),
        _kind(FunctionMessage, "function", "function"),
        _kind(ChatMessage, "chat", ""),
    )
}
TYPES = {kind.type: kind for kind in KINDS.values()}
AI, CHAT, SYSTEM, TOOL = (TYPES[type_] for type_ in ("ai", "chat", "system", "tool"))
FUNCTION = TYPES["function"]
ROLES = {kind.role: kind for kind in KINDS.values() if kind.role} | {"developer": SYSTEM}
