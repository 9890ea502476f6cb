"""Tables and secondary indexes: what they look like and what they accept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import limits
from ._wire import pb
from .errors import invalid, invalid_key
from .plainbuffer import CellChange, KeyValue, Mark, RowChange
from .rows import Columns, Key, Row, SortedRows, value_bytes

if TYPE_CHECKING:
    from .search import SearchIndex

_KEY_TYPES = {pb.INTEGER: int, pb.STRING: str, pb.BINARY: bytes}
_KEY_TYPE_NAMES = {pb.INTEGER: "VT_INTEGER", pb.STRING: "VT_STRING", pb.BINARY: "VT_BLOB"}
_VALUE_TYPE_NAMES = {int: "VT_INTEGER", str: "VT_STRING", bytes: "VT_BLOB", bool: "VT_BOOLEAN"}
_DEFINED_TYPES = {
    pb.DCT_INTEGER: int,
    pb.DCT_DOUBLE: float,
    pb.DCT_BOOLEAN: bool,
    pb.DCT_STRING: str,
    pb.DCT_BLOB: bytes,
}
_DEFINED_AS_KEY = {
    pb.DCT_INTEGER: pb.INTEGER,
    pb.DCT_STRING: pb.STRING,
    pb.DCT_BLOB: pb.BINARY,
}


def check_name(name: str, what: str) -> None:
    """Refuse a table, index or column name the service does not take.

    Raises:
        ServiceError: OTSParameterInvalid.
    """
    if not limits.NAME.match(name):
        raise invalid(f"Invalid {what} name: '{name}'.")


@dataclass(frozen=True)
class KeyColumn:
    """A primary-key column; ``type`` is the protobuf ``PrimaryKeyType``."""

    name: str
    type: int
    auto_increment: bool = False


@dataclass
class TableOptions:
    """Options of a table: seconds (-1: no limit), versions a column, seconds, and UpdateRow."""

    time_to_live: int = -1
    max_versions: int = 1
    deviation: int = 86_400
    allow_update: bool = True

    def merged(self, message: Any) -> TableOptions:
        """These options changed by a protobuf ``TableOptions``.

        Raises:
            ServiceError: OTSParameterInvalid, for a value out of bounds.
        """
        new = TableOptions(
            message.time_to_live if message.HasField("time_to_live") else self.time_to_live,
            message.max_versions if message.HasField("max_versions") else self.max_versions,
            message.deviation_cell_version_in_sec
            if message.HasField("deviation_cell_version_in_sec")
            else self.deviation,
            message.allow_update if message.HasField("allow_update") else self.allow_update,
        )
        if new.time_to_live != -1 and new.time_to_live < limits.LEAST_TIME_TO_LIVE_SECONDS:
            raise invalid(
                f"Invalid time to live: {new.time_to_live}, it must be -1 or at least "
                f"{limits.LEAST_TIME_TO_LIVE_SECONDS} seconds."
            )
        if new.max_versions < 1:
            raise invalid(f"Invalid max versions: {new.max_versions}.")
        if new.deviation < 1:
            raise invalid(f"Invalid deviation cell version in sec: {new.deviation}.")
        return new

    def fill(self, message: Any) -> None:
        """Write these options into a protobuf ``TableOptions``."""
        message.time_to_live = self.time_to_live
        message.max_versions = self.max_versions
        message.deviation_cell_version_in_sec = self.deviation
        message.allow_update = self.allow_update


class View:
    """What can be read by primary key: a table, or an index table."""

    def __init__(self, name: str, key_columns: tuple[KeyColumn, ...], base: Table | None) -> None:
        self.name = name
        self.key_columns = key_columns
        self.key_names = frozenset(column.name for column in key_columns)
        self.rows = SortedRows()
        self._base = base

    @property
    def base(self) -> Table:
        """The data table behind it."""
        if self._base is None:
            raise TypeError(f"{self.name} has no base table")
        return self._base

    def ordered_key(self, primary_key: list[tuple[str, KeyValue]], *, bound: bool = False) -> Key:
        """Check a primary key against the schema and give it the form that is ordered.

        Args:
            bound: whether INF_MIN and INF_MAX may stand for a value.

        Raises:
            ServiceError: OTSInvalidPK when names, number or types are not the table's.
        """
        columns = self.key_columns
        if len(primary_key) != len(columns):
            raise invalid_key(
                f"Validate PK size fail. Input: {len(primary_key)}, Meta: {len(columns)}."
            )
        key: list[KeyValue] = []
        for (name, value), column in zip(primary_key, columns, strict=True):
            if name != column.name:
                raise invalid_key(f"Validate PK name fail. Input: {name}, Meta: {column.name}.")
            if isinstance(value, Mark):
                allowed = bound if value is not Mark.AUTO_INCREMENT else column.auto_increment
                if not allowed:
                    raise invalid_key(f"Invalid value of primary key column: '{name}'.")
                key.append(value)
            elif type(value) is not _KEY_TYPES[column.type]:
                raise invalid_key(
                    f"Validate PK type fail. Input: {_VALUE_TYPE_NAMES[type(value)]}, "
                    f"Meta: {_KEY_TYPE_NAMES[column.type]}."
                )
            else:
                key.append(value)
        return tuple(key)


class Table(View):
    """A data table with its indexes.

    Attributes:
        defined: the predefined columns, name to protobuf ``DefinedColumnType``.
        ready_at: monotonic time from which row operations are answered.
        next_auto: the next value of an AUTO_INCREMENT column.
    """

    def __init__(
        self,
        name: str,
        key_columns: tuple[KeyColumn, ...],
        defined: dict[str, int],
        options: TableOptions,
        throughput: tuple[int, int],
        ready_at: float,
    ) -> None:
        super().__init__(name, key_columns, None)
        self.defined = defined
        self.options = options
        self.throughput = throughput
        self.ready_at = ready_at
        self.indexes: dict[str, IndexTable] = {}
        self.search_indexes: dict[str, SearchIndex] = {}
        self.next_auto = 1

    @property
    def base(self) -> Table:
        """The table itself."""
        return self

    def cutoff(self, now: int) -> int | None:
        """Cells older than this (ms) have expired; None when cells do not expire."""
        if self.options.time_to_live == -1:
            return None
        return now - self.options.time_to_live * 1000

    def check_change(self, change: RowChange, now: int) -> None:
        """Refuse cell versions too far from the server's clock.

        Raises:
            ServiceError: OTSParameterInvalid.
        """
        reach = self.options.deviation * 1000
        for cell in change.cells:
            if cell.timestamp is None or cell.op is not None:
                continue
            if not now - reach <= cell.timestamp < now + reach:
                raise invalid(
                    f"The version of attribute column: '{cell.name}' is out of the valid range: "
                    f"{cell.timestamp}, current: {now}, max deviation: {self.options.deviation}s."
                )


@dataclass
class IndexMeta:
    """A secondary index as it was asked for; ``local`` ones do not lag."""

    name: str
    key_names: tuple[str, ...]
    attributes: tuple[str, ...]
    local: bool

    @classmethod
    def of(cls, message: Any) -> IndexMeta:
        """From a protobuf ``IndexMeta``."""
        return cls(
            message.name,
            tuple(message.primary_key),
            tuple(message.defined_column),
            message.index_type == pb.IT_LOCAL_INDEX,
        )

    def fill(self, message: Any) -> None:
        """Write it into a protobuf ``IndexMeta``."""
        message.name = self.name
        message.primary_key.extend(self.key_names)
        message.defined_column.extend(self.attributes)
        message.index_type = pb.IT_LOCAL_INDEX if self.local else pb.IT_GLOBAL_INDEX
        message.index_update_mode = pb.IUM_SYNC_INDEX if self.local else pb.IUM_ASYNC_INDEX


@dataclass
class _IndexColumns:
    key: tuple[KeyColumn, ...]
    from_key: dict[str, int] = field(default_factory=dict)


class IndexTable(View):
    """A secondary index: the rows of its table that have every indexed column.

    The base table's primary-key columns that the index does not name are appended to its key.

    Raises:
        ServiceError: OTSParameterInvalid when the index does not fit the table.
    """

    def __init__(self, meta: IndexMeta, base: Table) -> None:
        check_name(meta.name, "index")
        columns = self._columns(meta, base)
        super().__init__(meta.name, columns.key, base)
        self.meta = meta
        self._from_key = columns.from_key

    @staticmethod
    def _columns(meta: IndexMeta, base: Table) -> _IndexColumns:
        by_name = {column.name: column for column in base.key_columns}
        if not 1 <= len(meta.key_names) <= limits.INDEX_KEY_COLUMNS:
            raise invalid(
                f"The number of index columns must be in range: [1, {limits.INDEX_KEY_COLUMNS}]."
            )
        if len(set(meta.key_names)) != len(meta.key_names):
            raise invalid("Duplicated index column name.")
        if len(meta.attributes) > limits.INDEX_ATTRIBUTE_COLUMNS:
            raise invalid(
                "The number of attribute columns of an index exceeds the upper limit: "
                f"{limits.INDEX_ATTRIBUTE_COLUMNS}."
            )
        if meta.local and meta.key_names[0] != base.key_columns[0].name:
            raise invalid(
                "The first primary key column of a local index must be the first primary key "
                f"column of its table: '{base.key_columns[0].name}'."
            )
        key = []
        for name in meta.key_names:
            if name in by_name:
                key.append(KeyColumn(name, by_name[name].type))
            elif name not in base.defined:
                raise invalid(f"Index column: '{name}' is not a primary key or defined column.")
            elif base.defined[name] not in _DEFINED_AS_KEY:
                raise invalid(f"Index column: '{name}' must be INTEGER, STRING or BINARY.")
            else:
                key.append(KeyColumn(name, _DEFINED_AS_KEY[base.defined[name]]))
        for name in meta.attributes:
            if name not in base.defined:
                raise invalid(f"Attribute column: '{name}' of the index is not a defined column.")
            if name in meta.key_names:
                raise invalid(f"Attribute column: '{name}' is an index column already.")
        key += [
            KeyColumn(column.name, column.type)
            for column in base.key_columns
            if column.name not in meta.key_names
        ]
        positions = {column.name: position for position, column in enumerate(base.key_columns)}
        return _IndexColumns(tuple(key), positions)

    def entry(self, row: Row) -> Row | None:
        """The index row of a table row; None when a column it is indexed by is not there."""
        defined = self.base.defined
        key: list[KeyValue] = []
        primary_key: list[tuple[str, KeyValue]] = []
        touched = row.touched
        for column in self.key_columns:
            position = self._from_key.get(column.name)
            if position is not None:
                key.append(row.key[position])
                primary_key.append((column.name, row.primary_key[position][1]))
                continue
            cell = row.newest(column.name)
            if cell is None or type(cell.value) is not _DEFINED_TYPES[defined[column.name]]:
                return None
            value = cell.value
            if value_bytes(value) > limits.PRIMARY_KEY_VALUE_BYTES:
                return None
            if isinstance(value, float):  # pragma: no cover - ruled out by _DEFINED_AS_KEY
                return None
            touched = cell.timestamp
            key.append(value)
            primary_key.append((column.name, value))
        columns: Columns = {}
        for name in sorted(self.meta.attributes):
            cell = row.newest(name)
            if cell is not None:
                columns[name] = (cell,)
        return Row(tuple(key), tuple(primary_key), columns, touched)

    def apply(self, before: Row | None, after: Row | None) -> None:
        """Follow a change of a row of the table."""
        old = self.entry(before) if before is not None else None
        new = self.entry(after) if after is not None else None
        if old is not None and (new is None or new.key != old.key):
            self.rows.discard(old.key)
        if new is not None:
            self.rows.set(new)


def check_row_change(change: RowChange, *, put: bool) -> int:
    """The checks that need no table, and the size of the change in bytes.

    Raises:
        ServiceError: OTSParameterInvalid, for a bad name, an oversized value or too many columns.
    """
    size = 0
    key_names = set()
    for name, key_value in change.key:
        check_name(name, "column")
        key_names.add(name)
        length = value_bytes(key_value)
        if length > limits.PRIMARY_KEY_VALUE_BYTES:
            raise invalid(
                f"The length of primary key column: '{name}' exceeds the MaxLength: "
                f"{limits.PRIMARY_KEY_VALUE_BYTES} with CurrentLength: {length}."
            )
        size += len(name) + length
    if len(change.cells) > limits.ATTRIBUTE_COLUMNS_PER_CHANGE:
        raise invalid(
            f"The number of attribute columns exceeds the upper limit: "
            f"{limits.ATTRIBUTE_COLUMNS_PER_CHANGE}, actual: {len(change.cells)}."
        )
    seen: set[tuple[str, int | None]] = set()
    for cell in change.cells:
        size += _check_cell(cell, key_names)
        version = (cell.name, cell.timestamp)
        if put and version in seen:
            raise invalid(f"Duplicated attribute column name: '{cell.name}' while putting row.")
        seen.add(version)
    return size


def _check_cell(cell: CellChange, key_names: set[str]) -> int:
    check_name(cell.name, "column")
    if cell.name in key_names:
        raise invalid(
            f"Duplicated attribute column name with primary key column name: '{cell.name}'."
        )
    if isinstance(cell.value, float) and not math.isfinite(cell.value):
        raise invalid(f"The value of attribute column: '{cell.name}' is not a finite number.")
    length = value_bytes(cell.value)
    if length > limits.ATTRIBUTE_VALUE_BYTES:
        raise invalid(
            f"The length of attribute column: '{cell.name}' exceeds the MaxLength: "
            f"{limits.ATTRIBUTE_VALUE_BYTES} with CurrentLength: {length}."
        )
    return len(cell.name) + length + (0 if cell.timestamp is None else 8)
