"""`Conversation`: a handle on one session of a store.

Every operation has an async version, the same name after an ``a`` (`conversation_async`); both run
the steps of `usecases.ConversationSteps`. All of them may raise `BackendError` and its kinds where
the engine fails, and `InvalidInputError` before any I/O where an argument is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from tsmemory.checks import MessageLike, check_key
from tsmemory.conversation_async import AsyncConversation
from tsmemory.engine.records import UNSET, Unset
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
from tsmemory.searching import ConversationSearch
from tsmemory.times import Time
from tsmemory.usecases import OnError, Order, Where
from tsmemory.usecases.arguments import PAGE
from tsmemory.window import Window

if TYPE_CHECKING:
    from tsmemory.blocks import Content

__all__ = ["Conversation"]


class Conversation(AsyncConversation, ConversationSearch):
    """One session of a store: a handle, made by `Store.conversation`. Making one does no I/O.

    ``steps`` has every operation as typed steps, to compose with ``yield from`` and run with
    `Store.run` or `Store.arun`.
    """

    def __repr__(self) -> str:
        return f"Conversation({self.session_id!r}, user_id={self.user_id!r})"

    def _repr_html_(self) -> str:
        from tsmemory import html  # only notebooks need it

        return html.conversation(self.session_id, self.user_id, repr(self.store))

    # -- writing -----------------------------------------------------------------------------

    def append(
        self, *messages: MessageLike | Iterable[MessageLike], if_version: int | None = None
    ) -> list[Message]:
        """Add messages at the end, all or none. The store assigns their `create_time`.

        You can safely retry an append: a message that is stored already, by its id and with the
        same content, is left as it is.

        Args:
            messages: messages, or one list of them; a dict is one in the OpenAI chat format.
            if_version: write only where the session is at this version (0: does not exist).

        Returns:
            The messages as stored, in the order given.

        Raises:
            ConflictError: the session is at another version, or holds other content under one of
                the ids. Nothing was written.
            MessageTooLargeError: over the engine's limit.
        """
        return self.store.run(self.steps.append(*messages, if_version=if_version))

    def put_message(self, message: MessageLike) -> Message:
        """Insert a message, or overwrite the one that has its id.

        A `create_time` of its own places it (for imports; ties sort by id). Without one it stays
        where it is, or is added at the end.
        """
        return self.store.run(self.steps.put_message(message))

    def put_messages(self, messages: Iterable[MessageLike]) -> list[Message]:
        """Same as `put_message`, for many, all or none."""
        return self.store.run(self.steps.put_messages(messages))

    def update_message(
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
        """Change fields of a message; it stays where it is.

        Args:
            metadata: merged key by key into what is there.
            remove_metadata: keys to remove, before the merge.

        Raises:
            NotFoundError: the session has no such message.
            ConflictError: other writers kept changing the session meanwhile.
        """
        return self.store.run(
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

    def replace(self, messages: Iterable[MessageLike]) -> list[Message]:
        """Make the session hold exactly `messages`, in this order, by writing only what differs.

        A message that is stored (by id) keeps its time where the order allows it.

        Raises:
            InvalidInputError: two of them share an id.
            ConflictError: other writers kept changing the session meanwhile.
        """
        return self.store.run(self.steps.replace(messages))

    def delete_message(self, *message_ids: Id) -> int:
        """Remove messages by id. Returns how many were stored."""
        return self.store.run(self.steps.delete_message(*message_ids))

    def truncate(self, keep_last: int) -> int:
        """Remove all but the newest `keep_last` messages, whatever their role.

        To show a model less, take a `window`: it removes nothing.

        Returns:
            How many were removed.
        """
        return self.store.run(self.steps.truncate(keep_last))

    def rewind(self, *, until: Id) -> int:
        """Remove every message after `until`: to edit the next one, or to answer again.

        Messages that others append meanwhile stay. `fork` keeps the original and does the same in
        a copy.

        Args:
            until: id of the message that becomes the last one.

        Returns:
            How many were removed.

        Raises:
            NotFoundError: the session has no message `until`.
        """
        return self.store.run(self.steps.rewind(until=until))

    def clear(self) -> int:
        """Remove every message; the session stays. Returns how many were removed."""
        return self.store.run(self.steps.clear())

    def delete(self) -> Erased:
        """Remove the session with all its messages. Returns the receipt."""
        return self.store.run(self.steps.delete())

    def fork(self, session_id: Id, *, until: Id | None = None) -> Conversation:
        """Begin another session of the same user with a copy of this one.

        Args:
            session_id: the new session's.
            until: id of the last message to copy; None copies all.

        Raises:
            ConflictError: the new session exists.
            NotFoundError: this one does not, or has no message `until`.
        """
        self.store.run(self.steps.fork(session_id, until=until))
        return self._sibling(session_id)

    async def afork(self, session_id: Id, *, until: Id | None = None) -> Conversation:
        """Same as `fork`, for asyncio."""
        await self.store.arun(self.steps.fork(session_id, until=until))
        return self._sibling(session_id)

    def _sibling(self, session_id: Id) -> Conversation:
        """A handle on another session of the same user."""
        return Conversation(self.store, check_key(self.user_id, session_id), self.ttl)

    def compact(self) -> int:
        """Reclaim what removed messages still occupy. Returns bytes; 0 where nothing does."""
        return self.store.run(self.steps.compact())

    # -- reading -----------------------------------------------------------------------------

    @overload
    def window(
        self, last: Window | int | None = None, *, explain: Literal[False] = False
    ) -> MessageList: ...
    @overload
    def window(
        self, last: Window | int | None = None, *, explain: Literal[True]
    ) -> WindowReport: ...
    def window(
        self, last: Window | int | None = None, *, explain: bool = False
    ) -> MessageList | WindowReport:
        """What a model should see: the newest messages in reading order, safe to send.

        Args:
            last: how many of the newest messages, or a `Window`. None: everything.
            explain: also say what was left out, and why.

        Raises:
            CorruptRecordError: a message that had to be read does not decode.
        """
        report = self.store.run(self.steps.window(last, explain=explain))
        return report if explain else report.messages

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
    ) -> Page[Message]:
        """A page of the transcript, as it is stored.

        Args:
            where: a filter on the messages' metadata.
            created_from: inclusive; µs since the epoch, an aware datetime, or ISO text.
            created_to: as `created_from`.
            order: ``"asc"``, reading order, or ``"desc"``.
            limit: messages per page, 1 or more.
            cursor: `next_cursor` of the page before.
            on_error: ``"skip"`` leaves out records that do not decode.

        Raises:
            CorruptRecordError: a message of the page does not decode.
        """
        return self.store.run(
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

    def iter_messages(
        self,
        *,
        where: Where = None,
        created_from: Time | None = None,
        created_to: Time | None = None,
        order: Order = "asc",
        on_error: OnError = "raise",
    ) -> Iterator[Message]:
        """Same as `list_messages`, but every message, page by page."""
        cursor = None
        while True:
            page = self.list_messages(
                where=where,
                created_from=created_from,
                created_to=created_to,
                order=order,
                limit=PAGE,
                cursor=cursor,
                on_error=on_error,
            )
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def get_message(self, message_id: Id) -> Message | None:
        """One message by id; None where it is not stored."""
        return self.store.run(self.steps.get_message(message_id))

    def count(self, *, where: Where = None) -> int:
        """How many messages the session holds (that the filter lets through)."""
        return self.store.run(self.steps.count(where=where))

    # -- the session's record ----------------------------------------------------------------

    def session(self) -> Session | None:
        """The session's record; None where there is none."""
        return self.store.run(self.steps.session())

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
    ) -> Session:
        """Change the session's record, which begins the session where there is none.

        Args:
            metadata: merged key by key into what is there (`replace_metadata`: instead of it).
            remove_metadata: keys to remove, before the merge.
            ttl: seconds; None removes the time to live.
            create_time: for imports; µs since the epoch, an aware datetime, or ISO text.
            update_time: as `create_time`; now, if left out.
            if_version: change only a session that is at this version (0: does not exist).

        Raises:
            ConflictError: the session is at another version. Nothing was written.
        """
        return self.store.run(
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

    def get_ttl(self) -> float | None:
        """Seconds until the session expires; `math.inf` where it does not; None where there is no
        session."""
        return self.store.run(self.steps.get_ttl())

    def set_ttl(self, ttl: float | None) -> bool:
        """Give the session `ttl` seconds from now, and from each later write; None: no end.

        Returns:
            Whether there is such a session.
        """
        return self.store.run(self.steps.set_ttl(ttl))

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves the store open: who opened it closes it."""

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves the store open: who opened it closes it."""
