"""The one module that touches the official SDK: requests as steps, answers as plain values.

The SDK ships neither stubs nor ``py.typed``, so what it gives is ``Any``, here and only here. Each
function makes a step (`tsmemory.engine.steps`): called with a sync or an async client, it sends one
request and converts the reply, awaited first in async, to one of the plain values below.

Traps of the SDK that this module handles: ``bytes`` are sent as text, so binary is a
``bytearray``; a column condition passes where its column is missing unless told otherwise;
``columns_to_get=[]`` means every column; the items of a batch overwrite each other by table.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, TypeVar

_LOG = logging.getLogger("tablestore")
_LEVEL = _LOG.level
try:
    with warnings.catch_warnings():
        # Where its native codec is not built for this Python, the SDK warns at import, twice over.
        warnings.simplefilter("ignore", ImportWarning)
        _LOG.setLevel(logging.ERROR)
        import tablestore as _sdk  # type: ignore[import-untyped]  # no stubs are published
finally:
    _LOG.setLevel(_LEVEL)

__all__ = [
    "CHECK_FAILED", "MAX", "MIN", "BatchWrite", "Columns", "PrimaryKey", "Row", "Write", "all_of",
    "any_of", "at_most", "batch_get", "compare", "gather", "get_range", "get_row", "negate", "put",
    "remove", "sdk", "update", "write",
]  # fmt: skip

sdk: Any = _sdk
MIN: Any = _sdk.INF_MIN
MAX: Any = _sdk.INF_MAX
CHECK_FAILED = "OTSConditionCheckFail"

T = TypeVar("T")
PrimaryKey: TypeAlias = "list[tuple[str, Any]]"
Columns: TypeAlias = "dict[str, Any]"
Step: TypeAlias = Callable[[Any], Any]

_PARALLEL = 16
"""Requests that `gather` has under way at once; a client of ours has 100 connections."""

_OPERATORS = {
    "==": _sdk.ComparatorType.EQUAL,
    ">": _sdk.ComparatorType.GREATER_THAN,
    ">=": _sdk.ComparatorType.GREATER_EQUAL,
    "<": _sdk.ComparatorType.LESS_THAN,
    "<=": _sdk.ComparatorType.LESS_EQUAL,
}


class Row(NamedTuple):
    key: tuple[Any, ...]
    """The values of the primary key, in the table's order."""
    columns: Columns


class Write(NamedTuple):
    """One row change, for `write` or a batch."""

    table: str
    change: Any


def _then(reply: Any, convert: Callable[[Any], T]) -> Any:
    """`convert(reply)`, in sync or async."""
    if not inspect.isawaitable(reply):
        return convert(reply)

    async def converted() -> T:
        return convert(await reply)

    return converted()


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray) else value


def _native(value: Any) -> Any:
    return bytearray(value) if isinstance(value, bytes) else value


def _columns(raw: Iterable[Any] | None) -> Columns:
    return {column[0]: _plain(column[1]) for column in raw or ()}


def _row(raw: Any) -> Row:
    return Row(tuple(_plain(part[1]) for part in raw.primary_key), _columns(raw.attribute_columns))


# -- conditions ------------------------------------------------------------------------------


def compare(column: str, operator: str, value: Any) -> Any:
    """A comparison that does not hold where the column is missing or of another type."""
    return _sdk.SingleColumnCondition(
        column, _native(value), _OPERATORS[operator], pass_if_missing=False
    )


def at_most(column: str, value: int | str) -> Any:
    """A comparison that also holds where the column, or the row, is missing."""
    return _sdk.SingleColumnCondition(
        column, value, _sdk.ComparatorType.LESS_EQUAL, pass_if_missing=True
    )


def _composite(operator: Any, parts: Sequence[Any]) -> Any:
    combined = _sdk.CompositeColumnCondition(operator)
    for part in parts:
        combined.add_sub_condition(part)
    return combined


def all_of(*parts: Any) -> Any:
    """Every part holds."""
    return parts[0] if len(parts) == 1 else _composite(_sdk.LogicalOperator.AND, parts)


def any_of(*parts: Any) -> Any:
    """At least one part holds."""
    return parts[0] if len(parts) == 1 else _composite(_sdk.LogicalOperator.OR, parts)


def negate(part: Any) -> Any:
    """The part does not hold."""
    return _composite(_sdk.LogicalOperator.NOT, [part])


def _condition(exists: bool | None, column: Any) -> Any:
    expectation = _sdk.RowExistenceExpectation
    row = {None: expectation.IGNORE, True: expectation.EXPECT_EXIST}.get(
        exists, expectation.EXPECT_NOT_EXIST
    )
    return _sdk.Condition(row, column)


# -- reading ---------------------------------------------------------------------------------


def get_row(table: str, key: PrimaryKey, columns: Sequence[str] | None = None) -> Step:
    """GetRow: a `Row`, or None."""

    def convert(reply: Any) -> Row | None:
        return _row(reply[1]) if reply[1] is not None else None

    return lambda client: _then(client.get_row(table, key, columns_to_get=columns), convert)


def get_range(
    table: str,
    start: PrimaryKey,
    end: PrimaryKey,
    *,
    backward: bool = False,
    limit: int | None = None,
    columns: Sequence[str] | None = None,
    condition: Any = None,
) -> Step:
    """GetRange, `start` inclusive, `end` exclusive: the rows, and where the next page starts (None
    at the end). A page may hold fewer rows than `limit`, even none, and not be the last."""
    direction = _sdk.Direction.BACKWARD if backward else _sdk.Direction.FORWARD

    def convert(reply: Any) -> tuple[list[Row], PrimaryKey | None]:
        following = reply[1] or None
        return [_row(raw) for raw in reply[2]], following

    return lambda client: _then(
        client.get_range(
            table, direction, start, end, columns, limit, column_filter=condition, max_version=1
        ),
        convert,
    )


class _BatchGet:
    """BatchGetRow that asks again only for the rows that failed."""

    def __init__(self, requested: Mapping[str, tuple[Sequence[PrimaryKey], Any]]) -> None:
        self._left = {table: (list(keys), columns) for table, (keys, columns) in requested.items()}
        self._found: dict[str, list[Row]] = {table: [] for table in requested}

    def __call__(self, client: Any) -> Any:
        request = _sdk.BatchGetRowRequest()
        for table, (keys, columns) in self._left.items():
            request.add(
                _sdk.TableInBatchGetRowItem(table, keys, columns_to_get=columns, max_version=1)
            )
        return _then(client.batch_get_row(request), self._take)

    def _take(self, reply: Any) -> dict[str, list[Row]]:
        failed = None
        for table, (keys, columns) in list(self._left.items()):
            again = []
            for key, row_reply in zip(keys, reply.get_result_by_table(table), strict=True):
                if not row_reply.is_ok:
                    failed = row_reply
                    again.append(key)
                elif row_reply.row is not None and row_reply.row.primary_key:
                    self._found[table].append(_row(row_reply.row))
            self._left[table] = (again, columns)
        self._left = {table: remaining for table, remaining in self._left.items() if remaining[0]}
        if failed is not None:
            raise _sdk.OTSServiceError(200, failed.error_code, failed.error_message)
        return self._found


def batch_get(requested: Mapping[str, tuple[Sequence[PrimaryKey], Sequence[str] | None]]) -> Step:
    """BatchGetRow of at most 100 rows: by table, the rows that are there."""
    return _BatchGet(requested)


class _Gather:
    """Several steps at once. Tried again after a failure, it repeats only what failed."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._replies: dict[int, Any] = {}

    def __call__(self, client: Any) -> Any:
        pending = [i for i in range(len(self._steps)) if i not in self._replies]
        if isinstance(client, _sdk.AsyncOTSClient):
            return self._all(client, pending)
        if len(pending) == 1:
            self._replies[pending[0]] = self._steps[pending[0]](client)
        elif pending:
            pool = ThreadPoolExecutor(min(len(pending), _PARALLEL))
            try:
                futures = {i: pool.submit(self._steps[i], client) for i in pending}
                self._take({i: _reply_or_error(future.result) for i, future in futures.items()})
            finally:  # after an interrupt, do not wait for what is on its way
                pool.shutdown(wait=False, cancel_futures=True)
        return [self._replies[i] for i in range(len(self._steps))]

    async def _all(self, client: Any, pending: list[int]) -> list[Any]:
        for start in range(0, len(pending), _PARALLEL):
            batch = pending[start : start + _PARALLEL]
            replies = await asyncio.gather(
                *(self._steps[i](client) for i in batch), return_exceptions=True
            )
            self._take(dict(zip(batch, replies, strict=True)))
        return [self._replies[i] for i in range(len(self._steps))]

    def _take(self, replies: Mapping[int, Any]) -> None:
        errors = [reply for reply in replies.values() if isinstance(reply, BaseException)]
        self._replies.update(
            (i, reply) for i, reply in replies.items() if not isinstance(reply, BaseException)
        )
        if errors:
            raise errors[0]


def _reply_or_error(result: Callable[[], Any]) -> Any:
    try:
        return result()
    except Exception as error:  # noqa: BLE001  # the others' replies are still to be taken
        return error


def gather(steps: Sequence[Step]) -> Step:
    """Several requests at the same time: their replies, in order."""
    return _Gather(steps)


# -- writing ---------------------------------------------------------------------------------


def put(
    table: str, key: PrimaryKey, columns: Columns, *, exists: bool | None = None, where: Any = None
) -> Write:
    """The whole row, replacing what is there."""
    values = [(name, _native(value)) for name, value in columns.items()]
    return Write(table, _sdk.PutRowItem(_sdk.Row(key, values), _condition(exists, where)))


def update(
    table: str,
    key: PrimaryKey,
    columns: Columns,
    drop: Sequence[str] = (),
    *,
    exists: bool | None = None,
    where: Any = None,
) -> Write:
    """Some columns of the row, made where it is missing."""
    changes: dict[str, Any] = {}
    if columns:
        changes["PUT"] = [(name, _native(value)) for name, value in columns.items()]
    if drop:
        changes["DELETE_ALL"] = list(drop)
    return Write(table, _sdk.UpdateRowItem(_sdk.Row(key, changes), _condition(exists, where)))


def remove(table: str, key: PrimaryKey, *, where: Any = None) -> Write:
    """The row, if it is there (and `where` holds)."""
    exists = None if where is None else True
    return Write(table, _sdk.DeleteRowItem(_sdk.Row(key), _condition(exists, where)))


def write(change: Write) -> Step:
    """PutRow, UpdateRow or DeleteRow of its own; None."""
    table, row_item = change
    send = {"put": "put_row", "update": "update_row", "delete": "delete_row"}[row_item.type]
    return lambda client: _then(
        getattr(client, send)(table, row_item.row, row_item.condition), lambda _: None
    )


class BatchWrite:
    """BatchWriteRow that sends again only the rows that failed for a passing reason.

    Answers with the indexes of the changes whose row condition did not hold. After a lost reply
    those may be rows that this very request wrote.

    Args:
        changes: at most 200, of different rows, 4 MB together.
        before: called before each attempt; may raise to give up.
    """

    def __init__(self, changes: Sequence[Write], before: Callable[[], None] | None = None) -> None:
        self._left = list(enumerate(changes))
        self._refused: list[int] = []
        self._before = before

    def __call__(self, client: Any) -> Any:
        if self._before is not None:
            self._before()
        tables: dict[str, list[tuple[int, Any]]] = {}
        for index, (table, row_item) in self._left:
            tables.setdefault(table, []).append((index, row_item))
        request = _sdk.BatchWriteRowRequest()
        for table, row_items in tables.items():
            request.add(
                _sdk.TableInBatchWriteRowItem(table, [row_item for _, row_item in row_items])
            )
        return _then(client.batch_write_row(request), lambda reply: self._take(reply, tables))

    def _take(self, reply: Any, tables: Mapping[str, list[tuple[int, Any]]]) -> list[int]:
        again, failed = set(), None
        for table, row_items in tables.items():
            for row_replies in (
                reply.table_of_put[table], reply.table_of_update[table],
                reply.table_of_delete[table],
            ):  # fmt: skip
                for row_reply in row_replies:
                    index = row_items[row_reply.index][0]
                    if row_reply.is_ok:
                        continue
                    if row_reply.error_code == CHECK_FAILED:
                        self._refused.append(index)
                    else:
                        again.add(index)
                        failed = row_reply
        self._left = [(index, change) for index, change in self._left if index in again]
        if failed is not None:
            raise _sdk.OTSServiceError(200, failed.error_code, failed.error_message)
        return sorted(self._refused)
