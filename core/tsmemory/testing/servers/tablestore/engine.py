"""The instance: its tables and indexes, under one lock, and the file that keeps them.

The engine changes state and nothing else: what a request means is in the ``operations_*`` modules.
Every public method expects the caller to hold `Engine.lock`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from os import PathLike
from typing import Any, TypeAlias

from . import limits
from ._wire import pb, search_pb
from .definition import check_indexable, defined_columns, key_columns, table_message
from .errors import ServiceError, invalid, table_missing
from .journal import Journal, row_body, split_row_body
from .options import ServerOptions
from .plainbuffer import decode_row, encode_row, encode_rows
from .rows import Row, put_columns
from .schema import IndexMeta, IndexTable, Table, TableOptions, View, check_name
from .search import SearchIndex

_Queue: TypeAlias = "deque[tuple[float, Callable[[], None]]]"
"""Changes that an index does not show yet: when (`time.monotonic`) it will, and what."""
_REWRITE_SLACK = 1000  # records; below it a journal is not worth rewriting


class Engine:
    """Tables, indexes and their data.

    Args:
        options: see `options.ServerOptions`; shared with the caller, read at every use.
        data: a file to keep the data in; in memory when None.

    Raises:
        OSError: when the file cannot be opened or another server has it.
    """

    def __init__(self, options: ServerOptions, data: str | PathLike[str] | None = None) -> None:
        self.options = options
        self.lock = threading.RLock()
        self.tables: dict[str, Table] = {}
        self._indexes: dict[str, IndexTable] = {}
        self._lagging: _Queue = deque()
        self._lagging_local: _Queue = deque()
        self.scans: dict[bytes, float] = {}
        """Sessions of parallel scans, and when (`time.monotonic`) they expire."""
        self._journal: Journal | None = None
        if data is not None:
            journal = Journal(data)
            try:
                self._load(journal)
            except BaseException:
                journal.close()
                raise
            self._journal = journal

    # --- time ---------------------------------------------------------------------------

    def now(self) -> int:
        """The clock of cell versions, in milliseconds since the epoch."""
        return int((time.time() + self.options.clock_offset) * 1000)

    # --- finding ------------------------------------------------------------------------

    def table(self, name: str) -> Table:
        """A data table.

        Raises:
            ServiceError: OTSParameterInvalid for an impossible name, OTSObjectNotExist.
        """
        check_name(name, "table")
        table = self.tables.get(name)
        if table is None:
            raise table_missing()
        return table

    def view(self, name: str) -> View:
        """A table or index table, ready to be read.

        Raises:
            ServiceError: as `table`, and OTSTableNotReady while a new table is not.
        """
        check_name(name, "table")
        view: View | None = self.tables.get(name) or self._indexes.get(name)
        if view is None:
            raise table_missing()
        self._check_ready(view.base)
        if self._lagging or self._lagging_local:
            self.settle(due_only=True)
        return view

    def writable(self, name: str) -> Table:
        """A data table, ready to be written.

        Raises:
            ServiceError: as `view`, and OTSParameterInvalid for an index table.
        """
        check_name(name, "table")
        if name in self._indexes:
            raise invalid(f"Index table: '{name}' cannot be written.")
        table = self.table(name)
        self._check_ready(table)
        return table

    @staticmethod
    def _check_ready(table: Table) -> None:
        if table.ready_at and time.monotonic() < table.ready_at:
            raise ServiceError("OTSTableNotReady", "The table is not ready.")

    def search_index(self, table: str, index: str) -> SearchIndex:
        """A search index, with the writes that have reached it.

        Raises:
            ServiceError: OTSObjectNotExist.
        """
        search_index = self.table(table).search_indexes.get(index)
        if search_index is None:
            raise ServiceError("OTSObjectNotExist", f"index {index} does not exist")
        self.settle(due_only=True)
        return search_index

    # --- rows ---------------------------------------------------------------------------

    def commit(self, table: Table, before: Row | None, after: Row | None) -> None:
        """Replace a row (None: there is none), in the indexes too, and queue it for the file.

        Args:
            before: the row as it is stored now.
        """
        if after is not None:
            table.rows.set(after)
            if self._journal is not None:
                self._journal.add("row", _row_body(table.name, after))
        elif before is not None:
            table.rows.discard(before.key)
            if self._journal is not None:
                self._journal.add("gone", _gone_body(table.name, before))
        else:
            return
        for index in table.indexes.values():
            action = partial(index.apply, before, after)
            self._later(action, self._lagging_local if index.meta.local else self._lagging)
        for search in table.search_indexes.values():
            self._later(partial(search.apply, before, after), self._lagging)

    def _later(self, action: Callable[[], None], queue: _Queue) -> None:
        local = queue is self._lagging_local
        lag = self.options.local_index_lag if local else self.options.index_lag
        if lag > 0:
            queue.append((time.monotonic() + lag, action))
        else:
            _catch_up(queue)
            action()

    def settle(self, *, due_only: bool = False) -> None:
        """Let the lagging indexes catch up: wholly, or with what is due by now."""
        due = time.monotonic() if due_only else None
        _catch_up(self._lagging, due)
        _catch_up(self._lagging_local, due)

    def flush(self) -> None:
        """Hand what was written to the operating system, before it is acknowledged."""
        if self._journal is not None:
            self._journal.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._journal is not None:
            self._journal.close()

    def reset(self) -> None:
        """Drop every table."""
        for name in list(self.tables):
            request = pb.DeleteTableRequest(table_name=name)
            self._journal_operation("DeleteTable", request)
        self.tables.clear()
        self._indexes.clear()
        self._lagging.clear()
        self._lagging_local.clear()
        self.flush()

    # --- tables -------------------------------------------------------------------------

    def alter(self, operation: str, request: Any) -> None:
        """Perform a table operation that changes the schema, and queue it for the file.

        Args:
            operation: one of the keys of ``_TABLE_OPERATIONS``.
            request: its protobuf message.

        Raises:
            ServiceError: when it is refused; nothing has changed then.
        """
        _TABLE_OPERATIONS[operation][1](self, request)
        self._journal_operation(operation, request)

    def _journal_operation(self, operation: str, request: Any) -> None:
        if self._journal is not None:
            self._journal.add(operation, request.SerializeToString())

    def _check_free(self, name: str) -> None:
        if name in self.tables or name in self._indexes:
            raise ServiceError("OTSObjectAlreadyExist", "Requested table already exists.")
        if len(self.tables) + len(self._indexes) >= limits.TABLES_PER_INSTANCE:
            raise ServiceError(
                "OTSQuotaExhausted",
                f"Number of tables exceeded the quota: {limits.TABLES_PER_INSTANCE}.",
            )

    def _create_table(self, request: Any) -> None:
        meta = request.table_meta
        check_name(meta.table_name, "table")
        self._check_free(meta.table_name)
        columns = key_columns(meta)
        defined = defined_columns(meta, {column.name for column in columns})
        table = Table(
            meta.table_name,
            columns,
            defined,
            TableOptions().merged(request.table_options),
            (
                request.reserved_throughput.capacity_unit.read,
                request.reserved_throughput.capacity_unit.write,
            ),
            time.monotonic() + self.options.table_ready_delay
            if self.options.table_ready_delay > 0
            else 0.0,
        )
        indexes = [IndexTable(IndexMeta.of(index), table) for index in request.index_metas]
        names = [meta.table_name, *[index.name for index in indexes]]
        if len(set(names)) != len(names):
            raise ServiceError("OTSObjectAlreadyExist", "Requested table already exists.")
        for index in indexes:
            self._check_free(index.name)
        check_indexable(table.options, len(indexes), 0)
        self.tables[table.name] = table
        for index in indexes:
            self._attach(table, index)

    def _attach(self, table: Table, index: IndexTable) -> None:
        table.indexes[index.name] = index
        self._indexes[index.name] = index

    def _update_table(self, request: Any) -> None:
        table = self.table(request.table_name)
        options = table.options
        if request.HasField("table_options"):
            options = table.options.merged(request.table_options)
            check_indexable(options, len(table.indexes), len(table.search_indexes))
        elif not request.HasField("reserved_throughput"):
            raise invalid("Neither table options nor reserved throughput is specified.")
        if request.HasField("reserved_throughput"):
            unit = request.reserved_throughput.capacity_unit
            read, write = table.throughput
            table.throughput = (
                unit.read if unit.HasField("read") else read,
                unit.write if unit.HasField("write") else write,
            )
        table.options = options

    def _delete_table(self, request: Any) -> None:
        table = self.table(request.table_name)
        if table.search_indexes:
            raise invalid(
                f"Table: '{table.name}' has search indexes: delete them before the table."
            )
        for name in table.indexes:
            del self._indexes[name]
        del self.tables[table.name]

    def _create_index(self, request: Any) -> None:
        table = self.table(request.main_table_name)
        index = IndexTable(IndexMeta.of(request.index_meta), table)
        self._check_free(index.name)
        if len(table.indexes) >= limits.INDEXES_PER_TABLE:
            raise invalid(
                f"The number of secondary indexes exceeds the upper limit: "
                f"{limits.INDEXES_PER_TABLE}."
            )
        check_indexable(table.options, 1, 0)
        self._attach(table, index)
        if request.include_base_data:
            for row in table.rows.values():
                index.apply(None, row)

    def _drop_index(self, request: Any) -> None:
        table = self.table(request.main_table_name)
        if table.indexes.pop(request.index_name, None) is None:
            raise ServiceError("OTSObjectNotExist", "Requested index does not exist.")
        del self._indexes[request.index_name]

    def _create_search_index(self, request: Any) -> None:
        table = self.table(request.table_name)
        check_name(request.index_name, "index")
        if request.index_name in table.search_indexes:
            raise ServiceError("OTSObjectAlreadyExist", f"index {request.index_name} already exist")
        check_indexable(table.options, 0, 1)
        index = SearchIndex(request, table, int(time.time()))
        for row in table.rows.values():
            index.apply(None, row)
        table.search_indexes[request.index_name] = index

    def _update_search_index(self, request: Any) -> None:
        index = self.search_index(request.table_name, request.index_name)
        if request.HasField("time_to_live"):
            index.set_time_to_live(request.time_to_live)

    def _delete_search_index(self, request: Any) -> None:
        self.search_index(request.table_name, request.index_name)
        del self.tables[request.table_name].search_indexes[request.index_name]

    # --- the file -----------------------------------------------------------------------

    def _load(self, journal: Journal) -> None:
        records = 0
        for kind, body in journal.replay():
            records += 1
            if kind in _TABLE_OPERATIONS:
                message, perform = _TABLE_OPERATIONS[kind]
                request = message()
                request.ParseFromString(body)
                if kind == "DeleteTable":
                    # A reset drops tables that still have search indexes.
                    self.tables[request.table_name].search_indexes.clear()
                perform(self, request)
            elif kind == "unlisted":
                self.settle()
                name, _, encoded = split_row_body(body)
                index = self._indexes[name]
                index.rows.discard(index.ordered_key(decode_row(encoded).key))
            else:
                self._load_row(kind, body)
        self.settle()
        live = sum(len(table.rows) for table in self.tables.values())
        if records > 2 * live + _REWRITE_SLACK:
            journal.rewrite(self._snapshot())

    def _load_row(self, kind: str, body: bytes) -> None:
        name, touched, encoded = split_row_body(body)
        table = self.tables[name]
        change = decode_row(encoded)
        key = table.ordered_key(change.key)
        before = table.rows.get(key)
        if kind == "gone":
            self.commit(table, before, None)
            return
        columns = put_columns(change.cells, touched, max(1, len(change.cells)))
        self.commit(table, before, Row(key, tuple(change.key), columns, touched))
        for column, part in zip(table.key_columns, key, strict=True):
            if column.auto_increment and isinstance(part, int):
                table.next_auto = max(table.next_auto, part + 1)

    def _snapshot(self) -> Iterator[tuple[str, bytes]]:
        for table in self.tables.values():
            yield "CreateTable", table_message(table).SerializeToString()
            for row in table.rows.values():
                yield "row", _row_body(table.name, row)
            for index in table.indexes.values():
                for row in table.rows.values():
                    entry = index.entry(row)
                    if entry is not None and entry.key not in index.rows:
                        yield "unlisted", _gone_body(index.name, entry)
            for search in table.search_indexes.values():
                yield "CreateSearchIndex", search.request.SerializeToString()


#: The table operations a journal holds: the message of each, and what performs it.
_TABLE_OPERATIONS: dict[str, tuple[Callable[[], Any], Callable[[Engine, Any], None]]] = {
    "CreateTable": (pb.CreateTableRequest, Engine._create_table),
    "UpdateTable": (pb.UpdateTableRequest, Engine._update_table),
    "DeleteTable": (pb.DeleteTableRequest, Engine._delete_table),
    "CreateIndex": (pb.CreateIndexRequest, Engine._create_index),
    "DropIndex": (pb.DropIndexRequest, Engine._drop_index),
    "CreateSearchIndex": (search_pb.CreateSearchIndexRequest, Engine._create_search_index),
    "UpdateSearchIndex": (search_pb.UpdateSearchIndexRequest, Engine._update_search_index),
    "DeleteSearchIndex": (search_pb.DeleteSearchIndexRequest, Engine._delete_search_index),
}


def _catch_up(queue: _Queue, due: float | None = None) -> None:
    """Perform what waits in the queue; with `due`, only what is due by then."""
    while queue and (due is None or queue[0][0] <= due):
        queue.popleft()[1]()


def _row_body(table: str, row: Row) -> bytes:
    return row_body(table, row.touched, encode_rows([row.encoded(row.cells())]))


def _gone_body(name: str, row: Row) -> bytes:
    return row_body(name, 0, encode_rows([encode_row(row.encoded_key(), [], deleted=True)]))
