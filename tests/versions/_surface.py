"""What the adapters depend on in the installed frameworks, as JSON: ``python _surface.py``.

Run by the Python of each environment, so it imports nothing of this repository. Two of these,
compared, name what a release added or removed.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib.metadata import distributions
from typing import Any, get_args, get_type_hints


def langchain() -> dict[str, list[str]]:
    from langchain_core import messages
    from langchain_core.messages import content

    surface: dict[str, list[str]] = {}
    for name in messages.__all__:
        kind = getattr(messages, name)
        if inspect.isclass(kind) and issubclass(kind, messages.BaseMessage):
            surface[f"message {name}"] = sorted(kind.model_fields)
    for union in (content.ContentBlock, content.Annotation):
        for block in get_args(union):
            (kind_name,) = get_args(get_type_hints(block)["type"])
            surface[f"content block {kind_name}"] = sorted(block.__annotations__)
    for name in ("ToolCall", "UsageMetadata", "InputTokenDetails", "OutputTokenDetails"):
        where = messages if hasattr(messages, name) else messages.ai
        surface[f"dict {name}"] = sorted(getattr(where, name).__annotations__)
    return surface


def langchain_agents() -> dict[str, list[str]]:
    from langchain.agents.middleware import types

    surface = {"AgentMiddleware": _methods(types.AgentMiddleware)}
    for name in ("AgentState", "ModelRequest", "ModelResponse"):
        kind = getattr(types, name)
        surface[name] = sorted(getattr(kind, "__annotations__", {}))
    return surface


def llamaindex() -> dict[str, list[str]]:
    from llama_index.core.base.llms import types
    from llama_index.core.storage.chat_store.base import BaseChatStore
    from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

    surface = {f"block {b.__name__}": sorted(b.model_fields) for b in _members(types.ContentBlock)}
    surface["ChatMessage"] = sorted(types.ChatMessage.model_fields)
    surface["MessageRole"] = sorted(role.value for role in types.MessageRole)
    surface["MessageStatus"] = sorted(status.value for status in MessageStatus)
    surface["BaseChatStore"] = _methods(BaseChatStore)
    surface["AsyncDBChatStore"] = _methods(AsyncDBChatStore)
    return surface


def _members(union: Any) -> list[Any]:
    """The classes of an annotated union."""
    if inspect.isclass(union):
        return [union]
    return [member for part in get_args(union) for member in _members(part)]


def _methods(kind: type) -> list[str]:
    """The public methods with their signatures."""
    return sorted(
        f"{name}{tuple(inspect.signature(member).parameters)}"
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and member.__module__.startswith(("langchain", "llama_index"))
    )


def main() -> None:
    surface: dict[str, Any] = {}
    for part in (langchain, langchain_agents, llamaindex):
        try:
            surface[part.__name__] = part()
        except Exception as error:  # noqa: BLE001  # itself a part of the report
            surface[part.__name__] = {"cannot be read": [f"{type(error).__name__}: {error}"]}
    surface["versions"] = {
        d.metadata["Name"].lower().replace("_", "-"): [d.version] for d in distributions()
    }
    json.dump(surface, sys.stdout)


if __name__ == "__main__":
    main()
