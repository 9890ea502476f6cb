"""The public API: a `Store` of conversations, and a `Conversation`, which is one session of it.

Every operation stands twice, as ``name`` and as ``aname`` for asyncio; both drive the same body
(`_operations`). Nothing here decides anything. All of them may raise `BackendError` and its kinds
where the engine fails, and `InvalidInputError` before any I/O where an argument is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from tsmemory import checks, html
from tsmemory import usecases as _do
from tsmemory.engine.contract import (
    UNSET,
    Backend,
    Key,
    Unset,
)
from tsmemory.engine.steps import Steps
from tsmemory.filters import Filter
from tsmemory.model import (
    Block,
    Erased,
    Message,
    MessageList,
    Page,
    Problem,
    Session,
    Stats,
    ToolCall,
    WindowReport,
)
from tsmemory.usecases import OnError, Order
from tsmemory.window import Window

__all__ = ["Conversation", "Store"]

T = TypeVar("T")
Where = Filter | Mapping[str, Any] | None
_PAGE = 500  # rows a page of the iterators: few round trips, bounded memory


class Store:
    """Conversations in one engine. Open one with `open_store`, or around a backend of yours.

    Args:
        backend: the engine.
        ttl: seconds; the time to live of sessions that begin here. None: they stay.

    A context manager in both colours; leaving it closes what the store opened.
    """

    def __init__(self, backend: Backend, *, ttl: float | None = None) -> None:
        self.backend = backend
        self.ttl = checks.check_ttl(ttl)

    def __repr__(self) -> str:
        return f"Store({self.backend!r})"

    def conversation(
        self, session_id: str, *, user_id: str = checks.DEFAULT_USER, ttl: float | None = None
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
        user_id: str | Unset = UNSET,
        where: Where = None,
        updated_from: Any = None,
        updated_to: Any = None,
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
            order: ``"desc"``, or ``"asc"`` for the longest quiet first.
            limit: sessions a page, 1 or more.
            cursor: `next_cursor` of the page before. A session that is written to while you page
                moves to the front, behind you.
            on_error: ``"skip"`` leaves out records that do not decode.

        Raises:
            CorruptRecordError: a session's record does not decode.
        """
        return self.backend.run(self._list_sessions(**_arguments(locals())))

    async def alist_sessions(
        self,
        *,
        user_id: str | Unset = UNSET,
        where: Where = None,
        updated_from: Any = None,
        updated_to: Any = None,
        order: Order = "desc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[Session]:
        """Same as `list_sessions`, for asyncio."""
        return await self.backend.arun(self._list_sessions(**_arguments(locals())))

    def _list_sessions(self, **arguments: Any) -> Steps[Page[Session]]:
        return _do.list_sessions(self.backend, **arguments)

    def iter_sessions(
        self,
        *,
        user_id: str | Unset = UNSET,
        where: Where = None,
        updated_from: Any = None,
        updated_to: Any = None,
        order: Order = "desc",
        on_error: OnError = "raise",
    ) -> Iterator[Session]:
        """Same as `list_sessions`, but every session, page by page."""
        return _pages(self.list_sessions, _arguments(locals()))

    def aiter_sessions(
        self,
        *,
        user_id: str | Unset = UNSET,
        where: Where = None,
        updated_from: Any = None,
        updated_to: Any = None,
        order: Order = "desc",
        on_error: OnError = "raise",
    ) -> AsyncIterator[Session]:
        """Same as `iter_sessions`, for asyncio."""
        return _apages(self.alist_sessions, _arguments(locals()))

    def iter_messages(
        self, *, user_id: str | Unset = UNSET, on_error: OnError = "raise"
    ) -> Iterator[tuple[Session, Message]]:
        """Every message of every session (of one user), each with its session."""
        for session in self.iter_sessions(user_id=user_id, on_error=on_error):
            chat = self.conversation(session.session_id, user_id=session.user_id)
            for message in chat.iter_messages(on_error=on_error):
                yield session, message

    async def aiter_messages(
        self, *, user_id: str | Unset = UNSET, on_error: OnError = "raise"
    ) -> AsyncIterator[tuple[Session, Message]]:
        """Same as `iter_messages`, for asyncio."""
        async for session in self.aiter_sessions(user_id=user_id, on_error=on_error):
            chat = self.conversation(session.session_id, user_id=session.user_id)
            async for message in chat.aiter_messages(on_error=on_error):
                yield session, message

    # -- removing ----------------------------------------------------------------------------

    def erase_user(self, user_id: str) -> Erased:
        """Remove everything of one user, expired sessions too. Returns the receipt."""
        return self.backend.run(self.backend.erase(checks.check_id("user_id", user_id)))

    async def aerase_user(self, user_id: str) -> Erased:
        """Same as `erase_user`, for asyncio."""
        return await self.backend.arun(self.backend.erase(checks.check_id("user_id", user_id)))

    def clear(self) -> Erased:
        """Remove every session of every user. Returns the receipt."""
        return self.backend.run(self.backend.erase(None))

    async def aclear(self) -> Erased:
        """Same as `clear`, for asyncio."""
        return await self.backend.arun(self.backend.erase(None))

    def purge_expired(self) -> Erased:
        """Remove what is past its time to live, which no reader sees any more anyway."""
        return self.backend.run(self.backend.purge_expired())

    async def apurge_expired(self) -> Erased:
        """Same as `purge_expired`, for asyncio."""
        return await self.backend.arun(self.backend.purge_expired())

    # -- looking after -----------------------------------------------------------------------

    def setup(self) -> None:
        """Create what the engine needs and does not have. Safe to call again, and by many."""
        self.backend.run(self.backend.setup())

    async def asetup(self) -> None:
        """Same as `setup`, for asyncio."""
        await self.backend.arun(self.backend.setup())

    def stats(self) -> Stats:
        """How much is stored."""
        return self.backend.run(self.backend.stats())

    async def astats(self) -> Stats:
        """Same as `stats`, for asyncio."""
        return await self.backend.arun(self.backend.stats())

    def verify(self) -> list[Problem]:
        """Read everything and name what is broken. Empty where all is well."""
        return self.backend.run(self.backend.verify())

    async def averify(self) -> list[Problem]:
        """Same as `verify`, for asyncio."""
        return await self.backend.arun(self.backend.verify())

    def close(self) -> None:
        """Release what the store opened; a client that you passed in stays open. Idempotent."""
        self.backend.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio; closes both colours."""
        await self.backend.aclose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Conversation:
    """One session of a store: a handle, made by `Store.conversation`. Making one does no I/O."""

    def __init__(self, store: Store, key: Key, ttl: float | None = None) -> None:
        self.store = store
        self.user_id, self.session_id = self._key = key
        self.ttl = ttl
        """Seconds that every write through this handle sets as time to live; None: leaves it."""

    def __repr__(self) -> str:
        return f"Conversation({self.session_id!r}, user_id={self.user_id!r})"

    def _repr_html_(self) -> str:
        return html.conversation(self)

    @property
    def _lifetime(self) -> _do.Lifetime:
        return _do.Lifetime(self.ttl, self.store.ttl)

    def _run(self, steps: Steps[T]) -> T:
        return self.store.backend.run(steps)

    async def _arun(self, steps: Steps[T]) -> T:
        return await self.store.backend.arun(steps)

    # -- writing -----------------------------------------------------------------------------

    def append(self, *messages: Message, if_version: int | None = None) -> list[Message]:
        """Add messages at the end, all or none; the store gives them their `create_time`.

        A message whose id is in the session already is left as it is, so that a call may be
        repeated after an error whose outcome is unknown.

        Args:
            if_version: write only where the session is at this version (0: does not exist).

        Returns:
            The messages as stored, in the order given.

        Raises:
            ConflictError: the session is at another version. Nothing was written.
            MessageTooLargeError: over the engine's limit.
        """
        return self._run(self._append(messages, if_version))

    async def aappend(self, *messages: Message, if_version: int | None = None) -> list[Message]:
        """Same as `append`, for asyncio."""
        return await self._arun(self._append(messages, if_version))

    def _append(self, messages: tuple[Message, ...], version: int | None) -> Steps[list[Message]]:
        store = self.store
        return _do.append(store.backend, self._key, messages, version, self._lifetime)

    def put_message(self, message: Message) -> Message:
        """Insert a message, or overwrite the one that has its id.

        A `create_time` of its own places it (for imports; ties sort by id); without one it stays
        where it is, or goes to the end.
        """
        return self._run(self._put((message,)))[0]

    async def aput_message(self, message: Message) -> Message:
        """Same as `put_message`, for asyncio."""
        return (await self._arun(self._put((message,))))[0]

    def put_messages(self, messages: Iterable[Message]) -> list[Message]:
        """Same as `put_message`, for many, all or none."""
        return self._run(self._put(messages))

    async def aput_messages(self, messages: Iterable[Message]) -> list[Message]:
        """Same as `put_messages`, for asyncio."""
        return await self._arun(self._put(messages))

    def _put(self, messages: Iterable[Message]) -> Steps[list[Message]]:
        return _do.put(self.store.backend, self._key, messages, self._lifetime)

    def update_message(
        self,
        message_id: str,
        *,
        role: str | Unset = UNSET,
        content: str | list[Block] | Unset = UNSET,
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
            ConflictError: others wrote to the session at every one of 100 attempts.
        """
        return self._run(self._update(**_arguments(locals())))

    async def aupdate_message(
        self,
        message_id: str,
        *,
        role: str | Unset = UNSET,
        content: str | list[Block] | Unset = UNSET,
        name: str | Unset | None = UNSET,
        tool_calls: Iterable[ToolCall] | Unset = UNSET,
        tool_call_id: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        extensions: dict[str, Any] | Unset = UNSET,
    ) -> Message:
        """Same as `update_message`, for asyncio."""
        return await self._arun(self._update(**_arguments(locals())))

    def _update(
        self, message_id: str, metadata: Any, remove_metadata: Iterable[str], **fields: Any
    ) -> Steps[Message]:
        changes = {name: value for name, value in fields.items() if value is not UNSET}
        return _do.update_message(
            self.store.backend, self._key, message_id, changes, metadata, remove_metadata
        )

    def delete_message(self, *message_ids: str) -> int:
        """Remove messages by id. Returns how many were there."""
        return self._run(_do.delete_messages(self.store.backend, self._key, message_ids))

    async def adelete_message(self, *message_ids: str) -> int:
        """Same as `delete_message`, for asyncio."""
        return await self._arun(_do.delete_messages(self.store.backend, self._key, message_ids))

    def replace(self, messages: Iterable[Message]) -> list[Message]:
        """Make the session hold exactly `messages`, in this order, by writing only what differs.

        A message that is there (by id) keeps its time where the order allows it.

        Raises:
            InvalidInputError: an id stands twice.
            ConflictError: others wrote to the session at every one of 100 attempts.
        """
        return self._run(self._replace(messages))

    async def areplace(self, messages: Iterable[Message]) -> list[Message]:
        """Same as `replace`, for asyncio."""
        return await self._arun(self._replace(messages))

    def _replace(self, messages: Iterable[Message]) -> Steps[list[Message]]:
        return _do.replace(self.store.backend, self._key, messages, self._lifetime)

    def truncate(self, keep_last: int) -> int:
        """Remove all but the newest `keep_last` messages, whatever their role.

        To show a model less, take a `window`: it removes nothing.

        Returns:
            How many went.
        """
        return self._run(_do.truncate(self.store.backend, self._key, keep_last))

    async def atruncate(self, keep_last: int) -> int:
        """Same as `truncate`, for asyncio."""
        return await self._arun(_do.truncate(self.store.backend, self._key, keep_last))

    def clear(self) -> int:
        """Remove every message; the session stays. Returns how many went."""
        return self._run(_do.clear_messages(self.store.backend, self._key))

    async def aclear(self) -> int:
        """Same as `clear`, for asyncio."""
        return await self._arun(_do.clear_messages(self.store.backend, self._key))

    def delete(self) -> Erased:
        """Remove the session with all its messages. Returns the receipt."""
        return self._run(self.store.backend.erase(*self._key))

    async def adelete(self) -> Erased:
        """Same as `delete`, for asyncio."""
        return await self._arun(self.store.backend.erase(*self._key))

    def fork(self, session_id: str, *, until: str | None = None) -> Conversation:
        """Begin another session of the same user with a copy of this one.

        Args:
            session_id: the new session's.
            until: id of the last message to copy; None copies all.

        Raises:
            ConflictError: the new session exists.
            NotFoundError: this one does not, or has no message `until`.
        """
        fork = self.store.conversation(session_id, user_id=self.user_id, ttl=self.ttl)
        self._run(_do.fork(self.store.backend, self._key, fork._key, until))
        return fork

    async def afork(self, session_id: str, *, until: str | None = None) -> Conversation:
        """Same as `fork`, for asyncio."""
        fork = self.store.conversation(session_id, user_id=self.user_id, ttl=self.ttl)
        await self._arun(_do.fork(self.store.backend, self._key, fork._key, until))
        return fork

    def compact(self) -> int:
        """Reclaim what removed messages still occupy. Returns bytes; 0 where nothing does."""
        return self._run(self.store.backend.compact(self._key))

    async def acompact(self) -> int:
        """Same as `compact`, for asyncio."""
        return await self._arun(self.store.backend.compact(self._key))

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
        report = self._run(_do.window(self.store.backend, self._key, last, explain))
        return report if explain else report.messages

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
        report = await self._arun(_do.window(self.store.backend, self._key, last, explain))
        return report if explain else report.messages

    def list_messages(
        self,
        *,
        where: Where = None,
        created_from: Any = None,
        created_to: Any = None,
        order: Order = "asc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[Message]:
        """A page of the transcript, as it is stored.

        Args:
            where: a filter on the messages' metadata.
            created_from: inclusive; µs since the epoch, or an aware datetime.
            created_to: as `created_from`.
            order: ``"asc"``, reading order, or ``"desc"``.
            limit: messages a page, 1 or more.
            cursor: `next_cursor` of the page before.
            on_error: ``"skip"`` leaves out records that do not decode.

        Raises:
            CorruptRecordError: a message of the page does not decode.
        """
        return self._run(self._list(**_arguments(locals())))

    async def alist_messages(
        self,
        *,
        where: Where = None,
        created_from: Any = None,
        created_to: Any = None,
        order: Order = "asc",
        limit: int = 100,
        cursor: str | None = None,
        on_error: OnError = "raise",
    ) -> Page[Message]:
        """Same as `list_messages`, for asyncio."""
        return await self._arun(self._list(**_arguments(locals())))

    def _list(self, **arguments: Any) -> Steps[Page[Message]]:
        return _do.list_messages(self.store.backend, self._key, **arguments)

    def iter_messages(
        self,
        *,
        where: Where = None,
        created_from: Any = None,
        created_to: Any = None,
        order: Order = "asc",
        on_error: OnError = "raise",
    ) -> Iterator[Message]:
        """Same as `list_messages`, but every message, page by page."""
        return _pages(self.list_messages, _arguments(locals()))

    def aiter_messages(
        self,
        *,
        where: Where = None,
        created_from: Any = None,
        created_to: Any = None,
        order: Order = "asc",
        on_error: OnError = "raise",
    ) -> AsyncIterator[Message]:
        """Same as `iter_messages`, for asyncio."""
        return _apages(self.alist_messages, _arguments(locals()))

    def get_message(self, message_id: str) -> Message | None:
        """One message by id; None where it is not there."""
        return self._run(_do.get_message(self.store.backend, self._key, message_id))

    async def aget_message(self, message_id: str) -> Message | None:
        """Same as `get_message`, for asyncio."""
        return await self._arun(_do.get_message(self.store.backend, self._key, message_id))

    def count(self, *, where: Where = None) -> int:
        """How many messages the session holds (that the filter lets through)."""
        return self._run(_do.count(self.store.backend, self._key, where))

    async def acount(self, *, where: Where = None) -> int:
        """Same as `count`, for asyncio."""
        return await self._arun(_do.count(self.store.backend, self._key, where))

    # -- the session's record ----------------------------------------------------------------

    def session(self) -> Session | None:
        """The session's record; None where there is none."""
        return self._run(_do.get_session(self.store.backend, self._key))

    async def asession(self) -> Session | None:
        """Same as `session`, for asyncio."""
        return await self._arun(_do.get_session(self.store.backend, self._key))

    def update_session(
        self,
        *,
        title: str | Unset | None = UNSET,
        summary: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        replace_metadata: bool = False,
        ttl: float | Unset | None = UNSET,
        create_time: Any = UNSET,
        update_time: Any = UNSET,
        if_version: int | None = None,
    ) -> Session:
        """Change the session's record, which begins the session where there is none.

        Args:
            metadata: merged key by key into what is there (`replace_metadata`: instead of it).
            remove_metadata: keys to remove, before the merge.
            ttl: seconds; None removes the time to live.
            create_time: for imports; µs since the epoch, or an aware datetime.
            update_time: as `create_time`; now, if left out.
            if_version: change only a session that is at this version (0: does not exist).

        Raises:
            ConflictError: the session is at another version. Nothing was written.
        """
        return self._run(self._update_session(**_arguments(locals())))

    async def aupdate_session(
        self,
        *,
        title: str | Unset | None = UNSET,
        summary: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        replace_metadata: bool = False,
        ttl: float | Unset | None = UNSET,
        create_time: Any = UNSET,
        update_time: Any = UNSET,
        if_version: int | None = None,
    ) -> Session:
        """Same as `update_session`, for asyncio."""
        return await self._arun(self._update_session(**_arguments(locals())))

    def _update_session(self, **fields: Any) -> Steps[Session]:
        return _do.update_session(self.store.backend, self._key, self._lifetime, **fields)

    def get_ttl(self) -> float | None:
        """Seconds until the session expires; `math.inf` where it does not; None where there is no
        session."""
        return self._run(_do.get_ttl(self.store.backend, self._key))

    async def aget_ttl(self) -> float | None:
        """Same as `get_ttl`, for asyncio."""
        return await self._arun(_do.get_ttl(self.store.backend, self._key))

    def set_ttl(self, ttl: float | None) -> bool:
        """Give the session `ttl` seconds from now, and from each later write; None: no end.

        Returns:
            Whether there is such a session.
        """
        return self._run(_do.set_ttl(self.store.backend, self._key, ttl))

    async def aset_ttl(self, ttl: float | None) -> bool:
        """Same as `set_ttl`, for asyncio."""
        return await self._arun(_do.set_ttl(self.store.backend, self._key, ttl))

    # -- context managers, for symmetry with `Store`: a handle holds nothing to release ----------

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


def _arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that a method was called with, from its `locals()` at its start."""
    return {name: value for name, value in scope.items() if name != "self"}


def _pages(listing: Callable[..., Page[T]], arguments: dict[str, Any]) -> Iterator[T]:
    page = listing(**arguments, limit=_PAGE)
    yield from page.items
    while page.next_cursor is not None:
        page = listing(**arguments, limit=_PAGE, cursor=page.next_cursor)
        yield from page.items


async def _apages(listing: Callable[..., Any], arguments: dict[str, Any]) -> AsyncIterator[Any]:
    page = await listing(**arguments, limit=_PAGE)
    for item in page.items:
        yield item
    while page.next_cursor is not None:
        page = await listing(**arguments, limit=_PAGE, cursor=page.next_cursor)
        for item in page.items:
            yield item
