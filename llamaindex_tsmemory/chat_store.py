"""`TSMemoryChatStore`: the LlamaIndex chat store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field, field_serializer
from llama_index.core.storage.chat_store import loading
from llama_index.core.storage.chat_store.base import BaseChatStore

from llamaindex_tsmemory import _operations as operations
from llamaindex_tsmemory._serialisation import URL_VARIABLE, StoreFields, reconnecting_url
from tsmemory import InvalidInputError, Store, Window, count_tokens

__all__ = ["URL_VARIABLE", "TSMemoryChatStore", "reconnecting_url"]

_Dict: TypeAlias = dict[str, Any]  # BaseComponent has a method of that name
_WINDOW_DEFAULTS: _Dict = {
    field.name: field.default
    for field in msgspec.structs.fields(Window)
    if field.name != "token_counter"  # code, which is not written
}


class TSMemoryChatStore(StoreFields, BaseChatStore):
    """Conversations of one user, for `ChatMemoryBuffer` and every other taker of a chat store.

    A key is a session id. Every method is there for sync and async; async ones never block the
    event loop. All of them may raise the errors of `tsmemory`: `BackendError` and its kinds
    where the engine fails, `CorruptRecordError` where a stored record does not read, and
    `InvalidInputError` (a `ValueError`) where an argument is wrong, before anything is written.

    Args:
        store: a `tsmemory.Store`, or the URL of one, as ``sqlite:///chat.db``.
        user_id: whose sessions; 1 to 255 bytes of UTF-8.
        window: what `get_messages` shows: the newest messages by number, or a `tsmemory.Window`;
            None for the whole transcript as it is stored.
        ttl: seconds that a session lives on after each write; None leaves it as it is.
        url: as `store`, for `from_dict`.
        options: for `from_dict`: the names of options given to `from_url`.

    **A window shows, it does not delete.** With one, `get_messages` gives the window, positions
    count in what it gives, and `set_messages` replaces what it shows: messages outside stay.

    **Serialisation** (`to_dict`, `to_json`, pickle, ``repr``) has the URL without secrets. Reading
    back opens it again. Where it had secrets, or a Store was given, set the environment variable
    ``TSMEMORY_URL``, or give the store: ``TSMemoryChatStore.from_dict(data, store=store)``.

    A context manager, sync and async: leaving it closes a store that this opened from a URL.

    Raises:
        InvalidInputError: no store, or another argument that is wrong.
    """

    window: Any = Field(default=None, description="What get_messages shows: int, Window or None.")

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        user_id: str = "default",
        window: Window | int | Mapping[str, Any] | None = None,
        ttl: float | None = None,
        url: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._connect(store, url, options, user_id, ttl, window=_as_window(window))

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        user_id: str = "default",
        window: Window | int | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> TSMemoryChatStore:
        """Open the store at `url` and make a chat store of it, which closes it.

        Args:
            url: as `tsmemory.open_store` takes it.
            user_id: whose sessions.
            window: what `get_messages` shows.
            ttl: seconds that a session lives on after each write.
            options: the engine's, by name. They are not serialised, so prefer those in the URL.

        Raises:
            InvalidInputError: an unknown scheme or option, or another argument that is wrong.
            MissingDependencyError: the engine's driver is not installed.
        """
        return cls._from_url(url, options, user_id=user_id, window=window, ttl=ttl)

    @classmethod
    def from_store(
        cls,
        store: Store,
        *,
        user_id: str = "default",
        window: Window | int | None = None,
        ttl: float | None = None,
    ) -> TSMemoryChatStore:
        """Make a chat store of an open store, which stays yours to close.

        Raises:
            InvalidInputError: an argument is wrong.
        """
        return cls._from_store(store, user_id=user_id, window=window, ttl=ttl)

    # -- the chat store ----------------------------------------------------------------------

    def set_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Make `messages` the conversation, by writing only what differs.

        A message that was there already, equal and in the same order, keeps its record, with all
        that another framework keeps in it. With a `window`, `messages` replace what the window
        shows, and what it does not show stays.
        """
        chat = self.conversation(key)
        self._store.run(operations.replace(chat, self.window, _listed(messages)))

    async def aset_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Same as `set_messages`, for asyncio."""
        chat = self.conversation(key)
        await self._store.arun(operations.replace(chat, self.window, _listed(messages)))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The conversation, or its window; empty where there is none. The list is yours."""
        chat = self.conversation(key)
        return self._store.run(operations.get(chat, self.window))

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Same as `get_messages`, for asyncio."""
        chat = self.conversation(key)
        return await self._store.arun(operations.get(chat, self.window))

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """Add a message at the end, or before position `idx`, as ``list.insert`` takes it."""
        self._store.run(operations.add(self.conversation(key), self.window, message, idx))

    async def async_add_message(
        self, key: str, message: ChatMessage, idx: int | None = None
    ) -> None:
        """Same as `add_message`, for asyncio."""
        await self._store.arun(operations.add(self.conversation(key), self.window, message, idx))

    def add_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Add messages at the end, all or none, in one commit: a turn, say. LlamaIndex's own chat
        stores add them one by one."""
        self._store.run(operations.add_many(self.conversation(key), _listed(messages)))

    async def async_add_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Same as `add_messages`, for asyncio."""
        await self._store.arun(operations.add_many(self.conversation(key), _listed(messages)))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Remove the session, whatever a window shows of it.

        Returns:
            Every message it held, less those whose record does not read; None where there was no
            such session.
        """
        chat = self.conversation(key)
        return self._store.run(operations.delete_all(chat))

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Same as `delete_messages`, for asyncio."""
        chat = self.conversation(key)
        return await self._store.arun(operations.delete_all(chat))

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at position `idx` of what `get_messages` gives.

        Args:
            idx: from 0; negative from the end.

        Returns:
            The message; None where there is none at `idx`, or another writer removed it first.
        """
        chat = self.conversation(key)
        return self._store.run(operations.delete_at(chat, self.window, idx))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Same as `delete_message`, for asyncio."""
        chat = self.conversation(key)
        return await self._store.arun(operations.delete_at(chat, self.window, idx))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the last message of what `get_messages` gives, and return it; None if empty.

        Of two writers that do so at once, each removes another message.
        """
        chat = self.conversation(key)
        return self._store.run(operations.delete_at(chat, self.window, -1, again=True))

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Same as `delete_last_message`, for asyncio."""
        chat = self.conversation(key)
        return await self._store.arun(operations.delete_at(chat, self.window, -1, again=True))

    def get_keys(self) -> list[str]:
        """The session ids of this user, the most recently active first."""
        return self._store.run(operations.keys(self._store, self.user_id))

    async def aget_keys(self) -> list[str]:
        """Same as `get_keys`, for asyncio."""
        return await self._store.arun(operations.keys(self._store, self.user_id))

    # -- serialisation -----------------------------------------------------------------------

    @field_serializer("window")
    def _serialize_window(self, window: Window | int | None) -> Any:
        if not isinstance(window, Window):
            return window
        fields = {
            name: value
            for name, default in _WINDOW_DEFAULTS.items()
            if (value := getattr(window, name)) != default
        }
        if window.token_counter is not count_tokens:
            counter = window.token_counter
            fields["token_counter"] = getattr(counter, "__qualname__", type(counter).__qualname__)
        return fields


def _listed(messages: Any) -> list[ChatMessage]:
    if isinstance(messages, (str, bytes, ChatMessage)) or not hasattr(messages, "__iter__"):
        raise InvalidInputError(f"messages is a list of ChatMessage, not {type(messages).__name__}")
    return list(messages)


def _as_window(window: Any) -> Window | int | None:
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, Mapping):
        fields = dict(window)
        if "token_counter" in fields and not callable(fields["token_counter"]):
            raise InvalidInputError(
                f"the window was written with a token_counter of its own "
                f"({fields['token_counter']}), which is code; give the Window again: "
                "from_dict(data, window=Window(…))"
            )
        try:
            return Window(**fields)
        except TypeError as error:
            raise InvalidInputError(f"window: {error}") from error
    Window(last=window)  # says what is wrong with it
    return int(window)


# So that ChatMemoryBuffer.from_dict and from_string find it; llama-index-core has no other way.
_registry: _Dict = loading.RECOGNIZED_CHAT_STORES  # annotated too narrowly there
_registry.setdefault(TSMemoryChatStore.class_name(), TSMemoryChatStore)
