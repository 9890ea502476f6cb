"""LlamaIndex's roles, and the fields of its messages that neutral ones carry."""

from __future__ import annotations

from llama_index.core.base.llms.types import MessageRole

__all__ = ["ANSWERS", "EXTENSION", "KWARGS_FIELDS", "ROLES", "SPOKEN_BY_MODEL"]

EXTENSION = "llamaindex"
"""The key of ``extensions`` that holds what the neutral fields cannot say."""
SPOKEN_BY_MODEL = frozenset({MessageRole.CHATBOT, MessageRole.MODEL})
"""Roles beside ``assistant`` that a model has."""
ROLES: dict[str, MessageRole] = {
    role.value: role for role in MessageRole if role not in SPOKEN_BY_MODEL
}
ANSWERS = frozenset({"assistant", *(role.value for role in SPOKEN_BY_MODEL)})
KWARGS_FIELDS = ("name", "tool_call_id")
"""Keys of ``additional_kwargs`` that are fields of a neutral message, of the same names."""
