"""The async half of `Conversation`: each operation of the same name without the ``a``, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from tsmemory.checks import MessageLike
from tsmemory.engine.records import UNSET, Key, Unset
from tsmemory.model import (
    Erased,
    Id,
    Message,
    MessageList,
    Page,
    Session,
    ToolCall,
    WindowReport,
)
from tsmemory.runner import Runner
from tsmemory.times import Time
from tsmemory.usecases import ConversationSteps, OnError, Order, Where
from tsmemory.usecases.arguments import PAGE
from tsmemory.window import Window

if TYPE_CHECKING:
    from tsmemory.blocks import Content

__all__ = ["AsyncConversation"]


class AsyncConversation:
    """The handle on a session, and its operations for asyncio."""

    def __init__(self, store: Runner, key: Key, ttl: float | None = None) -> None:
        self.store = store
        self.key = key
        self.user_id, self.session_id = key
        self.ttl = ttl
        """Seconds that every write through this handle sets as time to live; None: leaves it."""
        self.steps = ConversationSteps(store.backend, key, ttl, store.ttl)
        """Every operation as steps, to compose with ``yield from`` and run with `Store.run` or
        `Store.arun`."""

    # -- writing -----------------------------------------------------------------------------

    async def aappend(
        self, *messages: MessageLike | Iterable[MessageLike], if_version: int | None = None
    ) -> list[Message]:
        """Same as `append`, for asyncio."""
        return await self.store.arun(self.steps.append(*messages, if_version=if_version))

    async def aput_message(self, message: MessageLike) -> Message:
        """Same as `put_message`, for asyncio."""
        return await self.store.arun(self.steps.put_message(message))

    async def aput_messages(self, messages: Iterable[MessageLike]) -> list[Message]:
        """Same as `put_messages`, for asyncio."""
        return await self.store.arun(self.steps.put_messages(messages))

    async def aupdate_message(
        self,
        message_id: Id,
        *,
        role: str | Unset = UNSET,
        content: Content | Unset = UNSET,
        name: str | Unset | None = UNSET,
        tool_calls: Iterable[ToolCall] | Unset = UNSET,
        tool_call_id: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        extensions: dict[str, Any] | Unset = UNSET,
    ) -> Message:
        """Same as `update_message`, for asyncio."""
        return await self.store.arun(
            self.steps.update_message(
                message_id,
                role=role,
                content=content,
                name=name,
                tool_calls=tool_calls,
                tool_call_id=tool_call_id,
                metadata=metadata,
                remove_metadata=remove_metadata,
                extensions=extensions,
            )
        )

    async def areplace(self, messages: Iterable[MessageLike]) -> list[Message]:
        """Same as `replace`, for asyncio."""
        return await self.store.arun(self.steps.replace(messages))

    async def adelete_message(self, *message_ids: Id) -> int:
        """Same as `delete_message`, for asyncio."""
        return await self.store.arun(self.steps.delete_message(*message_ids))

    async def atruncate(self, keep_last: int) -> int:
        """Same as `truncate`, for asyncio."""
        return await self.store.arun(self.steps.truncate(keep_last))

    async def arewind(self, *, until: Id) -> int:
        """Same as `rewind`, for asyncio."""
        return await self.store.arun(self.steps.rewind(until=until))

    async def aclear(self) -> int:
        """Same as `clear`, for asyncio."""
        return await self.store.arun(self.steps.clear())

    async def adelete(self) -> Erased:
        """Same as `delete`, for asyncio."""
        return await self.store.arun(self.steps.delete())

    async def acompact(self) -> int:
        """Same as `compact`, for asyncio."""
        return await self.store.arun(self.steps.compact())

    # -- reading -----------------------------------------------------------------------------

    @overload
    async def awindow(
        self, last: Window | int | None = None, *, explain: Literal[False] = False
    ) -> MessageList: ...
    @overload
    async def awindow(
        self, last: Window | int | None = None, *, explain: Literal[True]
    ) -> WindowReport: ...
    async def awindow(
        self, last: Window | int | None = None, *, explain: bool = False
    ) -> MessageList | WindowReport:
        """Same as `window`, for asyncio."""
        report = await self.store.arun(self.steps.window(last, explain=explain))
        return report if explain else report.messages

    async def alist_messages(
        self,
        *,
        where: Where = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        order: Order = "asc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[Message]:
        """Same as `list_messages`, for asyncio."""
        return await self.store.arun(
            self.steps.list_messages(
                where=where,
                created_from=created_from,
                created_to=created_to,
                order=order,
                limit=limit,
                cursor=cursor,
                on_error=on_error,
            )
        )

    async def aiter_messages(
        self,
        *,
        where: Where = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        order: Order = "asc",
        on_error: OnError = "raise",
    ) -> AsyncIterator[Message]:
        """Same as `iter_messages`, for asyncio."""
        cursor = None
        while True:
            page = await self.alist_messages(
                where=where,
                created_from=created_from,
                created_to=created_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            for message in page.items:
                yield message
            cursor = page.next_cursor
            if cursor is None:
                return

    async def aget_message(self, message_id: Id) -> Message | None:
        """Same as `get_message`, for asyncio."""
        return await self.store.arun(self.steps.get_message(message_id))

    async def acount(self, *, where: Where = None) -> int:
        """Same as `count`, for asyncio."""
        return await self.store.arun(self.steps.count(where=where))

    # -- the session's record ----------------------------------------------------------------

    async def asession(self) -> Session | None:
        """Same as `session`, for asyncio."""
        return await self.store.arun(self.steps.session())

    async def aupdate_session(
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
    ) -> Session:
        """Same as `update_session`, for asyncio."""
        return await self.store.arun(
            self.steps.update_session(
                title=title,
                summary=summary,
                metadata=metadata,
                remove_metadata=remove_metadata,
                replace_metadata=replace_metadata,
                ttl=ttl,
                create_time=create_time,
                update_time=update_time,
                if_version=if_version,
            )
        )

    async def aget_ttl(self) -> float | None:
        """Same as `get_ttl`, for asyncio."""
        return await self.store.arun(self.steps.get_ttl())

    async def aset_ttl(self, ttl: float | None) -> bool:
        """Same as `set_ttl`, for asyncio."""
        return await self.store.arun(self.steps.set_ttl(ttl))
