"""`Store`: conversations in one engine.

Every operation has an async version, the same name after an ``a``; both run the steps of
`usecases.StoreSteps`. All of them may raise `BackendError` and its kinds where the engine fails,
and `InvalidInputError` before any I/O where an argument is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Literal, overload

from tsmemory import checks
from tsmemory.closing import Closing
from tsmemory.conversation import Conversation
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import UNSET, Unset
from tsmemory.model import Erased, Id, Message, Page, Problem, Session, Stats
from tsmemory.searching import StoreSearch
from tsmemory.times import Time
from tsmemory.usage import UsageStats
from tsmemory.usecases import OnError, Order, StoreSteps, Where
from tsmemory.usecases.arguments import PAGE

__all__ = ["Store"]


class Store(StoreSearch, Closing):
    """Conversations in one engine. Open one with `open_store`, or on a backend of yours.

    Args:
        backend: the engine.
        ttl: seconds; the time to live of sessions that begin here. None: they stay.

    A context manager, sync and async; leaving it closes what the store opened.
    """

    def __init__(self, backend: Backend, *, ttl: float | None = None) -> None:
        super().__init__(backend, ttl=ttl)
        self.steps = StoreSteps(backend)
        """Every operation as steps, to compose with ``yield from`` and run with `run`, `arun`."""

    def __repr__(self) -> str:
        return f"Store({self.backend!r})"

    def conversation(
        self, session_id: Id, *, user_id: Id = checks.DEFAULT_USER, ttl: float | None = None
    ) -> Conversation:
        """A handle on one session, whether it exists or not. No I/O.

        Args:
            session_id: 1 to 255 bytes of UTF-8, any characters.
            user_id: as `session_id`; the same session id under another user is another session.
            ttl: seconds; every write through this handle makes it the session's time to live.
        """
        return Conversation(self, checks.check_key(user_id, session_id), checks.check_ttl(ttl))

    # -- sessions ----------------------------------------------------------------------------

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
    ) -> Page[Session]:
        """A page of sessions, the most recently active first.

        Args:
            user_id: whose; leave it out for every user's. None is refused, so that a missing
                login does not show everybody's.
            where: a filter on the sessions' metadata.
            updated_from: inclusive; µs since the epoch, or an aware datetime.
            updated_to: as `updated_from`.
            order: ``"desc"``, or ``"asc"`` for the least recently active first.
            limit: sessions a page, 1 or more.
            cursor: `next_cursor` of the page before. A session that is written to while you page
                moves to the front, behind you.
            on_error: ``"skip"`` leaves out records that do not decode.

        Raises:
            CorruptRecordError: a session's record does not decode.
        """
        return self.run(
            self.steps.list_sessions(
                user_id=user_id,
                where=where,
                updated_from=updated_from,
                updated_to=updated_to,
                order=order,
                limit=limit,
                cursor=cursor,
                on_error=on_error,
            )
        )

    async def alist_sessions(
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
    ) -> Page[Session]:
        """Same as `list_sessions`, for asyncio."""
        return await self.arun(
            self.steps.list_sessions(
                user_id=user_id,
                where=where,
                updated_from=updated_from,
                updated_to=updated_to,
                order=order,
                limit=limit,
                cursor=cursor,
                on_error=on_error,
            )
        )

    def iter_sessions(
        self,
        *,
        user_id: Id | Unset = UNSET,
        where: Where = None,
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        order: Order = "desc",
        on_error: OnError = "raise",
    ) -> Iterator[Session]:
        """Same as `list_sessions`, but every session, page by page."""
        cursor = None
        while True:
            page = self.list_sessions(
                user_id=user_id,
                where=where,
                updated_from=updated_from,
                updated_to=updated_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    async def aiter_sessions(
        self,
        *,
        user_id: Id | Unset = UNSET,
        where: Where = None,
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        order: Order = "desc",
        on_error: OnError = "raise",
    ) -> AsyncIterator[Session]:
        """Same as `iter_sessions`, for asyncio."""
        cursor = None
        while True:
            page = await self.alist_sessions(
                user_id=user_id,
                where=where,
                updated_from=updated_from,
                updated_to=updated_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            for session in page.items:
                yield session
            cursor = page.next_cursor
            if cursor is None:
                return

    def iter_messages(
        self, *, user_id: Id | Unset = UNSET, on_error: OnError = "raise"
    ) -> Iterator[tuple[Session, Message]]:
        """Every message of every session (of one user), each with its session."""
        for session in self.iter_sessions(user_id=user_id, on_error=on_error):
            chat = self.conversation(session.session_id, user_id=session.user_id)
            for message in chat.iter_messages(on_error=on_error):
                yield session, message

    async def aiter_messages(
        self, *, user_id: Id | Unset = UNSET, on_error: OnError = "raise"
    ) -> AsyncIterator[tuple[Session, Message]]:
        """Same as `iter_messages`, for asyncio."""
        async for session in self.aiter_sessions(user_id=user_id, on_error=on_error):
            chat = self.conversation(session.session_id, user_id=session.user_id)
            async for message in chat.aiter_messages(on_error=on_error):
                yield session, message

    # -- removing ----------------------------------------------------------------------------

    def erase_user(self, user_id: Id) -> Erased:
        """Remove everything of one user, expired sessions too. Returns the receipt."""
        return self.run(self.steps.erase_user(user_id))

    async def aerase_user(self, user_id: Id) -> Erased:
        """Same as `erase_user`, for asyncio."""
        return await self.arun(self.steps.erase_user(user_id))

    def clear(self) -> Erased:
        """Remove every session of every user. Returns the receipt."""
        return self.run(self.steps.clear())

    async def aclear(self) -> Erased:
        """Same as `clear`, for asyncio."""
        return await self.arun(self.steps.clear())

    def purge_expired(self) -> Erased:
        """Remove what is past its time to live, which no reader sees any more anyway."""
        return self.run(self.steps.purge_expired())

    async def apurge_expired(self) -> Erased:
        """Same as `purge_expired`, for asyncio."""
        return await self.arun(self.steps.purge_expired())

    # -- looking after -----------------------------------------------------------------------

    def setup(self) -> None:
        """Create what the engine needs and does not have. Safe to call again, and by many."""
        self.run(self.steps.setup())

    async def asetup(self) -> None:
        """Same as `setup`, for asyncio."""
        await self.arun(self.steps.setup())

    @overload
    def stats(self) -> Stats: ...

    @overload
    def stats(self, *, usage: Literal[True]) -> UsageStats: ...

    def stats(self, *, usage: bool = False) -> Stats:
        """How much is stored.

        Args:
            usage: also sum the token usage that messages keep, by session and by user. Reads every
                message, page by page.
        """
        return self.run(self.steps.stats(usage=True) if usage else self.steps.stats())

    @overload
    async def astats(self) -> Stats: ...

    @overload
    async def astats(self, *, usage: Literal[True]) -> UsageStats: ...

    async def astats(self, *, usage: bool = False) -> Stats:
        """Same as `stats`, for asyncio."""
        return await self.arun(self.steps.stats(usage=True) if usage else self.steps.stats())

    def verify(self) -> list[Problem]:
        """Read everything and name what is broken. Empty where all is well."""
        return self.run(self.steps.verify())

    async def averify(self) -> list[Problem]:
        """Same as `verify`, for asyncio."""
        return await self.arun(self.steps.verify())

    def close(self) -> None:
        """Release what the store opened; a client that you passed in stays open. Idempotent."""
        self.backend.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio; closes what both modes opened."""
        await self.backend.aclose()
