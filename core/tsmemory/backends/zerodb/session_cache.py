"""What this process remembers of the sessions that it wrote last."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from tsmemory.backends.zerodb.rows import LoadedSession
from tsmemory.engine.records import Key

__all__ = ["CachedSession", "SessionCache"]


class CachedSession(NamedTuple):
    """A session as this process wrote it."""

    loaded: LoadedSession
    ids: frozenset[str] | None
    """Encoded ids of all its messages; None: not known."""


class SessionCache:
    """The sessions that this process wrote last. What is taken out is put back by the writer that
    succeeds, so two never work on one state."""

    def __init__(self, size: int = 128) -> None:
        self._sessions: OrderedDict[Key, CachedSession] = OrderedDict()
        self._size = size

    def pop(self, key: Key) -> CachedSession | None:
        return self._sessions.pop(key, None)

    def put(self, key: Key, cached: CachedSession) -> None:
        self._sessions[key] = cached
        while len(self._sessions) > self._size:
            self._sessions.popitem(last=False)
