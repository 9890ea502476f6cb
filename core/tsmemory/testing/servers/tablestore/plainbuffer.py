"""PlainBuffer: the encoding of rows inside the protobuf messages, with its checksums.

A row is ``[header] ROW_PK cell… [ROW_DATA cell…] [DELETE_MARKER] ROW_CHECKSUM crc``; a cell is
``CELL NAME n bytes [VALUE n type payload] [TYPE op] [TIMESTAMP int64] CELL_CHECKSUM crc``. Several
rows share one header. The layout is that of the official SDK's ``tablestore.plainbuffer``.

Values are Python's own: STRING is ``str``, INTEGER ``int``, DOUBLE ``float``, BOOLEAN ``bool``,
BLOB ``bytes``; the three marks a key may carry instead of a value are `Mark` members.
"""

from __future__ import annotations

import struct
from enum import Enum
from functools import total_ordering
from typing import NamedTuple

from .errors import invalid

_HEADER = struct.pack("<i", 0x75)
_TAG_ROW_PK, _TAG_ROW_DATA, _TAG_CELL, _TAG_NAME, _TAG_VALUE = 1, 2, 3, 4, 5
_TAG_TYPE, _TAG_TIMESTAMP, _TAG_DELETE_MARKER, _TAG_ROW_CRC, _TAG_CELL_CRC = 6, 7, 8, 9, 10

VT_INTEGER, VT_DOUBLE, VT_BOOLEAN, VT_STRING, VT_NULL, VT_BLOB = 0, 1, 2, 3, 6, 7
VT_INF_MIN, VT_INF_MAX, VT_AUTO_INCREMENT = 9, 10, 11

OP_DELETE_ALL, OP_DELETE_ONE, OP_INCREMENT = 1, 3, 4

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")


@total_ordering
class Mark(Enum):
    """What a primary-key column may carry instead of a value."""

    INF_MIN = VT_INF_MIN
    INF_MAX = VT_INF_MAX
    AUTO_INCREMENT = VT_AUTO_INCREMENT

    def __lt__(self, other: object) -> bool:
        # Orders the infinities against any value, so that bounds and keys compare as tuples.
        if isinstance(other, Mark):
            return self.value < other.value
        return self is Mark.INF_MIN

    __hash__ = Enum.__hash__


Value = str | int | float | bool | bytes
KeyValue = str | int | bytes | bool | Mark


class CellChange(NamedTuple):
    """One attribute cell of a request: a value to put, or an operation on the column."""

    name: str
    value: Value | None
    timestamp: int | None  #: milliseconds since the epoch
    op: int | None


class RowChange(NamedTuple):
    """One decoded row: the primary key in order, the cells, and the delete mark."""

    key: list[tuple[str, KeyValue]]
    cells: list[CellChange]
    deleted: bool


def _crc8_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = ((byte << 1) ^ 0x07) & 0xFF if byte & 0x80 else byte << 1
        table.append(byte)
    return table


_CRC8 = _crc8_table()
_FOLDED_BYTES = 16  # 127 bits


def crc8(encoded: bytes) -> int:
    """The CRC-8 (polynomial 0x07, start 0) of ``encoded``.

    x has order 127 modulo the polynomial, so blocks of 127 bits can be added together before the
    table is walked: megabytes cost additions of big integers instead of a step per byte.
    """
    if len(encoded) > 4 * _FOLDED_BYTES:  # where that is faster
        folded = int.from_bytes(encoded, "big")
        blocks = -(-len(encoded) * 8 // 127)
        while blocks > 1:
            blocks = (blocks + 1) // 2
            width = blocks * 127
            folded = (folded >> width) ^ (folded & ((1 << width) - 1))
        encoded = folded.to_bytes(_FOLDED_BYTES, "big")
    crc = 0
    table = _CRC8
    for byte in encoded:
        crc = table[crc ^ byte]
    return crc


# --- encoding -------------------------------------------------------------------------------


def variant(value: KeyValue | Value) -> bytes:
    """The type byte and payload of one value."""
    kind = type(value)
    if kind is str:
        raw = value.encode("utf-8")  # type: ignore[union-attr]  # narrowed by the exact type
        return b"\x03" + _INT32.pack(len(raw)) + raw
    if kind is int:
        return b"\x00" + _INT64.pack(value)
    if kind is float:
        return b"\x01" + _DOUBLE.pack(value)
    if kind is bool:
        return b"\x02\x01" if value else b"\x02\x00"
    if kind is bytes:
        return b"\x07" + _INT32.pack(len(value)) + value  # type: ignore[arg-type,operator]  # as above
    if isinstance(value, Mark):
        return bytes((value.value,))
    raise TypeError(f"no PlainBuffer type for {kind.__name__}")


def encode_cell(
    name: str, value: KeyValue | Value | None, timestamp: int | None = None, op: int | None = None
) -> tuple[bytes, int]:
    """One cell with its checksum.

    Returns:
        The bytes, tags included, and the checksum, which the row's checksum needs.
    """
    raw_name = name.encode("utf-8")
    parts = [b"\x03\x04", _INT32.pack(len(raw_name)), raw_name]
    checked = raw_name
    if value is not None:
        raw = variant(value)
        parts += (b"\x05", _INT32.pack(len(raw)), raw)
        checked += raw
    if op is not None:
        parts += (b"\x06", bytes((op,)))
    if timestamp is not None:
        raw = _INT64.pack(timestamp)
        parts += (b"\x07", raw)
        checked += raw
    if op is not None:
        checked += bytes((op,))
    crc = crc8(checked)
    parts += (b"\x0a", bytes((crc,)))
    return b"".join(parts), crc


def encode_row(
    key: list[tuple[bytes, int]], cells: list[tuple[bytes, int]], deleted: bool = False
) -> bytes:
    """One row without the header, from cells encoded by `encode_cell`."""
    crcs = bytes([cell[1] for cell in key] + [cell[1] for cell in cells])
    parts = [b"\x01", *[cell[0] for cell in key]]
    if cells:
        parts.append(b"\x02")
        parts += [cell[0] for cell in cells]
    if deleted:
        parts.append(b"\x08")
    parts += (b"\x09", bytes((crc8(crcs + (b"\x01" if deleted else b"\x00")),)))
    return b"".join(parts)


def encode_rows(rows: list[bytes]) -> bytes:
    """The header and the rows; empty when there are none."""
    return _HEADER + b"".join(rows) if rows else b""


# --- decoding -------------------------------------------------------------------------------


class _Reader:
    """Walks one buffer; anything malformed is the client's error."""

    __slots__ = ("data", "pos")

    def __init__(self, encoded: bytes) -> None:
        self.data = encoded
        self.pos = 0

    def byte(self) -> int:
        pos = self.pos
        if pos >= len(self.data):
            raise invalid("Invalid PlainBuffer: unexpected end.")
        self.pos = pos + 1
        return self.data[pos]

    def peek(self) -> int:
        return self.data[self.pos] if self.pos < len(self.data) else 0

    def take(self, size: int) -> bytes:
        pos = self.pos
        end = pos + size
        if size < 0 or end > len(self.data):
            raise invalid("Invalid PlainBuffer: unexpected end.")
        self.pos = end
        return self.data[pos:end]

    def expect(self, tag: int) -> None:
        tag_read = self.byte()
        if tag_read != tag:
            raise invalid(f"Invalid PlainBuffer: expected tag {tag}, found {tag_read}.")

    def size(self) -> int:
        return int(_INT32.unpack(self.take(4))[0])

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid("The value of STRING type is not encoded in UTF-8.") from None

    def variant(self) -> KeyValue | Value | None:
        encoded = self.data
        pos = self.pos + 1
        kind = self.byte()
        if kind in (VT_STRING, VT_BLOB):
            start = pos + 4
            end = start + self.size()
            if not start <= end <= len(encoded):
                raise invalid("Invalid PlainBuffer: unexpected end.")
            self.pos = end
            raw = encoded[start:end]
            return self.text(raw) if kind == VT_STRING else raw
        if kind == VT_INTEGER:
            return int(_INT64.unpack(self.take(8))[0])
        if kind == VT_DOUBLE:
            return float(_DOUBLE.unpack(self.take(8))[0])
        if kind == VT_BOOLEAN:
            return self.byte() != 0
        if kind == VT_NULL:
            return None
        try:
            return Mark(kind)
        except ValueError:
            raise invalid(f"Invalid PlainBuffer: unknown value type {kind}.") from None

    def cell(self) -> tuple[CellChange, KeyValue | Value | None, int]:
        # Written out flat: a batch has thousands of cells, and this is most of the server's work.
        encoded = self.data
        pos = self.pos
        try:
            if encoded[pos] != _TAG_CELL or encoded[pos + 1] != _TAG_NAME:
                raise invalid("Invalid PlainBuffer: a cell with its name is expected.")
            start = pos + 6
            pos = start + _INT32.unpack_from(encoded, pos + 2)[0]
            if pos < start:
                raise invalid("Invalid PlainBuffer: negative size.")
            checked = raw_name = encoded[start:pos]
            tag = encoded[pos]
            value: KeyValue | Value | None = None
            if tag == _TAG_VALUE:
                start = pos + 5
                self.pos = start
                value = self.variant()
                if self.pos - start != _INT32.unpack_from(encoded, pos + 1)[0]:
                    raise invalid("Invalid PlainBuffer: wrong size of value.")
                pos = self.pos
                checked += encoded[start:pos]
                tag = encoded[pos]
            op = timestamp = None
            if tag == _TAG_TYPE:
                op = encoded[pos + 1]
                pos += 2
                tag = encoded[pos]
            if tag == _TAG_TIMESTAMP:
                timestamp = _INT64.unpack_from(encoded, pos + 1)[0]
                checked += encoded[pos + 1 : pos + 9]
                pos += 9
                tag = encoded[pos]
            if op is not None:
                checked += bytes((op,))
            crc = encoded[pos + 1]
        except (IndexError, struct.error):
            raise invalid("Invalid PlainBuffer: unexpected end.") from None
        if tag != _TAG_CELL_CRC or crc != crc8(checked):
            raise invalid("Invalid PlainBuffer: cell checksum mismatch.")
        self.pos = pos + 2
        plain = None if isinstance(value, Mark) else value
        return CellChange(self.text(raw_name), plain, timestamp, op), value, crc

    def row(self) -> RowChange:
        self.expect(_TAG_ROW_PK)
        crcs = bytearray()
        key: list[tuple[str, KeyValue]] = []
        while self.peek() == _TAG_CELL:
            cell, value, crc = self.cell()
            if value is None or isinstance(value, float):
                raise invalid(f"Invalid type of primary key column: '{cell.name}'.")
            key.append((cell.name, value))
            crcs.append(crc)
        cells: list[CellChange] = []
        if self.peek() == _TAG_ROW_DATA:
            self.pos += 1
            while self.peek() == _TAG_CELL:
                cell, value, crc = self.cell()
                if isinstance(value, Mark):
                    raise invalid(f"Invalid type of attribute column: '{cell.name}'.")
                cells.append(cell)
                crcs.append(crc)
        deleted = self.peek() == _TAG_DELETE_MARKER
        if deleted:
            self.pos += 1
        crcs.append(1 if deleted else 0)
        self.expect(_TAG_ROW_CRC)
        if self.byte() != crc8(bytes(crcs)):
            raise invalid("Invalid PlainBuffer: row checksum mismatch.")
        return RowChange(key, cells, deleted)


def decode_rows(encoded: bytes) -> list[RowChange]:
    """Every row of a buffer.

    Raises:
        ServiceError: OTSParameterInvalid, when the buffer is malformed or a checksum is wrong.
    """
    reader = _Reader(encoded)
    if reader.take(4) != _HEADER:
        raise invalid("Invalid PlainBuffer: wrong header.")
    rows = []
    while reader.pos < len(encoded):
        rows.append(reader.row())
    return rows


def decode_row(encoded: bytes) -> RowChange:
    """The one row of a buffer.

    Raises:
        ServiceError: OTSParameterInvalid, as `decode_rows`, and when there is not exactly one row.
    """
    rows = decode_rows(encoded)
    if len(rows) != 1:
        raise invalid("Invalid PlainBuffer: exactly one row is expected.")
    return rows[0]


def decode_variant(encoded: bytes) -> Value | None:
    """A bare value, as filters and search queries carry it.

    Raises:
        ServiceError: OTSParameterInvalid, when it is malformed.
    """
    value = _Reader(encoded).variant()
    if isinstance(value, Mark):
        raise invalid("Invalid value.")
    return value
