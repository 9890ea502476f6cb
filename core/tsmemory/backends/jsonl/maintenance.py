"""Removing sessions, counting them, and looking for damage."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from tsmemory.backends.jsonl.catalogue import logs_in, session_files
from tsmemory.backends.jsonl.files import File, check_directory, remove, sync_directory
from tsmemory.backends.jsonl.layout import log_path, meta_path, temporary
from tsmemory.backends.jsonl.rows import key_of, problems_of, read_meta
from tsmemory.engine.locks import releasing
from tsmemory.engine.records import Key
from tsmemory.model import Erased, Problem, Stats

if TYPE_CHECKING:
    from tsmemory.backends.jsonl.backend import JSONLBackend

__all__ = ["erase", "purge_expired", "stats", "verify"]

_ENDING = re.compile(r"\.meta\.json(?:\.tmp)?\Z|\.jsonl\.tmp\Z")


def erase(backend: JSONLBackend, user_id: str | None, session_id: str | None) -> Erased:
    """Remove a session, a user or everything: the files first, found in the directories, then the
    lines of the catalogue."""
    if not os.path.isdir(backend.directory):
        return Erased()
    if user_id is not None and session_id is not None:
        paths = [log_path(backend.directory, Key(user_id, session_id))]
        check_directory(os.path.dirname(paths[0]))
    else:
        files = session_files(backend.directory, user_id)
        # Also of sessions that left other files only.
        logs = {_ENDING.sub(".jsonl", file.path) for file in files}
        paths = sorted(path for path in logs if path.endswith(".jsonl"))
    erased = _sum([_erase(backend, path) for path in paths])
    if os.path.isdir(backend._own):
        backend._catalogue.erase(user_id, session_id)
    return erased


def purge_expired(backend: JSONLBackend) -> Erased:
    """Remove the sessions that have expired."""
    erased, keys = [], set()
    for path, _ in list(logs_in(backend.directory, None)):
        with releasing(backend._cache.guard), backend._cache.guard:
            loaded = backend._cache.load(path, keep=False)
            expired = loaded is not None and backend._expired(loaded.index)
        if loaded is not None and expired:
            keys.add(key_of(path, loaded.index))
            erased.append(_erase(backend, path, only_expired=True))
    backend._catalogue.erase_many(keys)
    return _sum(erased)


def _sum(erased: list[Erased]) -> Erased:
    return Erased(sum(e.sessions for e in erased), sum(e.messages for e in erased))


def _erase(backend: JSONLBackend, path: str, *, only_expired: bool = False) -> Erased:
    def work() -> Erased:
        if os.path.isdir(path) and not os.path.islink(path):
            return Erased()  # not ours, whatever its name
        with releasing(backend._cache.guard), backend._cache.guard:
            loaded = None if os.path.islink(path) else backend._cache.load(path, keep=False)
            if only_expired and not (loaded and backend._expired(loaded.index)):
                return Erased()
            erased = Erased(1, loaded.index.head.message_count) if loaded else Erased()
            backend._cache.drop(path)
            # The log last: while it is there, so is the session, and erasing it again finishes.
            meta = meta_path(path)
            for file in (meta, temporary(meta), temporary(path), path):
                remove(file)
            changed = directory = os.path.dirname(path)
            with suppress(OSError):  # other sessions are in it
                os.rmdir(directory)
                changed = backend.directory
            if backend._sync and os.path.isdir(changed):
                sync_directory(changed)
        return erased

    return backend._locked(path, work)


def stats(backend: JSONLBackend) -> Stats:
    """Count what there is, session by session."""
    users, sessions, messages, expired, size = set(), 0, 0, 0, 0
    for path, bytes_ in logs_in(backend.directory, None):
        with releasing(backend._cache.guard), backend._cache.guard:
            loaded = backend._cache.load(path, keep=False)
            if loaded is None:
                continue
            size += bytes_
            if backend._expired(loaded.index):
                expired += 1
                continue
            users.add(os.path.dirname(path))
            sessions += 1
            messages += loaded.index.head.message_count
    return Stats(
        users=len(users),
        sessions=sessions,
        messages=messages,
        expired_sessions=expired,
        bytes=size,
    )


def verify(backend: JSONLBackend) -> list[Problem]:
    """Read every log whole, alone with it."""
    problems: list[Problem] = []

    def check(path: str) -> None:
        with suppress(FileNotFoundError):
            file = File(path)
            size = file.stat().st_size
            if size:
                problems.extend(problems_of(path, file.read(0, size), read_meta(path)))

    for path, _ in list(logs_in(backend.directory, None)):
        backend._locked(path, lambda p=path: check(p))  # type: ignore[misc]  # mypy: lambda default
    return problems
