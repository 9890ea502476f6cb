"""`TSMemoryChatStore`: the LlamaIndex chat store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.storage.chat_store import loading
from llama_index.core.storage.chat_store.base import BaseChatStore

from llamaindex_tsmemory import _operations as _do
from tsmemory import (
    Conversation,
    InvalidInputError,
    Store,
    Window,
    count_tokens,
    open_store,
    redact_url,
)

__all__ = ["URL_VARIABLE", "TSMemoryChatStore", "reconnecting_url"]

URL_VARIABLE = "TSMEMORY_URL"
"""The environment variable that gives the URL, with its secrets, to a chat store that is read back
from where secrets are not written."""

_Dict: TypeAlias = dict[str, Any]  # BaseComponent has a method of that name
_WINDOW_DEFAULTS: _Dict = {
    "last": None,
    "max_tokens": None,
    "system": "keep",
    "summary": False,
    "start": "user",
    "unanswered": "drop",
}


class TSMemoryChatStore(BaseChatStore):
    """Conversations of one user, for `ChatMemoryBuffer` and every other taker of a chat store.

    A key is a session id. Every method stands in both colours; the asynchronous ones never block
    the event loop. All of them may raise the errors of `tsmemory`: `BackendError` and its kinds
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

    A context manager in both colours: leaving it closes a store that this opened from a URL.

    Raises:
        InvalidInputError: no store, or another argument that is wrong.
    """

    url: str | None = Field(default=None, description="The store's URL, without secrets.")
    user_id: str = Field(default="default", description="Whose sessions.")
    window: Any = Field(default=None, description="What get_messages shows: int, Window or None.")
    ttl: float | None = Field(default=None, description="Seconds a session lives after a write.")
    options: tuple[str, ...] = Field(default=(), description="Options given beside the URL.")

    _store: Store = PrivateAttr()
    _owned: bool = PrivateAttr(default=False)

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
        window = _as_window(window)
        opened = not isinstance(store, Store)
        if not isinstance(store, Store):
            url = reconnecting_url(url, options, "TSMemoryChatStore") if store is None else store
            store = open_store(url)
        # Checks the ids and the time to live, before anything is kept.
        store.conversation("any", user_id=user_id, ttl=ttl)
        shown = redact_url(url) if opened and url is not None else None
        fields: _Dict = {"url": shown, "user_id": user_id, "window": window, "ttl": ttl}
        super().__init__(**fields)
        self._store = store
        self._owned = opened

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "TSMemoryChatStore"

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
        made = cls(open_store(url, **options), user_id=user_id, window=window, ttl=ttl)
        made.url, made.options, made._owned = redact_url(url), tuple(sorted(options)), True
        return made

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
        if not isinstance(store, Store):
            raise InvalidInputError(f"from_store takes a tsmemory.Store, not {type(store)}")
        return cls(store, user_id=user_id, window=window, ttl=ttl)

    @property
    def store(self) -> Store:
        """The store that the sessions are in."""
        return self._store

    def _chat(self, key: str) -> Conversation:
        return self._store.conversation(key, user_id=self.user_id, ttl=self.ttl)

    # -- the chat store ----------------------------------------------------------------------

    def set_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Make `messages` the conversation, by writing only what differs.

        A message that was there already, equal and in the same order, keeps its record, with all
        that another framework keeps in it. With a `window`, `messages` replace what the window
        shows, and what it does not show stays.
        """
        chat = self._chat(key)
        _do.run(chat, _do.replace(chat, self.window, _listed(messages)))

    async def aset_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Same as `set_messages`, for asyncio."""
        chat = self._chat(key)
        await _do.arun(chat, _do.replace(chat, self.window, _listed(messages)))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The conversation, or its window; empty where there is none. The list is yours."""
        chat = self._chat(key)
        return _do.run(chat, _do.get(chat, self.window))

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Same as `get_messages`, for asyncio."""
        chat = self._chat(key)
        return await _do.arun(chat, _do.get(chat, self.window))

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """Add a message at the end, or before position `idx`, as ``list.insert`` takes it."""
        _do.run(self._chat(key), _do.add(self.window, message, idx))

    async def async_add_message(
        self, key: str, message: ChatMessage, idx: int | None = None
    ) -> None:
        """Same as `add_message`, for asyncio."""
        await _do.arun(self._chat(key), _do.add(self.window, message, idx))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Remove the session, whatever a window shows of it.

        Returns:
            Every message it held, less those whose record does not read; None where there was no
            such session.
        """
        chat = self._chat(key)
        return _do.run(chat, _do.delete_all(chat))

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Same as `delete_messages`, for asyncio."""
        chat = self._chat(key)
        return await _do.arun(chat, _do.delete_all(chat))

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at position `idx` of what `get_messages` gives.

        Args:
            idx: from 0; negative from the end.

        Returns:
            The message; None where there is none at `idx`, or another writer removed it first.
        """
        chat = self._chat(key)
        return _do.run(chat, _do.delete_at(chat, self.window, idx))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Same as `delete_message`, for asyncio."""
        chat = self._chat(key)
        return await _do.arun(chat, _do.delete_at(chat, self.window, idx))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the last message of what `get_messages` gives, and return it; None if empty.

        Of two writers that do so at once, each removes another message.
        """
        chat = self._chat(key)
        return _do.run(chat, _do.delete_at(chat, self.window, -1, again=True))

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Same as `delete_last_message`, for asyncio."""
        chat = self._chat(key)
        return await _do.arun(chat, _do.delete_at(chat, self.window, -1, again=True))

    def get_keys(self) -> list[str]:
        """The session ids of this user, the most recently active first."""
        return [s.session_id for s in self._store.iter_sessions(user_id=self.user_id)]

    async def aget_keys(self) -> list[str]:
        """Same as `get_keys`, for asyncio."""
        return [s.session_id async for s in self._store.aiter_sessions(user_id=self.user_id)]

    # -- serialisation -----------------------------------------------------------------------

    @field_serializer("window")
    def _serialize_window(self, window: Window | int | None) -> Any:
        if not isinstance(window, Window):
            return window
        found = {
            name: value
            for name, default in _WINDOW_DEFAULTS.items()
            if (value := getattr(window, name)) != default
        }
        if window.token_counter is not count_tokens:
            counter = window.token_counter
            found["token_counter"] = getattr(counter, "__qualname__", type(counter).__qualname__)
        return found

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # As to_dict: a store's connections do not travel, and its URL must not with its secrets.
        return type(self).from_dict, (self.to_dict(),)

    def __copy__(self) -> TSMemoryChatStore:
        made = type(self)(self._store, user_id=self.user_id, window=self.window, ttl=self.ttl)
        made.url, made.options = self.url, self.options
        return made

    def __deepcopy__(self, memo: Any = None) -> TSMemoryChatStore:
        """The same store: frameworks copy deeply what they only want to keep apart."""
        return self.__copy__()

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store, if this opened it. Idempotent."""
        if self._owned:
            self._store.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio; closes both colours."""
        if self._owned:
            await self._store.aclose()

    def __enter__(self) -> TSMemoryChatStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> TSMemoryChatStore:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _listed(messages: Any) -> list[ChatMessage]:
    if isinstance(messages, (str, bytes, ChatMessage)) or not hasattr(messages, "__iter__"):
        raise InvalidInputError(
            f"set_messages takes a list of ChatMessage, not {type(messages).__name__}"
        )
    return list(messages)


def _as_window(window: Any) -> Window | int | None:
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, Mapping):
        given = dict(window)
        if "token_counter" in given and not callable(given["token_counter"]):
            raise InvalidInputError(
                f"the window was written with a token_counter of its own "
                f"({given['token_counter']}), which is code; give the Window again: "
                "from_dict(data, window=Window(…))"
            )
        try:
            return Window(**given)
        except TypeError as error:
            raise InvalidInputError(f"window: {error}") from error
    Window(last=window)  # says what is wrong with it
    return int(window)


def reconnecting_url(url: str | None, options: Sequence[str], name: str) -> str:
    """The URL that a store class called `name`, read back from serialised form, opens."""
    if url is not None and "***" not in url and not options:
        return url
    found = os.environ.get(URL_VARIABLE)
    if found:
        return found
    if url is None:
        why = "there is no URL to open a store at"
    elif options:
        why = f"the store was opened with options beside its URL ({', '.join(options)})"
    else:
        why = f"the URL {redact_url(url)} was written without its secrets"
    raise InvalidInputError(
        f"{why}; set the environment variable {URL_VARIABLE}, or give the store: "
        f"{name}.from_dict(data, store=…), a tsmemory.Store or a URL"
    )


# So that ChatMemoryBuffer.from_dict and from_string find it; llama-index-core has no other way.
_registry: _Dict = loading.RECOGNIZED_CHAT_STORES  # annotated too narrowly there
_registry.setdefault(TSMemoryChatStore.class_name(), TSMemoryChatStore)
