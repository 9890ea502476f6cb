"""`TSMemoryChatMessageHistory`, and the factories that `RunnableWithMessageHistory` wants.

A run of `RunnableWithMessageHistory` reads its history twice: as it begins, to put it before the
input, and as it ends, to cut it off the input again by its length. If another run has written in
between, or a window has moved, the lengths differ, and an input is lost or an old message stored
again. So the read at the end of a run is answered with what the read at its beginning gave.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple, TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.runnables.utils import ConfigurableFieldSpec

from langchain_tsmemory._mapping import from_neutral, message_id, to_neutral
from tsmemory import InvalidInputError, Message, Store, Window, open_store

__all__ = [
    "USER_HISTORY_FIELDS",
    "TSMemoryChatMessageHistory",
    "history_factory",
    "user_history_factory",
]

T = TypeVar("T")

_DEFAULT_USER = "default"
_REMOVE_ALL = "__remove_all__"  # langgraph.graph.message.REMOVE_ALL_MESSAGES
_OPEN_RUNS = 1024
"""Runs of one history object whose beginning is remembered: those that failed never end."""
_DEPTH = 4
"""Frames looked through for the caller: a subclass or a wrapper may stand between."""


class TSMemoryChatMessageHistory(BaseChatMessageHistory):
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

    A context manager in both colours, for `close`. Every method may raise `tsmemory.BackendError`
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
        self._opened: Store | None = None
        if isinstance(store, str):
            store = self._opened = open_store(store)
        try:
            self.conversation = _checked(store).conversation(session_id, user_id=user_id, ttl=ttl)
            """The session, with everything that tsmemory can do with it."""
        except InvalidInputError:
            self.close()
            raise
        self._runs: deque[_Run] = deque(maxlen=_OPEN_RUNS)
        self._lock = threading.Lock()

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
        frame = _runnable_frame()
        found = self._end_run(frame)
        if found is None:
            chat, window = self.conversation, self.window
            rows = chat.iter_messages() if window is None else chat.window(window)
            found = self._begin_run(frame, [from_neutral(row) for row in rows])
        return found

    async def aget_messages(self) -> list[BaseMessage]:
        """Same as `messages`, for asyncio."""
        frame = _runnable_frame()
        found = self._end_run(frame)
        if found is None:
            chat, window = self.conversation, self.window
            if window is None:
                rows = [row async for row in chat.aiter_messages()]
            else:
                rows = await chat.awindow(window)
            found = self._begin_run(frame, [from_neutral(row) for row in rows])
        return found

    # -- writing -----------------------------------------------------------------------------

    def add_messages(self, messages: Iterable[BaseMessage]) -> None:
        """Add messages at the end, together.

        A message whose id is in the session already is left as it is, so a call may be repeated
        where the messages have ids. A `RemoveMessage` removes the message that it names, in its
        place in the order; one for ``"__remove_all__"`` removes all. Where there are any, the
        removal and the addition are two writes. Chunks are stored as whole messages.

        Raises:
            InvalidInputError: not a message of langchain-core, or a value in it that cannot be
                stored, named. Nothing was written.
            MessageTooLargeError: over the engine's limit. Nothing was added.
        """
        for operation, arguments in _writes(messages):
            getattr(self.conversation, operation)(*arguments)

    async def aadd_messages(self, messages: Iterable[BaseMessage]) -> None:
        """Same as `add_messages`, for asyncio."""
        for operation, arguments in _writes(messages):
            await getattr(self.conversation, f"a{operation}")(*arguments)

    def clear(self) -> None:
        """Remove every message. The session's record (title, metadata, time to live) stays;
        ``conversation.delete()`` removes that too."""
        self.conversation.clear()

    async def aclear(self) -> None:
        """Same as `clear`, for asyncio."""
        await self.conversation.aclear()

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store, if it was opened here, from a URL. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio."""
        if self._opened is not None:
            await self._opened.aclose()

    def __enter__(self) -> TSMemoryChatMessageHistory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> TSMemoryChatMessageHistory:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- the two reads of a run ----------------------------------------------------------------

    def _begin_run(self, frame: FrameType | None, found: list[BaseMessage]) -> list[BaseMessage]:
        """Remember what a run was given, if it is one that reads, and will ask again."""
        if frame is not None and frame.f_code.co_name in _ENTERS:
            runnable = frame.f_locals.get("self")
            if not getattr(runnable, "history_messages_key", None):
                with self._lock:
                    self._runs.append(_Run(len(found), found[-1] if found else None))
        return found

    def _end_run(self, frame: FrameType | None) -> list[BaseMessage] | None:
        """What the run that ends in `frame` was given as it began; None where none ends there.

        An object may serve several runs at once, so the run is known by its input, which begins
        with what it was given.
        """
        if frame is None or frame.f_code.co_name not in _EXITS:
            return None
        given = frame.f_locals.get("input_messages")
        if not isinstance(given, list):
            return None
        with self._lock:
            run = _which(self._runs, given)
            if run is None:
                return None
            self._runs.remove(run)
        return given[: run.length]


class _Run(NamedTuple):
    """The beginning of a run: how many messages it was given, and the last of them."""

    length: int
    last: BaseMessage | None


def _which(runs: Iterable[_Run], given: list[Any]) -> _Run | None:
    """The run whose input is `given`: the longest beginning that it has. By identity first, for
    what LangChain does not copy; equal messages at one place are told apart so."""
    fitting = [run for run in runs if run.length <= len(given)]
    fitting.sort(key=lambda run: -run.length)
    for run in fitting:
        if run.length and given[run.length - 1] is run.last:
            return run
    for run in fitting:
        if not run.length or given[run.length - 1] == run.last:
            return run
    # A copy that is not equal: with one run at a time there is only one to choose from.
    return fitting[0] if fitting else None


_ENTERS = frozenset({"_enter_history", "_aenter_history"})
_EXITS = frozenset({"_exit_history", "_aexit_history"})
_RUNNABLE_MODULE = "langchain_core.runnables.history"


def _runnable_frame() -> FrameType | None:
    """The method of a `RunnableWithMessageHistory` that is reading, if that is who reads.

    Its context variable would say whose run this is only from Python 3.11 on, and never whether
    the run begins or ends.
    """
    if _RUNNABLE_MODULE not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        name = frame.f_code.co_name
        if (name in _ENTERS or name in _EXITS) and frame.f_globals.get(
            "__name__"
        ) == _RUNNABLE_MODULE:
            return frame
        frame = frame.f_back
    return None


# -- what is asked of a conversation -----------------------------------------------------------


def _writes(messages: Iterable[BaseMessage]) -> list[tuple[str, tuple[Any, ...]]]:
    """The writes that make of a conversation what `messages` say: at most a removal, then at most
    an addition."""
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
            gone = message_id(message.id or "")
            remove[gone] = None
            add = [m for m in add if m.message_id != gone]
    writes: list[tuple[str, tuple[Any, ...]]] = []
    if clear:
        writes.append(("clear", ()))
    elif remove:
        writes.append(("delete_message", tuple(remove)))
    if add:
        writes.append(("append", tuple(add)))
    return writes


def _as_window(window: Window | int | None) -> Window | None:
    return window if window is None or isinstance(window, Window) else Window(last=window)


def _checked(store: Any) -> Store:
    if not isinstance(store, Store):
        raise InvalidInputError(
            f"store is a tsmemory.Store or a URL, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )
    return store


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
    _checked(store).conversation("-", user_id=user_id, ttl=ttl)  # no I/O: only to check
    window = _as_window(window)

    def get_session_history(session_id: str) -> TSMemoryChatMessageHistory:
        return TSMemoryChatMessageHistory(
            session_id, store=store, user_id=user_id, window=window, ttl=ttl
        )

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
    _checked(store).conversation("-", ttl=ttl)
    window = _as_window(window)

    def get_session_history(user_id: str, conversation_id: str) -> TSMemoryChatMessageHistory:
        return TSMemoryChatMessageHistory(
            conversation_id, store=store, user_id=user_id, window=window, ttl=ttl
        )

    return get_session_history
