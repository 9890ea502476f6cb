"""The logs that this process has read, as they are now: each read once, then only what is new."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.files import File
from tsmemory.backends.jsonl.log import Log
from tsmemory.backends.jsonl.rows import read_meta
from tsmemory.errors import UnavailableError

__all__ = ["Logs"]

_TAG = re.compile(rb'\{"tsmemory":(\d+),"log":"([0-9a-f]{1,32})"')
_TAG_SIZE = 80  # bytes at the beginning that hold what `_TAG` looks for
_MOST_INDEXED = 500_000  # messages whose places are kept in memory: some 300 bytes each


class Logs:
    """Indexes of the sessions used last, each checked against its file before it is used.

    `guard` is held by whoever uses a `Log` from here: threads share them.
    """

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self._logs: OrderedDict[Path, tuple[Log, int]] = OrderedDict()
        self._indexed = 0

    def load(self, path: Path, file: File, *, indexed: bool) -> Log | None:
        """What the log in `file` comes to now; None where it holds nothing yet.

        Args:
            indexed: with the places of its messages; without, they are there only by chance.

        Raises:
            UnavailableError: a newer release wrote it.
        """
        found = _TAG.match(file.read(0, _TAG_SIZE))
        tag = found[2].decode() if found else ""
        if found and int(found[1]) > lines.FORMAT:
            raise UnavailableError(
                f"{path} has format {int(found[1])}, made by a newer tsmemory; this one knows "
                f"{lines.FORMAT}: upgrade the package"
            )
        log, _ = self._logs.get(path, (None, 0))
        if log is not None and (_tag(log) != tag or log.end > file.size()):
            self.drop(path)
            log = None
        if log is None:
            log = self._load_anew(path, file, tag, indexed)
        size = file.size()
        if size > log.end:
            log.replay(file.read(log.end, size - log.end))
        if log.indexed and tag:
            self.keep(path, log)
        # A file without a whole batch is not a session, but one whose beginning is damaged is.
        return log if log.head.version or (log.header is None and size) else None

    def _load_anew(self, path: Path, file: File, tag: str, indexed: bool) -> Log:
        meta = read_meta(path)
        usable = (
            meta is not None
            and meta.log == tag
            # Looked at after the meta file, which is written last: a writer may be at work.
            and meta.bytes <= file.size()
            and file.read(meta.bytes - 1, 1) == b"\n"
        )
        if meta is not None and usable:
            header = lines.Header(
                tsmemory=lines.FORMAT,
                log=tag,
                user_id=meta.user_id,
                session_id=meta.session_id,
                create_time=meta.create_time,
            )
            log = Log(header, meta.skip, indexed=indexed)
            if indexed:
                log.replay(file.read(meta.skip, meta.bytes - meta.skip), known=meta.bytes)
            log.adopt(meta)
            return log
        data = file.read(0, file.size())
        begin = data.find(b"\n") + 1
        log = Log(lines.read_header(data), begin, indexed=True)
        log.replay(data[begin:])
        return log

    def keep(self, path: Path, log: Log) -> None:
        """Remember an index; the sessions unused for longest are forgotten, past the limit."""
        self.drop(path)
        self._logs[path] = log, len(log.entries)
        self._indexed += len(log.entries)
        while self._indexed > _MOST_INDEXED and len(self._logs) > 1:
            self.drop(next(iter(self._logs)))

    def drop(self, path: Path) -> None:
        """Forget a session's index."""
        _, counted = self._logs.pop(path, (None, 0))
        self._indexed -= counted

    def clear(self) -> None:
        """Forget them all."""
        self._logs.clear()
        self._indexed = 0


def _tag(log: Log) -> str:
    return log.header.log if log.header else ""
