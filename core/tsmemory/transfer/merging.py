"""Bringing conversations in: a merge, whatever happened to the source since the last time.

A message is known by where it came from and by what it says, never by its position alone. One that
has an id at the source keeps it, and where it came from and a digest of what it says (its mark) are
in ``extensions["import"]``. One that has none gets the id ``origin:mark:number``; the number tells
those with the same mark apart. For each conversation:

1. what is stored from this origin is read;
2. messages with an id of their own are looked up by it. One that says something else than the
   stored one did is a new version or another message: it is treated as one without an id;
3. the others are aligned with what is stored, in order (`align`), so that a source that was
   trimmed, compacted, cleared, or continued meets its own messages again, and a second "yes" is not
   taken for the first;
4. what has no counterpart is written: at its own time where the source has times, otherwise at the
   end. What is stored is never overwritten or removed;
5. what differs is reported: new versions, messages that were changed here, and messages that the
   source lost.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.checks import DEFAULT_USER, MAX_ID_BYTES, check_key, check_messages, check_ttl
from tsmemory.engine.codec import encode_message
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Change, Key, MessageQuery, SessionPatch
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    BackendError,
    CorruptRecordError,
    InvalidInputError,
    TSMemoryError,
)
from tsmemory.model import Message, Problem, Session
from tsmemory.store import Store
from tsmemory.transfer.alignment import align
from tsmemory.transfer.copying import Progress, Report, drive, on
from tsmemory.transfer.sources import redacted

__all__ = ["Imported", "import_sessions", "mark_of"]

_BATCH = 200  # messages per write
_NOTE = "import"  # the key of `Message.extensions` for messages that keep their ids
_MAX_TOLD = 20  # differences of one conversation that are reported one by one


class Imported(msgspec.Struct, kw_only=True):
    """A conversation from elsewhere, as far as it is known there."""

    session_id: str
    user_id: str = DEFAULT_USER
    messages: Sequence[Message]
    """In order. Their `message_id` is not looked at: see `ids`. Times are kept where there are
    some; a message without one follows the one before it."""
    ids: Sequence[str | None] | None = None
    """The ids of the messages at the source, None for one that has none there. Leave it out where
    none has."""
    title: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    create_time: int | None = None
    """µs since the epoch."""
    update_time: int | None = None
    """µs since the epoch."""
    ttl: float | None = None
    """Seconds that are left of it; None where it stays."""
    problems: Sequence[Problem] = ()
    """What of this conversation could not be read."""


class _Incoming(NamedTuple):
    message: Message
    own_id: str | None
    mark: str


class _Stored(NamedTuple):
    message_id: str
    create_time: int
    mark: str | None
    """What it says now; None where it does not decode."""
    brought: str | None
    """What it said when it was brought in from this origin; None where it was not."""


def import_sessions(
    store: Store,
    sessions: Iterable[Imported | Problem],
    *,
    origin: str = "import",
    progress: Callable[[Progress], None] | None = None,
    done: Callable[[Imported], None] | None = None,
) -> Report:
    """Bring conversations in, by the steps of the module's docstring. May be repeated.

    A session that also has messages of another origin keeps its title, summary, times and time to
    live.

    Args:
        sessions: one after the other; a `Problem` among them goes into the report.
        origin: where they come from; the same whenever the same source is brought in.
        progress: called after every batch of messages.
        done: called once a conversation is in the store.

    Returns:
        What was read and written. `Report.problems` also names what differs. A conversation or a
        message that no store can hold is one of them; the others come in.

    Raises:
        BackendError: the store or the source fails.
        InvalidInputError: the source is not what it should be.
    """
    if not origin or ":" in origin:
        raise InvalidInputError(f"origin is a short name without a colon, not {origin!r}")
    return drive(_import(store.backend, _guarded(sessions), origin, progress, done))


def _guarded(sessions: Iterable[Imported | Problem]) -> Iterator[Imported | Problem]:
    """`sessions`, the errors of whatever reads the source as ours."""
    iterator = iter(sessions)
    while True:
        try:
            conversation = next(iterator)
        except StopIteration:
            return
        except TSMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # every driver has its own; none may leave
            what, secret = redacted(f"{type(error).__name__}: {error}")
            raise BackendError(f"the source cannot be read: {what}") from (
                None if secret else error
            )
        yield conversation


def _import(
    backend: Backend,
    sessions: Iterator[Imported | Problem],
    origin: str,
    progress: Callable[[Progress], None] | None,
    done: Callable[[Imported], None] | None,
) -> Steps[Report]:
    report = Report()
    for conversation in sessions:
        if isinstance(conversation, Problem):
            report.problems.append(conversation)
            continue
        report.problems.extend(conversation.problems)
        try:
            key = check_key(conversation.user_id, conversation.session_id)
        except InvalidInputError as error:
            report.problems.append(Problem(None, None, None, f"left out: {error}"))
            continue
        report.sessions += 1
        try:
            yield from _merge(backend, key, conversation, origin, report, progress)
        except (InvalidInputError, CorruptRecordError) as error:
            report.problems.append(Problem(*key, None, str(error)))
            continue
        if done is not None:
            done(conversation)
    return report


def _merge(
    backend: Backend,
    key: Key,
    conversation: Imported,
    origin: str,
    report: Report,
    progress: Callable[[Progress], None] | None,
) -> Steps[None]:
    incoming = _usable(key, conversation, report)
    report.messages += len(incoming)
    before = yield from on(backend, backend.get_session(key))
    if isinstance(before, CorruptRecordError):
        raise before
    if before is None and not incoming and conversation.problems:
        return  # nothing of it could be read
    stored: list[_Stored] = []
    if before is not None:
        read = yield from on(backend, backend.read(key, MessageQuery(limit=None)))
        stored = [_stored(row, origin) for row in read.rows]
    matched = _match(incoming, stored, origin)
    report.problems += _differences(key, incoming, stored, matched)
    fresh = _placed(incoming, stored, matched, origin)
    timed = any(newcomer.message.create_time is not None for newcomer in incoming)
    for start in range(0, len(fresh), _BATCH):
        batch = tuple(fresh[start : start + _BATCH])
        written = yield from _write(backend, key, batch, timed=timed, report=report)
        report.written += written
        if progress is not None:
            progress(Progress(report.sessions, report.messages, *key))
    alone = all(row.brought is not None for row in stored)
    patch = _patch(conversation, before) if alone else None
    if patch is not None:
        yield from on(backend, backend.commit(key, Change(session=patch)))
    if progress is not None and not fresh:
        progress(Progress(report.sessions, report.messages, *key))


def _write(
    backend: Backend, key: Key, batch: tuple[Message, ...], *, timed: bool, report: Report
) -> Steps[int]:
    """Step 4: how many were written. One that the backend refuses is reported, the others come
    in."""
    change = Change(put=batch) if timed else Change(append=batch)
    try:
        yield from on(backend, backend.commit(key, change))
    except InvalidInputError as error:
        if len(batch) == 1:
            report.problems.append(Problem(*key, batch[0].message_id, f"left out: {error}"))
            return 0
        half = len(batch) // 2
        first = yield from _write(backend, key, batch[:half], timed=timed, report=report)
        second = yield from _write(backend, key, batch[half:], timed=timed, report=report)
        return first + second
    return len(batch)


# -- what a message is known by ------------------------------------------------------------------


def mark_of(message: Message) -> str:
    """A digest of what a message says: its role, text, calls, and what else its content holds; not
    its id, its time, its metadata or what a framework adds to it."""
    content: Any = message.text
    if not isinstance(message.content, str):
        others = [
            {k: v for k, v in block.items() if k in ("type", "url", "base64", "file_id", "data")}
            for block in message.content
            if isinstance(block, dict) and "text" not in block and block.get("type") != "tool_call"
        ]
        content = [message.text, others] if others else message.text
    calls = [[call.name, call.arguments] for call in message.tool_calls]
    says = [message.role, content, message.name, calls, message.tool_call_id]
    text = json.dumps(says, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _mark_in(message_id: str, origin: str) -> str | None:
    """The mark in an id that was made here for this origin; None for any other id."""
    parts = message_id.split(":")
    ours = len(parts) == 3 and parts[0] == origin and len(parts[1]) == 20 and parts[2].isdigit()
    return parts[1] if ours else None


def _stored(row: Message | CorruptRecordError, origin: str) -> _Stored:
    """Step 1."""
    mark, brought = None, _mark_in(row.message_id or "", origin)
    if isinstance(row, Message):
        mark = mark_of(row)
        noted = row.extensions.get(_NOTE)
        if brought is None and isinstance(noted, dict) and noted.get("origin") == origin:
            brought = str(noted.get("mark"))
    return _Stored(row.message_id or "", row.create_time or 0, mark, brought)


def _usable(key: Key, conversation: Imported, report: Report) -> list[_Incoming]:
    """The messages that a store can hold. An id that is taken, or that is none, is left aside: such
    a message is known by what it says."""
    ids: Sequence[str | None] = conversation.ids or [None] * len(conversation.messages)
    incoming: list[_Incoming] = []
    used: set[str] = set()
    for number, (message, own_id) in enumerate(zip(conversation.messages, ids, strict=False), 1):
        try:
            check_messages([message])
            encode_message(message)
        except (InvalidInputError, ValueError, RecursionError) as error:
            report.problems.append(Problem(*key, None, f"message {number} is left out: {error}"))
            continue
        if own_id is not None and (own_id in used or not _is_id(own_id)):
            own_id = None
        if own_id is not None:
            used.add(own_id)
        incoming.append(_Incoming(message, own_id, mark_of(message)))
    return incoming


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


# -- matching ------------------------------------------------------------------------------------


def _match(
    incoming: Sequence[_Incoming], stored: Sequence[_Stored], origin: str
) -> dict[int, _Stored]:
    """Steps 2 and 3: which stored message is the n-th incoming one."""
    by_id = {row.message_id: row for row in stored}
    matched: dict[int, _Stored] = {}
    unnamed: list[int] = []
    for i, newcomer in enumerate(incoming):
        row = by_id.get(newcomer.own_id) if newcomer.own_id is not None else None
        if row is not None and (newcomer.mark in (row.brought, row.mark) or row.mark is None):
            matched[i] = row
        elif row is not None or newcomer.own_id is None:
            unnamed.append(i)
    marked = [(row, mark) for row in stored if (mark := _mark_in(row.message_id, origin))]
    pairs = align([mark for _, mark in marked], [incoming[i].mark for i in unnamed])
    matched.update((unnamed[j], marked[k][0]) for j, k in pairs.items())
    return matched


def _placed(
    incoming: Sequence[_Incoming],
    stored: Sequence[_Stored],
    matched: Mapping[int, _Stored],
    origin: str,
) -> list[Message]:
    """What is new, with the ids and times that it gets."""
    stored_times = {row.message_id: row.create_time for row in stored}
    taken = set(stored_times)
    taken.update(newcomer.own_id for newcomer in incoming if newcomer.own_id is not None)
    numbers: Counter[str] = Counter()
    timed = any(newcomer.message.create_time is not None for newcomer in incoming)
    fresh: list[Message] = []
    reached = 0
    for i, newcomer in enumerate(incoming):
        row = matched.get(i)
        if row is not None:
            reached = max(reached, row.create_time)
            continue
        mid, message = newcomer.own_id, newcomer.message
        if mid is not None and mid not in stored_times:
            note = {"origin": origin, "mark": newcomer.mark}
            extensions = {**message.extensions, _NOTE: note}
            message = msgspec.structs.replace(message, extensions=extensions)
        else:
            reached = max(reached, stored_times.get(mid or "", 0))  # a new version, after the old
            mid = f"{origin}:{newcomer.mark}:{numbers[newcomer.mark]}"
            while mid in taken:
                numbers[newcomer.mark] += 1
                mid = f"{origin}:{newcomer.mark}:{numbers[newcomer.mark]}"
            taken.add(mid)
        time = None
        if timed:
            time = reached = max(message.create_time or 0, reached + 1)
        fresh.append(msgspec.structs.replace(message, message_id=mid, create_time=time))
    return fresh


def _differences(
    key: Key,
    incoming: Sequence[_Incoming],
    stored: Sequence[_Stored],
    matched: Mapping[int, _Stored],
) -> list[Problem]:
    """Step 5."""
    ids = {row.message_id for row in stored}
    changed = [
        Problem(*key, newcomer.own_id, "differs from the source; both versions are stored")
        for i, newcomer in enumerate(incoming)
        if i not in matched and newcomer.own_id in ids
    ]
    changed += [
        Problem(*key, row.message_id, "was changed here since it was brought in; it stays")
        for i, row in sorted(matched.items())
        if row.mark is not None and row.mark != incoming[i].mark
    ]
    if len(changed) > _MAX_TOLD:
        untold = len(changed) - _MAX_TOLD
        changed[_MAX_TOLD:] = [
            Problem(*key, None, f"{untold} more messages differ from the source")
        ]
    met = {row.message_id for row in matched.values()}
    met.update(newcomer.own_id for newcomer in incoming if newcomer.own_id is not None)
    lost = [r for r in stored if r.brought is not None and r.message_id not in met]
    if lost:
        counted = "1 message" if len(lost) == 1 else f"{len(lost)} messages"
        what = f"{counted} brought in before, not in the source any more; what is stored stays"
        changed.append(Problem(*key, None, what))
    return changed


def _patch(conversation: Imported, before: Session | None) -> SessionPatch | None:
    """What the record becomes; None where it is like that."""
    times = [m.create_time for m in conversation.messages if m.create_time is not None]
    values = {
        "title": conversation.title,
        "summary": conversation.summary,
        "create_time": conversation.create_time or min(times, default=None),
        "update_time": conversation.update_time or max(times, default=None),
    }
    patch: dict[str, Any] = {
        name: value
        for name, value in values.items()
        if value is not None and value != (getattr(before, name) if before else None)
    }
    metadata = before.metadata if before else {}
    if any(
        key not in metadata or metadata[key] != value
        for key, value in conversation.metadata.items()
    ):
        patch["metadata"] = conversation.metadata
    if conversation.ttl is not None and (before is None or before.ttl is None):
        patch["ttl"] = check_ttl(conversation.ttl)
    if not patch and before is None and not conversation.messages:
        return SessionPatch()
    return SessionPatch(**patch) if patch else None
