"""The JSONL backend: a directory of files that people can read, two per session.

``<user>/<session>.jsonl`` contains the messages, one per line, and is only ever appended to;
``<user>/<session>.meta.json`` is a summary of it, so that nobody has to read it all. The log is the
truth: the other is rebuilt from it where it is missing, damaged or behind. The format is public:
docs/jsonl-format.md.

A commit, under the session's lock, which other processes respect:

1. the index of the session is brought up to date with its file (`index_cache`);
2. `engine.commit` decides on it;
3. one write at the end of the log and one fsync (``durability="normal"`` leaves the fsync to the
   system). What a killed writer left behind the last whole batch is cut off before;
4. the index is brought up to date, and now and then the meta file. From here on the commit is made,
   and no failure is reported any more;
5. the list of sessions by activity is told (`catalogue`).

A window is read from the end of the file (`read_tail`). Everything else uses the index: where each
message is, made by one reading of the file and kept for the sessions used last. Deleting or
changing a message appends a line that says so; `compact` rewrites the file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import unquote

from tsmemory.backends.jsonl import health, maintenance, reader
from tsmemory.backends.jsonl.catalogue import Catalogue
from tsmemory.backends.jsonl.files import (
    Locks,
    make_directory,
    translate,
)
from tsmemory.backends.jsonl.index_cache import IndexCache, Loaded
from tsmemory.backends.jsonl.layout import log_path
from tsmemory.backends.jsonl.rows import key_of
from tsmemory.backends.jsonl.session_index import SessionIndex
from tsmemory.backends.jsonl.writer import LogWriter
from tsmemory.engine import commit as template
from tsmemory.engine import steps as runner
from tsmemory.engine.commit import Head, Plan, encode_bodies
from tsmemory.engine.contract import now_us
from tsmemory.engine.fork import reset_after_fork
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import (
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
    Snapshot,
)
from tsmemory.engine.steps import Steps
from tsmemory.engine.urls import split_url
from tsmemory.errors import (
    CorruptRecordError,
    InvalidInputError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
)
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["JSONLBackend"]

T = TypeVar("T")
P = ParamSpec("P")

_logger = get_logger("jsonl")
_MAX_TIMEOUT = 1_000_000  # seconds


def operation(
    method: Callable[Concatenate[JSONLBackend, P], T],
) -> Callable[Concatenate[JSONLBackend, P], Steps[T]]:
    """Make a method that does file I/O an operation: the store is open, the system's errors are
    ours."""

    @wraps(method)
    def perform(self: JSONLBackend, /, *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        if self._closed:
            raise UnavailableError(f"the store in {self.directory} is closed")
        try:
            return method(self, *args, **kwargs)
        except TSMemoryError:
            raise  # our TimeoutError is one of the system's too
        except OSError as error:
            raise translate(error, self.directory) from error
        yield  # a generator, though it never yields

    return perform


class JSONLBackend(LocalBackend):
    """Sessions in a directory, created at first use, readable by its owner only.

    Args:
        directory: where; on a local file system, whose locks and renames can be trusted. A relative
            one is resolved now: a later `os.chdir` moves nothing.
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
        if "\0" in os.fspath(directory):
            raise InvalidInputError("the directory's name contains a NUL character")
        if durability not in ("full", "normal"):
            raise InvalidInputError(f'durability is "full" or "normal", not {durability!r}')
        if not 0 <= timeout <= _MAX_TIMEOUT:
            raise InvalidInputError(f"timeout is {timeout} s; give 0 to {_MAX_TIMEOUT}")
        self.directory = os.path.abspath(directory)
        self.durability = durability
        self.timeout = float(timeout)
        self.clock = clock
        self._sync = durability == "full"
        self._closed = False
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._own = os.path.join(self.directory, ".tsmemory")
        self._locks = Locks(self._own, self.timeout)
        self._cache = IndexCache()
        self._catalogue = Catalogue(self.directory, self._locks, self._look)
        self._writer = LogWriter(self._cache, self._catalogue, sync=self._sync)

    def _after_fork(self) -> None:
        """In the child: the parent's threads, which may hold its locks, are not in this process.
        What was read stays; it is marked where a thread was changing it."""
        self._locks.forget()
        self._locks = Locks(self._own, self.timeout)
        self._cache.guard = threading.RLock()
        self._catalogue.reset_locks(self._locks)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> JSONLBackend:
        """``jsonl:///relative/directory`` or ``jsonl:////absolute/directory``, percent-encoded
        where it must be, with the options ``durability`` and ``timeout``.

        Raises:
            InvalidInputError: no path, a host, or an unknown option.
        """
        parts, settings = split_url(url, {"durability": str, "timeout": float}, options)
        if parts.netloc or parts.fragment:
            raise InvalidInputError(
                "a JSONL URL has three slashes and a directory, as jsonl:///chats; write a # in "
                "the path as %23"
            )
        return cls(unquote(parts.path.removeprefix("/")), **settings)

    def __repr__(self) -> str:
        return f"JSONLBackend({self.directory!r}, durability={self.durability!r})"

    # -- sessions and their files ------------------------------------------------------------

    def _locked(self, path: str, work: Callable[[], T]) -> T:
        """Do `work` alone with the session whose log is at `path`."""
        return self._locks.of_session(path).run(work)

    def _session(self, key: Key, index: SessionIndex) -> Session | CorruptRecordError | None:
        """The session's record; None where it has expired."""
        return None if self._expired(index) else index.session(key)

    def _expired(self, index: SessionIndex) -> bool:
        expires_at = index.head.expires_at
        return expires_at is not None and expires_at <= self.clock()

    def _look(self, path: str) -> tuple[Key, int] | None:
        """For the catalogue: whose log this is, and when the session was last active (µs)."""
        try:
            with releasing(self._cache.guard), self._cache.guard:
                loaded = self._cache.load(path, keep=False)
        except (OSError, UnavailableError) as error:
            _logger.warning("%s cannot be read: %s", hashed(path), type(error).__name__)
            return None
        if loaded is None:
            return None
        return key_of(path, loaded.index), loaded.index.head.update_time

    # -- reading -----------------------------------------------------------------------------

    @operation
    def setup(self) -> None:
        make_directory(self.directory)
        make_directory(self._own)

    @operation
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with releasing(self._cache.guard), self._cache.guard:
            loaded = self._cache.load(log_path(self.directory, key))
            return self._session(key, loaded.index) if loaded else None

    @operation
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        self._catalogue.refresh()
        return reader.list_sessions(self._catalogue, self._session_at, query)

    def _session_at(self, path: str) -> Session | CorruptRecordError | None:
        with releasing(self._cache.guard), self._cache.guard:
            index = self._cache.index_of(path)
            return self._session(key_of(path, index), index) if index else None

    @operation
    def read(self, key: Key, query: MessageQuery) -> Read:
        path = log_path(self.directory, key)
        result = self._read(key, path, query)
        if any(isinstance(row, CorruptRecordError) for row in (*result.rows, *result.pinned)):
            # A writer may have been cutting off a torn line that was being read: wait for it.
            # Where there can be no writer, on a read-only medium, the result stays.
            with suppress(UnavailableError, TimeoutError, OSError):
                result = self._locked(path, lambda: self._read(key, path, query))
        return result

    def _read(self, key: Key, path: str, query: MessageQuery) -> Read:
        near_end = query.descending and query.limit is not None and query.where is None
        with releasing(self._cache.guard), self._cache.guard:
            loaded = self._cache.load(path, indexed=not near_end)
            session = self._session(key, loaded.index) if loaded else None
            if loaded is None or session is None:
                return Read([], total=0 if query.total else None)
            rows = None
            if near_end and not loaded.index.indexed:
                rows = reader.read_tail(loaded.file.read, loaded.index, query)
                if rows is None:
                    loaded = self._cache.load(path, indexed=True) or loaded
            result = reader.read(key, loaded, query, rows)
            return result._replace(
                total=loaded.index.head.message_count if query.total else None,
                session=session if query.session else None,
            )

    @operation
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with releasing(self._cache.guard), self._cache.guard:
            loaded = self._cache.load(log_path(self.directory, key), indexed=True)
            if loaded is None or self._session(key, loaded.index) is None:
                return []
            return list(reader.messages_by_id(key, loaded, ids).values())

    # -- writing -----------------------------------------------------------------------------

    @operation
    def commit(self, key: Key, change: Change) -> Outcome:
        bodies = encode_bodies(change)
        path = log_path(self.directory, key)
        return self._locked(path, lambda: self._commit(key, path, change, bodies))

    @operation
    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Outcome:
        path = log_path(self.directory, key)

        def work() -> Outcome:
            loaded = self._load_for_writing(path)
            session = self._session(key, loaded.index) if loaded else None
            if isinstance(session, CorruptRecordError):
                raise session
            messages: list[Message | CorruptRecordError] = []
            if loaded is not None and session is not None:
                with releasing(self._cache.guard), self._cache.guard:
                    if ids is None:
                        messages = reader.read(key, loaded, MessageQuery(limit=None)).rows
                    else:
                        messages = list(reader.messages_by_id(key, loaded, ids).values())
            change = decide(Snapshot(session, messages))
            if change is None:
                return Outcome(session, [], 0)
            return self._commit(key, path, change, encode_bodies(change))

        return self._locked(path, work)

    def _load_for_writing(self, path: str) -> Loaded | None:
        """Step 1; the session's lock is held."""
        with releasing(self._cache.guard), self._cache.guard:
            return self._cache.load(path, indexed=True, write=True)

    def _commit(self, key: Key, path: str, change: Change, bodies: Mapping[str, bytes]) -> Outcome:
        """Steps 1 to 5; the session's lock is held."""
        loaded = self._load_for_writing(path)
        session = self._session(key, loaded.index) if loaded else None
        if isinstance(session, CorruptRecordError):
            raise session
        live = loaded if session is not None else None  # expired: the file is replaced
        through = 0

        def load() -> Steps[template.Loaded]:
            nonlocal through
            if live is None or session is None:
                return template.Loaded(None, {}, {})
            with releasing(self._cache.guard), self._cache.guard:
                entries = live.index.entries
                if change.delete_through is not None:
                    through = live.index.count_through(change.delete_through)
                appended: dict[str, Message | CorruptRecordError] = {}
                repeated = [m.message_id for m in change.append if m.message_id in entries]
                if repeated:
                    appended = reader.messages_by_id(key, live, repeated)
                others = (*(m.message_id for m in change.put), *change.delete)
                positions = {mid: entries[mid].position for mid in others if mid in entries}
                head = Head(session, live.index.head.last_time)
                return template.Loaded(head, appended, positions, through)
            yield  # a generator, though it never yields

        def apply(plan: Plan, bodies: Mapping[str, bytes]) -> Steps[None]:
            self._writer.apply(key, path, live, change, plan, bodies, through)
            return
            yield  # a generator, though it never yields

        steps = template.commit(
            key, change, clock=self.clock, load=load, apply=apply, bodies=bodies
        )
        return runner.run(steps, self._perform)

    @operation
    def compact(self, key: Key) -> int:
        path = log_path(self.directory, key)
        return self._locked(path, lambda: self._writer.compact(key, path))

    # -- maintenance -------------------------------------------------------------------------

    @operation
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        return maintenance.erase(self, user_id, session_id)

    @operation
    def purge_expired(self) -> Erased:
        return maintenance.purge_expired(self)

    @operation
    def stats(self) -> Stats:
        return maintenance.stats(self)

    @operation
    def verify(self) -> list[Problem]:
        return maintenance.verify(self)

    @operation
    def check_server(self) -> list[Finding]:
        return health.check_server(self)

    def close(self) -> None:
        """Close the files that are kept open; further operations are refused."""
        self._closed = True
        self._cache.clear()
        self._locks.forget()
        self._catalogue.close()
        self.end_threads()
