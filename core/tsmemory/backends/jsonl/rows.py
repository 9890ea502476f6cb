"""From a session's lines to records for readers, and to problems for `verify`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from tsmemory.backends.jsonl import lines
from tsmemory.backends.jsonl.files import File
from tsmemory.backends.jsonl.layout import file_name, id_of, meta_path, names_of
from tsmemory.backends.jsonl.session_index import Entry, Meta, Row, SessionIndex
from tsmemory.engine.records import Key
from tsmemory.engine.rows import corrupt_message
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Problem

__all__ = ["key_of", "problems_of", "read_message", "read_meta", "rows_at"]

_MAX_READ = 4 * 1024 * 1024  # bytes of neighbouring lines that one read takes


def key_of(path: str, index: SessionIndex) -> Key:
    """Whose log this is: as its header says where the names agree, otherwise as the names say."""
    header = index.header
    ids = (header.user_id, header.session_id) if header else ("", "")
    return Key(
        *(
            id_ if id_ and _is_name_of(id_, name) else id_of(name) or name
            for id_, name in zip(ids, names_of(path), strict=True)
        )
    )


def _is_name_of(id_: str, name: str) -> bool:
    return file_name(id_) == name


def read_meta(path: str) -> Meta | None:
    """The meta file of a log; None where there is none, or none that can be read."""
    try:
        with open(meta_path(path), "rb", buffering=0) as file:
            meta = msgspec.json.decode(file.read(), type=Meta)
    except (OSError, ValueError, RecursionError):
        return None
    return meta if meta.version else None


# -- rows --------------------------------------------------------------------------------------


def rows_at(file: File, entries: Iterable[Entry], limit: int | None) -> Iterator[Row]:
    """The lines of messages, neighbours read together; at most `limit`."""
    neighbours: list[Entry] = []
    low = high = 0
    for entry in islice(entries, limit):
        start, end = entry.start, entry.start + entry.size
        near = start == high or end == low
        if neighbours and not (near and max(high, end) - min(low, start) <= _MAX_READ):
            yield from _read_rows(file, neighbours, low, high)
            neighbours = []
        low, high = (min(low, start), max(high, end)) if neighbours else (start, end)
        neighbours.append(entry)
    if neighbours:
        yield from _read_rows(file, neighbours, low, high)


def _read_rows(file: File, entries: list[Entry], low: int, high: int) -> Iterator[Row]:
    content = file.read(low, high - low)
    for entry in entries:
        start = entry.start - low
        yield entry, content[start : start + entry.size]


def read_message(key: Key, row: Row) -> Message | CorruptRecordError:
    """The message on a line, or the error in the place of it."""
    (position, _, _), raw = row
    try:
        return lines.decode_line(raw, position)
    except ValueError as error:
        return corrupt_message(key, position, error)


def problems_of(path: str, content: bytes, meta: Meta | None) -> Iterator[Problem]:
    """What is broken in a log, read whole, and in its meta file."""
    begin = content.find(b"\n") + 1
    index = SessionIndex(lines.read_header(content), begin, indexed=True)
    current = meta is not None and index.header is not None and meta.log == index.header.log
    committed = meta.bytes if meta and current and meta.bytes <= len(content) else 0
    index.replay(content[begin:], committed=committed)
    key = key_of(path, index)
    sound = True
    session = index.session(key)
    if isinstance(session, CorruptRecordError):
        sound = False
        yield Problem(*key, None, session.reason)
    for entry in index.everything():
        message = read_message(key, (entry, content[entry.start : entry.start + entry.size]))
        if isinstance(message, CorruptRecordError):
            sound = False
            yield Problem(*key, message.message_id, message.reason)
    if sound and meta and meta.bytes == index.end and current and meta != index.meta(key):
        reason = (
            f"{os.path.basename(meta_path(path))} does not fit its log; delete it, and it is made "
            "anew"
        )
        yield Problem(*key, None, reason)
