"""`ConversationSteps`: the operations on one session."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsmemory import checks
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import (
    UNSET,
    Change,
    Key,
    MessageQuery,
    Position,
    SessionPatch,
    Unset,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import InvalidInputError, NotFoundError
from tsmemory.filters import as_filter
from tsmemory.model import (
    Erased,
    Id,
    Message,
    MessageList,
    Page,
    Session,
)
from tsmemory.times import Time, micros
from tsmemory.usecases.arguments import (
    PAGE,
    OnError,
    Order,
    Where,
    descending,
    position,
    usable,
    whole,
)
from tsmemory.usecases.rewriting import forked
from tsmemory.usecases.writing import ConversationWritingSteps

__all__ = ["ConversationSteps"]


class ConversationSteps(ConversationWritingSteps):
    """Same as the operations of `Conversation`, as steps to compose and run.

    Args:
        ttl: seconds; what each write makes the session's time to live. None leaves it.
        default_ttl: seconds; the time to live of a session that a write begins.
    """

    __slots__ = ("backend", "default_ttl", "key", "ttl")

    def __init__(
        self,
        backend: Backend,
        key: Key,
        ttl: float | None = None,
        default_ttl: float | None = None,
    ) -> None:
        self.backend = backend
        self.key = key
        self.ttl = ttl
        self.default_ttl = default_ttl

    # -- the whole session -------------------------------------------------------------------

    def delete(self) -> Steps[Erased]:
        """Same as `Conversation.delete`."""
        return self.backend.erase(*self.key)

    def compact(self) -> Steps[int]:
        """Same as `Conversation.compact`."""
        return self.backend.compact(self.key)

    def fork(self, session_id: Id, *, until: Id | None = None) -> Steps[None]:
        """Same as `Conversation.fork`, without the handle on the new session."""
        target = checks.check_key(self.key.user_id, session_id)
        until = None if until is None else checks.check_id("until", until)
        if target == self.key:
            raise InvalidInputError("a fork needs a session_id of its own")
        session = yield from self.backend.get_session(self.key)
        if session is None:
            raise NotFoundError(f"there is no session {self.key.session_id!r} to fork")
        rows = (yield from self.backend.read(self.key, MessageQuery(limit=None))).rows
        change = forked(whole(session), [whole(row) for row in rows], until)
        yield from self.backend.commit(target, change)

    # -- reading -----------------------------------------------------------------------------

    def list_messages(
        self,
        *,
        where: Where = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        order: Order = "asc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Steps[Page[Message]]:
        """Same as `Conversation.list_messages`."""
        checks.check_size("limit", limit, least=1)
        newest_first = descending(order)
        kind = f"messages-{order}"
        query = MessageQuery(
            limit=limit + 1,
            descending=newest_first,
            after=checks.decode_cursor(kind, Position, cursor),
            created_from=micros("created_from", created_from),
            created_to=micros("created_to", created_to),
            where=as_filter(where),
        )
        rows = (yield from self.backend.read(self.key, query)).rows
        page = rows[:limit]
        items = MessageList(usable(page, on_error))
        if len(rows) <= limit:
            return Page(items)
        return Page(items, checks.encode_cursor(kind, position(page[-1])))

    def all_messages(
        self,
        *,
        where: Where = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        order: Order = "asc",
        on_error: OnError = "raise",
    ) -> Steps[MessageList]:
        """Same as `list_messages`, but every page of them in one list."""
        messages = MessageList()
        cursor = None
        while True:
            page = yield from self.list_messages(
                where=where,
                created_from=created_from,
                created_to=created_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            messages += page.items
            cursor = page.next_cursor
            if cursor is None:
                return messages

    def get_message(self, message_id: Id) -> Steps[Message | None]:
        """Same as `Conversation.get_message`."""
        message_id = checks.check_id("message_id", message_id)
        rows = yield from self.backend.get_messages(self.key, [message_id])
        return whole(rows[0]) if rows else None

    def count(self, *, where: Where = None) -> Steps[int]:
        """Same as `Conversation.count`."""
        if where is None:
            session = whole((yield from self.backend.get_session(self.key)))
            return session.message_count if session else 0
        query = MessageQuery(limit=None, where=as_filter(where))
        return len(usable((yield from self.backend.read(self.key, query)).rows, "raise"))

    # -- the session's record ----------------------------------------------------------------

    def session(self) -> Steps[Session | None]:
        """Same as `Conversation.session`."""
        return whole((yield from self.backend.get_session(self.key)))

    def update_session(
        self,
        *,
        title: str | Unset | None = UNSET,
        summary: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        replace_metadata: bool = False,
        ttl: float | Unset | None = UNSET,
        create_time: Time | Unset | None = UNSET,
        update_time: Time | Unset | None = UNSET,
        if_version: int | None = None,
    ) -> Steps[Session]:
        """Same as `Conversation.update_session`."""
        for name, text in (("title", title), ("summary", summary)):
            if text is not UNSET and text is not None and type(text) is not str:
                raise InvalidInputError(f"{name} is a str or None, not {type(text).__name__}")
        if metadata is not UNSET:
            checks.check_metadata("metadata", metadata)
        checks.check_version(if_version)
        times: dict[str, Any] = {
            name: micros(name, time)
            for name, time in (("create_time", create_time), ("update_time", update_time))
            if time is not UNSET and time is not None
        }
        patch = SessionPatch(
            title=title,
            summary=summary,
            metadata=metadata,
            remove=tuple(checks.check_texts("remove_metadata", remove_metadata)),
            replace_metadata=bool(replace_metadata),
            ttl=ttl if ttl is UNSET else checks.check_ttl(ttl),
            **times,
        )
        change = Change(
            session=patch, if_version=if_version, ttl=self.ttl, default_ttl=self.default_ttl
        )
        outcome = yield from self.backend.commit(self.key, change)
        assert outcome.session is not None  # a change with a patch begins the session
        return outcome.session

    def set_ttl(self, ttl: float | None) -> Steps[bool]:
        """Same as `Conversation.set_ttl`."""
        patch = SessionPatch(ttl=checks.check_ttl(ttl))
        outcome = yield from self.backend.commit(self.key, Change(session=patch, create=False))
        return outcome.session is not None

    def get_ttl(self) -> Steps[float | None]:
        """Same as `Conversation.get_ttl`."""
        session = yield from self.session()
        if session is None:
            return None
        if session.expires_at is None:
            return math.inf
        return max(0, session.expires_at - self.backend.clock()) / 1_000_000
