"""Files and locks of the JSONL backend: what must survive a power cut, and who may write.

A lock is taken and given back so that an interrupt, at whatever instruction, leaves nothing locked:
`WriterLock.release` may be called at any time and any number of times, and `WriterLock.run` calls
it from two nested ``finally`` blocks.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar
from weakref import WeakSet

from tsmemory.backends.jsonl.layout import temporary
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger
from tsmemory.errors import BackendError, TimeoutError, UnavailableError

__all__ = [
    "File", "Locks", "WriterLock", "check_directory", "is_locked", "make_directory", "read_at",
    "remove", "replace_file", "sync_directory", "translate",
]  # fmt: skip

T = TypeVar("T")

_logger = get_logger("jsonl")
_STRIPES = 256
_MAX_LOCKS = 24
"""Session locks kept, two open files each: a process on macOS may have 256 open files at first."""
_POLL = 0.001  # seconds between attempts at a lock that another process holds
_SLOW_WAIT = 1.0  # seconds of waiting for a lock after which it is logged

_FLAGS = os.O_CLOEXEC if hasattr(os, "O_CLOEXEC") else 0
_FLAGS |= os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0
_FLAGS |= getattr(os, "O_BINARY", 0)
_sync = getattr(os, "fdatasync", os.fsync)  # the size is data too; the times are not
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


class File:
    """One open file, read and written at positions, so that threads can share it.

    `counted` sums the bytes read, for tests. The file is closed with the last reference to the
    object: a cache may forget it while another thread still uses it.

    Args:
        write: open for writing; without, for reading, and for writing too where that is allowed.
    """

    counted = 0
    _fd = -1  # here, for an interrupt may come before `__init__`

    def __init__(self, path: str, *, write: bool = False) -> None:
        self.writable = True
        try:
            self._fd = os.open(path, os.O_RDWR | _FLAGS)
        except OSError as error:
            if write or error.errno not in _REFUSALS:
                raise
            self.writable = False
            self._fd = os.open(path, os.O_RDONLY | _FLAGS)
        status = os.fstat(self._fd)
        self.identity = status.st_dev, status.st_ino

    def __del__(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)

    def stat(self) -> os.stat_result:
        return os.fstat(self._fd)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer where the file ends."""
        content = read_at(self._fd, size, start) if size > 0 else b""
        while 0 < len(content) < size:
            part = read_at(self._fd, size - len(content), start + len(content))
            if not part:
                break
            content += part
        File.counted += len(content)
        return content

    def append(self, end: int, content: bytes, *, size: int, sync: bool) -> None:
        """Write `content` at `end`, after cutting off what an unfinished write left behind it.

        Args:
            size: of the file now, bytes.

        Raises:
            OSError: nothing of it counts; the file ends at `end` again where that was possible.
        """
        try:
            if size > end:
                _logger.info("cut off an unfinished write")
                os.ftruncate(self._fd, end)
            written = 0
            while written < len(content):
                written += _pwrite(
                    self._fd, content[written:] if written else content, end + written
                )
            if sync:
                _sync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            raise


if sys.platform == "win32":
    import msvcrt

    # The caller holds a lock: files are not kept open between operations there.
    def read_at(fd: int, size: int, start: int) -> bytes:
        os.lseek(fd, start, os.SEEK_SET)
        return os.read(fd, size)

    def _pwrite(fd: int, content: bytes, start: int) -> int:
        os.lseek(fd, start, os.SEEK_SET)
        return os.write(fd, content)

    def _try_lock(fd: int) -> bool:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        with suppress(OSError):
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    read_at = os.pread
    _pwrite = os.pwrite

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def check_directory(path: str) -> None:
    """Refuse a user's directory that is a symbolic link: what is removed, listed or rewritten
    there would be outside the store.

    Raises:
        OSError: it is one.
    """
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "is a symbolic link", path)


def is_locked(path: str) -> bool:
    """Whether another process, or another store of this one, has the lock file's lock."""
    try:
        fd = os.open(path, os.O_RDWR | _FLAGS)
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)  # which gives the lock back


def make_directory(path: str) -> None:
    """Create a directory that only its owner may enter, where it is missing."""
    os.makedirs(os.path.dirname(path) or os.sep, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def replace_file(path: str, content: bytes, *, sync: bool) -> None:
    """Put `content` at `path`, whole or not at all: a temporary file beside it, renamed over it.
    Only its owner may read it."""
    draft = temporary(path)
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        with open(fd, "wb", buffering=0) as file:
            unwritten = memoryview(content)
            while unwritten:
                unwritten = unwritten[file.write(unwritten) :]
            if sync:
                os.fsync(fd)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            remove(draft)
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable, where the system can."""
    if os.name == "nt":
        return  # a directory cannot be opened there; NTFS journals its names
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


class WriterLock:
    """One lock, across threads and processes.

    The lock file stays open, and stays when its sessions are removed: a lock file that is removed
    would let two writers lock two files of one name. Whoever wants it locks a second file first,
    the gate, and opens that once it has the lock: so a process that writes without a pause cannot
    keep the others out.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._thread = threading.RLock()  # knows its owner, so that `release` can ask
        self._fd = self._gate = -1

    def __del__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Close the lock file, and unlock nothing: for the child of a fork, which shares what its
        parent locked."""
        opened = self._fd, self._gate
        self._fd = self._gate = -1
        for fd in opened:
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` with the lock. One interrupt, at whatever instruction, leaves it released: it
        can stop only one of the two `release`.

        Raises:
            TimeoutError: another writer kept it.
        """
        released = False
        try:
            try:
                self.acquire()
                return work()
            finally:
                self.release()
                released = True
        finally:
            if not released:
                self.release()

    def acquire(self) -> None:
        """Take the lock. Call `release` whatever happens in here.

        Raises:
            TimeoutError: another writer kept it.
        """
        begin = time.monotonic()
        if not self._thread.acquire(timeout=self._timeout):
            raise self._busy()
        while True:
            if self._fd < 0:
                self._open()
            self._wait_for(self._gate, begin)
            self._wait_for(self._fd, begin)
            _unlock(self._gate)
            if os.fstat(self._fd).st_nlink:
                return
            self.forget()  # removed by others, who lock the new file of this name

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | _FLAGS
        directory = os.path.dirname(self._path)
        if not os.path.isdir(directory):
            make_directory(os.path.dirname(directory))
            make_directory(directory)
        self._gate = os.open(self._path.removesuffix("lock") + "gate", flags, 0o600)
        self._fd = os.open(self._path, flags, 0o600)

    def _wait_for(self, fd: int, begin: float) -> None:
        warned = False
        while not _try_lock(fd):
            waited = time.monotonic() - begin
            if waited > self._timeout:
                raise self._busy()
            if waited > _SLOW_WAIT and not warned:
                warned = True
                _logger.warning("waiting for another writer for more than %.0f s", _SLOW_WAIT)
            time.sleep(_POLL)

    def release(self) -> None:
        """Give the lock back if this thread has it; otherwise do nothing."""
        if not self._thread.acquire(blocking=False):
            return
        for fd in (self._fd, self._gate):
            if fd >= 0:
                _unlock(fd)
        with suppress(RuntimeError):  # raised once it is not owned any more
            while True:
                self._thread.release()

    def _busy(self) -> TimeoutError:
        _logger.warning("gave up waiting for another writer after %.3g s", self._timeout)
        return TimeoutError(
            f"{os.path.dirname(self._path)}: another writer kept a lock for {self._timeout} s"
        )


@lru_cache(maxsize=4096)
def _stripe_of(path: str) -> str:
    name = os.sep.join(path.rsplit(os.sep, 2)[-2:])
    return f"{zlib.crc32(name.encode()) % _STRIPES:02x}"


class Locks:
    """The locks of a store: a session's is one of 256, by its path.

    Those made last are kept. One that was let go of and is still in use closes its files when it is
    out of use; until then it shuts out another of the same name by its file's lock.
    """

    def __init__(self, directory: str, timeout: float) -> None:
        self._directory = directory
        self._timeout = timeout
        self._locks: dict[str, WriterLock] = {}
        self._every: WeakSet[WriterLock] = WeakSet()  # and those that were let go of
        self._guard = threading.RLock()

    def of_session(self, path: str) -> WriterLock:
        """The lock of the session whose log is at `path`."""
        return self._named(_stripe_of(path))

    def of_catalogue(self) -> WriterLock:
        """The lock of whoever rewrites the list of sessions. Taken after a session's, never
        before."""
        return self._named("sessions")

    def _named(self, name: str) -> WriterLock:
        lock = self._locks.get(name)
        if lock is None:
            with releasing(self._guard), self._guard:
                lock = self._locks.get(name)
                if lock is None:
                    if len(self._locks) >= _MAX_LOCKS:
                        del self._locks[next(iter(self._locks))]
                    path = f"{self._directory}{os.sep}{name}.lock"
                    lock = self._locks[name] = WriterLock(path, self._timeout)
                    self._every.add(lock)
        return lock

    def forget(self) -> None:
        """Close the lock files without unlocking them (see `WriterLock.forget`)."""
        for lock in list(self._every):
            lock.forget()


def translate(error: OSError, path: str) -> BackendError:
    """A system's error as one of ours.

    Args:
        path: what to name where the error names no file.
    """
    what = f"{error.filename or path}: {error.strerror or error}"
    if error.errno in (errno.ELOOP, errno.EISDIR):
        return UnavailableError(
            f"{what}; a session is not kept in a directory or behind a symbolic link"
        )
    if error.errno in (*_REFUSALS, errno.ENOENT, errno.ENOTDIR):
        return UnavailableError(f"{what}; may you read and write there?")
    return BackendError(what)
