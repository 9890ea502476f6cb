"""The kit for writing a backend: everything that one imports, ours or a third party's.

    from tsmemory.engine import Backend, Change, Key, Outcome, Steps, encode_message
    from tsmemory.engine.commit import commit  # the template

Names are loaded when they are first used, so that a program pays only for its own backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsmemory.engine.codec import (
        decode_message,
        decode_session,
        decode_value,
        encode_message,
        encode_session,
        encode_value,
    )
    from tsmemory.engine.commit import (
        Head,
        Loaded,
        Plan,
        activity,
        at_time,
        encode_bodies,
        is_expired,
    )
    from tsmemory.engine.contract import Backend, now_us
    from tsmemory.engine.local import LocalBackend
    from tsmemory.engine.log import get_logger, hashed
    from tsmemory.engine.network import NetworkBackend
    from tsmemory.engine.records import (
        UNSET,
        Capabilities,
        Change,
        Decide,
        Key,
        MessageQuery,
        Outcome,
        Position,
        Read,
        SessionPatch,
        SessionQuery,
        Snapshot,
    )
    from tsmemory.engine.rows import corrupt_message, corrupt_session, passes, walk
    from tsmemory.engine.search import Searchable, SearchQuery
    from tsmemory.engine.steps import Pause, Steps, immediate
    from tsmemory.engine.urls import StoreURL, redact_url, split_url
    from tsmemory.model import is_pinned

_MODULES = {
    "codec": (
        "decode_message", "decode_session", "decode_value", "encode_message", "encode_session",
        "encode_value",
    ),
    "commit": (
        "Head", "Loaded", "Plan", "activity", "at_time", "encode_bodies", "is_expired",
    ),
    "contract": ("Backend", "now_us"),
    "local": ("LocalBackend",),
    "log": ("get_logger", "hashed"),
    "network": ("NetworkBackend",),
    "records": (
        "UNSET", "Capabilities", "Change", "Decide", "Key", "MessageQuery", "Outcome", "Position",
        "Read", "SessionPatch", "SessionQuery", "Snapshot",
    ),
    "rows": ("corrupt_message", "corrupt_session", "passes", "walk"),
    "search": ("SearchQuery", "Searchable"),
    "steps": ("Pause", "Steps", "immediate"),
    "urls": ("StoreURL", "redact_url", "split_url"),
}  # fmt: skip
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
_HOMES["is_pinned"] = "tsmemory.model"

__all__ = [
    "UNSET", "Backend", "Capabilities", "Change", "Decide", "Head", "Key", "Loaded",
    "LocalBackend", "MessageQuery", "NetworkBackend", "Outcome", "Pause", "Plan", "Position",
    "Read", "SearchQuery", "Searchable", "SessionPatch", "SessionQuery", "Snapshot", "Steps",
    "StoreURL", "activity", "at_time", "corrupt_message", "corrupt_session",
    "decode_message", "decode_session", "decode_value", "encode_bodies", "encode_message",
    "encode_session", "encode_value", "get_logger", "hashed", "immediate", "is_expired",
    "is_pinned", "now_us", "passes", "redact_url", "split_url", "walk",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
