"""The store and the session that a command works on."""

from __future__ import annotations

import itertools
import os
import time
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

__all__ = ["existing", "followed", "opened", "rows", "session_of"]

_PAGE = 500  # messages read at once
_SEARCHED = 2_000  # sessions searched for one of the same id; a moment's work on every engine


@contextmanager
def opened(url: str | None, *, create: bool = False) -> Iterator[Store]:
    """The store at `url`, closed afterwards.

    Args:
        create: whether a store in files may be created. A command that only reads must not leave
            an empty database behind a mistyped path.

    Raises:
        InvalidInputError: no URL, or an invalid one.
        NotFoundError: `create` is False and the file does not exist.
    """
    if not url:
        raise InvalidInputError(
            "no store given: pass --store URL or set TSMEMORY_URL, for example sqlite:///chat.db"
        )
    with open_store(url) as store:
        if not create:
            existing(store)
        yield store


def existing(store: Store) -> None:
    """Refuse a store in files that do not exist.

    Raises:
        NotFoundError: its file or directory does not exist.
    """
    for name in ("path", "directory"):  # as the engines that keep files call it
        path = getattr(store.backend, name, None)
        if isinstance(path, (str, Path)) and not os.path.exists(path):
            raise NotFoundError(f'there is no store at {path}; "tsmemory setup" makes one')


def session_of(chat: Conversation) -> Session:
    """The record of a session.

    Raises:
        NotFoundError: it does not exist, or has expired. Names other users who have one of this
            id, among the most recently active sessions.
    """
    session = chat.session()
    if session is not None:
        return session
    store = Store(chat.store.backend)
    recent = itertools.islice(store.iter_sessions(on_error="skip"), _SEARCHED)
    users = [found.user_id for found in recent if found.session_id == chat.session_id]
    if users:
        names = ", ".join(map(repr, users[:5])) + (" and others" if len(users) > 5 else "")
        hint = f"user {names} has one: pass --user"
    else:
        hint = '"tsmemory sessions" lists them, --user names another user'
    raise NotFoundError(f"user {chat.user_id!r} has no session {chat.session_id!r}; {hint}")


def rows(
    chat: Conversation, last: int | None = None, after: Position | None = None
) -> Iterator[Message | CorruptRecordError]:
    """The messages in order, those that do not decode as error objects in their places.

    Args:
        last: only the newest `last`.
        after: only those after this position; not together with `last`.
    """
    backend = chat.store.backend
    key = check_key(chat.user_id, chat.session_id)
    if last is not None:
        query = MessageQuery(limit=last, descending=True)
        yield from reversed(backend.run(backend.read(key, query)).rows)
        return
    while True:
        query = MessageQuery(limit=_PAGE, after=after)
        page = backend.run(backend.read(key, query)).rows
        yield from page
        if len(page) < _PAGE:
            return
        after = _position(page[-1])


def followed(
    chat: Conversation, last: int, interval: float
) -> Iterator[Message | CorruptRecordError]:
    """The newest `last` messages, then every new one, without end.

    Args:
        interval: seconds between two looks.
    """
    position: Position | None = None
    for row in rows(chat, last):
        position = _position(row)
        yield row
    while True:
        time.sleep(interval)
        for row in rows(chat, after=position):
            position = _position(row)
            yield row


def _position(row: Message | CorruptRecordError) -> Position:
    return Position(row.create_time or 0, row.message_id or "")
