"""Rows in memory: immutable once stored, ordered by primary key.

A write builds a new `Row` and replaces the old one, so readers, indexes and the lag queue share
rows without copying or locking.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from .errors import invalid
from .plainbuffer import (
    OP_DELETE_ALL,
    OP_DELETE_ONE,
    OP_INCREMENT,
    CellChange,
    KeyValue,
    Value,
    encode_cell,
    encode_row,
)

#: A primary key as it is ordered. Python orders strings by code point, which is the order of their
#: UTF-8 bytes, the service's order.
Key = tuple[KeyValue, ...]

_FIXED_BYTES = {int: 8, float: 8, bool: 1}


def value_bytes(value: KeyValue | Value | None) -> int:
    """The size of a value as the service counts it, in bytes."""
    kind = type(value)
    if kind is str:
        return len(value.encode("utf-8"))  # type: ignore[union-attr]  # narrowed by the exact type
    if kind is bytes:
        return len(value)  # type: ignore[arg-type]  # narrowed by the exact type
    return _FIXED_BYTES.get(kind, 0)


class Cell:
    """One version of one attribute column.

    Attributes:
        timestamp: the version, in milliseconds since the epoch.
        size: name and value, in bytes.
    """

    __slots__ = ("_encoded", "name", "size", "timestamp", "value")

    def __init__(self, name: str, value: Value, timestamp: int) -> None:
        self.name = name
        self.value = value
        self.timestamp = timestamp
        self.size = len(name) + value_bytes(value)
        self._encoded: tuple[bytes, int] | None = None

    def encoded(self) -> tuple[bytes, int]:
        """The cell in PlainBuffer and its checksum, kept for the next read."""
        if self._encoded is None:
            self._encoded = encode_cell(self.name, self.value, self.timestamp)
        return self._encoded


#: Column name to versions, newest first; the names are in order.
Columns = dict[str, tuple[Cell, ...]]


class Row:
    """One stored row.

    Attributes:
        key: the primary key as it is ordered.
        primary_key: the primary key as it was written, names included.
        columns: every attribute cell.
        touched: when the row was last written, in milliseconds; it ages a row without columns.
    """

    __slots__ = ("_encoded_key", "columns", "key", "primary_key", "touched")

    def __init__(
        self,
        key: Key,
        primary_key: tuple[tuple[str, KeyValue], ...],
        columns: Columns,
        touched: int,
    ) -> None:
        self.key = key
        self.primary_key = primary_key
        self.columns = columns
        self.touched = touched
        self._encoded_key: list[tuple[bytes, int]] | None = None

    def encoded_key(self) -> list[tuple[bytes, int]]:
        """The primary-key cells in PlainBuffer, kept for the next read."""
        if self._encoded_key is None:
            self._encoded_key = [encode_cell(name, value) for name, value in self.primary_key]
        return self._encoded_key

    def encoded(self, cells: Iterable[Cell]) -> bytes:
        """The row with these cells in PlainBuffer, without the header."""
        return encode_row(self.encoded_key(), [cell.encoded() for cell in cells])

    def key_bytes(self) -> int:
        """The size of the primary key, names included."""
        return sum(len(name) + value_bytes(value) for name, value in self.primary_key)

    def cells(self) -> Iterator[Cell]:
        """Every version of every column."""
        for versions in self.columns.values():
            yield from versions

    def newest(self, name: str) -> Cell | None:
        """The latest version of a column, if there is one."""
        versions = self.columns.get(name)
        return versions[0] if versions else None

    def live(self, cutoff: int | None) -> Row | None:
        """The row without the cells older than ``cutoff`` (ms); None when nothing is left."""
        if cutoff is None:
            return self
        if not self.columns:
            return self if self.touched >= cutoff else None
        columns: Columns = {}
        whole = True
        for name, versions in self.columns.items():
            live_cells = tuple(cell for cell in versions if cell.timestamp >= cutoff)
            whole = whole and len(live_cells) == len(versions)
            if live_cells:
                columns[name] = live_cells
        if whole:
            return self
        return Row(self.key, self.primary_key, columns, self.touched) if columns else None


def _merged(versions: tuple[Cell, ...], cell: Cell, max_versions: int) -> tuple[Cell, ...]:
    if not versions or max_versions == 1:
        older = versions and versions[0].timestamp > cell.timestamp
        return versions if older else (cell,)
    merged = [other for other in versions if other.timestamp != cell.timestamp]
    merged.append(cell)
    merged.sort(key=lambda version: -version.timestamp)
    return tuple(merged[:max_versions])


def put_columns(cells: list[CellChange], now: int, max_versions: int) -> Columns:
    """The columns of a row that is put, whatever was there before."""
    columns: Columns = {}
    for change in cells:
        if change.op is not None or change.value is None:
            raise invalid(f"The value of attribute column: '{change.name}' is missing.")
        version = now if change.timestamp is None else change.timestamp
        cell = Cell(change.name, change.value, version)
        columns[change.name] = _merged(columns.get(change.name, ()), cell, max_versions)
    return dict(sorted(columns.items()))


def update_columns(
    before: Columns | None, cells: list[CellChange], now: int, max_versions: int
) -> Columns | None:
    """The columns of a row that is updated, in the order of the operations.

    Returns:
        None when there was no row and nothing was put: deleting columns creates no row.
    """
    columns = dict(before or {})
    wrote = before is not None
    for change in cells:
        name = change.name
        if change.op == OP_DELETE_ALL:
            columns.pop(name, None)
            continue
        if change.op == OP_DELETE_ONE:
            if change.timestamp is None:
                raise invalid(f"The version to delete of column: '{name}' is missing.")
            remaining = tuple(c for c in columns.get(name, ()) if c.timestamp != change.timestamp)
            if remaining:
                columns[name] = remaining
            else:
                columns.pop(name, None)
            continue
        value = change.value
        if change.op == OP_INCREMENT:
            old = columns[name][0].value if name in columns else 0
            if type(value) is not int or type(old) is not int:
                raise invalid(f"The attribute column: '{name}' is not INTEGER.")
            value = (old + value + 2**63) % 2**64 - 2**63
        elif change.op is not None:
            raise invalid(f"Invalid operation on attribute column: '{name}'.")
        if value is None:
            raise invalid(f"The value of attribute column: '{name}' is missing.")
        cell = Cell(name, value, now if change.timestamp is None else change.timestamp)
        columns[name] = _merged(columns.get(name, ()), cell, max_versions)
        wrote = True
    return dict(sorted(columns.items())) if wrote else None


class SortedRows:
    """Rows by primary key: O(log n) to find where a range starts, no copy to walk it."""

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._rows: dict[Key, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def get(self, key: Key) -> Row | None:
        """The row with exactly this key."""
        return self._rows.get(key)

    def set(self, row: Row) -> None:
        """Insert or replace."""
        if row.key not in self._rows:
            keys = self._keys
            if not keys or keys[-1] < row.key:
                keys.append(row.key)
            else:
                insort(keys, row.key)
        self._rows[row.key] = row

    def discard(self, key: Key) -> None:
        """Remove, if it is there."""
        if self._rows.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def values(self) -> Iterator[Row]:
        """Every row in key order. The rows must not change meanwhile."""
        return (self._rows[key] for key in self._keys)

    def walk(self, start: Key, end: Key, backward: bool) -> Iterator[Row]:
        """The rows from ``start`` (inclusive) to ``end`` (exclusive) in the given direction.

        The rows must not change meanwhile.
        """
        keys, rows = self._keys, self._rows
        if backward:
            index = bisect_right(keys, start) - 1
            while index >= 0 and keys[index] > end:
                yield rows[keys[index]]
                index -= 1
        else:
            index = bisect_left(keys, start)
            count = len(keys)
            while index < count and keys[index] < end:
                yield rows[keys[index]]
                index += 1
