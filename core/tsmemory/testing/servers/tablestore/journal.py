"""The file that keeps a server's data: an append-only log of row images and table operations.

A record is ``length (u32) · crc32 (u32) · payload``; the payload is ``kind length (u8) · kind ·
body``. The kinds are the table operations by name, with the request's protobuf as body, ``row``
(table name, last written, the row in PlainBuffer), ``gone`` (table name, the key in PlainBuffer)
and ``unlisted`` (index name, the key of a row that an index made without base data does not list).

An acknowledged write has been handed to the operating system, so it survives the death of the
process; it is not synced to the disk. A torn tail is cut off when the file is opened.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no advisory locks of this kind
    fcntl = None  # type: ignore[assignment]  # absent there

_FRAME = struct.Struct("<II")
_ROW_HEAD = struct.Struct("<Hq")


def record(kind: str, body: bytes) -> bytes:
    """One framed record."""
    name = kind.encode("ascii")
    payload = bytes((len(name),)) + name + body
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def row_body(table: str, touched: int, row: bytes) -> bytes:
    """The body of a ``row``, ``gone`` or ``unlisted`` record."""
    name = table.encode("ascii")
    return _ROW_HEAD.pack(len(name), touched) + name + row


def split_row_body(body: bytes) -> tuple[str, int, bytes]:
    """The parts `row_body` was made of."""
    length, touched = _ROW_HEAD.unpack_from(body)
    start = _ROW_HEAD.size
    return body[start : start + length].decode("ascii"), touched, body[start + length :]


class Journal:
    """An open data file, owned by one process.

    Raises:
        OSError: when the file cannot be opened, or another server has it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._pending: list[bytes] = []
        self._file: Any = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        if fcntl is not None:
            try:
                fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise OSError(f"{self.path} is in use by another local Tablestore") from error

    def replay(self) -> Iterator[tuple[str, bytes]]:
        """The kind and body of every whole record; cuts off what follows the last one."""
        self._file.seek(0)
        journal = self._file.read()
        position = 0
        while position + _FRAME.size <= len(journal):
            length, crc = _FRAME.unpack_from(journal, position)
            start = position + _FRAME.size
            payload = journal[start : start + length]
            if not payload or len(payload) < length or zlib.crc32(payload) != crc:
                break
            position = start + length
            split = 1 + payload[0]
            yield payload[1:split].decode("ascii"), payload[split:]
        self._file.truncate(position)

    def add(self, kind: str, body: bytes) -> None:
        """Queue a record for the next `flush`."""
        self._pending.append(record(kind, body))

    def flush(self) -> None:
        """Hand the queued records to the operating system in one write."""
        if self._pending:
            unwritten = memoryview(b"".join(self._pending))
            self._pending.clear()
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]

    def rewrite(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file by these records, in one step."""
        scratch = self.path.with_name(self.path.name + ".new")
        with open(scratch, "wb") as out:
            for kind, body in records:
                out.write(record(kind, body))
            out.flush()
            os.fsync(out.fileno())
        os.replace(scratch, self.path)
        reopened = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        if fcntl is not None:
            fcntl.flock(reopened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file.close()
        self._file = reopened

    def close(self) -> None:
        """Flush and let go of the file."""
        self.flush()
        self._file.close()
