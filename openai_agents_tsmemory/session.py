"""`TSMemorySession`: the Agents SDK's session protocol on a conversation of the store.

What a model gave at once is one message of the store, as other frameworks have it, so it may hold
several items (`tsmemory.responses_format`). The ids of messages make a repeated `add_items` safe:

1. a message has the id of the first of its items that has one of the provider's;
2. a message of none has an id made of the one before it in the same call, or of the first behind
   it: what belongs to an answer is known by that answer's id;
3. where the whole call has none, it has a random one. Nothing is compared by content: a second
   "yes" is a second message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from agents.items import TResponseInputItem
from agents.memory import SessionSettings

from tsmemory import (
    ConflictError,
    Conversation,
    InvalidInputError,
    Message,
    Steps,
    Store,
    Window,
    open_store,
)
from tsmemory.adapters import ClosesStore, append_distinct, connect
from tsmemory.engine.records import Change, Snapshot
from tsmemory.responses_format import from_items, to_items

__all__ = ["TSMemorySession"]

_DEFAULT_USER = "default"
_MAX_ID_BYTES = 255
_FAKE_ID = "__fake_id__"  # agents.models.fake_id: in place of an id, of models that give none
_PAGE = 500  # messages per read
_ATTEMPTS = 10  # how often `pop_item` looks again for the newest item, beside other writers


class TSMemorySession(ClosesStore):
    """One session's items, for ``Runner.run(agent, input, session=…)``.

    Every item comes back equal, in any process. What other frameworks wrote to the session is given
    as items too, and they read what the SDK wrote. Making a session does no I/O.

    Args:
        session_id: the session's; 1 to 255 bytes of UTF-8.
        store: where it is kept: a store, which stays its opener's to close; or a URL as
            `tsmemory.open_store` takes it, opened for this object, which then has to be closed.
        user_id: whose it is; the same session id under another user is another session.
        window: what a run is given: the newest n messages, or a `tsmemory.Window`, cut so that
            calls stay with their results and reasoning with what it led to. None: every item, or
            what the settings' limit says.
        ttl: seconds that the session lives on after each write; None leaves that to the store.
        session_settings: the SDK's. Its limit is one of items, which the SDK makes valid by leaving
            out calls and results whose counterpart is cut off; it takes precedence over `window`.

    Raises:
        InvalidInputError: an argument is wrong.

    A context manager, sync and async, for `close` and `aclose`. Every method may raise
    `tsmemory.BackendError` and its kinds where the engine fails, and `CorruptRecordError` where a
    record does not decode.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        *,
        store: Store | str,
        user_id: str = _DEFAULT_USER,
        window: Window | int | None = None,
        ttl: float | None = None,
        session_settings: SessionSettings | None = None,
    ) -> None:
        if not isinstance(session_settings, (SessionSettings, type(None))):
            raise InvalidInputError(
                "session_settings is an agents.memory.SessionSettings, "
                f"not a {type(session_settings).__name__}"
            )
        self.window = (
            window if window is None or isinstance(window, Window) else Window(last=window)
        )
        """What a run is given; None for everything."""
        self.session_settings = session_settings
        self._store, self._opened, self.conversation = connect(
            store, lambda opened: opened.conversation(session_id, user_id=user_id, ttl=ttl)
        )
        self.session_id = self.conversation.session_id

    @classmethod
    def from_url(
        cls,
        session_id: str,
        url: str,
        *,
        user_id: str = _DEFAULT_USER,
        window: Window | int | None = None,
        ttl: float | None = None,
        session_settings: SessionSettings | None = None,
        **options: Any,
    ) -> TSMemorySession:
        """Same as ``TSMemorySession(session_id, store=url, …)``, with the engine's options by name
        (`tsmemory.open_store`)."""
        store = open_store(url, **options)
        try:
            session = cls(
                session_id,
                store=store,
                user_id=user_id,
                window=window,
                ttl=ttl,
                session_settings=session_settings,
            )
        except InvalidInputError:
            store.close()
            raise
        session._opened = store
        return session

    def __repr__(self) -> str:
        chat = self.conversation
        return f"{type(self).__name__}({chat.session_id!r}, user_id={chat.user_id!r})"

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in reading order.

        Args:
            limit: the newest n alone. None: what the settings' limit or the window says. As with
                the SDK's own sessions, a negative one is none.
        """
        if limit is not None and type(limit) is not int:
            raise InvalidInputError(f"limit is an int or None, not {type(limit).__name__}")
        settings = self.session_settings
        if limit is None and settings is not None:
            limit = settings.limit
        return await self._store.arun(_get(self.conversation, limit, self.window))

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items at the end, together.

        A call may be repeated where its items have ids of the provider's: what is stored already is
        left as it is. Items without ids cannot be recognised.

        Raises:
            InvalidInputError: not an item of the Responses API, or a value in it that cannot be
                stored. Nothing was added.
            MessageTooLargeError: over the engine's limit. Nothing was added.
        """
        if not isinstance(items, (list, tuple)):
            raise InvalidInputError(f"items is a list of items, not a {type(items).__name__}")
        given: Any = items
        messages = _named(from_items(given))
        if messages:
            await self._store.arun(append_distinct(self.conversation, messages, _is_same))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item, and give it; None where there is none.

        Raises:
            ConflictError: other writers changed the end of the session, at every one of 10
                attempts. Nothing was removed.
        """
        popped: TResponseInputItem | None = await self._store.arun(_pop(self.conversation))
        return popped

    async def clear_session(self) -> None:
        """Remove every item. The session's record (title, metadata, time to live) stays;
        ``conversation.delete()`` removes that too."""
        await self.conversation.aclear()


def _get(chat: Conversation, limit: int | None, window: Window | None) -> Steps[list[Any]]:
    if limit is None and window is not None:
        return _items((yield from chat.steps.window(window)).messages)
    if limit is None or limit < 0:
        return _items((yield from chat.steps.all_messages()))
    newest: list[Message] = []
    count, cursor = 0, None
    while count < limit:
        # A message has an item or more, but for those of others that say nothing.
        page = yield from chat.steps.list_messages(
            order="desc", limit=min(limit - count, _PAGE), cursor=cursor
        )
        newest += page.items
        count += len(_items(page.items))
        cursor = page.next_cursor
        if cursor is None:
            break
    items = _items(newest[::-1])
    return items[max(0, len(items) - limit) :]


def _items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [item for message in messages for item in to_items(message)]


def _pop(chat: Conversation) -> Steps[Any]:
    attempts = 0
    while attempts < _ATTEMPTS:
        page = yield from chat.steps.list_messages(order="desc", limit=1)
        if not page.items:
            return None
        newest = page.items[0]
        items = to_items(newest)
        if len(items) > 1:
            change = Change(put=_rest(newest, items[:-1]), create=False)
        else:
            change = Change(delete=(newest.message_id,), create=False)

        def decide(stored: Snapshot) -> Change | None:
            unchanged = [to_items(m) for m in stored.messages if isinstance(m, Message)] == [items]  # noqa: B023  # called at once
            return change if unchanged else None  # noqa: B023

        outcome = yield from chat.steps.backend.rewrite(chat.steps.key, decide, [newest.message_id])
        if not (outcome.deleted or outcome.stored):
            attempts += 1
        elif items:  # a message of others may say nothing: the next one then
            return items[-1]
    raise ConflictError(
        f"session {chat.session_id!r}: other writers changed its end at {_ATTEMPTS} attempts"
    )


def _rest(newest: Message, items: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """What is left of a message, in its place."""
    return tuple(
        msgspec.structs.replace(
            message,
            message_id=message.message_id if i else newest.message_id,
            create_time=(newest.create_time or 0) + i,
            metadata=newest.metadata,
        )
        for i, message in enumerate(from_items(items))
    )


# -- ids ---------------------------------------------------------------------------------------


def _named(messages: Sequence[Message]) -> list[Message]:
    """`messages` with the ids that the module's docstring says."""
    own_ids = [next(filter(None, map(_own_id, to_items(m))), None) for m in messages]
    anchor = next(filter(None, own_ids), None)
    if anchor is None:
        return list(messages)
    distance = -own_ids.index(anchor)
    named: list[Message] = []
    for message, own_id in zip(messages, own_ids, strict=True):
        anchor, distance = (own_id, 0) if own_id is not None else (anchor, distance)
        name = _message_id(f"{anchor}{distance:+d}" if distance else anchor)
        named.append(msgspec.structs.replace(message, message_id=name))
        distance += 1
    return named


def _own_id(item: dict[str, Any]) -> str | None:
    """The id that the provider gave the item: not one that names another item."""
    kind, own_id = str(item.get("type", "message")), item.get("id")
    if kind == "item_reference" or kind.endswith("_output"):
        return None
    return own_id if isinstance(own_id, str) and own_id not in ("", _FAKE_ID) else None


def _message_id(name: str) -> str:
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= _MAX_ID_BYTES and not any("\ud800" <= c <= "\udfff" for c in name):
        return name
    return f"openai-agents:{hashlib.sha256(data).hexdigest()}"


def _is_same(stored: Message, message: Message) -> bool:
    return to_items(stored) == to_items(message)
