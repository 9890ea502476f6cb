"""Which store a command works on, and how its readings become lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsmemory.checks import check_key
from tsmemory.conversation import Conversation
from tsmemory.engine.records import MessageQuery, Position
from tsmemory.errors import CorruptRecordError, InvalidInputError, NotFoundError
from tsmemory.model import Message, Session
from tsmemory.registry import open_store
from tsmemory.store import Store

__all__ = ["existing", "opened", "rows", "session_of"]

_PAGE = 500  # messages read at once


@contextmanager
def opened(url: str | None, *, create: bool = False) -> Iterator[Store]:
    """The store at `url`, closed afterwards.

    Args:
        create: whether a store in files may be begun here. A command that only looks must not
            leave an empty database where somebody mistyped a path.

    Raises:
        InvalidInputError: no URL, or one that does not read.
        NotFoundError: `create` is False and the file is not there.
    """
    if not url:
        raise InvalidInputError(
            "which store? give --store URL or set TSMEMORY_URL, as in sqlite:///chat.db"
        )
    with open_store(url) as store:
        if not create:
            existing(store)
        yield store


def existing(store: Store) -> None:
    """Refuse a store in files that are not there.

    Raises:
        NotFoundError: its file or directory does not exist.
    """
    for name in ("path", "directory"):  # as the engines that keep files call it
        path = getattr(store.backend, name, None)
        if isinstance(path, Path) and not path.exists():
            raise NotFoundError(f'there is no store at {path}; "tsmemory setup" makes one')


def session_of(chat: Conversation) -> Session:
    """The record of a session.

    Raises:
        NotFoundError: there is none, or it has expired.
    """
    session = chat.session()
    if session is None:
        raise NotFoundError(
            f"user {chat.user_id!r} has no session {chat.session_id!r}; "
            '"tsmemory sessions" lists them, --user names another user'
        )
    return session


def rows(chat: Conversation, last: int | None = None) -> Iterator[Message | CorruptRecordError]:
    """The messages in order, those that do not decode in their places.

    Args:
        last: only so many, the newest.
    """
    backend = chat.store.backend
    key = check_key(chat.user_id, chat.session_id)
    if last is not None:
        query = MessageQuery(limit=last, descending=True)
        yield from reversed(backend.run(backend.read(key, query)).rows)
        return
    after: Position | None = None
    while True:
        query = MessageQuery(limit=_PAGE, after=after)
        found = backend.run(backend.read(key, query)).rows
        yield from found
        if len(found) < _PAGE:
            return
        after = Position(found[-1].create_time or 0, found[-1].message_id or "")
