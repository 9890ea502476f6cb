"""A store as one file of JSON Lines, and back. The format is public: docs/moving.md.

The first line is ``{"tsmemory_export":1}``. Then comes each session, one line
``{"session":{…}}`` and after it its messages, one per line and oldest first, as the JSONL backend
writes them; the last line is ``{"end":{"sessions":…,"messages":…}}``, so that a file that was cut
short is recognised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tsmemory.backends.jsonl import lines
from tsmemory.checks import check_key, check_messages
from tsmemory.engine.codec import decode_session, encode_message, encode_session
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import UNSET, Change, Key, Position, Unset
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message, Problem, Session
from tsmemory.store import Store
from tsmemory.transfer.copying import (
    Progress,
    Report,
    drive,
    on,
    put_session,
    read_page,
    read_sessions,
    same_message,
)
from tsmemory.usecases import OnError

__all__ = ["EXPORT_FORMAT", "export_jsonl", "import_jsonl", "opened"]

EXPORT_FORMAT = 1
"""The version of the file, ``tsmemory_export`` in its first line."""

_BATCH = 200  # messages a write


class _Exported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    user_id: str
    session_id: str
    create_time: int
    update_time: int
    version: int
    message_count: int
    ttl: float | None = None
    expires_at: int | None = None
    record: msgspec.Raw


class _End(msgspec.Struct, frozen=True):
    sessions: int
    messages: int


class _Line(msgspec.Struct, frozen=True):
    """A line that is no message."""

    tsmemory_export: int | None = None
    session: _Exported | None = None
    end: _End | None = None


@contextmanager
def opened(file: str | os.PathLike[str] | BinaryIO, mode: str) -> Iterator[BinaryIO]:
    """`file`, where it is open already; else the file of that name, closed afterwards."""
    if isinstance(file, (str, os.PathLike)):
        with Path(file).open(mode) as raw:
            yield raw  # type: ignore[misc]  # a binary mode opens a binary file
    else:
        yield file


def export_jsonl(
    store: Store,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    user_id: str | Unset = UNSET,
    progress: Callable[[Progress], None] | None = None,
    on_error: OnError = "raise",
) -> Report:
    """Write a store, or what one user has in it, as JSON Lines.

    Args:
        file: a path, or a binary file open for writing.
        user_id: whose sessions; leave it out for every user's.
        progress: called after every page of messages.
        on_error: ``"skip"`` leaves out records that do not decode.

    Raises:
        CorruptRecordError: a record does not decode.
    """
    with opened(file, "wb") as out:
        return drive(_export(store.backend, out, user_id, progress, on_error))


def _export(
    backend: Backend,
    out: BinaryIO,
    user_id: str | Unset,
    progress: Callable[[Progress], None] | None,
    on_error: OnError,
) -> Steps[Report]:
    report = Report()
    out.write(b'{"tsmemory_export":%d}\n' % EXPORT_FORMAT)
    for session in (yield from read_sessions(backend, user_id, on_error)):
        key = check_key(session.user_id, session.session_id)
        report.sessions += 1
        fields = {
            name: getattr(session, name) for name in _Exported.__struct_fields__ if name != "record"
        }
        exported = _Exported(**fields, record=msgspec.Raw(encode_session(session)))
        out.write(b'{"session":' + msgspec.json.encode(exported) + b"}\n")
        cursor: str | None = None
        while True:
            page = yield from on(backend, read_page(backend, key, cursor, on_error))
            for message in page.items:
                position = Position(message.create_time or 0, message.message_id)
                out.write(lines.message_line(position, encode_message(message), None, 0))
            report.messages += len(page.items)
            if progress is not None:
                progress(Progress(report.sessions, report.messages, *key))
            cursor = page.next_cursor
            if cursor is None:
                break
    end = _End(report.sessions, report.messages)
    out.write(b'{"end":' + msgspec.json.encode(end) + b"}\n")
    return report


def import_jsonl(
    store: Store,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in what `export_jsonl` wrote. Ids and times are kept.

    It is a merge: what is stored already stays, and a message or record that is another in the file
    is reported in `Report.problems`. A run that was killed is completed by the next one.

    Args:
        file: a path, or a binary file open for reading.
        progress: called after every batch of messages.

    Raises:
        InvalidInputError: a line is not as it should be, named by its number, or the file was cut
            short. What stands before is in the store; bringing in the whole file completes it.
    """
    with opened(file, "rb") as source:
        return drive(_import(store.backend, source, progress))


def _import(
    backend: Backend, source: BinaryIO, progress: Callable[[Progress], None] | None
) -> Steps[Report]:
    merge = _Merge(backend, progress)
    is_complete = False
    for number, raw in enumerate(source, 1):
        message = _message(raw, number) if number > 1 else None
        if message is not None:
            yield from merge.add_message(message, number)
            continue
        line = _line(raw, number)
        if number == 1:
            _check_format(line.tsmemory_export)
            continue
        yield from merge.end_session()
        if line.end is not None:
            is_complete = line.end == _End(merge.report.sessions, merge.report.messages)
            break
        yield from merge.begin_session(_session(line, number))
    if not is_complete:
        raise InvalidInputError(
            f"the file was cut short: it holds {merge.report.sessions} sessions and "
            f"{merge.report.messages} messages, and not the end that counts as many"
        )
    return merge.report


def _check_format(version: int | None) -> None:
    if version is None:
        raise InvalidInputError('line 1 is not {"tsmemory_export":1}: not such a file')
    if version > EXPORT_FORMAT:
        raise InvalidInputError(
            f"the file has format {version}, made by a newer tsmemory; this one knows "
            f"{EXPORT_FORMAT}: upgrade the package"
        )


class _Merge:
    """The sessions of a file, one after the other, as they come into a backend."""

    def __init__(self, backend: Backend, progress: Callable[[Progress], None] | None) -> None:
        self.report = Report()
        self._backend = backend
        self._progress = progress
        self._session: Session | None = None
        self._batch: list[Message] = []
        self._is_new = False
        self._differs = False

    def begin_session(self, session: Session) -> Steps[None]:
        self._session = session
        key = check_key(session.user_id, session.session_id)
        self._is_new = (yield from on(self._backend, self._backend.get_session(key))) is None
        self._differs = False
        self.report.sessions += 1

    def add_message(self, message: Message, number: int) -> Steps[None]:
        if self._session is None:
            raise InvalidInputError(f"line {number}: a message before any session")
        self._batch.append(message)
        self.report.messages += 1
        if len(self._batch) >= _BATCH:
            yield from self._write_batch(self._session)

    def end_session(self) -> Steps[None]:
        if self._session is None:
            return
        if self._batch:
            yield from self._write_batch(self._session)
        yield from _merge_session(
            self._backend, self._session, self.report, new=self._is_new, differs=self._differs
        )

    def _write_batch(self, session: Session) -> Steps[None]:
        key = check_key(session.user_id, session.session_id)
        problems = yield from _merge_page(
            self._backend, key, self._batch, self.report, new=self._is_new
        )
        self.report.problems += problems
        self._differs = self._differs or bool(problems)
        if self._progress is not None:
            self._progress(Progress(self.report.sessions, self.report.messages, *key))
        self._batch.clear()


def _merge_page(
    backend: Backend, key: Key, messages: list[Message], report: Report, *, new: bool
) -> Steps[list[Problem]]:
    """Write the messages that are not stored; a problem for each that is another there."""
    stored: dict[str, Message | CorruptRecordError] = {}
    if not new:
        ids = [message.message_id for message in messages]
        rows = yield from on(backend, backend.get_messages(key, ids))
        stored = {row.message_id or "": row for row in rows}
    missing = tuple(m for m in messages if m.message_id not in stored)
    if missing:
        yield from on(backend, backend.commit(key, Change(put=missing)))
        report.written += len(missing)
    problems = []
    for message in messages:
        row = stored.get(message.message_id)
        if row is not None and not (isinstance(row, Message) and same_message(message, row)):
            problems.append(Problem(*key, message.message_id, "differs; what is stored stays"))
    return problems


def _merge_session(
    backend: Backend, session: Session, report: Report, *, new: bool, differs: bool
) -> Steps[None]:
    """Complete the record, unless the session has lived on: its messages are other ones, or its
    title, summary or metadata were set."""
    key = check_key(session.user_id, session.session_id)
    stored = None if new else (yield from on(backend, backend.get_session(key)))
    if isinstance(stored, CorruptRecordError):
        report.problems.append(Problem(*key, None, str(stored)))
        return
    if stored is not None:
        ours = stored.title, stored.summary, stored.metadata
        theirs = session.title, session.summary, session.metadata
        lived_on = differs or stored.message_count != session.message_count
        if lived_on or (ours != theirs and ours != (None, None, {})):
            if ours != theirs:
                report.problems.append(Problem(*key, None, "differs; what is stored stays"))
            return
        if msgspec.structs.replace(stored, version=session.version) == session:
            return
    yield from put_session(backend, session)


def _line(raw: bytes, number: int) -> _Line:
    try:
        return msgspec.json.decode(raw, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "" if number > 1 else " (an export of tsmemory is JSON Lines; format= names another)"
        raise InvalidInputError(f"line {number}: {error}{hint}") from error


def _session(line: _Line, number: int) -> Session:
    exported = line.session
    if exported is None:
        raise InvalidInputError(f"line {number} is neither a session nor a message")
    try:
        title, summary, metadata = decode_session(bytes(exported.record))
    except ValueError as error:
        raise InvalidInputError(f"line {number}: {error}") from error
    fields: dict[str, Any] = {
        name: getattr(exported, name) for name in _Exported.__struct_fields__ if name != "record"
    }
    return Session(**fields, title=title, summary=summary, metadata=metadata)


def _message(raw: bytes, number: int) -> Message | None:
    """The message on a line; None where it is another kind of line."""
    if not raw.endswith(b"\n") or b'"role"' not in raw:
        return None
    (line,) = lines.read_lines(raw, 0)
    if line.kind == "broken":
        return None
    try:
        message = lines.decode_line(raw, Position(line.create_time, line.message_id))
        check_messages([message])
    except ValueError as error:
        raise InvalidInputError(f"line {number}: {error}") from error
    return message
