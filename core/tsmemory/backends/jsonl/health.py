"""What in a store's directory an operator should know of: for `tsmemory doctor`.

Nothing is written or repaired here. Locks are tried without waiting and given back at once; other
processes' writers are asked again for `_PATIENCE` before their lock counts as held.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tsmemory.backends.jsonl.catalogue import logs_in, session_files
from tsmemory.backends.jsonl.files import is_locked
from tsmemory.backends.jsonl.layout import meta_path
from tsmemory.engine.findings import expired_sessions, free_space, is_open_to_others
from tsmemory.engine.locks import releasing
from tsmemory.engine.records import Finding
from tsmemory.errors import UnavailableError

if TYPE_CHECKING:
    from tsmemory.backends.jsonl.backend import JSONLBackend

__all__ = ["check_server"]

_PATIENCE = 2.0  # seconds; writers hold a lock for milliseconds, `compact` for longer
_POLL = 0.05
_LEFT_OVER = 60.0  # seconds after which a temporary file has lost its writer
_BEHIND = 64 * 1024  # bytes of log that a missing summary makes a process read
_NAMED = 3  # paths in a finding


def check_server(backend: JSONLBackend) -> list[Finding]:
    """Looks at every file's name and mode, and opens every session by its summary."""
    if not os.path.isdir(backend.directory):
        return []
    return [
        *_sessions(backend),
        _left_over(backend),
        _permissions(backend),
        _locks(backend._own),
        free_space(backend.directory),
    ]


def _sessions(backend: JSONLBackend) -> list[Finding]:
    torn, summaries, unreadable, expired = [], [], [], 0
    for path, size in logs_in(backend.directory, None):
        try:
            with releasing(backend._cache.guard), backend._cache.guard:
                loaded = backend._cache.load(path, keep=False)
        except (OSError, UnavailableError):
            unreadable.append(path)
            continue
        if loaded is None:
            continue
        expired += backend._expired(loaded.index)
        if loaded.size > loaded.index.end + loaded.index.unterminated:
            torn.append(path)
        meta = meta_path(path)
        if size > _BEHIND and (loaded.index.meta_bytes is None or not os.path.exists(meta)):
            summaries.append(meta)
    cut = "an unfinished write that no reader counts; the next write cuts it off"
    slow = "missing or damaged: opening reads the whole log; writes make it anew in time"
    return [
        Finding("unreadable", not unreadable, _name(backend, unreadable, "see tsmemory verify")),
        Finding("torn_tails", True, _name(backend, torn, cut)),
        Finding("summaries", True, _name(backend, summaries, slow, none="all there")),
        expired_sessions(expired),
    ]


def _left_over(backend: JSONLBackend) -> Finding:
    """A killed `compact` leaves what it had written, which may be text that was deleted since."""
    now = time.time()
    paths = []
    for file in session_files(backend.directory, None):
        if file.name.endswith(".tmp"):
            with suppress(FileNotFoundError):
                if now - file.stat(follow_symlinks=False).st_mtime > _LEFT_OVER:
                    paths.append(file.path)
    advice = "left by a killed process, with text in it; tsmemory compact removes it"
    return Finding("temporary_files", not paths, _name(backend, paths, advice))


def _permissions(backend: JSONLBackend) -> Finding:
    """Behind a directory that others may not enter, the modes of files do not matter."""
    paths: list[str] = []
    if is_open_to_others(os.stat(backend.directory)):
        files = list(session_files(backend.directory, None))
        directories = {os.path.dirname(file.path) for file in files if not file.is_symlink()}
        for path in (*directories, *(file.path for file in files if not file.is_symlink())):
            with suppress(FileNotFoundError):
                if is_open_to_others(os.stat(path)):
                    paths.append(path)
        paths = [backend.directory, *sorted(paths)]
    advice = f"open to every user of this machine; chmod -R o= {backend.directory}"
    return Finding("permissions", not paths, _name(backend, paths, advice, none="not open"))


def _locks(directory: str) -> Finding:
    """A lock ends with its process, so one that stays has a holder: stopped, or stuck."""
    paths = []
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        paths = [entry.path for entry in entries if entry.name.endswith(".lock")]
    deadline = time.monotonic() + _PATIENCE
    while paths := [path for path in paths if is_locked(path)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    if not paths:
        return Finding("locks", True, "none held")
    names = ", ".join(os.path.basename(path) + _holder(path) for path in sorted(paths)[:_NAMED])
    advice = "a writer is stopped or stuck (or compacts a large session), and others wait"
    return Finding("locks", False, f"held for over {_PATIENCE:.0f} s: {names}; {advice}")


def _holder(path: str) -> str:
    """Which process has the lock, where the system says so (Linux)."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except (OSError, ValueError):
        return ""
    # 1: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF
    pids = [row[4] for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)]
    return f" by process {pids[0]}" if pids else ""


def _name(backend: JSONLBackend, paths: Sequence[str], advice: str, *, none: str = "none") -> str:
    """How many there are, and the first of them, relative to the store."""
    if not paths:
        return none
    names = ", ".join(os.path.relpath(path, backend.directory) for path in paths[:_NAMED])
    more = "" if len(paths) <= _NAMED else " …"
    return f"{len(paths):,} ({names}{more}): {advice}"
