"""What every adapter needs: a store or a URL as an argument, closing what was opened, and adding
messages whose ids a provider, a cache or another framework has used before."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from tsmemory.closing import Closing
from tsmemory.conversation import Conversation
from tsmemory.engine.search import keywords
from tsmemory.engine.steps import Steps
from tsmemory.errors import ConflictError, CorruptRecordError, InvalidInputError
from tsmemory.model import Message
from tsmemory.registry import open_store
from tsmemory.search import Kind, SearchHit
from tsmemory.store import Store

__all__ = ["ClosesStore", "append_distinct", "connect", "recall"]

T = TypeVar("T")
_ATTEMPTS = 10
"""How often `append_distinct` looks again for what other writers have stored in between."""


def append_distinct(
    chat: Conversation, messages: Sequence[Message], is_same: Callable[[Message, Message], bool]
) -> Steps[None]:
    """Append `messages`: the one stored under an id, given again, is left as it is; another one
    under an id that is used gets an id of its own, and is never dropped.

    Costs what an append costs, and one read more where the core finds another content under an id:
    the record of another framework says the same in other fields.

    Args:
        is_same: whether the framework reads the same message of a stored one and of a given one.

    Raises:
        ConflictError: other writers used the same ids, at every one of 10 attempts.
        CorruptRecordError: what is stored under an id does not decode.
    """
    new: dict[str, Message] = {}
    for message in messages:
        earlier = new.get(message.message_id)
        if earlier is None:
            new[message.message_id] = message
        elif not is_same(earlier, message):
            renamed = _with_own_id(message)
            new[renamed.message_id] = renamed
    for attempt in range(_ATTEMPTS):
        try:
            yield from chat.steps.append(new.values())
            return
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
        stored: dict[str, Message] = {}
        for row in (yield from chat.steps.backend.get_messages(chat.steps.key, list(new))):
            if isinstance(row, CorruptRecordError):
                raise row
            stored[row.message_id] = row
        remaining = [
            _missing(candidate, stored.get(mid), is_same) for mid, candidate in new.items()
        ]
        new = {message.message_id: message for message in remaining if message is not None}


def _missing(
    message: Message, stored: Message | None, is_same: Callable[[Message, Message], bool]
) -> Message | None:
    """What is still to be appended for `message`."""
    if stored is None:
        return message
    return None if is_same(stored, message) else _with_own_id(message)


def _with_own_id(message: Message) -> Message:
    return msgspec.structs.replace(message, message_id=str(uuid.uuid4()))


def connect(store: Store | str, check: Callable[[Store], T]) -> tuple[Store, Store | None, T]:
    """The store that an adapter's argument means.

    Args:
        store: a store, which stays its opener's to close, or a URL as `open_store` takes it.
        check: called with the store, to check the adapter's other arguments. If it raises, a store
            opened here is closed.

    Returns:
        The store; the same again if it was opened here, else None; and what `check` returned.

    Raises:
        InvalidInputError: neither a store nor a URL, or what `open_store` and `check` raise.
    """
    if isinstance(store, Store):
        return store, None, check(store)
    if not isinstance(store, str):
        raise InvalidInputError(
            f"store is a tsmemory.Store or a URL, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )
    opened = open_store(store)
    try:
        return opened, opened, check(opened)
    except BaseException:
        opened.close()
        raise


def recall(
    store: Store,
    question: str,
    *,
    user_id: str,
    session_id: str | None = None,
    limit: int,
    kinds: Kind | Iterable[Kind] = ("text",),
    around: int = 0,
) -> Steps[list[SearchHit]]:
    """What a user's sessions have to do with a text in natural language, the most relevant first.

    Any of its words may match, the rare ones count for more, and nothing in it is an operator. A
    text without a word finds nothing. Records that do not decode are left out.
    """
    text = keywords(question)
    if not text:
        return []
    page = yield from store.steps.search_messages(
        text,
        user_id=user_id,
        session_id=session_id,
        kinds=kinds,
        match="any",
        order="relevance",
        limit=limit,
        around=around,
        on_error="skip",
    )
    return page.items


class ClosesStore(Closing):
    """A mixin that closes the store it opened, and leaves open one that it was given.

    A context manager, sync and async.
    """

    _opened: Store | None
    """The store to close; None where it is somebody else's."""

    def close(self) -> None:
        """Close the store, if it was opened here, from a URL. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    async def aclose(self) -> None:
        """Same as `close`, for asyncio; closes what both modes opened."""
        if self._opened is not None:
            await self._opened.aclose()
