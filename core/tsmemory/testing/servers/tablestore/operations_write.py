"""The operations that write rows: PutRow, UpdateRow, DeleteRow, BatchWriteRow.

Each operation is a function of the engine, whose lock is held, the request body and the accounts to
fill in; it raises `errors.ServiceError` when the whole request is refused. A row of a batch that
fails is reported in the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import limits
from ._wire import pb
from .engine import Engine
from .errors import ServiceError, condition_failed, invalid
from .filters import Filter
from .messages import consumed, fail, injected, parse, units
from .plainbuffer import Mark, RowChange, decode_row, encode_rows
from .rows import Cell, Row, put_columns, update_columns
from .schema import Table, check_name, check_row_change
from .usage import Usage


class _Write:
    """One decoded row change, checked as far as the table does not matter."""

    def __init__(self, kind: int, encoded_row: bytes, condition: Any, returns: Any) -> None:
        self.kind = kind
        self.change: RowChange = decode_row(encoded_row)
        self.size = check_row_change(self.change, put=kind == pb.PUT)
        self.existence = condition.row_existence
        self.filter = Filter(condition.column_condition)
        if self.filter.pagination is not None:
            raise invalid("A column pagination filter cannot be a condition.")
        self.returns = returns

    @property
    def read_units(self) -> int:
        """What checking the condition costs: a conditional write reads the row first."""
        conditional = self.existence != pb.IGNORE or self.filter.passes is not None
        return 1 if conditional else 0

    def apply(self, engine: Engine, table: Table) -> bytes:
        """Do it, if its conditions hold; the row to return in PlainBuffer, or nothing."""
        key = table.ordered_key(self.change.key)
        now = engine.now()
        primary_key = tuple(self.change.key)
        if Mark.AUTO_INCREMENT in key:
            if self.kind != pb.PUT:
                raise invalid("An AUTO_INCREMENT key value is only for PutRow.")
            auto = table.next_auto
            table.next_auto += 1
            key = tuple(auto if part is Mark.AUTO_INCREMENT else part for part in key)
            primary_key = tuple(
                (name, part) for (name, _), part in zip(self.change.key, key, strict=True)
            )
        stored = table.rows.get(key)
        before = stored.live(table.cutoff(now)) if stored is not None else None
        self._check(before)
        after: Row | None = None
        if self.kind == pb.PUT:
            table.check_change(self.change, now)
            columns = put_columns(self.change.cells, now, table.options.max_versions)
            after = Row(key, primary_key, columns, now)
        elif self.kind == pb.UPDATE:
            if not table.options.allow_update:
                raise invalid(f"Table: '{table.name}' does not allow UpdateRow.")
            if not self.change.cells:
                raise invalid("Attribute column is missing.")
            table.check_change(self.change, now)
            updated = update_columns(
                before.columns if before is not None else None,
                self.change.cells,
                now,
                table.options.max_versions,
            )
            if updated is None:
                return self._returned(None, primary_key)
            after = Row(key, primary_key, updated, now)
        engine.commit(table, stored, after)
        return self._returned(after, primary_key)

    def _check(self, before: Row | None) -> None:
        if self.existence == pb.EXPECT_EXIST and before is None:
            raise condition_failed()
        if self.existence == pb.EXPECT_NOT_EXIST and before is not None:
            raise condition_failed()
        passes = self.filter.passes
        if passes is not None and not passes(before.columns if before is not None else {}):
            raise condition_failed()

    def _returned(self, after: Row | None, primary_key: Any) -> bytes:
        kind = self.returns.return_type if self.returns is not None else pb.RT_NONE
        if kind == pb.RT_NONE:
            return b""
        cells: list[Cell] = []
        if self.returns is not None and kind == pb.RT_AFTER_MODIFY and after is not None:
            names = set(self.returns.return_column_names)
            cells = [versions[0] for name, versions in after.columns.items() if name in names]
        row = after or Row((), primary_key, {}, 0)
        return encode_rows([row.encoded(cells)])


def _single_write(
    engine: Engine, kind: int, table_name: str, encoded_row: bytes, request: Any, response: Any,
    usage: Usage,
) -> bytes:  # fmt: skip
    usage.tables.append(table_name)
    check_name(table_name, "table")
    returns = request.return_content if request.HasField("return_content") else None
    write = _Write(kind, encoded_row, request.condition, returns)
    if write.size > limits.ROW_CHANGE_BYTES:
        raise invalid(
            f"The total data size of the row exceeds the limit, limit size: "
            f"{limits.ROW_CHANGE_BYTES}, data size: {write.size}."
        )
    row = write.apply(engine, engine.writable(table_name))
    usage.rows_written += 1
    if row:
        response.row = row
    consumed(response.consumed, write=units(write.size))
    return bytes(response.SerializeToString())


def put_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """PutRow."""
    request = parse(pb.PutRowRequest(), body)
    return _single_write(
        engine, pb.PUT, request.table_name, request.row, request, pb.PutRowResponse(), usage
    )


def update_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """UpdateRow."""
    request = parse(pb.UpdateRowRequest(), body)
    return _single_write(
        engine,
        pb.UPDATE,
        request.table_name,
        request.row_change,
        request,
        pb.UpdateRowResponse(),
        usage,
    )


def delete_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DeleteRow."""
    request = parse(pb.DeleteRowRequest(), body)
    return _single_write(
        engine,
        pb.DELETE,
        request.table_name,
        request.primary_key,
        request,
        pb.DeleteRowResponse(),
        usage,
    )


def batch_write_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """BatchWriteRow: not atomic.

    A bad name, an oversized value or too many rows or bytes refuse the batch, and nothing is
    written; a missing table, a wrong key or a failed condition fail their rows only.
    """
    request = parse(pb.BatchWriteRowRequest(), body)
    writes = _batch(engine, request)
    failing = usage.partial.choose(sum(map(len, writes))) if usage.partial else frozenset()
    response = pb.BatchWriteRowResponse()
    index = 0
    for part, part_writes in zip(request.tables, writes, strict=True):
        usage.tables.append(part.table_name)
        table_response = response.tables.add(table_name=part.table_name)
        refused: ServiceError | None = None
        try:
            table = engine.writable(part.table_name)
        except ServiceError as error:
            refused = error
        for write in part_writes:
            row_response = table_response.rows.add(is_ok=True)
            try:
                if refused is not None:
                    raise refused
                if index in failing:
                    raise injected(usage)
                row = write.apply(engine, table)
                if row:
                    row_response.row = row
                usage.rows_written += 1
                consumed(row_response.consumed, read=write.read_units, write=units(write.size))
            except ServiceError as error:
                fail(row_response, error)
            index += 1
    return bytes(response.SerializeToString())


def _batch(engine: Engine, request: Any) -> list[list[_Write]]:
    """The decoded changes of each table, after the checks that concern the whole batch."""
    count = sum(len(part.rows) for part in request.tables)
    if not request.tables:
        raise invalid("No row is specified in BatchWriteRow.")
    if count > limits.BATCH_WRITE_ROWS:
        raise invalid(f"Rows count exceeds the upper limit: {limits.BATCH_WRITE_ROWS}.")
    writes: list[list[_Write]] = []
    names = set()
    for part in request.tables:
        check_name(part.table_name, "table")
        if part.table_name in names:
            raise invalid(f"Duplicated table name: '{part.table_name}'.")
        names.add(part.table_name)
        if not part.rows:
            raise invalid(f"No operation is specified for table: '{part.table_name}'.")
        writes.append(
            [
                _Write(
                    row.type,
                    row.row_change,
                    row.condition,
                    row.return_content if row.HasField("return_content") else None,
                )
                for row in part.rows
            ]
        )
        if engine.options.duplicate_rows_in_batch == "refuse":
            _check_distinct(part.table_name, writes[-1])
    size = sum(write.size for part_writes in writes for write in part_writes)
    if size > limits.BATCH_WRITE_BYTES:
        raise invalid(
            f"The total data size of BatchWriteRow request exceeds the limit, limit size: "
            f"{limits.BATCH_WRITE_BYTES}, data size: {size}."
        )
    return writes


def _check_distinct(table_name: str, writes: list[_Write]) -> None:
    keys = set()
    for write in writes:
        key = tuple(write.change.key)
        if any(value is Mark.AUTO_INCREMENT for _, value in key):
            continue
        if key in keys:
            raise invalid(f"Duplicated primary key in BatchWriteRow for table: '{table_name}'.")
        keys.add(key)


OPERATIONS: dict[str, Callable[[Engine, bytes, Usage], bytes]] = {
    "BatchWriteRow": batch_write_row,
    "DeleteRow": delete_row,
    "PutRow": put_row,
    "UpdateRow": update_row,
}
