"""Writing to a session's files: steps 3 to 5 of a commit (see `backend`), and rewriting a log.

The caller holds the session's lock.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

import msgspec

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.batches import batch_of, plain_lines, rewritten
from tsmemory.backends.jsonl.catalogue import Catalogue
from tsmemory.backends.jsonl.files import (
    File,
    check_directory,
    make_directory,
    remove,
    replace_file,
    sync_directory,
)
from tsmemory.backends.jsonl.index_cache import IndexCache, Loaded
from tsmemory.backends.jsonl.layout import meta_path, temporary
from tsmemory.backends.jsonl.rows import read_meta, rows_at
from tsmemory.backends.jsonl.session_index import SessionIndex
from tsmemory.engine.commit import Plan
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Change, Key

__all__ = ["LogWriter"]

_logger = get_logger("jsonl")
_MAX_BEHIND = 16 * 1024
"""Bytes that the log may grow before the meta file follows, where title, summary and metadata stay:
so many more a new process reads. Replacing a file takes ten times as long as appending to one."""


class LogWriter:
    """See the module.

    Args:
        sync: whether every write is synced before it counts.
    """

    def __init__(self, cache: IndexCache, catalogue: Catalogue, *, sync: bool) -> None:
        self._cache = cache
        self._catalogue = catalogue
        self._sync = sync

    def apply(
        self,
        key: Key,
        path: str,
        live: Loaded | None,
        change: Change,
        plan: Plan,
        bodies: Mapping[str, bytes],
        through: int,
    ) -> None:
        """Steps 3 to 5."""
        assert plan.head is not None  # a plan that changes anything has one
        record = plan.head.session
        emptied = record.message_count == 0 and (through or plan.delete)
        if live is None or emptied:
            content = batch_of(None, plan, change, bodies, through)
            size = self._write_anew(key, path, record.create_time, content)
        else:
            file, index = live.file, live.index
            with releasing(self._cache.guard), self._cache.guard:
                end, free, size = index.end, index.record, live.size
                plain = plain_lines(index, plan, change, bodies)
                if plain is not None and not index.unterminated:
                    content = b"".join(plain)
                else:
                    plain, content = None, batch_of(index, plan, change, bodies, through)
                    if index.unterminated:
                        content = b"\n" + content
                if index.meta_bytes is None and read_meta(path) is not None:
                    remove(meta_path(path))  # it must not seem to fit what the log grows to
            file.append(end, content, size=size, sync=self._sync)
            with releasing(self._cache.guard), self._cache.guard:
                if index.end != end:
                    pass  # a reader caught up with the file
                elif plain is not None:
                    index.extend(plan.insert, plain)
                else:
                    index.replay(content, ours=True)
                self._cache.keep(path, index, file)
                behind = index.meta_bytes is None or index.end - index.meta_bytes > _MAX_BEHIND
                if behind or index.record != free:
                    self._write_meta(key, path, index)
                size = index.end
        self._catalogue.note(key, record.update_time, size)

    def _write_anew(self, key: Key, path: str, create_time: int, content: bytes) -> int:
        """Put a new log in the place of the old, if there is one, and its meta file beside it: the
        log's size."""
        header = lines.header_line(secrets.token_hex(8), *key, create_time)
        directory = os.path.dirname(path)
        check_directory(directory)
        for attempt in range(10):
            if not os.path.isdir(directory):
                make_directory(directory)
                if self._sync:
                    sync_directory(os.path.dirname(directory))
            try:
                replace_file(path, header + content, sync=self._sync)
                break
            except FileNotFoundError:
                # Another process removed the directory with the last session of its user.
                if attempt == 9:
                    raise
        with releasing(self._cache.guard), self._cache.guard:
            self._cache.drop(path)
            index = SessionIndex(lines.read_header(header), len(header), indexed=True)
            index.replay(content)
            self._write_meta(key, path, index)
            self._cache.keep(path, index, File(path, write=True))
        return index.end

    def _write_meta(self, key: Key, path: str, index: SessionIndex) -> None:
        # Not synced: it is a copy, and one that a power cut damaged is made anew from the log.
        content = msgspec.json.encode(index.meta(key)) + b"\n"
        try:
            # Removed first: ext4 writes a file out before it renames it over another, and waits.
            remove(meta_path(path))
            replace_file(meta_path(path), content, sync=False)
        except OSError as error:
            index.meta_bytes = None
            _logger.warning(
                "session %s: its meta file cannot be written: %s", hashed(key), error.strerror
            )
        else:
            index.meta_bytes = index.end

    def compact(self, key: Key, path: str) -> int:
        """Rewrite the log without what was deleted or replaced: bytes freed."""
        for draft in (temporary(path), temporary(meta_path(path))):
            remove(draft)  # of a killed writer: the lock says that no other is at work
        with releasing(self._cache.guard), self._cache.guard:
            loaded = self._cache.load(path, indexed=True, write=True)
        if loaded is None or loaded.index.header is None or not loaded.index.head.version:
            return 0
        file, index = loaded.file, loaded.index
        with releasing(self._cache.guard), self._cache.guard:
            content = rewritten(index, rows_at(file, index.everything(), None))
            create_time = loaded.index.header.create_time
        before = file.stat().st_size
        header = lines.header_line(secrets.token_hex(8), *key, create_time)
        if len(header) + len(content) >= before:
            return 0
        size = self._write_anew(key, path, create_time, content)
        self._catalogue.note(key, index.head.update_time, size)
        return before - size
