"""Names of users and sessions, as a run of LangChain carries them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tsmemory import InvalidInputError

__all__ = ["DEFAULT_USER", "SESSION_NAMES", "USER_NAMES", "Identity", "named"]

Identity: TypeAlias = "str | Callable[[Any, Mapping[str, Any]], str]"
"""A name, or what gives it: a function of the runtime's context and ``config["configurable"]``."""

DEFAULT_USER = "default"
SESSION_NAMES = ("session_id", "conversation_id", "thread_id")
USER_NAMES = ("user_id",)


def named(
    fixed: Identity | None, names: Sequence[str], context: Any, configurable: Mapping[str, Any]
) -> tuple[str | None, bool]:
    """The name, and whether the configuration has it, which agents in tools inherit."""
    if callable(fixed):
        return fixed(context, configurable), False
    if fixed is not None:
        return fixed, False
    fields: Mapping[str, Any] = {}
    if isinstance(context, Mapping):
        fields = context
    elif context is not None:
        fields = {name: getattr(context, name) for name in names if hasattr(context, name)}
    for source in (fields, configurable):
        for name in names:
            if name in source:
                name_or_id = source[name]
                if name_or_id is None:
                    raise InvalidInputError(f"the run's {name} is None; give it, or leave it out")
                text = str(name_or_id) if isinstance(name_or_id, (int, uuid.UUID)) else name_or_id
                return text, source is configurable
    return None, False
