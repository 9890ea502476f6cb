"""`TSMemoryAsyncChatStore`: what LlamaIndex's `Memory` keeps its messages in.

`Memory` is a queue in front of memory blocks: when the active messages are too many, it archives
the oldest and gives them to the blocks. Here the messages stay as they are, every other integration
sees the whole transcript, and the active ones are read without the rest (`_active`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from llamaindex_tsmemory import _active
from llamaindex_tsmemory import _operations as operations
from llamaindex_tsmemory._active import MARK, START, STATUS, position
from llamaindex_tsmemory._serialisation import StoreFields
from llamaindex_tsmemory.mapping import to_neutral
from tsmemory import ConflictError, Conversation, InvalidInputError, Message, Steps, Store

__all__ = ["MARK", "STATUS", "TSMemoryAsyncChatStore"]

_ATTEMPTS = 100
"""How often archiving begins again when others write to the session in between."""
_Dict: TypeAlias = dict[str, Any]


class TSMemoryAsyncChatStore(StoreFields, AsyncDBChatStore):
    """Conversations of one user, for LlamaIndex's `Memory`.

    ``Memory.from_defaults(session_id=…, chat_store=TSMemoryAsyncChatStore(…))``. A key is a session
    id. Messages have a status: active until `Memory` archives them. An archived message stays in
    the session's transcript, and messages that other writers add are active.

    **What is active is repaired**: a tool call without its result, or a result without its call,
    which a crash may leave and chat APIs refuse, is not among the active messages that are given,
    counted and positioned here; the store has it still. ``status=None`` gives what is stored.

    Args:
        store: a `tsmemory.Store`, or the URL of one, as ``sqlite:///chat.db``.
        user_id: whose sessions; 1 to 255 bytes of UTF-8.
        ttl: seconds that a session lives on after each write; None leaves it as it is.
        repair: False gives active messages as they are stored too.
        url: as `store`, for `from_dict`.
        options: for `from_dict`: the names of options given to `from_url`.

    Serialised (`to_dict`, pydantic's own ways, pickle, ``repr``) it has the URL without secrets,
    as `TSMemoryChatStore`. A context manager: leaving it closes a store opened here from a URL.

    Every method may raise `tsmemory.BackendError` and its kinds where the engine fails,
    `CorruptRecordError` where a record does not read, and `InvalidInputError` (a `ValueError`)
    where an argument is wrong, before anything is written.
    """

    repair: bool = Field(default=True, description="Leave orphans out of the active messages.")

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        user_id: str = "default",
        ttl: float | None = None,
        repair: bool = True,
        url: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._connect(store, url, options, user_id, ttl, repair=repair)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        user_id: str = "default",
        ttl: float | None = None,
        repair: bool = True,
        **options: Any,
    ) -> TSMemoryAsyncChatStore:
        """Open the store at `url` and make a chat store of it, which closes it.

        Args:
            url: as `tsmemory.open_store` takes it.
            user_id: whose sessions.
            ttl: seconds that a session lives on after each write.
            repair: leave orphans out of the active messages.
            options: the engine's, by name. They are not serialised, so prefer those in the URL.

        Raises:
            InvalidInputError: an unknown scheme or option, or another argument that is wrong.
            MissingDependencyError: the engine's driver is not installed.
        """
        return cls._from_url(url, options, user_id=user_id, ttl=ttl, repair=repair)

    @classmethod
    def from_store(
        cls,
        store: Store,
        *,
        user_id: str = "default",
        ttl: float | None = None,
        repair: bool = True,
    ) -> TSMemoryAsyncChatStore:
        """Make a chat store of an open store, which stays yours to close.

        Raises:
            InvalidInputError: an argument is wrong.
        """
        return cls._from_store(store, user_id=user_id, ttl=ttl, repair=repair)

    # -- reading -----------------------------------------------------------------------------

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages of a status, in reading order; empty where there are none.

        Args:
            key: the session's id.
            status: None for the transcript as it is stored.
            limit: at most as many, counted from `offset`: the *oldest*, as in LlamaIndex's own
                store. For the newest n, ``limit=n, offset=-n``.
            offset: how many to pass over; a negative one counts from the end.
        """
        chat = self.conversation(key)
        rows = _active.rows(
            chat, _checked(status), self.repair, _size("limit", limit), _offset(offset)
        )
        return [operations.read(chat, m) for m in await self._store.arun(rows)]

    async def count_messages(
        self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> int:
        """How many messages of a status are stored; None for all. From the session's record; where
        some are archived, by reading the active ones. With `repair`, `get_messages` gives fewer
        where a crash has left a call without its result."""
        return await self._store.arun(_active.count(self.conversation(key), _checked(status)))

    async def get_keys(self) -> list[str]:
        """The session ids of this user, the most recently active first."""
        return await self._store.arun(operations.keys(self._store, self.user_id))

    # -- writing -----------------------------------------------------------------------------

    async def add_message(
        self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add a message at the end."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self,
        key: str,
        messages: list[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        """Add messages at the end, all or none. No messages: nothing happens."""
        fields = _status_fields(status)
        new = [msgspec.structs.replace(to_neutral(m), **fields) for m in _listed(messages)]
        if new:
            await self._store.arun(self._add(self.conversation(key), new, bool(fields)))

    def _add(self, chat: Conversation, new: list[Message], as_archived: bool) -> Steps[None]:
        yield from chat.steps.append(new)
        if as_archived:
            yield from chat.steps.update_session(metadata={STATUS: True})

    async def set_messages(
        self,
        key: str,
        messages: list[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        """Make `messages` those of this status, by writing only what differs.

        A message that was there already, equal and in the same order, keeps its record. **Nothing
        that is active is deleted**: what `messages` leave out is archived, for an agent sets its
        memory to the ``chat_history`` that a run is given. Archived messages that a list of
        archived ones leaves out are deleted; use `delete_messages` to delete active ones.
        """
        chat = self.conversation(key)
        fields = _status_fields(status)
        await self._store.arun(self._set(chat, status, _listed(messages), fields))

    def _set(
        self,
        chat: Conversation,
        status: MessageStatus,
        messages: list[ChatMessage],
        fields: _Dict,
    ) -> Steps[None]:
        rows = yield from _active.rows(chat, status, self.repair)
        removed = yield from operations.replace_rows(chat, rows, messages, **fields)
        if fields:
            yield from chat.steps.update_session(metadata={STATUS: True})
            yield from chat.steps.delete_message(*(m.message_id for m in removed))
        elif removed:
            yield from self._archive_removed(chat, rows, removed)

    def _archive_removed(
        self, chat: Conversation, rows: Sequence[Message], removed: Sequence[Message]
    ) -> Steps[None]:
        ids = {m.message_id for m in removed}
        mark = max(map(position, removed))
        if all(m.message_id in ids or position(m) > mark for m in rows):
            session = yield from chat.steps.session()
            if session is not None and _active.mark_of(session) < mark:
                yield from chat.steps.update_session(metadata={MARK: list(mark)})
        else:
            yield from chat.steps.put_messages([_active.archived(m) for m in removed])
            yield from chat.steps.update_session(metadata={STATUS: True})

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at *position* `idx` of what ``get_messages(key)`` gives.

        LlamaIndex's own store takes a row's number in the database there, which no method tells.

        Args:
            key: the session's id.
            idx: from 0; negative from the end.

        Returns:
            The message; None where there is none at `idx`, or another writer removed it first.
        """
        if not isinstance(idx, int):
            raise InvalidInputError(f"idx is an int, not {type(idx).__name__}")
        return await self._store.arun(self._delete_at(self.conversation(key), idx))

    def _delete_at(self, chat: Conversation, idx: int) -> Steps[ChatMessage | None]:
        most = -idx if idx < 0 else idx + 1
        _, rows = yield from _active.active(chat, self.repair, most, newest=idx < 0)
        if not -len(rows) <= idx < len(rows):
            return None
        message = operations.read(chat, rows[idx])
        deleted = yield from chat.steps.delete_message(rows[idx].message_id)
        return message if deleted else None

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Remove the messages of a status; None removes the session, with all that it has."""
        chat = self.conversation(key)
        if _checked(status) is None:
            await chat.adelete()
            return
        await self._store.arun(self._delete_all(chat, status))

    def _delete_all(self, chat: Conversation, status: MessageStatus | None) -> Steps[None]:
        # Orphans too: nothing of what is active is to be left.
        part = yield from _active.stored(chat, status)
        yield from chat.steps.delete_message(*(m.message_id for m in part.messages))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Remove the oldest n active messages from the transcript, and return them."""
        return await self._store.arun(self._delete_oldest(self.conversation(key), _size("n", n)))

    def _delete_oldest(self, chat: Conversation, most: int | None) -> Steps[list[ChatMessage]]:
        rows = yield from _active.rows(chat, MessageStatus.ACTIVE, self.repair, most)
        messages = [operations.read(chat, m) for m in rows]
        yield from chat.steps.delete_message(*(m.message_id for m in rows))
        return messages

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the oldest n active messages, and return them. They stay in the transcript.

        Raises:
            ConflictError: others wrote to the session at every one of 100 attempts.
        """
        return await self._store.arun(self._archive(self.conversation(key), _size("n", n)))

    def _archive(self, chat: Conversation, most: int | None) -> Steps[list[ChatMessage]]:
        for attempt in range(1, _ATTEMPTS + 1):
            # One more than are archived: the mark is before the first that stays.
            part, visible = yield from _active.active(
                chat, self.repair, None if most is None else most + 1
            )
            session, archived = part.session, visible[:most]
            if not archived or session is None:
                return []
            end = min((position(m) for m in visible[len(archived) :]), default=None)
            before = (p for p in map(position, part.messages) if end is None or p < end)
            mark = max(before, default=START)
            try:
                if mark > START:
                    # What others append meanwhile stands behind the mark; what they archive does
                    # not, so the version has to hold.
                    yield from chat.steps.update_session(
                        metadata={MARK: list(mark)}, if_version=session.version
                    )
            except ConflictError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            # Results stand behind their call in the view, and may stand behind others in the store.
            late = {m.message_id for m in archived if position(m) > mark}
            if late:
                marked = [_active.archived(m) for m in part.messages if m.message_id in late]
                yield from chat.steps.put_messages(marked)
                yield from chat.steps.update_session(metadata={STATUS: True})
            return [operations.read(chat, m) for m in archived]
        raise AssertionError("the last attempt returns or raises")


def _status_fields(status: MessageStatus) -> _Dict:
    if _checked(status) is None:
        raise InvalidInputError("a message is written with a status, active or archived")
    archived = status is MessageStatus.ARCHIVED
    return {"metadata": {STATUS: "archived"}} if archived else {}


def _checked(status: Any) -> MessageStatus | None:
    if status is None or isinstance(status, MessageStatus):
        return status
    raise InvalidInputError(f"status is a MessageStatus or None, not {status!r}")


def _size(name: str, size: int | None) -> int | None:
    if size is None:
        return None
    if not isinstance(size, int) or size < 0:
        raise InvalidInputError(f"{name} is {size!r}; give 0 or more")
    return size


def _offset(offset: int | None) -> int:
    if offset is not None and not isinstance(offset, int):
        raise InvalidInputError(f"offset is an int, not {type(offset).__name__}")
    return offset or 0


def _listed(messages: Any) -> list[ChatMessage]:
    if isinstance(messages, (str, bytes, ChatMessage)) or not hasattr(messages, "__iter__"):
        raise InvalidInputError(f"messages is a list of ChatMessage, not {type(messages).__name__}")
    return list(messages)
