"""The database file: opening it, and noticing that it is not the one that was opened.

Opening:

1. A missing file is made, readable by its owner only, except where this store had it open before.
2. A file that another program made is refused before anything is written to it.
3. Missing migrations run in one transaction.
4. What cannot be written is opened for reading; where no ``-wal`` file is beside it (an archive on
   a read-only medium), as immutable.

While it is open, every operation compares the inode of the file and of its ``-wal`` with those that
were opened. SQLite itself follows the file, not the name: commits to a removed file succeed, and
are lost with it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from tsmemory.backends.sqlite import search
from tsmemory.backends.sqlite.layout import APPLICATION_ID, MIGRATIONS, SCHEMA
from tsmemory.engine.log import get_logger
from tsmemory.errors import (
    BackendError,
    InvalidInputError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
)

__all__ = ["OPENING", "Connection", "DatabaseFile", "is_busy", "translate", "translated"]

_log = get_logger("sqlite")
_TABLES = {"sessions", "messages"}
_SEARCH_VERSION = 3
"""The schema version from which a file has an index for searches, or was made without one."""

OPENING = threading.RLock()
"""Held while a connection is opened, by any store of this process, and across a fork: closing any
descriptor of a file drops all the locks of this process on it (https://sqlite.org/howtocorrupt.html,
2.2), so no other may be open while step 1 has one."""


class Connection(sqlite3.Connection):
    """A connection that can be referred to weakly, and knows which file it was opened on."""

    identity: object = None
    """What `DatabaseFile.check` gave when it was opened."""
    indexed = False
    """Whether the file has an index for searches, which must follow the messages."""


class DatabaseFile:
    """One file, by its absolute path: a later `chdir` changes nothing.

    Args:
        path: the file.
        synchronous: ``FULL`` or ``NORMAL``.
        search: whether it has an index for searches. None: a new one has, an older one as it is.
    """

    def __init__(self, path: str, synchronous: str, search: bool | None = None) -> None:
        self.search = search
        self.path = os.path.abspath(path)
        self.wal_path = self.path + "-wal"
        self.synchronous = synchronous
        self.read_only = False
        self.failed = False
        """Nothing may be written any more, not even by closing a connection."""
        self.shrunk = False
        """The file is smaller than before: `check_shrunk` tells why."""
        self._immutable = False
        self._identity: tuple[int, ...] | None = None
        self._size = 0
        self._wal: int | None = None

    # -- identity ----------------------------------------------------------------------------

    @property
    def identity(self) -> object:
        """What `check` would return, without looking; None before the first connection."""
        return self._identity

    def check(self, in_use: bool) -> object:
        """The identity of the file; None where the next connection is the first one to it.

        Args:
            in_use: whether a connection is open; without one the ``-wal`` may come and go.

        Raises:
            UnavailableError: the file, or its ``-wal``, was removed, moved or overwritten.
        """
        identity = self._identity
        if identity is None:
            return None
        if self.failed:
            raise self._changed("its -wal file was removed or it was overwritten")
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise self._changed("it was removed or moved") from None
        if (status.st_ino, status.st_dev) != identity[:2]:
            _log.warning("another file took the place of an open one: opening that")
            self.forget()
            return None
        if self._immutable:
            # Immutable connections take no locks and see no -wal: any change ends them.
            if (status.st_size, status.st_mtime_ns) != identity[2:] or os.path.exists(
                self.wal_path
            ):
                self.forget()
                return None
            return identity
        if self.read_only or not in_use:
            return identity
        size = status.st_size
        if size < self._size:
            # Another thread may have seen it grow after this one looked: look again.
            try:
                size = os.stat(self.path).st_size
            except FileNotFoundError:
                raise self._changed("it was removed or moved") from None
            self.shrunk = size < self._size
        self._size = size
        try:
            wal = os.stat(self.wal_path).st_ino
        except FileNotFoundError:
            wal = None
        if wal != self._wal:
            self.failed = True
            raise self._changed("its -wal file was removed or replaced")
        return identity

    def check_shrunk(self, db: Connection) -> None:
        """VACUUM makes a file smaller, and so does copying an older one over it: after that, the
        ``-wal`` still describes the file that was there.

        Raises:
            UnavailableError: the file was overwritten.
        """
        self.shrunk = False
        (count,), (size,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
        )
        if self._size < count * size:
            self.failed = True
            raise self._changed("it was overwritten with another file")

    def _changed(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"{self.path} changed while this store had it open: {what}. Nothing was written. Put "
            "the file back, or close every store on it, restore it together with its -wal file "
            "(or remove that), and open it again"
        )

    def forget(self) -> None:
        """The next connection may be to another file under the same name."""
        self._identity = None
        self._size = 0
        self._wal = None

    # -- opening -----------------------------------------------------------------------------

    def connect(self, first: bool) -> Connection:
        """A new connection to a file that has our schema. Hold `OPENING`.

        Args:
            first: no other of this store is open.

        Raises:
            sqlite3.Error: also where the file is locked for the moment.
            UnavailableError: the file was made by another program, or by a newer release.
        """
        if self._identity is None:
            self._create()
        try:
            db = self._prepared("rw")
        except sqlite3.OperationalError as error:
            if not self._is_read_only() or is_busy(error):
                raise
            db = self._connect_read_only()
        status = os.stat(self.path)
        if self._identity is None:
            self._identity = (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns)
        if first and not self.read_only:
            self._size, self._wal = status.st_size, os.stat(self.wal_path).st_ino
        db.identity = self._identity
        return db

    def _create(self) -> None:
        """Step 1."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise UnavailableError(
                f"{self.path}: {error.strerror}; does the directory exist, and may you write there?"
            ) from error

    def _is_read_only(self) -> bool:
        directory = os.path.dirname(self.path)
        return not (os.access(self.path, os.W_OK) and os.access(directory, os.W_OK))

    def _connect_read_only(self) -> Connection:
        """Step 4."""
        self.read_only, self._immutable = True, False
        try:
            return self._prepared("ro")
        except sqlite3.OperationalError as error:
            if os.path.exists(self.wal_path) and os.path.getsize(self.wal_path):
                raise UnavailableError(
                    f"{self.path} is on a read-only medium, and its -wal file holds commits that "
                    "SQLite must write into it first: copy both to where they can be written"
                ) from error
            self._immutable = True
            return self._prepared("ro&immutable=1")

    def _prepared(self, mode: str) -> Connection:
        path = quote(self.path.replace(os.sep, "/"))
        db = sqlite3.connect(
            f"file:{path if path.startswith('/') else '/' + path}?mode={mode}",
            uri=True,
            timeout=0,  # whoever waits does so in Python, where an interrupt ends it
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        try:
            self._prepare(db, writable=mode == "rw")
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: Connection, *, writable: bool) -> None:
        version = self._check_owner(db)  # Step 2
        if writable:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {self.synchronous}")
            db.execute("PRAGMA secure_delete = ON")
        if version < len(MIGRATIONS):
            if not writable:
                raise UnavailableError(
                    f"{self.path} has schema version {version} and cannot be written; open a copy "
                    f"where it can be migrated to version {len(MIGRATIONS)}"
                )
            self._migrate(db)  # Step 3
        elif writable and self.search and not search.is_indexed(db):
            self._migrate(db)  # somebody wants an index now
        db.indexed = search.is_indexed(db)
        db.execute("SELECT 1 FROM sessions LIMIT 1").fetchall()  # opens, or makes, the -wal

    def _check_owner(self, db: sqlite3.Connection) -> int:
        """The schema's version.

        Raises:
            UnavailableError: the file is not ours to use.
        """
        # In one transaction, so that another process's migration is seen whole or not at all.
        if not db.in_transaction:
            db.execute("BEGIN")
            try:
                return self._check_owner(db)
            finally:
                db.execute("ROLLBACK")
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        ours = owner == APPLICATION_ID or (owner == 0 and version == 1 and tables >= _TABLES)
        if not ours and (owner or version or tables):
            raise UnavailableError(
                f"{self.path} is another program's database (application_id {owner}, user_version "
                f"{version}, {len(tables)} tables); give tsmemory a file of its own"
            )
        if version > len(MIGRATIONS):
            raise UnavailableError(
                f"{self.path} has schema version {version}, made by a newer tsmemory; this one "
                f"knows {len(MIGRATIONS)}: upgrade the package"
            )
        return int(version)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            version = self._check_owner(db)
            for statements in MIGRATIONS[version:] if version else (SCHEMA,):
                for statement in filter(None, map(str.strip, statements.split(";"))):
                    db.execute(statement)
            search_wanted = self.search is not False if version < _SEARCH_VERSION else self.search
            if search_wanted and not search.is_indexed(db):
                search.make(db)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if version and version < len(MIGRATIONS):
            _log.info("migrated a file from schema version %d to %d", version, len(MIGRATIONS))


# -- errors ----------------------------------------------------------------------------------


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds a lock, so that the same may succeed later."""
    text = str(error)
    return "locked" in text or "busy" in text


def translate(error: Exception, path: str) -> Exception:
    """An error of SQLite, or of a value that it cannot hold, as one of ours."""
    text = str(error)
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return InvalidInputError(f"a value that SQLite cannot hold: {text}")
    if not isinstance(error, sqlite3.Error):
        return error
    if is_busy(error):
        return TimeoutError(f"{path}: another process kept the write lock: {text}")
    if "readonly" in text:
        return UnavailableError(f"{path} is read-only: {text}")
    if "unable to open" in text:
        return UnavailableError(
            f"{path}: {text}; does the directory exist, and may you write there?"
        )
    if "not a database" in text:
        return UnavailableError(f"{path} is no SQLite database: {text}")
    return BackendError(f"{path}: {text}")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Errors from inside as `translate` gives them."""
    try:
        yield
    except TSMemoryError:
        raise
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        raise translate(error, path) from error


Call = Callable[[Connection], Any]
