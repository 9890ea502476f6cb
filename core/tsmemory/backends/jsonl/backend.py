"""The engine of files that people read: a directory, and two files a session.

``<user>/<session>.jsonl`` holds the messages, one a line, and is only ever appended to;
``<user>/<session>.meta.json`` is what the log comes to, kept so that nobody has to read it all. The
log is the truth: the other is rebuilt from it where it is missing, damaged or behind. The format
is public: docs/jsonl-format.md.

- An append is one write at the end and one fsync (``durability="normal"`` leaves the fsync to the
  system), under a lock that other processes respect. A batch counts once its last line is whole;
  what a killed writer left behind the last whole batch is cut off before the next one is written.
- `newest` reads a window from the end of the file. Everything else asks an index of the session
  (where each message stands), made by one reading of the file and kept for the sessions used last.
- Deleting or changing a message appends a line that says so; `compact` writes the file anew.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.files import (
    File,
    Locks,
    remove,
    replace_file,
    sync_directory,
    translated,
)
from tsmemory.backends.jsonl.log import Log, Row, newest
from tsmemory.backends.jsonl.logs import Logs
from tsmemory.backends.jsonl.names import file_name
from tsmemory.backends.jsonl.rows import (
    findings,
    key_of,
    meta_path,
    read_message,
    read_meta,
    rows_at,
    stored,
)
from tsmemory.backends.jsonl.writer import batch_of, rewritten
from tsmemory.engine.commit import Head, encode_bodies, plan, touched_ids
from tsmemory.engine.contract import now_us
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.records import Change, Key, MessageQuery, Outcome, Position, Read, SessionQuery
from tsmemory.engine.rows import passes, session_rows
from tsmemory.engine.steps import immediate
from tsmemory.engine.urls import split_url
from tsmemory.errors import (
    CorruptRecordError,
    InvalidInputError,
    TimeoutError,
    UnavailableError,
)
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["JSONLBackend"]

_MOST_BEHIND = 16 * 1024
"""Bytes that the log may grow before the meta file follows, where title, summary and metadata stay:
so many more a new process reads. Replacing a file takes ten times as long as appending to one."""
_ENDING = re.compile(r"\.meta\.json(?:\.tmp)?\Z|\.jsonl\.tmp\Z")


class JSONLBackend(LocalBackend):
    """Sessions in a directory, made at first use.

    Args:
        directory: where; on a local file system, whose locks and renames can be trusted.
        durability: ``"full"`` fsyncs every write before it returns, ``"normal"`` leaves that to the
            operating system.
        timeout: seconds to wait for another writer of the same session before `TimeoutError`.
        clock: µs since the epoch.

    Raises:
        InvalidInputError: no directory, or an unknown durability.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        timeout: float = 30.0,
        clock: Callable[[], int] = now_us,
    ) -> None:
        if not os.fspath(directory):
            raise InvalidInputError("a JSONL store needs a directory, as jsonl:///chats")
        if durability not in ("full", "normal"):
            raise InvalidInputError(f'durability is "full" or "normal", not {durability!r}')
        if timeout < 0:
            raise InvalidInputError(f"timeout is {timeout} s; give 0 or more")
        self.directory = Path(directory)
        self.durability = durability
        self.timeout = float(timeout)
        self.clock = clock
        self._sync = durability == "full"
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._locks = Locks(self.directory / ".locks", self.timeout)
        self._logs = Logs()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> JSONLBackend:
        """``jsonl:///relative/directory`` or ``jsonl:////absolute/directory``, percent-encoded
        where it must be, with the options ``durability`` and ``timeout``.

        Raises:
            InvalidInputError: no path, a host, or an unknown option.
        """
        parts, found = split_url(url, {"durability": str, "timeout": float}, options)
        if parts.netloc or parts.fragment:
            raise InvalidInputError(
                "a JSONL URL has three slashes and a directory, as jsonl:///chats; write a # in "
                "the path as %23"
            )
        return cls(unquote(parts.path.removeprefix("/")), **found)

    def __repr__(self) -> str:
        return f"JSONLBackend({str(self.directory)!r}, durability={self.durability!r})"

    # -- files -------------------------------------------------------------------------------

    def _path(self, key: Key) -> Path:
        return self.directory / file_name(key.user_id) / f"{file_name(key.session_id)}.jsonl"

    @contextmanager
    def _io(self) -> Iterator[None]:
        if self._closed:
            raise UnavailableError(f"the store in {self.directory} is closed")
        if self._pid != os.getpid():
            self._begin()  # the parent's threads, which may hold its locks, are not in this process
        with translated(self.directory):
            yield

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Alone with the session whose log is `path`."""
        with self._io():
            (self.directory / ".locks").mkdir(parents=True, exist_ok=True)
            with self._locks.hold(f"{path.parent.name}/{path.name}"):
                yield

    @contextmanager
    def _open(self, path: Path, *, indexed: bool = False) -> Iterator[tuple[File, Log] | None]:
        """The log for reading; None where there is no session."""
        with self._io(), self._logs.guard:
            try:
                file = File(path)
            except (FileNotFoundError, NotADirectoryError):
                yield None
                return
            with file:
                log = self._logs.load(path, file, indexed=indexed)
                yield (file, log) if log else None

    def _session(self, key: Key, log: Log) -> Session | CorruptRecordError | None:
        """The session's record; None where it has expired."""
        return None if self._expired(log) else log.session(key)

    def _expired(self, log: Log) -> bool:
        expires_at = log.head.expires_at
        return expires_at is not None and expires_at <= self.clock()

    # -- reading -----------------------------------------------------------------------------

    @immediate
    def setup(self) -> None:
        with self._io():
            (self.directory / ".locks").mkdir(parents=True, exist_ok=True)

    @immediate
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with self._open(self._path(key)) as found:
            return self._session(key, found[1]) if found else None

    @immediate
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        live = []
        for path in self._paths(query.user_id):
            with self._open(path) as found:
                if found:
                    session = self._session(key_of(path, found[1]), found[1])
                    if session is not None:
                        live.append(session)
        return session_rows(live, query)

    def _paths(self, user_id: str | None, *, remains: bool = False) -> Iterator[Path]:
        """The logs of a user, or of all; with `remains`, also of sessions that left other files."""
        with self._io():
            if user_id is not None:
                users = [self.directory / file_name(user_id)]
            else:
                users = [p for p in _listed(self.directory) if not p.name.startswith(".")]
            files = [file for user in users for file in _listed(user)]
        if remains:
            ours = (file.with_name(_ENDING.sub(".jsonl", file.name)) for file in files)
            return iter(sorted({file for file in ours if file.suffix == ".jsonl"}))
        return iter(sorted(file for file in files if file.suffix == ".jsonl"))

    @immediate
    def read(self, key: Key, query: MessageQuery) -> Read:
        path = self._path(key)
        read = self._read(key, path, query)
        if any(isinstance(row, CorruptRecordError) for row in (*read.rows, *read.pinned)):
            # A writer may have been cutting off a torn line that was being read: ask it to wait.
            # Where there may be no writer, on a read-only disk, it stays as it was read.
            with suppress(UnavailableError, TimeoutError), self._writing(path):
                read = self._read(key, path, query)
        return read

    def _read(self, key: Key, path: Path, query: MessageQuery) -> Read:
        near = query.descending and query.limit is not None and query.where is None
        with self._open(path, indexed=not near) as found:
            if found is None or self._session(key, found[1]) is None:
                return Read([])
            file, log = found
            rows: Iterable[Row] | None = None
            if near and not log.indexed:
                rows = newest(file.read, log, query)
                if rows is None:
                    log = self._logs.load(path, file, indexed=True) or log
            if rows is None:
                rows = rows_at(
                    file, log.walk(query), None if query.where is not None else query.limit
                )
            messages: list[Message | CorruptRecordError] = []
            for row in rows:
                message = read_message(key, row)
                if passes(message, query.where):
                    messages.append(message)
                if query.limit is not None and len(messages) >= query.limit:
                    break
            pinned: list[Message | CorruptRecordError] = []
            if query.pinned and messages:
                last = messages[-1]
                oldest = Position(last.create_time or 0, last.message_id or "")
                before = sorted(e for e in log.pinned.values() if e.position < oldest)
                pinned = [read_message(key, row) for row in rows_at(file, iter(before), None)]
            return Read(messages, pinned)

    @immediate
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with self._open(self._path(key), indexed=True) as found:
            if found is None or self._session(key, found[1]) is None:
                return []
            file, log = found
            there = sorted(log.entries[mid] for mid in set(ids) if mid in log.entries)
            return [read_message(key, row) for row in rows_at(file, iter(there), None)]

    # -- writing -----------------------------------------------------------------------------

    @immediate
    def commit(self, key: Key, change: Change) -> Outcome:
        encoded = encode_bodies(change)
        path = self._path(key)
        with self._writing(path):
            try:
                file = File(path, write=True)
            except FileNotFoundError:
                return self._commit(key, path, change, encoded, None)
            with file:
                return self._commit(key, path, change, encoded, file)

    def _commit(
        self, key: Key, path: Path, change: Change, encoded: dict[str, bytes], file: File | None
    ) -> Outcome:
        with self._logs.guard:
            log = self._logs.load(path, file, indexed=True) if file else None
            session = self._session(key, log) if log else None
            if isinstance(session, CorruptRecordError):
                raise session
            if session is None:
                log = None  # expired: the file is replaced
            head, existing, through = None, {}, 0
            if log and session:
                head = Head(session, log.head.last_time)
                there = log.entries
                existing = {m: there[m].position for m in touched_ids(change) if m in there}
                if change.delete_through is not None:
                    through = log.count_through(change.delete_through)
            planned = plan(key, head, change, existing, self.clock(), through)
            repeated = [there[m] for m in planned.stored if isinstance(m, str)] if log else []
            rows = list(rows_at(file, iter(sorted(set(repeated))), None)) if file else []
        messages = stored(key, planned.stored, rows)
        if planned.changed and planned.head:
            record = planned.head.session
            emptied = record.message_count == 0 and (through or planned.delete)
            if log is None or file is None or emptied:
                data = batch_of(None, planned, change, encoded, through)
                self._write_anew(key, path, record.create_time, data)
            else:
                with self._logs.guard:
                    end, data = log.end, batch_of(log, planned, change, encoded, through)
                    if log.noted is None:
                        remove(meta_path(path))  # it must not seem to fit what the log grows to
                file.append(end, data, sync=self._sync)
                with self._logs.guard:
                    record_before = log.record
                    log = self._logs.load(path, file, indexed=True)
                    assert log is not None
                    behind = log.noted is None or log.end - log.noted > _MOST_BEHIND
                    if behind or log.record != record_before:
                        self._write_meta(key, path, log)
        now = planned.head.session if planned.head else None
        return Outcome(now, messages, len(planned.delete) + through)

    def _write_anew(self, key: Key, path: Path, create_time: int, data: bytes) -> None:
        """Put a new log in the place of the old, if there is one, and its meta file beside it."""
        header = lines.header_line(_new_tag(), *key, create_time)
        for attempt in range(10):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                if self._sync:
                    sync_directory(self.directory)
            try:
                replace_file(path, header + data, sync=self._sync)
                break
            except FileNotFoundError:
                # Another process removed the directory of a user whose last session went.
                if attempt == 9:
                    raise
        with self._logs.guard, File(path) as file:
            self._logs.drop(path)
            log = Log(lines.read_header(header), len(header), indexed=True)
            log.replay(data)
            self._logs.keep(path, log)
            self._write_meta(key, path, log)
            assert log.end == file.size()

    def _write_meta(self, key: Key, path: Path, log: Log) -> None:
        # Not synced: it is a copy, and one that a power cut damaged is made again from the log.
        data = msgspec.json.encode(log.meta(key)) + b"\n"
        replace_file(meta_path(path), data, sync=False)
        log.noted = log.end

    @immediate
    def compact(self, key: Key) -> int:
        path = self._path(key)
        with self._writing(path):
            # What a killed writer left: the lock says that nobody else is writing them.
            remove(_temporary(path))
            remove(_temporary(meta_path(path)))
            try:
                file = File(path)
            except FileNotFoundError:
                return 0
            with file, self._logs.guard:
                before = file.size()
                log = self._logs.load(path, file, indexed=True)
                if log is None or log.header is None:
                    return 0
                data = rewritten(log, rows_at(file, log.everything(), None))
                create_time = log.header.create_time
            if len(lines.header_line(_new_tag(), *key, create_time)) + len(data) >= before:
                return 0
            self._write_anew(key, path, create_time, data)
            return before - path.stat().st_size

    # -- removing ----------------------------------------------------------------------------

    def _erase(self, path: Path, *, only_expired: bool = False) -> Erased:
        with self._writing(path), self._logs.guard:
            with self._open(path, indexed=True) as found:
                if only_expired and not (found and self._expired(found[1])):
                    return Erased()
                erased = Erased(1, found[1].head.message_count) if found else Erased()
            self._logs.drop(path)
            # The log last: while it is there, so is the session, and erasing it again finishes.
            meta = meta_path(path)
            for file in (meta, _temporary(meta), _temporary(path), path):
                remove(file)
            try:
                path.parent.rmdir()
            except OSError:
                gone = path.parent  # other sessions are in it
            else:
                gone = self.directory
            if self._sync and gone.is_dir():
                sync_directory(gone)
        return erased

    @immediate
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        if user_id is not None and session_id is not None:
            return self._erase(self._path(Key(user_id, session_id)))
        erased = [self._erase(path) for path in self._paths(user_id, remains=True)]
        return Erased(sum(e.sessions for e in erased), sum(e.messages for e in erased))

    @immediate
    def purge_expired(self) -> Erased:
        erased = [self._erase(path, only_expired=True) for path in self._paths(None)]
        return Erased(sum(e.sessions for e in erased), sum(e.messages for e in erased))

    # -- looking after -----------------------------------------------------------------------

    @immediate
    def stats(self) -> Stats:
        users, sessions, messages, expired, size = set(), 0, 0, 0, 0
        for path in self._paths(None):
            with self._open(path) as found:
                if not found:
                    continue
                size += found[0].size()
                if self._expired(found[1]):
                    expired += 1
                    continue
                users.add(path.parent.name)
                sessions += 1
                messages += found[1].head.message_count
        return Stats(
            users=len(users),
            sessions=sessions,
            messages=messages,
            expired_sessions=expired,
            bytes=size,
        )

    @immediate
    def verify(self) -> list[Problem]:
        problems: list[Problem] = []
        for path in self._paths(None):
            with self._writing(path), suppress(FileNotFoundError), File(path) as file:
                problems += findings(path, file.read(0, file.size()), read_meta(path))
        return problems

    def close(self) -> None:
        """Keeps no file open between operations; refuses further ones."""
        self._closed = True
        self._logs.clear()


def _new_tag() -> str:
    return secrets.token_hex(8)


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
