"""`StoreSteps`: the operations on a whole store."""

from __future__ import annotations

from typing import Any, Literal, overload

import msgspec

from tsmemory import checks
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import UNSET, Key, MessageQuery, Position, SessionQuery, Unset
from tsmemory.engine.steps import Steps
from tsmemory.filters import as_filter
from tsmemory.model import Erased, Id, Message, Page, Problem, Session, Stats
from tsmemory.times import Time, micros
from tsmemory.usage import (
    SessionUsage,
    TokenUsage,
    UsageStats,
    token_usage,
    total_usage,
    with_usage,
)
from tsmemory.usecases.arguments import PAGE, OnError, Order, Where, descending, position, usable
from tsmemory.usecases.search import SearchSteps

__all__ = ["StoreSteps"]


class StoreSteps(SearchSteps):
    """Same as the operations of `Store`, as steps to compose and run."""

    __slots__ = ("backend",)

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def list_sessions(
        self,
        *,
        user_id: Id | Unset = UNSET,
        where: Where = None,
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        order: Order = "desc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Steps[Page[Session]]:
        """Same as `Store.list_sessions`."""
        checks.check_size("limit", limit, least=1)
        newest_first = descending(order)
        kind = f"sessions-{order}"
        query = SessionQuery(
            user_id=None if user_id is UNSET else checks.check_id("user_id", user_id),
            limit=limit + 1,
            descending=newest_first,
            after=checks.decode_cursor(kind, tuple[int, str, str], cursor),
            updated_from=micros("updated_from", updated_from),
            updated_to=micros("updated_to", updated_to),
            where=as_filter(where),
        )
        rows = yield from self.backend.list_sessions(query)
        page = rows[:limit]
        items = usable(page, on_error)
        if len(rows) <= limit:
            return Page(items)
        last = page[-1]
        time = last.update_time if isinstance(last, Session) else last.create_time
        return Page(items, checks.encode_cursor(kind, (time, last.user_id, last.session_id)))

    def all_sessions(
        self,
        *,
        user_id: Id | Unset = UNSET,
        where: Where = None,
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        order: Order = "desc",
        on_error: OnError = "raise",
    ) -> Steps[list[Session]]:
        """Same as `list_sessions`, but every page of them in one list."""
        sessions: list[Session] = []
        cursor = None
        while True:
            page = yield from self.list_sessions(
                user_id=user_id,
                where=where,
                updated_from=updated_from,
                updated_to=updated_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            sessions += page.items
            cursor = page.next_cursor
            if cursor is None:
                return sessions

    def erase_user(self, user_id: Id) -> Steps[Erased]:
        """Same as `Store.erase_user`."""
        return (yield from self.backend.erase(checks.check_id("user_id", user_id)))

    def clear(self) -> Steps[Erased]:
        """Same as `Store.clear`."""
        return self.backend.erase(None)

    def purge_expired(self) -> Steps[Erased]:
        """Same as `Store.purge_expired`."""
        return self.backend.purge_expired()

    def setup(self) -> Steps[None]:
        """Same as `Store.setup`."""
        return self.backend.setup()

    @overload
    def stats(self) -> Steps[Stats]: ...

    @overload
    def stats(self, *, usage: Literal[True]) -> Steps[UsageStats]: ...

    def stats(self, *, usage: bool = False) -> Steps[Any]:
        """Same as `Store.stats`. Of the usage, records that do not decode are left out."""
        return self._usage_stats() if usage else self.backend.stats()

    def _usage_stats(self) -> Steps[UsageStats]:
        stats = yield from self.backend.stats()
        sessions = yield from self.all_sessions(on_error="skip")
        used = []
        for session in sessions:
            key = Key(session.user_id, session.session_id)
            total = total_usage((yield from self._usages(key)))
            if total.messages:
                fields = msgspec.structs.asdict(total)
                used.append(SessionUsage(user_id=key.user_id, session_id=key.session_id, **fields))
        return with_usage(stats, used)

    def _usages(self, key: Key) -> Steps[list[TokenUsage]]:
        """What each message of a session reports, where it does."""
        session_usages: list[TokenUsage] = []
        after: Position | None = None
        while True:
            rows = (yield from self.backend.read(key, MessageQuery(limit=PAGE, after=after))).rows
            usages = (token_usage(row) for row in rows if isinstance(row, Message))
            session_usages += [usage for usage in usages if usage is not None]
            if len(rows) < PAGE:
                return session_usages
            after = position(rows[-1])

    def verify(self) -> Steps[list[Problem]]:
        """Same as `Store.verify`."""
        return self.backend.verify()
