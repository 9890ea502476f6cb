"""The indexes and open files of the sessions used last, each checked against its file before use.

A file is opened by its name and could be another by now: replaced by `compact`, removed, moved,
restored, edited. So every use compares what the name means now (device, inode, size, time of the
last change) with what the index was made from:

1. the same: the index is current;
2. the same file, longer, and its bytes before the old end unchanged: replay what was added;
3. anything else: the index is made anew.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.files import File, check_directory
from tsmemory.backends.jsonl.rows import read_meta
from tsmemory.backends.jsonl.session_index import SessionIndex
from tsmemory.errors import UnavailableError

__all__ = ["IndexCache", "Loaded"]

_TAG = re.compile(rb'\{"tsmemory":(\d{1,9}),"log":"([0-9a-f]{1,32})"')
_TAG_BYTES = 80  # at the beginning of a file, that contain what `_TAG` looks for
_TAIL_BYTES = 64  # before the end of what a meta file knows
_MAX_INDEXED = 500_000  # messages whose positions are kept in memory: some 300 bytes each
_MAX_FILES = 0 if os.name == "nt" else 64
"""Files kept open. On Windows none: an open file can be neither renamed over nor removed."""

_Signature = tuple[int, int, int, int]


@dataclass(slots=True)
class Loaded:
    file: File
    index: SessionIndex
    size: int
    """Of the file, bytes: `index.end`, and what an unfinished write left behind it."""


@dataclass(slots=True)
class _Cached:
    index: SessionIndex
    signature: _Signature
    counted: int


class IndexCache:
    """See the module. `guard` is held by whoever uses an index from here: threads share them."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self._cached: OrderedDict[str, _Cached] = OrderedDict()
        self._files: OrderedDict[str, File] = OrderedDict()
        self._indexed = 0

    def load(
        self, path: str, *, indexed: bool = False, write: bool = False, keep: bool = True
    ) -> Loaded | None:
        """The log at `path` as it is now; None where there is none, or an empty file.

        Args:
            indexed: with the positions of its messages; without, they are there only by chance.
            write: the file is to be written.
            keep: whether to remember it; False where many are read once.

        Raises:
            UnavailableError: a newer release wrote it.
            OSError: it cannot be opened.
        """
        try:
            status = os.stat(path, follow_symlinks=False)
            cached = self._cached.get(path)
            signature = _signature(status)
            file = self._file(path, status, write, keep)
        except (FileNotFoundError, NotADirectoryError):
            self.drop(path)
            return None
        if cached is not None and not cached.index.changing:
            index = cached.index
            if index.indexed or not indexed:
                if cached.signature == signature:
                    self._cached.move_to_end(path)
                    return Loaded(file, index, status.st_size)
                if self._catch_up(cached, file, signature):
                    self._keep(path, index, signature)
                    return Loaded(file, index, status.st_size)
        self.drop(path, file=False)
        if not status.st_size:
            return None
        index = self._load_anew(path, file, indexed)
        if keep:
            self._keep(path, index, signature)
        return Loaded(file, index, status.st_size)

    def index_of(self, path: str) -> SessionIndex | None:
        """The index at `path`, its messages' positions perhaps not included; None where there is no
        log. The file is opened only if it changed since."""
        cached = self._cached.get(path)
        if cached is not None and not cached.index.changing:
            with suppress(OSError):
                if cached.signature == _signature(os.stat(path, follow_symlinks=False)):
                    return cached.index
        loaded = self.load(path, keep=False)
        return loaded.index if loaded else None

    def _file(self, path: str, status: os.stat_result, write: bool, keep: bool) -> File:
        file = self._files.get(path)
        if file is not None:
            same = file.identity == (status.st_dev, status.st_ino)
            if same and (file.writable or not write):
                return file
            del self._files[path]
        check_directory(os.path.dirname(path))
        file = File(path, write=write)
        if keep:
            self._keep_file(path, file)
        return file

    def _keep_file(self, path: str, file: File) -> None:
        self._files[path] = file
        if len(self._files) > _MAX_FILES:
            self._files.popitem(last=False)

    def _catch_up(self, cached: _Cached, file: File, signature: _Signature) -> bool:
        """Step 2; False where the index has to be made anew."""
        index, (device, inode, size, _) = cached.index, signature
        if cached.signature[:2] != (device, inode) or size <= index.end:
            return False
        begin = index.end - len(index.tail)
        content = file.read(begin, size - begin)
        added = content[len(index.tail) :]
        if not content.startswith(index.tail) or (index.unterminated and added[:1] != b"\n"):
            return False
        index.replay(added)
        return True

    def _load_anew(self, path: str, file: File, indexed: bool) -> SessionIndex:
        match = _TAG.match(file.read(0, _TAG_BYTES))
        tag = match[2].decode() if match else ""
        if match and int(match[1]) > lines.FORMAT:
            raise UnavailableError(
                f"{path} has format {int(match[1])}, written by a newer tsmemory; this one knows "
                f"{lines.FORMAT}: upgrade the package"
            )
        size = file.stat().st_size
        adopted = self._adopt_meta(path, file, tag, size, indexed) if tag else None
        if adopted is not None:
            return adopted
        content = file.read(0, size)
        begin = content.find(b"\n") + 1
        index = SessionIndex(lines.read_header(content), begin, indexed=True)
        index.replay(content[begin:])
        return index

    def _adopt_meta(
        self, path: str, file: File, tag: str, size: int, indexed: bool
    ) -> SessionIndex | None:
        """The index by way of the meta file; None where that is of no use."""
        meta = read_meta(path)
        # The log's size was read before: the meta file is written last, by a writer at work.
        if meta is None or meta.log != tag or not meta.skip <= meta.bytes <= size:
            return None
        tail = file.read(max(0, meta.bytes - _TAIL_BYTES), min(_TAIL_BYTES, meta.bytes))
        if not tail.endswith(b"\n"):
            return None
        header = lines.Header(
            tsmemory=lines.FORMAT,
            log=tag,
            user_id=meta.user_id,
            session_id=meta.session_id,
            create_time=meta.create_time,
        )
        index = SessionIndex(header, meta.skip, indexed=indexed)
        if indexed:
            index.replay(file.read(meta.skip, meta.bytes - meta.skip), committed=meta.bytes)
        index.adopt(meta)
        index.tail = tail
        index.replay(file.read(index.end, size - index.end))
        return index

    def keep(self, path: str, index: SessionIndex, file: File) -> None:
        """Remember an index that is current with `file`; past the limit, the sessions unused for
        longest are forgotten."""
        self._keep(path, index, _signature(file.stat()))
        if _MAX_FILES and path not in self._files:
            self._keep_file(path, file)

    def _keep(self, path: str, index: SessionIndex, signature: _Signature) -> None:
        count = len(index.entries) + 1
        cached = self._cached.get(path)
        if cached is None:
            self._cached[path] = cached = _Cached(index, signature, 0)
        self._indexed += count - cached.counted
        cached.index, cached.signature, cached.counted = index, signature, count
        self._cached.move_to_end(path)
        while self._indexed > _MAX_INDEXED and len(self._cached) > 1:
            self._forget(next(iter(self._cached)))

    def _forget(self, path: str) -> None:
        cached = self._cached.pop(path, None)
        if cached is not None:
            self._indexed -= cached.counted

    def drop(self, path: str, *, file: bool = True) -> None:
        """Forget a session's index and close its file."""
        self._forget(path)
        if file:
            self._files.pop(path, None)

    def clear(self) -> None:
        """Forget them all."""
        self._cached.clear()
        self._files.clear()
        self._indexed = 0


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
