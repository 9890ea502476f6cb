"""Files and locks of the JSONL engine: what must survive a power cut, and who may write."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsmemory.errors import BackendError, TimeoutError, TSMemoryError, UnavailableError

__all__ = ["File", "Locks", "remove", "replace_file", "sync_directory", "translated"]

if sys.platform == "win32":
    import filelock
else:
    import fcntl

_STRIPES = 256
_POLL = 0.001  # seconds between looks at a lock that another process holds

_sync = getattr(os, "fdatasync", os.fsync)  # the size is data too; the times are not


class File:
    """One open file, read and written at places. `counted` sums the bytes read, for tests."""

    counted = 0

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self._raw = open(path, "r+b" if write else "rb", buffering=0)  # noqa: SIM115  # closed below

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def size(self) -> int:
        return os.fstat(self._raw.fileno()).st_size

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer where the file ends."""
        self._raw.seek(start)
        parts = []
        while size > 0:
            part = self._raw.read(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        File.counted += len(data)
        return data

    def append(self, end: int, data: bytes, *, sync: bool) -> None:
        """Write `data` at `end`, cutting off first what an unfinished write left behind it.

        Raises:
            OSError: nothing of it counts; the file ends at `end` again where that was possible.
        """
        try:
            if self.size() > end:
                self._raw.truncate(end)
            self._raw.seek(end)
            rest = memoryview(data)
            while rest:
                rest = rest[self._raw.write(rest) :]
            if sync:
                _sync(self._raw.fileno())
        except OSError:
            self._raw.truncate(end)
            raise


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Put `data` at `path`, whole or not at all: a temporary file beside it, renamed over it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system can."""
    if os.name == "nt":
        return  # a directory cannot be opened there; NTFS journals its names
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file that may not be there."""
    with suppress(FileNotFoundError):
        path.unlink()


class Locks:
    """Writers' locks, across threads and processes: a session's is one of 256, by its name.

    They are files of their own that stay, because a lock file that is removed with its session
    would let two writers hold two files of one name.
    """

    def __init__(self, directory: Path, timeout: float) -> None:
        self._directory = directory
        self._timeout = timeout
        self._threads = [threading.Lock() for _ in range(_STRIPES)]

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock of the session whose path is `name`.

        Raises:
            TimeoutError: another writer kept it.
        """
        stripe = zlib.crc32(name.encode()) % _STRIPES
        deadline = time.monotonic() + self._timeout
        busy = TimeoutError(f"{name}: another writer kept the lock for {self._timeout} s")
        thread = self._threads[stripe]
        if not thread.acquire(timeout=self._timeout):
            raise busy
        try:
            with _process_lock(self._directory / f"{stripe:02x}.lock", deadline) as held:
                if not held:
                    raise busy
                yield
        finally:
            thread.release()


if sys.platform == "win32":

    @contextmanager
    def _process_lock(path: Path, deadline: float) -> Iterator[bool]:
        """Lock `path` against other processes; whether that was possible by `deadline`."""
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=_POLL)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

else:

    @contextmanager
    def _process_lock(path: Path, deadline: float) -> Iterator[bool]:
        """Same as on Windows. What filelock does here, less its bookkeeping: some 10 µs a lock,
        not the 300 that would be most of an append."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held = True
                    break
                except BlockingIOError:
                    held = False
                    if time.monotonic() > deadline:
                        break
                    time.sleep(_POLL)
            yield held
        finally:
            # Said, not left to the closing: a child forked meanwhile has this handle open too.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """The system's errors as ours."""
    try:
        yield
    except TSMemoryError:
        raise  # our TimeoutError is one of the system's too
    except OSError as error:
        what = f"{path}: {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise UnavailableError(f"{what}; may you read and write there?") from error
        raise BackendError(what) from error
