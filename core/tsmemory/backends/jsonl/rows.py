"""What a session's lines say: records for readers, findings for `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.files import File
from tsmemory.backends.jsonl.log import Entry, Log, Meta, Row
from tsmemory.backends.jsonl.names import file_name, id_of
from tsmemory.engine.records import Key
from tsmemory.engine.rows import corrupt_message
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Problem

__all__ = ["findings", "key_of", "meta_path", "read_message", "read_meta", "rows_at", "stored"]

_MOST_AT_ONCE = 4 * 1024 * 1024  # bytes of neighbouring lines that one read takes


def meta_path(path: Path) -> Path:
    """The ``.meta.json`` that stands beside a log."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")


def key_of(path: Path, log: Log) -> Key:
    """Whose log this is: as its header says where the names agree, else as the names say."""
    told = (log.header.user_id, log.header.session_id) if log.header else ("", "")
    names = (path.parent.name, path.name.removesuffix(".jsonl"))
    return Key(
        *(
            id_ if id_ and file_name(id_) == name else id_of(name) or name
            for id_, name in zip(told, names, strict=True)
        )
    )


def read_meta(path: Path) -> Meta | None:
    """What was noted about a log; None where nothing is, or nothing that reads."""
    try:
        return msgspec.json.decode(meta_path(path).read_bytes(), type=Meta)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


# -- rows --------------------------------------------------------------------------------------


def rows_at(file: File, entries: Iterable[Entry], limit: int | None) -> Iterator[Row]:
    """The lines of messages, neighbours read together; at most `limit`."""
    several: list[Entry] = []
    low = high = 0
    for entry in islice(entries, limit):
        start, end = entry.start, entry.start + entry.size
        near = start == high or end == low
        if several and not (near and max(high, end) - min(low, start) <= _MOST_AT_ONCE):
            yield from _read_rows(file, several, low, high)
            several = []
        low, high = (min(low, start), max(high, end)) if several else (start, end)
        several.append(entry)
    if several:
        yield from _read_rows(file, several, low, high)


def _read_rows(file: File, entries: list[Entry], low: int, high: int) -> Iterator[Row]:
    data = file.read(low, high - low)
    for entry in entries:
        start = entry.start - low
        yield entry, data[start : start + entry.size]


def read_message(key: Key, row: Row) -> Message | CorruptRecordError:
    """The message on a line, or what stands in its place."""
    (position, _, _), raw = row
    try:
        return lines.decode_line(raw, position)
    except ValueError as error:
        return corrupt_message(key, position, error)


def stored(key: Key, planned: list[Message | str], rows: list[Row]) -> list[Message]:
    """What a plan says is stored, with the messages that are there already (`rows`) filled in.

    Raises:
        CorruptRecordError: one of those does not decode.
    """
    there: dict[str, Message] = {}
    for row in rows:
        message = read_message(key, row)
        if isinstance(message, CorruptRecordError):
            raise message
        there[message.message_id] = message
    return [there[m] if isinstance(m, str) else m for m in planned]


def findings(path: Path, data: bytes, meta: Meta | None) -> Iterator[Problem]:
    """What is broken in a log, read whole, and in what was noted about it."""
    begin = data.find(b"\n") + 1
    log = Log(lines.read_header(data), begin, indexed=True)
    current = meta is not None and log.header is not None and meta.log == log.header.log
    known = meta.bytes if meta and current and meta.bytes <= len(data) else 0
    log.replay(data[begin:], known=known)
    key = key_of(path, log)
    sound = True
    session = log.session(key)
    if isinstance(session, CorruptRecordError):
        sound = False
        yield Problem(*key, None, session.reason)
    if log.head.message_count != len(log.order):
        sound = False
        what = f"message_count is {log.head.message_count}, but there are {len(log.order)} messages"
        yield Problem(*key, None, what)
    for entry in log.everything():
        message = read_message(key, (entry, data[entry.start : entry.start + entry.size]))
        if isinstance(message, CorruptRecordError):
            sound = False
            yield Problem(*key, message.message_id, message.reason)
    if sound and meta and meta.bytes == log.end and current and meta != log.meta(key):
        what = f"{meta_path(path).name} is not what the log comes to; delete it, it is made again"
        yield Problem(*key, None, what)
