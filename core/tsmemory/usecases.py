"""Every operation of `Store` and `Conversation`, written once for both colours.

Each function here is a generator of steps over a backend's primitives (`backends.base`); the
public faces in `store` check nothing and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from tsmemory import checks
from tsmemory.engine.commit import at_time, same_content
from tsmemory.engine.contract import (
    UNSET,
    Backend,
    Change,
    Key,
    MessageQuery,
    Position,
    SessionPatch,
    SessionQuery,
    Snapshot,
    Unset,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError, NotFoundError
from tsmemory.filters import Filter, as_filter
from tsmemory.model import Message, MessageList, Page, Session, WindowReport
from tsmemory.window import Window, as_window, cut

Order: TypeAlias = Literal["asc", "desc"]
OnError: TypeAlias = Literal["raise", "skip"]
Where: TypeAlias = "Filter | Mapping[str, Any] | None"

_MARGIN = 8
"""Messages read beyond a window's `last`, to find the user message that opens it without a second
read: enough for 95 of 100 windows of 20 in the tau-bench airline dialogues."""
_FIRST_READ = 64  # messages, where only a token budget says how many are needed
_END = Position(checks.MAX_TIME + 1, "")


class Lifetime(NamedTuple):
    """The times to live of a handle, in seconds."""

    ttl: float | None
    """What each write makes the session's own; None leaves that."""
    default: float | None
    """What a session that a write begins gets."""


def _good(row: Any) -> Any:
    """The row, unless it is a broken one, which is raised."""
    if isinstance(row, CorruptRecordError):
        raise row
    return row


def _usable(rows: Iterable[Any], on_error: OnError) -> list[Any]:
    if on_error not in ("raise", "skip"):
        raise InvalidInputError(f'on_error is "raise" or "skip", not {on_error!r}')
    if on_error == "skip":
        return [row for row in rows if not isinstance(row, CorruptRecordError)]
    return [_good(row) for row in rows]


def _descending(order: Order) -> bool:
    if order not in ("asc", "desc"):
        raise InvalidInputError(f'order is "asc" or "desc", not {order!r}')
    return order == "desc"


# -- messages --------------------------------------------------------------------------------


def append(
    backend: Backend,
    key: Key,
    messages: Iterable[Message],
    if_version: int | None,
    lifetime: Lifetime,
) -> Steps[list[Message]]:
    batch = checks.check_messages(messages)
    if if_version is not None:
        checks.check_size("if_version", if_version)
    if not batch:
        return []
    _check_duplicates(batch)
    outcome = yield from backend.commit(
        key,
        Change(
            append=batch,
            if_version=if_version,
            ttl=lifetime.ttl,
            default_ttl=lifetime.default,
        ),
    )
    return outcome.stored


def _check_duplicates(batch: tuple[Message, ...]) -> None:
    """One id may be in a batch twice only with the same content."""
    by_id: dict[str, Message] = {}
    for message in batch:
        first = by_id.setdefault(message.message_id, message)
        if first is not message and not same_content(message, first):
            raise InvalidInputError(
                f"duplicate message id {message.message_id!r}: two messages of one batch have it, "
                "with different content; give each an id of its own"
            )


def put(
    backend: Backend, key: Key, messages: Iterable[Message], lifetime: Lifetime
) -> Steps[list[Message]]:
    batch = checks.check_messages(messages)
    if not batch:
        return []
    outcome = yield from backend.commit(
        key, Change(put=batch, ttl=lifetime.ttl, default_ttl=lifetime.default)
    )
    return outcome.stored


def list_messages(
    backend: Backend,
    key: Key,
    *,
    where: Where,
    created_from: Any,
    created_to: Any,
    order: Order,
    limit: int,
    cursor: str | None,
    on_error: OnError,
) -> Steps[Page[Message]]:
    checks.check_size("limit", limit, least=1)
    kind = f"messages-{order}"
    query = MessageQuery(
        limit=limit + 1,
        descending=_descending(order),
        after=checks.decode_cursor(kind, Position, cursor),
        created_from=checks.micros("created_from", created_from),
        created_to=checks.micros("created_to", created_to),
        where=as_filter(where),
    )
    rows = (yield from backend.read(key, query)).rows
    page = rows[:limit]
    items = MessageList(_usable(page, on_error))
    if len(rows) <= limit:
        return Page(items)
    return Page(items, checks.encode_cursor(kind, (page[-1].create_time, page[-1].message_id)))


def get_message(backend: Backend, key: Key, message_id: str) -> Steps[Message | None]:
    checks.check_id("message_id", message_id)
    rows = yield from backend.get_messages(key, [message_id])
    return _good(rows[0]) if rows else None


def update_message(
    backend: Backend,
    key: Key,
    message_id: str,
    changes: dict[str, Any],
    metadata: dict[str, Any] | Unset,
    remove_metadata: Iterable[str],
) -> Steps[Message]:
    removed = frozenset(remove_metadata)
    if "tool_calls" in changes:
        changes["tool_calls"] = tuple(changes["tool_calls"])

    def decide(found: Snapshot) -> Change:
        if found.session is None or not found.messages:
            raise NotFoundError(
                f"session {key.session_id!r} has no message {message_id!r}; put_message inserts one"
            )
        old: Message = _good(found.messages[0])
        remaining = {k: v for k, v in old.metadata.items() if k not in removed}
        if metadata is not UNSET:
            remaining = {**remaining, **metadata}
        new = msgspec.structs.replace(old, metadata=remaining, **changes)
        checks.check_messages([new])
        return Change(put=(new,), create=False)

    checks.check_id("message_id", message_id)
    outcome = yield from backend.rewrite(key, decide, [message_id])
    return outcome.stored[0]


def delete_messages(backend: Backend, key: Key, ids: Iterable[str]) -> Steps[int]:
    named = tuple(checks.check_id("message_id", mid) for mid in ids)
    if not named:
        return 0
    outcome = yield from backend.commit(key, Change(delete=named, create=False))
    return outcome.deleted


def clear_messages(backend: Backend, key: Key) -> Steps[int]:
    outcome = yield from backend.commit(key, Change(delete_through=_END, create=False))
    return outcome.deleted


def truncate(backend: Backend, key: Key, keep_last: int) -> Steps[int]:
    checks.check_size("keep_last", keep_last)
    if keep_last == 0:
        return (yield from clear_messages(backend, key))
    query = MessageQuery(limit=keep_last + 1, descending=True)
    rows = (yield from backend.read(key, query)).rows
    if len(rows) <= keep_last:
        return 0
    newest = Position(rows[-1].create_time or 0, rows[-1].message_id or "")
    outcome = yield from backend.commit(key, Change(delete_through=newest, create=False))
    return outcome.deleted


def replace(
    backend: Backend, key: Key, messages: Iterable[Message], lifetime: Lifetime
) -> Steps[list[Message]]:
    target = checks.check_messages(messages)
    ids = [m.message_id for m in target]
    wanted = frozenset(ids)
    if len(wanted) != len(ids):
        twice = next(mid for mid in ids if ids.count(mid) > 1)
        raise InvalidInputError(f"message id {twice!r} stands twice; ids are unique in a session")
    placed: list[Message] = []

    def decide(found: Snapshot) -> Change | None:
        nonlocal placed
        current = {row.message_id or "": row for row in found.messages}
        last = found.messages[-1].create_time if found.messages else 0
        placed = _place(target, current, max(backend.clock(), (last or 0) + 1))
        surplus = tuple(mid for mid in current if mid not in wanted)
        written = tuple(m for m in placed if current.get(m.message_id) != m)
        if not written and not surplus:
            return None
        return Change(put=written, delete=surplus, ttl=lifetime.ttl, default_ttl=lifetime.default)

    yield from backend.rewrite(key, decide)
    return placed


def _place(
    target: tuple[Message, ...], current: Mapping[str, Message | CorruptRecordError], fresh: int
) -> list[Message]:
    """`target` with strictly increasing times, moving as few of the stored messages as can be.

    A message that is there keeps its time where the order allows; a new one goes right behind its
    predecessor, or, behind the last that is there, to `fresh` and after.
    """
    held = [i for i, m in enumerate(target) if m.message_id in current]
    last_held = held[-1] if held else -1
    placed: list[Message] = []
    previous = -1
    if held:
        previous = max(-1, (current[target[held[0]].message_id].create_time or 0) - held[0] - 1)
    for i, message in enumerate(target):
        there = current.get(message.message_id)
        if there is not None:
            time = max(there.create_time or 0, previous + 1)
        else:
            time = max(fresh, previous + 1) if i > last_held else previous + 1
        placed.append(at_time(message, time))
        previous = time
    return placed


def window(
    backend: Backend, key: Key, policy: Window | int | None, explain: bool
) -> Steps[WindowReport]:
    policy = as_window(policy)
    if policy.last == 0:
        return WindowReport(MessageList(), [], older=False)
    summary = None
    if policy.summary:
        session = yield from backend.get_session(key)
        summary = _good(session).summary if session else None
    limit = None
    if policy.last is not None:
        limit = policy.last + _MARGIN
    elif policy.max_tokens is not None:
        limit = _FIRST_READ
    found = yield from backend.read(
        key, MessageQuery(limit=limit, descending=True, pinned=policy.system == "keep")
    )
    pinned = [_good(row) for row in found.pinned]
    tail: list[Message] = [_good(row) for row in reversed(found.rows)]
    complete = limit is None or len(found.rows) < limit
    while True:
        view = cut(tail, pinned, policy, complete=complete, summary=summary, explain=explain)
        if view is not None:
            return view
        limit = max(len(tail), _FIRST_READ)
        before = Position(tail[0].create_time or 0, tail[0].message_id)
        rows = (
            yield from backend.read(key, MessageQuery(limit=limit, descending=True, after=before))
        ).rows
        tail = [_good(row) for row in reversed(rows)] + tail
        complete = len(rows) < limit


def fork(backend: Backend, key: Key, target: Key, until: str | None) -> Steps[None]:
    if key == target:
        raise InvalidInputError("a fork needs a session_id of its own")
    session = yield from backend.get_session(key)
    if session is None:
        raise NotFoundError(f"there is no session {key.session_id!r} to fork")
    origin: Session = _good(session)
    rows = (yield from backend.read(key, MessageQuery(limit=None))).rows
    messages = [_good(row) for row in rows]
    if until is not None:
        checks.check_id("until", until)
        at = next((i for i, m in enumerate(messages) if m.message_id == until), None)
        if at is None:
            raise NotFoundError(f"session {key.session_id!r} has no message {until!r}")
        messages = messages[: at + 1]
    patch = SessionPatch(
        title=origin.title, summary=origin.summary, metadata=origin.metadata, ttl=origin.ttl
    )
    yield from backend.commit(target, Change(put=tuple(messages), session=patch, if_version=0))


def count(backend: Backend, key: Key, where: Where) -> Steps[int]:
    if where is None:
        session = yield from backend.get_session(key)
        return _good(session).message_count if session else 0
    query = MessageQuery(limit=None, where=as_filter(where))
    return len(_usable((yield from backend.read(key, query)).rows, "raise"))


# -- sessions --------------------------------------------------------------------------------


def get_session(backend: Backend, key: Key) -> Steps[Session | None]:
    session = yield from backend.get_session(key)
    return _good(session) if session is not None else None


def update_session(
    backend: Backend,
    key: Key,
    lifetime: Lifetime,
    *,
    title: Any,
    summary: Any,
    metadata: Any,
    remove_metadata: Iterable[str],
    replace_metadata: bool,
    ttl: Any,
    create_time: Any,
    update_time: Any,
    if_version: int | None,
) -> Steps[Session]:
    for name, text in (("title", title), ("summary", summary)):
        if text is not UNSET and text is not None and type(text) is not str:
            raise InvalidInputError(f"{name} is a str or None, not {type(text).__name__}")
    if metadata is not UNSET and type(metadata) is not dict:
        raise InvalidInputError(f"metadata is a dict, not {type(metadata).__name__}")
    if if_version is not None:
        checks.check_size("if_version", if_version)
    times: dict[str, Any] = {
        name: checks.micros(name, value)
        for name, value in (("create_time", create_time), ("update_time", update_time))
        if value is not UNSET and value is not None
    }
    patch = SessionPatch(
        title=title,
        summary=summary,
        metadata=metadata,
        remove=tuple(remove_metadata),
        replace_metadata=replace_metadata,
        ttl=ttl if ttl is UNSET else checks.check_ttl(ttl),
        **times,
    )
    outcome = yield from backend.commit(
        key,
        Change(
            session=patch,
            if_version=if_version,
            ttl=lifetime.ttl,
            default_ttl=lifetime.default,
        ),
    )
    assert outcome.session is not None  # a change with a patch begins the session
    return outcome.session


def set_ttl(backend: Backend, key: Key, ttl: float | None) -> Steps[bool]:
    patch = SessionPatch(ttl=checks.check_ttl(ttl))
    outcome = yield from backend.commit(key, Change(session=patch, create=False))
    return outcome.session is not None


def get_ttl(backend: Backend, key: Key) -> Steps[float | None]:
    session = yield from get_session(backend, key)
    if session is None:
        return None
    if session.expires_at is None:
        return math.inf
    return max(0, session.expires_at - backend.clock()) / 1_000_000


def list_sessions(
    backend: Backend,
    *,
    user_id: str | Unset,
    where: Where,
    updated_from: Any,
    updated_to: Any,
    order: Order,
    limit: int,
    cursor: str | None,
    on_error: OnError,
) -> Steps[Page[Session]]:
    checks.check_size("limit", limit, least=1)
    kind = f"sessions-{order}"
    query = SessionQuery(
        user_id=None if user_id is UNSET else checks.check_id("user_id", user_id),
        limit=limit + 1,
        descending=_descending(order),
        after=checks.decode_cursor(kind, tuple[int, str, str], cursor),
        updated_from=checks.micros("updated_from", updated_from),
        updated_to=checks.micros("updated_to", updated_to),
        where=as_filter(where),
    )
    rows = yield from backend.list_sessions(query)
    page = rows[:limit]
    items = _usable(page, on_error)
    if len(rows) <= limit:
        return Page(items)
    last = page[-1]
    time = last.update_time if isinstance(last, Session) else last.create_time
    return Page(items, checks.encode_cursor(kind, (time, last.user_id, last.session_id)))
