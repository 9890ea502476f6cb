"""The embedded backend: one SQLite file, many threads and processes.

The parts: `layout` (tables and rows), `file` (opening, and whether it is still the same file),
`connections` (the pool, and forks), `reader`, `changes` (a commit's statements), `writer` (whose
transaction they run in), `maintenance`.

- WAL, so readers never wait for the writer; ``synchronous=FULL``, so a commit that returned is on
  disk (``durability="normal"`` leaves the fsync to the checkpoint: a power cut may lose the last
  commits, never the file; the end of a process, even by SIGKILL, loses nothing).
- In async, reads run on threads of the store's own, and writes on one: no read waits behind them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote
from warnings import warn

from tsmemory.backends.sqlite import changes, maintenance, reader, search
from tsmemory.backends.sqlite.connections import Connections
from tsmemory.backends.sqlite.file import Connection, DatabaseFile
from tsmemory.backends.sqlite.layout import MAX_BODY
from tsmemory.backends.sqlite.writer import Undo, Write, Writer
from tsmemory.engine import steps as runner
from tsmemory.engine.commit import encode_bodies
from tsmemory.engine.contract import now_us
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.log import get_logger
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
)
from tsmemory.engine.scan import scan
from tsmemory.engine.search import Candidates, SearchQuery
from tsmemory.engine.steps import Steps
from tsmemory.engine.threads import Threads
from tsmemory.engine.urls import as_bool, split_url
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["SQLiteBackend"]

T = TypeVar("T")
_log = get_logger("sqlite")

_READERS = 8
"""Threads that read for asyncio callers: SQLite lets go of the interpreter while it reads."""


class SQLiteBackend(LocalBackend):
    """Sessions in one SQLite file, made at first use.

    Args:
        path: the file; its directory exists. Made absolute here, so a later `chdir` changes
            nothing. A file on a network share is not safe under WAL.
        durability: ``"full"`` fsyncs every commit, ``"normal"`` only the checkpoints.
        timeout: seconds to wait for another process's write before `TimeoutError`, however many
            threads wait.
        search: whether the file has an index for searches, which costs each append a little and
            the file about as much as the text it holds. None: a new file has one, an older one
            stays as it is. Without one, searches read the messages. Changing it is for the first
            store that opens the file.
        clock: µs since the epoch.

    Raises:
        InvalidInputError: no path, ``:memory:`` (use ``memory:``), or an unknown durability.
    """

    capabilities = Capabilities(max_message_bytes=MAX_BODY)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        timeout: float = 30.0,
        search: bool | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:" or "\0" in name:
            raise InvalidInputError('a SQLite store needs a file; use "memory:" for one without')
        if durability not in ("full", "normal"):
            raise InvalidInputError(f'durability is "full" or "normal", not {durability!r}')
        if not 0 <= timeout < math.inf:
            raise InvalidInputError(f"timeout is {timeout} s; give 0 or more")
        self.durability = durability
        self.timeout = float(timeout)
        self.clock = clock
        self._file = DatabaseFile(name, "FULL" if durability == "full" else "NORMAL", search)
        self.connections = Connections(self._file, self.timeout)
        self._wal = maintenance.WalCleaner()
        self.writer = Writer(self.connections, self._wal.after_commit)
        self._readers = Threads("tsmemory-sqlite-reader", _READERS)
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> SQLiteBackend:
        """``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``, percent-encoded where it
        must be, with the options ``durability``, ``timeout`` and ``search`` (``true``, ``false``).

        Raises:
            InvalidInputError: no path, a host, or an unknown option.
        """
        parts, options_read = split_url(
            url, {"durability": str, "timeout": float, "search": as_bool}, options
        )
        if parts.netloc or parts.fragment:
            raise InvalidInputError(
                "a SQLite URL has three slashes and a path, as sqlite:///chat.db; write a # in the "
                "path as %23"
            )
        return cls(unquote(parts.path.removeprefix("/")), **options_read)

    def __repr__(self) -> str:
        return f"SQLiteBackend({self._file.path!r}, durability={self.durability!r})"

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return Path(self._file.path)

    # -- running -----------------------------------------------------------------------------

    async def arun(self, steps: Steps[T]) -> T:
        return await runner.arun(steps, self._aperform)

    async def _aperform(self, step: Callable[[Any], Any]) -> Any:
        if isinstance(step, Write):
            return await self.writer.awrite(step)
        return await self._readers.run(step, self)

    def _read(self, call: Callable[..., T], *args: Any) -> Steps[T]:
        """One step that calls ``call(connection, *args)``."""
        result: T = yield lambda backend: backend.connections.use(lambda db: call(db, *args))
        return result

    def close(self) -> None:
        self.connections.close()
        self.writer.close()
        self._readers.close()

    async def aclose(self) -> None:
        if not self.connections.closed:
            # The last connection to a file moves its WAL into it, which waits for the disk.
            await self._readers.run(self.close)

    def __del__(self, _warn: Callable[..., None] = warn) -> None:
        connections = getattr(self, "connections", None)
        if connections is not None and connections.idle and self._pid == os.getpid():
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()

    # -- reading -----------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        """Make what is missing, and index the messages of a file that had no index, in slices."""
        unindexed = (yield from self._read(search.pending)) or 0
        while unindexed:
            _log.info("indexing for search: %d messages to go, at most", unindexed)
            unindexed = yield Write(lambda db, _undo: search.backfill(db))

    def search(self, query: SearchQuery) -> Steps[Candidates]:
        if type(query.after) not in (int, list, type(None)):
            raise InvalidInputError("cursor is not from this search")
        result = None
        if type(query.after) is not list:  # that one is a scan's
            result = yield from self._read(search.search, query, self.clock())
        return result if result is not None else (yield from scan(self, query))

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        return (yield from self._read(reader.get_session, key, self.clock()))

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return (yield from self._read(reader.list_sessions, query, self.clock()))

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return (yield from self._read(reader.read, key, query, self.clock()))

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return (yield from self._read(reader.get_messages, key, ids, self.clock()))

    # -- writing -----------------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        outcome: Outcome = yield Write(self._committing(key, change))
        if outcome.deleted or change.put:
            yield from self._forget_deleted()
        return outcome

    def _committing(self, key: Key, change: Change) -> Callable[[Connection, Undo], Outcome]:
        bodies = encode_bodies(change, MAX_BODY)
        plain = changes.is_plain_append(change)

        def call(db: Connection, undo: Undo) -> Outcome:
            if plain:
                try:
                    return changes.append(db, key, change, bodies, self.clock())
                except changes.NotPlain:
                    undo()
            return changes.commit(db, key, change, bodies, self.clock)

        return call

    def commit_and_read(
        self, key: Key, change: Change, query: MessageQuery
    ) -> Steps[tuple[Outcome, Read]]:
        committing = self._committing(key, change)

        def call(db: Connection, undo: Undo) -> tuple[Outcome, Read]:
            return committing(db, undo), reader.read(db, key, query, self.clock())

        outcome, read = yield Write(call)
        if outcome.deleted or change.put:
            yield from self._forget_deleted()
        return outcome, read

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        """In one transaction, so no other writer comes between."""
        outcome: Outcome = yield Write(
            lambda db, _undo: changes.rewrite(db, key, decide, ids, self.clock)
        )
        if outcome.deleted or outcome.stored:
            yield from self._forget_deleted()
        return outcome

    # -- removing ----------------------------------------------------------------------------

    def _delete(self, condition: str, values: Sequence[Any]) -> Steps[Erased]:
        erased: Erased = yield Write(
            lambda db, _undo: changes.delete_sessions(db, condition, values)
        )
        if erased:
            yield from self._forget_deleted(everything=True)
        return erased

    def _forget_deleted(self, *, everything: bool = False) -> Steps[None]:
        """Take deleted text out of the index's parts and out of the ``-wal``."""
        more = yield from self._read(search.needs_purge)
        while more:
            more = (yield Write(lambda db, _undo: search.purge(db))) and everything
        yield from self._read(self._wal.clean)

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        if user_id is None:
            return (yield from self._delete("1", ()))
        if session_id is None:
            return (yield from self._delete("user_id = ?", (user_id,)))
        return (yield from self._delete("user_id = ? AND session_id = ?", (user_id, session_id)))

    def purge_expired(self) -> Steps[Erased]:
        return (yield from self._delete("expires_at <= ?", (self.clock(),)))

    # -- looking after -----------------------------------------------------------------------

    def stats(self) -> Steps[Stats]:
        return (yield from self._read(maintenance.stats, self.clock()))

    def verify(self) -> Steps[list[Problem]]:
        return (yield from self._read(maintenance.verify))

    def check_server(self) -> Steps[list[Finding]]:
        """Versions, the size of the WAL, free space and expired sessions."""
        return (yield from self._read(maintenance.findings, self.path, self.clock()))
