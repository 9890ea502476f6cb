"""`TSMemoryChatMessageHistory`, and the factories that `RunnableWithMessageHistory` wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from langchain_core.runnables.utils import ConfigurableFieldSpec

from langchain_tsmemory._partial import PARTIAL
from langchain_tsmemory._shared_runs import SharedRuns, run_input
from langchain_tsmemory._stopped_runs import watch
from langchain_tsmemory.mapping import from_neutral, is_same, message_id, to_neutral
from tsmemory import InvalidInputError, Message, Steps, Store, Window, open_store
from tsmemory.adapters import ClosesStore, append_distinct, connect

__all__ = [
    "USER_HISTORY_FIELDS",
    "TSMemoryChatMessageHistory",
    "history_factory",
    "user_history_factory",
]

_DEFAULT_USER = "default"
_REMOVE_ALL = "__remove_all__"  # langgraph.graph.message.REMOVE_ALL_MESSAGES


class TSMemoryChatMessageHistory(ClosesStore, BaseChatMessageHistory):
    """One session's messages as a LangChain chat history.

    Everything that langchain-core can put into a message comes back equal, an id of None too: give
    messages ids where you mean to remove them by `RemoveMessage`, or to repeat a call after an
    error. Messages that another framework wrote to the session are read as well. Making a history
    of a store does no I/O.

    It may serve any number of threads and tasks, and any number of runs of
    `RunnableWithMessageHistory` at once: each run's end sees what its beginning saw (`history`),
    every other read what is there now.

    Args:
        session_id: the session's; 1 to 255 bytes of UTF-8.
        store: where it is kept: a store, which stays its opener's to close; or a URL as
            `tsmemory.open_store` takes it, opened for this object, which then has to be closed.
        user_id: whose it is; the same session id under another user is another session.
        window: how much of it `messages` shows: the newest n messages, or a `tsmemory.Window`, cut
            so that a chat API accepts them. None: the whole transcript, exactly as stored.
        ttl: seconds that the session lives on after each write; None leaves that to the store.

    Raises:
        InvalidInputError: an argument is wrong.

    A context manager, sync and async, for `close`. Every method may raise `tsmemory.BackendError`
    and its kinds where the engine fails.
    """

    def __init__(
        self,
        session_id: str,
        *,
        store: Store | str,
        user_id: str = _DEFAULT_USER,
        window: Window | int | None = None,
        ttl: float | None = None,
    ) -> None:
        super().__init__()
        self.window = _as_window(window)
        """What `messages` shows; None for everything."""
        self._store, self._opened, self.conversation = connect(
            store, lambda opened: opened.conversation(session_id, user_id=user_id, ttl=ttl)
        )
        self._runs = SharedRuns()

    @classmethod
    def from_url(
        cls,
        session_id: str,
        url: str,
        *,
        user_id: str = _DEFAULT_USER,
        window: Window | int | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> TSMemoryChatMessageHistory:
        """Same as ``TSMemoryChatMessageHistory(session_id, store=url, …)``, with the engine's
        options by name (`tsmemory.open_store`)."""
        store = open_store(url, **options)
        try:
            history = cls(session_id, store=store, user_id=user_id, window=window, ttl=ttl)
        except InvalidInputError:
            store.close()
            raise
        history._opened = store
        return history

    def __repr__(self) -> str:
        chat = self.conversation
        return f"{type(self).__name__}({chat.session_id!r}, user_id={chat.user_id!r})"

    # -- reading -----------------------------------------------------------------------------

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a property is allowed
        """The messages in reading order, read afresh: all of them, or the window's.

        Raises:
            CorruptRecordError: a record does not decode.
        """
        messages = self._runs.end()
        if messages is None:
            messages = self._store.run(self._read())
            self._runs.begin(messages)
        return messages

    async def aget_messages(self) -> list[BaseMessage]:
        """Same as `messages`, for asyncio."""
        messages = self._runs.end()
        if messages is None:
            messages = await self._store.arun(self._read())
            self._runs.begin(messages)
        return messages

    def _read(self) -> Steps[list[BaseMessage]]:
        steps = self.conversation.steps
        if self.window is None:
            rows = yield from steps.all_messages()
        else:
            rows = (yield from steps.window(self.window)).messages
        return [from_neutral(row) for row in rows]

    # -- writing -----------------------------------------------------------------------------

    def add_messages(self, messages: Iterable[BaseMessage]) -> None:
        """Add messages at the end, together.

        A message that is in the session already, under the same id, is left as it is, so a call
        may be repeated where the messages have ids. Another message under an id that is used, as
        caches and some providers give it, gets an id of its own. A `RemoveMessage`
        removes the message that it names, in its place in the order; one for ``"__remove_all__"``
        removes all. Where there are any, the removal and the addition are two writes. Chunks are
        stored as whole messages.

        Raises:
            InvalidInputError: not a message of langchain-core, or a value in it that cannot be
                stored, named. Nothing was written.
            MessageTooLargeError: over the engine's limit. Nothing was added.
        """
        self._store.run(self._add(messages))

    async def aadd_messages(self, messages: Iterable[BaseMessage]) -> None:
        """Same as `add_messages`, for asyncio."""
        await self._store.arun(self._add(messages))

    def _add(self, messages: Iterable[BaseMessage]) -> Steps[None]:
        return self._apply(_change(messages))

    def _apply(self, change: _Change) -> Steps[None]:
        if change.clear:
            yield from self.conversation.steps.clear()
        elif change.remove:
            yield from self.conversation.steps.delete_message(*change.remove)
        if change.add:
            yield from append_distinct(self.conversation, change.add, is_same)

    def clear(self) -> None:
        """Remove every message. The session's record (title, metadata, time to live) stays;
        ``conversation.delete()`` removes that too."""
        self.conversation.clear()

    async def aclear(self) -> None:
        """Same as `clear`, for asyncio."""
        await self.conversation.aclear()


class _RunHistory(TSMemoryChatMessageHistory):
    """A history for one run, as the factories make it: what it read first, it gives again, until
    it writes. See `_shared_runs` for why a run needs that, and `_stopped_runs` for how a run that
    is stopped is stored."""

    _given: list[BaseMessage] | None = None
    _asked: list[BaseMessage] | None = None
    """What the run is asked; None before it is known, and once its turn is written."""
    _unfinished: Sequence[Message] = ()
    """What is being written: where that is interrupted, nobody knows whether it arrived."""
    _stopped = False

    def __init__(self, session_id: str, *, store: Store, **options: Any) -> None:
        super().__init__(session_id, store=store, **options)
        watch(store, self._on_stop)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a property is allowed
        if self._given is None:
            self._asked = run_input()
            self._given = self._store.run(self._read())
        return list(self._given)

    async def aget_messages(self) -> list[BaseMessage]:
        if self._given is None:
            self._asked = run_input()
            self._given = await self._store.arun(self._read())
        return list(self._given)

    def _apply(self, change: _Change) -> Steps[None]:
        if self._stopped:
            return
        self._given = self._asked = None
        self._unfinished = change.add
        yield from super()._apply(change)
        self._unfinished = ()

    def _on_stop(self, answer: AIMessage | None) -> Steps[None]:
        """Store the turn of a run that ended early, if it is not stored yet."""
        turn = list(self._unfinished)
        if self._asked is not None:
            turn = list(_change(self._asked).add)
            if answer is not None:
                turn.append(msgspec.structs.replace(to_neutral(answer), metadata=PARTIAL))
        if turn:
            self._stopped = True
            yield from append_distinct(self.conversation, turn, is_same)

    def clear(self) -> None:
        self._given = None
        super().clear()

    async def aclear(self) -> None:
        self._given = None
        await super().aclear()


class _Change(NamedTuple):
    """What is asked of a conversation: at most a removal, then at most an addition."""

    clear: bool
    remove: Sequence[str]
    add: Sequence[Message]


def _change(messages: Iterable[BaseMessage]) -> _Change:
    if isinstance(messages, (str, BaseMessage)) or not isinstance(messages, Iterable):
        raise InvalidInputError(
            f"add_messages takes a list of messages, not a {type(messages).__name__}; "
            "add_message takes one"
        )
    clear = False
    remove: dict[str, None] = {}
    add: list[Message] = []
    for message in messages:
        if not isinstance(message, RemoveMessage):
            add.append(to_neutral(message))
        elif message.id == _REMOVE_ALL:
            clear = True
            remove.clear()
            add.clear()
        else:
            removed = message_id(message.id or "")
            remove[removed] = None
            add = [m for m in add if m.message_id != removed]
    return _Change(clear, tuple(remove), add)


def _as_window(window: Window | int | None) -> Window | None:
    return window if window is None or isinstance(window, Window) else Window(last=window)


# -- factories ---------------------------------------------------------------------------------


USER_HISTORY_FIELDS: Sequence[ConfigurableFieldSpec] = (
    ConfigurableFieldSpec(
        id="user_id",
        annotation=str,
        name="User ID",
        description="Whose conversation it is.",
        default="",
        is_shared=True,
    ),
    ConfigurableFieldSpec(
        id="conversation_id",
        annotation=str,
        name="Conversation ID",
        description="Which of the user's conversations it is.",
        default="",
        is_shared=True,
    ),
)
"""What `user_history_factory` takes, for ``history_factory_config=``."""


def _check(store: Any, user_id: Any, ttl: Any) -> None:
    if not isinstance(store, Store):
        raise InvalidInputError(
            f"store is a tsmemory.Store, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )
    store.conversation("-", user_id=user_id, ttl=ttl)  # no I/O


def history_factory(
    store: Store,
    *,
    user_id: str = _DEFAULT_USER,
    window: Window | int | None = None,
    ttl: float | None = None,
) -> Callable[[str], TSMemoryChatMessageHistory]:
    """What `RunnableWithMessageHistory` takes as ``get_session_history``: a session id to its
    history. Of ``config["configurable"]`` it takes ``session_id``.

    Args:
        store: shared by all the histories; yours to close.
        user_id: whose sessions they all are.
        window: as in `TSMemoryChatMessageHistory`.
        ttl: as there, in seconds.

    Raises:
        InvalidInputError: an argument is wrong; a URL is, because nobody would close what it opens.
    """
    _check(store, user_id, ttl)
    window = _as_window(window)

    def get_session_history(session_id: str) -> TSMemoryChatMessageHistory:
        return _RunHistory(session_id, store=store, user_id=user_id, window=window, ttl=ttl)

    return get_session_history


def user_history_factory(
    store: Store, *, window: Window | int | None = None, ttl: float | None = None
) -> Callable[[str, str], TSMemoryChatMessageHistory]:
    """Same as `history_factory`, but of ``config["configurable"]`` it takes ``user_id`` and
    ``conversation_id``::

        RunnableWithMessageHistory(
            chain,
            user_history_factory(store, window=20),
            history_factory_config=USER_HISTORY_FIELDS,
        )
    """
    _check(store, _DEFAULT_USER, ttl)
    window = _as_window(window)

    def get_session_history(user_id: str, conversation_id: str) -> TSMemoryChatMessageHistory:
        return _RunHistory(conversation_id, store=store, user_id=user_id, window=window, ttl=ttl)

    return get_session_history
