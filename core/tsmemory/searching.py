"""The search operations of `Store` and `Conversation`, sync and async."""

from __future__ import annotations

from collections.abc import Iterable

from tsmemory.engine.records import UNSET, Key, Unset
from tsmemory.model import Id, Page
from tsmemory.runner import Runner
from tsmemory.search import Kind, Match, SearchHit, SearchOrder, SessionHit
from tsmemory.times import Time
from tsmemory.usecases import ConversationSteps, OnError, StoreSteps, Where

__all__ = ["ConversationSearch", "StoreSearch"]


class StoreSearch(Runner):
    """Searches in all sessions, or in one user's."""

    steps: StoreSteps

    def search_messages(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        session_id: Id | None = None,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Page[SearchHit]:
        """A page of messages that match `text`, the most recent first.

        Args:
            text: words that must all occur; ``"phrases"``, ``prefix*``, ``-without``. Case and
                width do not count, accents do; a word of a script without spaces (Chinese, Thai …)
                is found wherever its characters are side by side.
            user_id: whose sessions; leave it out for every user's. None is refused.
            session_id: only this session's.
            kinds: what of a message is searched: ``text`` (what users and assistants say),
                ``instructions``, ``tool_results``, ``reasoning``, ``tool_calls``.
            match: ``"any"``: one of the words is enough.
            role: only messages of this role, or of these.
            created_from: inclusive; µs since the epoch, an aware datetime, or ISO text.
            created_to: as `created_from`.
            where: a filter on the messages' metadata.
            order: ``"relevance"`` ranks among the 1,000 most recent hits; with ``match="any"``,
                also among 1,000 older ones that have one of the rarer words.
            limit: hits per page, 1 or more. A page may hold fewer, even none, and have a
                `next_cursor`: where there is no index, a page looks at a bounded part.
            cursor: `next_cursor` of the page before.
            around: also give up to so many messages on each side of a hit, as a valid view.
            on_error: ``"skip"`` leaves out records that do not decode.

        Returns:
            A page of `SearchHit`. No hit, snippet or score depends on another user's data.

        Raises:
            InvalidInputError: nothing to look for in `text`, or over 4,096 characters or 64 terms.
            CorruptRecordError: a message that the search met does not decode.
        """
        return self.run(
            self.steps.search_messages(
                text,
                user_id=user_id,
                session_id=session_id,
                kinds=kinds,
                match=match,
                role=role,
                created_from=created_from,
                created_to=created_to,
                where=where,
                order=order,
                limit=limit,
                cursor=cursor,
                around=around,
                on_error=on_error,
            )
        )

    async def asearch_messages(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        session_id: Id | None = None,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Page[SearchHit]:
        """Same as `search_messages`, for asyncio."""
        return await self.arun(
            self.steps.search_messages(
                text,
                user_id=user_id,
                session_id=session_id,
                kinds=kinds,
                match=match,
                role=role,
                created_from=created_from,
                created_to=created_to,
                where=where,
                order=order,
                limit=limit,
                cursor=cursor,
                around=around,
                on_error=on_error,
            )
        )

    def search_sessions(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        match: Match = "all",
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        where: Where = None,
        limit: int = 20,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[SessionHit]:
        """A page of sessions whose title, summary or metadata texts match, the last active first.

        Args:
            text: as in `search_messages`.
            user_id: whose; leave it out for every user's. None is refused.
            match: ``"any"``: one of the words is enough.
            updated_from: inclusive; µs since the epoch, an aware datetime, or ISO text.
            updated_to: as `updated_from`.
            where: a filter on the sessions' metadata.
            limit: hits per page, 1 or more; a page looks at 5,000 sessions at most.
            cursor: `next_cursor` of the page before.
            on_error: ``"skip"`` leaves out records that do not decode.

        Raises:
            InvalidInputError: as `search_messages`.
            CorruptRecordError: a session's record does not decode.
        """
        return self.run(
            self.steps.search_sessions(
                text,
                user_id=user_id,
                match=match,
                updated_from=updated_from,
                updated_to=updated_to,
                where=where,
                limit=limit,
                cursor=cursor,
                on_error=on_error,
            )
        )

    async def asearch_sessions(
        self,
        text: str,
        *,
        user_id: Id | Unset = UNSET,
        match: Match = "all",
        updated_from: Time | None = None,
        updated_to: Time | None = None,
        where: Where = None,
        limit: int = 20,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[SessionHit]:
        """Same as `search_sessions`, for asyncio."""
        return await self.arun(
            self.steps.search_sessions(
                text,
                user_id=user_id,
                match=match,
                updated_from=updated_from,
                updated_to=updated_to,
                where=where,
                limit=limit,
                cursor=cursor,
                on_error=on_error,
            )
        )


class ConversationSearch:
    """Searches in one session."""

    store: Runner
    key: Key
    steps: ConversationSteps

    def search(
        self,
        text: str,
        *,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Page[SearchHit]:
        """Same as `Store.search_messages`, in this session."""
        return self.store.run(
            self.steps.search(
                text,
                kinds=kinds,
                match=match,
                role=role,
                created_from=created_from,
                created_to=created_to,
                where=where,
                order=order,
                limit=limit,
                cursor=cursor,
                around=around,
                on_error=on_error,
            )
        )

    async def asearch(
        self,
        text: str,
        *,
        kinds: Kind | Iterable[Kind] = ("text",),
        match: Match = "all",
        role: str | Iterable[str] | None = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        where: Where = None,
        order: SearchOrder = "recent",
        limit: int = 20,
        cursor: str | None = None,
        around: int = 0,
        on_error: OnError = "raise",
    ) -> Page[SearchHit]:
        """Same as `search`, for asyncio."""
        return await self.store.arun(
            self.steps.search(
                text,
                kinds=kinds,
                match=match,
                role=role,
                created_from=created_from,
                created_to=created_to,
                where=where,
                order=order,
                limit=limit,
                cursor=cursor,
                around=around,
                on_error=on_error,
            )
        )
