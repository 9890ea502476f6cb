"""The files of picoclaw's session stores (github.com/sipeed/picoclaw, MIT): its append-only JSONL
store (``pkg/memory``) and the ``sessions/*.json`` of before (``pkg/session``).

JSONL: ``{sanitized key}.jsonl`` holds a message a line, in the OpenAI chat format with fields of
its own; ``{sanitized key}.meta.json`` holds ``key``, ``summary``, ``skip`` (lines that a truncation
left behind, not to be read), ``count``, ``created_at``, ``updated_at``. A ``:`` of the key is a
``_`` in the file's name, so the key is taken from inside. Older: one object a file, ``key``,
``messages``, ``summary``, ``created``, ``updated``.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tsmemory.checks import DEFAULT_USER
from tsmemory.model import Message, Problem
from tsmemory.openai_format import from_openai
from tsmemory.store import Store
from tsmemory.transfer._copy import Progress, Report
from tsmemory.transfer._imports import Imported, import_sessions

__all__ = ["import_jsonl_store", "migrate_json_sessions"]

_log = logging.getLogger(__name__)
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


class _Meta(msgspec.Struct):
    key: str = ""
    summary: str = ""
    skip: int = 0
    created_at: str = ""
    updated_at: str = ""


class _Older(msgspec.Struct):
    key: str = ""
    messages: list[dict[str, Any]] | None = None
    summary: str = ""
    created: str = ""
    updated: str = ""


def import_jsonl_store(
    store: Store,
    directory: str | os.PathLike[str],
    *,
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in a directory of picoclaw's JSONL store; its files stay as they are.

    What its reader shows comes in: not the first ``skip`` lines, and not lines that do not decode,
    which are logged and told in the report. The message on line n is ``line:n``, so that the
    directory may be brought in again after more was written.

    Args:
        user_id: whose sessions they become; picoclaw knows no users.
        progress: called after every batch of messages.

    Raises:
        InvalidInputError: a key that no store can hold.
        FileNotFoundError: there is no such directory.
    """
    sessions = _jsonl_sessions(Path(directory), user_id)
    return import_sessions(store, sessions, progress=progress)


def _jsonl_sessions(directory: Path, user_id: str) -> Iterator[Imported | Problem]:
    for path in sorted(p for p in directory.iterdir() if p.suffix == ".jsonl"):
        name = path.name.removesuffix(".jsonl")
        try:
            meta = msgspec.json.decode((directory / f"{name}.meta.json").read_bytes(), type=_Meta)
        except FileNotFoundError:
            meta = _Meta()
        except (OSError, msgspec.DecodeError) as error:
            yield _skipped(f"{name}.meta.json", error)
            continue
        key = meta.key or name
        messages = []
        # As Go's scanner splits lines: at newlines only, and empty ones do not count.
        rows = [row for row in path.read_bytes().split(b"\n") if row.rstrip(b"\r")]
        for number, row in enumerate(rows[meta.skip :], meta.skip):
            try:
                messages.append(_message(msgspec.json.decode(row), f"line:{number}"))
            except (ValueError, AttributeError) as error:
                yield _skipped(f"{path.name}, line {number + 1}", error, user_id, key)
        yield Imported(
            session_id=key,
            user_id=user_id,
            messages=messages,
            summary=meta.summary or None,
            create_time=_micros(meta.created_at),
            update_time=_micros(meta.updated_at),
        )


def migrate_json_sessions(
    store: Store,
    directory: str | os.PathLike[str],
    *,
    user_id: str = DEFAULT_USER,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring in picoclaw's older ``sessions/*.json``, and rename each to ``….json.migrated``.

    Files that do not parse are logged, told in the report, and left as they are; renamed ones are
    not looked at again. A directory that is not there holds nothing.

    Args:
        user_id: whose sessions they become; picoclaw knows no users.
        progress: called after every batch of messages.

    Raises:
        InvalidInputError: a key that no store can hold.
    """
    paths: dict[str, list[Path]] = {}

    def rename(found: Imported) -> None:
        path = paths[found.session_id].pop(0)
        path.rename(path.with_name(path.name + ".migrated"))

    sessions = _older_sessions(Path(directory), user_id, paths)
    return import_sessions(store, sessions, progress=progress, done=rename)


def _older_sessions(
    directory: Path, user_id: str, paths: dict[str, list[Path]]
) -> Iterator[Imported | Problem]:
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        # The newer store's .meta.json may stand in the same directory.
        if path.suffix != ".json" or path.name.endswith(".meta.json") or path.is_dir():
            continue
        try:
            older = msgspec.json.decode(path.read_bytes(), type=_Older)
            messages = [_message(raw, f"message:{i}") for i, raw in enumerate(older.messages or [])]
        except (OSError, ValueError, AttributeError) as error:
            yield _skipped(path.name, error)
            continue
        key = older.key or path.name.removesuffix(".json")
        paths.setdefault(key, []).append(path)
        yield Imported(
            session_id=key,
            user_id=user_id,
            messages=messages,
            summary=older.summary or None,
            create_time=_micros(older.created),
            update_time=_micros(older.updated),
        )


def _skipped(
    what: str, error: Exception, user_id: str | None = None, key: str | None = None
) -> Problem:
    _log.warning("skipped %s: %s", what, error)
    return Problem(user_id, key, None, f"{what}: {error}")


def _message(raw: Any, message_id: str) -> Message:
    """One message. Older releases wrote a call's name and arguments beside ``function``, or alone.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(raw, dict):
        raise ValueError("not a message")
    calls = raw.get("tool_calls")
    if calls:
        raw = {**raw, "tool_calls": [_call(call) for call in calls]}
    return from_openai(raw, message_id=message_id)


def _call(call: Any) -> Any:
    if not isinstance(call, dict) or call.get("function") or "name" not in call:
        return call
    arguments = msgspec.json.encode(call.get("arguments") or {}).decode()
    return {**call, "function": {"name": call["name"], "arguments": arguments}}


def _micros(text: str) -> int | None:
    """Go's RFC 3339, with up to nine digits of a second, as µs; None for its zero time."""
    if not text:
        return None
    text = _FRACTION.sub(lambda found: "." + found[1].ljust(6, "0"), text).replace("Z", "+00:00")
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None or when.year < 1970:
        return None
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    return (when - epoch) // dt.timedelta(microseconds=1)
