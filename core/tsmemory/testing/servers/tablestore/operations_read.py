"""The operations that read rows: GetRow, BatchGetRow, GetRange.

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
from .errors import ServiceError, invalid
from .messages import consumed, fail, injected, parse, units
from .plainbuffer import decode_row, encode_rows
from .reading import ReadSpec
from .rows import Cell, Row
from .schema import check_name
from .usage import Usage


def _cells_bytes(cells: list[Cell]) -> int:
    return sum(cell.size for cell in cells)


def get_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """GetRow."""
    request = parse(pb.GetRowRequest(), body)
    usage.tables.append(request.table_name)
    view = engine.view(request.table_name)
    spec = ReadSpec(request, view, engine.options, engine.now())
    row = view.rows.get(view.ordered_key(decode_row(request.primary_key).key))
    response = pb.GetRowResponse(row=b"")
    size = _read_one(row, spec, response, usage)
    consumed(response.consumed, read=units(size))
    return bytes(response.SerializeToString())


def _read_one(row: Row | None, spec: ReadSpec, response: Any, usage: Usage) -> int:
    """Put the row into ``response.row``, if it is to be returned; the bytes read."""
    if row is None:
        return 0
    usage.rows_read += 1
    cells = spec.cells(row)
    if cells is None:
        return 0
    usage.rows_returned += 1
    response.row = encode_rows([row.encoded(cells)])
    return row.key_bytes() + _cells_bytes(cells)


def batch_get_row(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """BatchGetRow: a missing table or a wrong key fails its rows only."""
    request = parse(pb.BatchGetRowRequest(), body)
    count = sum(len(part.primary_key) for part in request.tables)
    if not request.tables:
        raise invalid("No row specified in the request of BatchGetRow.")
    if count > limits.BATCH_GET_ROWS:
        raise invalid(f"Rows count exceeds the upper limit: {limits.BATCH_GET_ROWS}.")
    failing = usage.partial.choose(count) if usage.partial else frozenset()
    response = pb.BatchGetRowResponse()
    index = 0
    for part in request.tables:
        usage.tables.append(part.table_name)
        table_response = response.tables.add(table_name=part.table_name)
        check_name(part.table_name, "table")
        refused: ServiceError | None = None
        try:
            view = engine.view(part.table_name)
        except ServiceError as error:
            refused = error
        else:
            spec = ReadSpec(part, view, engine.options, engine.now())
        for encoded_key in part.primary_key:
            row_response = table_response.rows.add(is_ok=True)
            try:
                if refused is not None:
                    raise refused
                if index in failing:
                    raise injected(usage)
                row = view.rows.get(view.ordered_key(decode_row(encoded_key).key))
                size = _read_one(row, spec, row_response, usage)
                consumed(row_response.consumed, read=units(size))
            except ServiceError as error:
                fail(row_response, error)
            index += 1
    return bytes(response.SerializeToString())


def get_range(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """GetRange: a page of at most 5,000 rows or 4 MB, and the key where the next one starts."""
    request = parse(pb.GetRangeRequest(), body)
    usage.tables.append(request.table_name)
    view = engine.view(request.table_name)
    if request.HasField("limit") and request.limit <= 0:
        raise invalid("The limit must be greater than 0.")
    spec = ReadSpec(request, view, engine.options, engine.now())
    start = view.ordered_key(decode_row(request.inclusive_start_primary_key).key, bound=True)
    end = view.ordered_key(decode_row(request.exclusive_end_primary_key).key, bound=True)
    backward = request.direction == pb.BACKWARD
    if backward and not start > end:
        raise invalid("Begin key must more than end key in BACKWARD")
    if not backward and not start < end:
        raise invalid("Begin key must less than end key in FORWARD")
    limit = request.limit if request.HasField("limit") else limits.RANGE_ROWS
    by_read = engine.options.range_limit_counts == "read"
    encoded_rows: list[bytes] = []
    read = size = 0
    following: Row | None = None
    for row in view.rows.walk(start, end, backward):
        if (
            (read if by_read else len(encoded_rows)) >= limit
            or read >= limits.RANGE_ROWS
            or size >= limits.RANGE_BYTES
        ):
            following = row
            break
        cells = spec.cells(row)
        row_size = row.key_bytes() + _cells_bytes(list(row.cells()) if cells is None else cells)
        if read and size + row_size > limits.RANGE_BYTES:
            following = row
            break
        read += 1
        size += row_size
        if cells is not None:
            encoded_rows.append(row.encoded(cells))
    usage.rows_read += read
    usage.rows_returned += len(encoded_rows)
    response = pb.GetRangeResponse(rows=encode_rows(encoded_rows))
    if following is not None:
        response.next_start_primary_key = encode_rows([following.encoded(())])
    consumed(response.consumed, read=units(size))
    return bytes(response.SerializeToString())


OPERATIONS: dict[str, Callable[[Engine, bytes, Usage], bytes]] = {
    "BatchGetRow": batch_get_row,
    "GetRange": get_range,
    "GetRow": get_row,
}
