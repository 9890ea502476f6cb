"""The sessions of a store by their last activity, so that a page of them costs a page.

``.tsmemory/sessions.jsonl`` has a line for every commit: whose session, when it was last active,
and how long its log is. It is only a hint. What is listed is read from the session's own files, and
the directory is the truth about which sessions there are:

1. a writer appends its line after its commit, before it returns;
2. a reader reads what was appended since it looked last, and keeps the order in memory;
3. at its first listing, and when the last scan is `_SCAN_SECONDS` old, it compares names and sizes
   in the directories with what it knows, and reads the sessions that differ: lines lost in a power
   cut, files copied, removed or edited by hand;
4. the file is rewritten, one line per session, when it has outgrown its sessions: whoever appends
   to the file of before sees that it has no name any more, and appends again;
5. erasing a session overwrites its lines.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import msgspec

from tsmemory.backends.jsonl.files import Locks, check_directory, read_at, remove, replace_file
from tsmemory.backends.jsonl.layout import file_name, log_path
from tsmemory.backends.jsonl.lines import Count
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger
from tsmemory.engine.records import Key, SessionQuery
from tsmemory.engine.session_order import Activity, SessionOrder

__all__ = ["Catalogue", "logs_in", "session_files"]

_logger = get_logger("jsonl")
_SCAN_SECONDS = 30.0
_REWRITE_BYTES = 1024 * 1024  # a file under this size is left as it is
_REWRITE_GROWTH = 3  # times its size after the last rewriting


class _Line(msgspec.Struct, frozen=True):
    user_id: str
    session_id: str
    update_time: Count
    bytes: Count


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode

Look = Callable[[str], "tuple[Key, int] | None"]
"""Reads the session whose log is at a path: whose it is, and its last activity (µs)."""


class Catalogue:
    """See the module.

    Args:
        directory: the store's.
        locks: the store's.
        look: how to read one session.
    """

    def __init__(self, directory: str, locks: Locks, look: Look) -> None:
        self._directory = directory
        self._path = os.path.join(directory, ".tsmemory", "sessions.jsonl")
        self._locks = locks
        self._look = look
        self._guard = threading.RLock()  # of everything below
        self._order = SessionOrder()
        self._sizes: dict[str, int] = {}
        self._irregular: dict[Key, str] = {}
        self._read_fd = -1
        self._read_end = 0
        self._scanned: float | None = None
        self._writing = threading.RLock()  # of the two below
        self._write_fd = -1
        self._rewrite_at = _REWRITE_BYTES

    def __del__(self) -> None:
        self.close()

    def reset_locks(self, locks: Locks) -> None:
        """In the child of a fork. The files stay open: they are read at positions of our own."""
        self._locks = locks
        self._guard = threading.RLock()
        self._writing = threading.RLock()

    def close(self) -> None:
        """Close the files. They are opened again when needed."""
        self._close("_read_fd")
        self._close("_write_fd")

    def _close(self, name: str) -> None:
        """Forgotten first: a number that an interrupt left here would soon be another file's."""
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    # -- writing -----------------------------------------------------------------------------

    def note(self, key: Key, update_time: int, size: int) -> None:
        """Step 1. A failure is logged, not raised: the commit is made, and step 3 finds it."""
        try:
            grown = self._append(_encode(_Line(*key, update_time, size)) + b"\n")
        except OSError as error:
            _logger.warning("the list of sessions cannot be written: %s", error.strerror)
            self._scanned = None
            return
        if grown:
            self.rewrite()

    def _append(self, content: bytes) -> bool:
        """Append whole lines; whether the file is due to be rewritten."""
        with releasing(self._writing), self._writing:
            while True:
                if self._write_fd < 0:
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
                    self._write_fd = os.open(self._path, flags, 0o600)
                os.write(self._write_fd, content)
                status = os.fstat(self._write_fd)
                if status.st_nlink:
                    return status.st_size > self._rewrite_at
                self._close("_write_fd")

    def rewrite(self, erased: Callable[[Key], bool] | None = None) -> None:
        """Step 4, without the sessions that `erased` names."""
        self._locks.of_catalogue().run(lambda: self._rewrite(erased))

    def _rewrite(self, erased: Callable[[Key], bool] | None) -> None:
        try:
            old = open(self._path, "rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            return
        with old:
            newest = {Key(line.user_id, line.session_id): line for line in _lines_of(old.read())}
            remaining = [line for key, line in newest.items() if not (erased and erased(key))]
            content = b"".join(_encode(line) + b"\n" for line in remaining)
            try:
                replace_file(self._path, content, sync=False)
            except PermissionError:
                if erased or os.name != "nt":
                    raise
                return  # Windows: another process has it open
            added = old.read()
        if added:
            self._append(added)
        self._rewrite_at = max(_REWRITE_BYTES, _REWRITE_GROWTH * len(content))

    def erase(self, user_id: str | None, session_id: str | None) -> None:
        """Step 5, for a session, a user, or everything."""
        if user_id is None:
            remove(self._path)
        elif session_id is None:
            self.rewrite(lambda key: key.user_id == user_id)
        else:
            key = Key(user_id, session_id)
            self._locks.of_catalogue().run(lambda: self._overwrite(key))

    def erase_many(self, keys: set[Key]) -> None:
        """Step 5, for several sessions."""
        if keys:
            self.rewrite(keys.__contains__)

    def _overwrite(self, key: Key) -> None:
        begin = _encode(_Line(*key, 0, 0)).partition(b'"update_time"')[0]
        try:
            file = open(self._path, "r+b", buffering=0)  # noqa: SIM115  # closed below
        except FileNotFoundError:
            return
        with file:
            content = file.read()
            at = content.find(begin)
            while at >= 0:
                end = content.find(b"\n", at)
                size = (end if end >= 0 else len(content)) - at
                file.seek(at)
                file.write(b" " * size)
                at = content.find(begin, at + size)

    # -- reading -----------------------------------------------------------------------------

    def page(self, query: SessionQuery, after: Activity | None, count: int) -> list[Activity]:
        """The next positions of a query (see `SessionOrder.page`)."""
        with releasing(self._guard), self._guard:
            return self._order.page(query, after, count)

    def path_of(self, key: Key) -> str:
        """The log of a session that is listed."""
        return self._irregular.get(key) or log_path(self._directory, key)

    def correct(self, key: Key, update_time: int | None) -> None:
        """Put a session where its own files say; None: it is not there any more."""
        with releasing(self._guard), self._guard:
            if update_time is None:
                self._order.discard(key)
                self._sizes.pop(self.path_of(key), None)
                self._irregular.pop(key, None)
            else:
                self._order.set(key, update_time)

    def refresh(self) -> None:
        """Steps 2 and 3."""
        with releasing(self._guard), self._guard:
            if self._order.changing:
                self._begin_anew()
            self._catch_up()
            now = time.monotonic()
            if self._scanned is None or now - self._scanned > _SCAN_SECONDS:
                self._scan()
                self._scanned = now

    def _begin_anew(self) -> None:
        self._close("_read_fd")
        self._scanned = None
        self._order, self._sizes, self._irregular = SessionOrder(), {}, {}

    def _catch_up(self) -> None:
        """Step 2."""
        if self._read_fd >= 0 and not os.fstat(self._read_fd).st_nlink:
            self._close("_read_fd")  # rewritten or erased: its lines are known, the scan stays
        if self._read_fd < 0:
            self._read_end = 0
            try:
                self._read_fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except (FileNotFoundError, NotADirectoryError):
                return
        parts = []
        begin = self._read_end
        while part := read_at(self._read_fd, 1 << 20, begin):
            parts.append(part)
            begin += len(part)
        content = b"".join(parts)
        content = content[: content.rfind(b"\n") + 1]
        newest = {(line.user_id, line.session_id): line for line in _lines_of(content)}
        for line in newest.values():
            key = Key(line.user_id, line.session_id)
            self._order.set(key, line.update_time)
            self._sizes[log_path(self._directory, key)] = line.bytes
        self._read_end += len(content)

    def _scan(self) -> None:
        """Step 3."""
        sizes: dict[str, int] = {}
        lines: list[bytes] = []
        for path, size in logs_in(self._directory, None):
            sizes[path] = size
            if self._sizes.get(path) == size:
                continue
            looked = self._look(path)
            if looked is None:
                del sizes[path]
                continue
            key, update_time = looked
            self._order.set(key, update_time)
            if log_path(self._directory, key) == path:
                lines.append(_encode(_Line(*key, update_time, size)) + b"\n")
            else:
                self._irregular[key] = path
        for _, *ids in list(self._order.entries()):
            key = Key(*ids)
            if self.path_of(key) not in sizes:
                self._order.discard(key)
                self._irregular.pop(key, None)
        self._sizes = sizes
        if lines:
            _logger.info("%d sessions were missing in the list, or changed since", len(lines))
            with suppress(OSError):  # a read-only medium; the next process scans again
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                self._append(b"".join(lines))


def _lines_of(content: bytes) -> Iterator[_Line]:
    """The lines that decode: what was erased, torn or damaged is left to the scan."""
    for raw in content.splitlines():
        if raw[:1] == b"{":
            with suppress(ValueError, RecursionError):
                yield _decode(raw)


def session_files(directory: str, user_id: str | None) -> Iterator[os.DirEntry[str]]:
    """What is in the directory of a user, or of all, except directories.

    A user's directory that is a symbolic link is left out, or, asked for by name, refused.

    Raises:
        OSError: it cannot be listed.
    """
    if user_id is not None:
        users = [os.path.join(directory, file_name(user_id))]
        check_directory(users[0])
    else:
        users = [
            user.path
            for user in _entries(directory)
            if not user.name.startswith(".") and user.is_dir(follow_symlinks=False)
        ]
    for user in users:
        for file in _entries(user):
            if not file.is_dir(follow_symlinks=False):
                yield file


def logs_in(directory: str, user_id: str | None) -> Iterator[tuple[str, int]]:
    """The logs of a user, or of all: path and size in bytes."""
    for file in session_files(directory, user_id):
        if file.name.endswith(".jsonl") and file.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):
                yield file.path, file.stat(follow_symlinks=False).st_size


def _entries(directory: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return ()
