"""The files of picoclaw's session stores (github.com/sipeed/picoclaw, MIT): its append-only JSONL
store (``pkg/memory``) and the ``sessions/*.json`` of before (``pkg/session``).

JSONL: ``{sanitized key}.jsonl`` has a message per line, in the OpenAI chat format with fields of
its own; ``{sanitized key}.meta.json`` has ``key``, ``summary``, ``skip`` (lines that a truncation
left behind, not to be read), ``count``, ``created_at``, ``updated_at``. A ``:`` of the key is a
``_`` in the file's name, so the key is taken from inside. ``Compact`` and ``SetHistory`` rewrite
the file, so a line's number means nothing. Older: one object per file, ``key``, ``messages``,
``summary``, ``created``, ``updated``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tsmemory.checks import DEFAULT_USER
from tsmemory.engine.log import get_logger
from tsmemory.errors import InvalidInputError, UnavailableError
from tsmemory.model import Message, Problem
from tsmemory.store import Store
from tsmemory.transfer.copying import Progress, Report
from tsmemory.transfer.formats.openai_chat import chat_message
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.merging import import_sessions
from tsmemory.transfer.sources import Source, attempt, each, json_in, micros_of

__all__ = ["migrate_json_sessions", "read", "read_older"]

_logger = get_logger("transfer")


class _Meta(msgspec.Struct):
    key: str = ""
    summary: str = ""
    skip: int = 0
    created_at: str = ""
    updated_at: str = ""


class _Older(msgspec.Struct):
    key: str = ""
    messages: list[Any] | None = None
    summary: str = ""
    created: str = ""
    updated: str = ""


def read(source: Source, *, user_id: str) -> Iterator[Imported | Problem]:
    """The sessions of a directory of the JSONL store, as its own reader shows them: without the
    first ``skip`` lines, and without lines that do not decode, which are reported."""
    directory = _directory(source)
    for path in _files(directory, ".jsonl"):
        name = path.name.removesuffix(".jsonl")
        meta_path = directory / f"{name}.meta.json"
        problem = Problem(user_id, name, None, meta_path.name)
        meta = attempt(lambda: _meta(meta_path), problem)  # noqa: B023  # called at once
        if isinstance(meta, Problem):
            yield _skipped(meta)
            continue
        key = meta.key or name
        # As Go's scanner splits lines: at newlines only, and empty ones do not count.
        rows = [row for row in _bytes(path).split(b"\n") if row.rstrip(b"\r")]
        skip = max(0, meta.skip)

        def place(number: int, key: str = key, name: str = path.name, skip: int = skip) -> Problem:
            return Problem(user_id, key, None, f"{name}, line {skip + number}")

        messages, problems = each(rows[skip:], lambda row: _message(json_in(row)), place)
        for problem in problems:
            _skipped(problem)
        yield Imported(
            session_id=key,
            user_id=user_id,
            messages=messages,
            summary=meta.summary or None,
            create_time=micros_of(meta.created_at),
            update_time=micros_of(meta.updated_at),
            problems=problems,
        )


def read_older(source: Source, *, user_id: str) -> Iterator[Imported | Problem]:
    """The sessions of a directory of the older store; its files stay as they are."""
    for _, session in _older(_directory(source), user_id):
        yield session


def migrate_json_sessions(
    store: Store,
    directory: str | os.PathLike[str],
    *,
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in picoclaw's older ``sessions/*.json``, and rename each to ``….json.migrated``, as its
    own migration does.

    Files that do not parse are logged, reported, and left as they are; renamed ones are not looked
    at again. A directory that is not there has nothing in it.

    Args:
        user_id: whose sessions they become; picoclaw knows no users.
        progress: called after every batch of messages.

    Raises:
        BackendError: the store fails, or a file cannot be renamed.
    """
    paths: dict[int, Path] = {}

    def sessions() -> Iterator[Imported | Problem]:
        for path, session in _older(Path(directory), user_id):
            paths[id(session)] = path
            yield session

    def rename(session: Imported) -> None:
        path = paths[id(session)]
        try:
            path.rename(path.with_name(path.name + ".migrated"))
        except OSError as error:
            raise UnavailableError(f"{path} cannot be renamed: {error.strerror}") from error

    if not Path(directory).is_dir():
        return Report()
    return import_sessions(
        store, sessions(), origin="picoclaw-json", progress=progress, done=rename
    )


def _older(directory: Path, user_id: str) -> Iterator[tuple[Path, Imported | Problem]]:
    for path in _files(directory, ".json"):
        if path.name.endswith(".meta.json"):
            continue  # the newer store's, in the same directory
        problem = Problem(user_id, None, None, path.name)
        session = attempt(lambda: _older_session(path, user_id), problem)  # noqa: B023
        yield path, _skipped(session) if isinstance(session, Problem) else session


def _older_session(path: Path, user_id: str) -> Imported:
    older: _Older = msgspec.convert(json_in(_bytes(path)), _Older)
    key = older.key or path.name.removesuffix(".json")

    def place(number: int) -> Problem:
        return Problem(user_id, key, None, f"{path.name}, message {number}")

    messages, problems = each(older.messages or [], _message, place)
    return Imported(
        session_id=key,
        user_id=user_id,
        messages=messages,
        summary=older.summary or None,
        create_time=micros_of(older.created),
        update_time=micros_of(older.updated),
        problems=problems,
    )


def _directory(source: Source) -> Path:
    if not isinstance(source, (str, os.PathLike)) or not Path(source).is_dir():
        raise InvalidInputError(f"there is no directory {source!r:.200}")
    return Path(source)


def _files(directory: Path, ending: str) -> list[Path]:
    try:
        return sorted(p for p in directory.iterdir() if p.suffix == ending and p.is_file())
    except OSError as error:
        raise UnavailableError(f"{directory} cannot be read: {error.strerror}") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from error


def _meta(path: Path) -> _Meta:
    if not path.exists():
        return _Meta()
    return msgspec.convert(json_in(_bytes(path)), _Meta)


def _skipped(problem: Problem) -> Problem:
    _logger.warning("skipped a record of picoclaw: %s", problem.what.partition(":")[0])
    return problem


def _message(raw: Any) -> Message:
    """One message; its ``created_at``, where a release wrote one, is its time."""
    if not isinstance(raw, dict):
        raise InvalidInputError(f"not a message: {raw!r:.80}")
    return chat_message(raw)
