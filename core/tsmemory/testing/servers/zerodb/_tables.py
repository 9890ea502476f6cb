"""The tables of one project: rows of JSON, filters, sorts and updates as in MongoDB."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["MAX_LIMIT", "MAX_ROWS", "RefusedError", "Tables"]

Row = dict[str, Any]

MAX_ROWS = 1_000
"""Rows of one insert: ``tables.py``, `insert_rows`: "max 1000 per request"."""
MAX_LIMIT = 1_000
"""Rows of one query: the vendor's zerodb-local, ``api/routers/tables.py``, `TableQuery.limit`."""


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        """The specification's ``error_code``, where the status does not imply it."""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comparable(a: Any, b: Any) -> bool:
    return (_number(a) and _number(b)) or (isinstance(a, str) and isinstance(b, str))


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


_MISSING = object()
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda a, b: not _equal(a, b),
    "$gt": lambda a, b: _comparable(a, b) and a > b,
    "$gte": lambda a, b: _comparable(a, b) and a >= b,
    "$lt": lambda a, b: _comparable(a, b) and a < b,
    "$lte": lambda a, b: _comparable(a, b) and a <= b,
    "$in": lambda a, b: any(_equal(a, one) for one in b),
}


def _check_filter(query: Any) -> dict[str, dict[str, Any]]:
    """A filter with every condition written with its operators."""
    if not isinstance(query, dict):
        raise RefusedError(422, "filter: an object of conditions by field")
    conditions = {}
    for field, condition in query.items():
        if field.startswith("$"):
            raise RefusedError(422, f"filter: unknown operator {field}")
        if not isinstance(condition, dict):
            condition = {"$eq": condition}
        for name, operand in condition.items():
            if name not in _OPERATORS:
                raise RefusedError(422, f"filter: unknown operator {name}")
            if name == "$in" and not isinstance(operand, list):
                raise RefusedError(422, "filter: $in takes a list")
        conditions[field] = condition
    return conditions


def _matches(row: Row, conditions: dict[str, dict[str, Any]]) -> bool:
    return all(
        _OPERATORS[name](row.get(field, _MISSING), operand)
        for field, condition in conditions.items()
        for name, operand in condition.items()
    )


def _rank(value: Any) -> tuple[int, Any]:
    """Values of different types in one order: missing, numbers, text, the rest."""
    if value is None:
        return 0, 0
    if _number(value):
        return 1, value
    return (2, value) if isinstance(value, str) else (3, str(value))


def _updated(row: Row, update: Any) -> Row:
    if not isinstance(update, dict) or not update:
        raise RefusedError(422, "update: an object of operators")
    new = dict(row)
    for name, fields in update.items():
        if name not in ("$set", "$inc", "$unset") or not isinstance(fields, dict):
            raise RefusedError(422, f"update: unknown operator {name}")
        if "_id" in fields:
            raise RefusedError(422, "update: _id is the server's")
        for field, value in fields.items():
            if name == "$set":
                new[field] = value
            elif name == "$unset":
                new.pop(field, None)
            elif not _number(value) or not _number(new.get(field, 0)):
                raise RefusedError(422, f"update: $inc of {field} needs numbers")
            else:
                new[field] = new.get(field, 0) + value
    return new


class _Table:
    """Rows by id, and an index of the values of each field that the schema indexes.

    A row is never changed, only replaced by another: so replies hold the rows themselves.
    """

    def __init__(self, name: str, schema: dict[str, Any], description: str | None) -> None:
        self.name = name
        self.schema = schema
        self.description = description
        self.rows: dict[str, Row] = {}
        self._index: dict[str, dict[Any, dict[str, None]]] = {
            field: {} for field in schema.get("indexes", [])
        }

    def described(self) -> dict[str, Any]:
        return {
            "table_id": self.name,
            "table_name": self.name,
            "schema": self.schema,
            "description": self.description,
            "row_count": len(self.rows),
        }

    def put(self, row: Row) -> None:
        self.remove(row["_id"])
        self.rows[row["_id"]] = row
        for field, values in self._index.items():
            if isinstance(row.get(field), str):
                values.setdefault(row[field], {})[row["_id"]] = None

    def remove(self, row_id: str) -> None:
        old = self.rows.pop(row_id, {})
        for field, values in self._index.items():
            ids = values.get(old.get(field), {})
            ids.pop(row_id, None)

    def matching(self, query: Any) -> list[Row]:
        """The rows that pass a filter, in the order of insertion."""
        conditions = _check_filter(query)
        return [row for row in self._candidates(conditions) if _matches(row, conditions)]

    def _candidates(self, conditions: dict[str, dict[str, Any]]) -> Iterator[Row]:
        buckets = [
            values.get(conditions[field]["$eq"], {})
            for field, values in self._index.items()
            if isinstance(conditions.get(field, {}).get("$eq"), str)
        ]
        if not buckets:
            return iter(list(self.rows.values()))
        return iter([self.rows[row_id] for row_id in min(buckets, key=len)])


class Tables:
    """What the routes of one project answer. Every call is one atomic step."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self.lock = threading.RLock()

    def table(self, name: str) -> _Table:
        if name not in self._tables:
            raise RefusedError(404, f"Table '{name}' not found")
        return self._tables[name]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name, schema = body.get("table_name"), body.get("schema")
        if not isinstance(name, str) or not name or not isinstance(schema, dict):
            raise RefusedError(422, "table_name (text) and schema (object) are required")
        if name in self._tables:
            raise RefusedError(409, f"Table '{name}' already exists", "TABLE_ALREADY_EXISTS")
        self._tables[name] = table = _Table(name, schema, body.get("description"))
        return table.described()

    def listed(self, limit: int, offset: int) -> dict[str, Any]:
        every = [table.described() for table in self._tables.values()]
        return {"tables": every[offset : offset + limit], "total": len(every)}

    def described(self, name: str) -> dict[str, Any]:
        return self.table(name).described()

    def drop(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("confirm") is not True:
            raise RefusedError(422, "confirm must be true")
        rows = len(self.table(name).rows)
        del self._tables[name]
        return {"rows_deleted": rows}

    def insert(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        table, rows = self.table(name), body.get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RefusedError(422, "rows: a list of objects")
        if not 1 <= len(rows) <= MAX_ROWS:
            raise RefusedError(422, f"rows: 1 to {MAX_ROWS} a request, not {len(rows)}")
        ids = [str(uuid.uuid4()) for _ in rows]
        for row_id, row in zip(ids, rows, strict=True):
            table.put({**row, "_id": row_id})
        reply: dict[str, Any] = {"inserted_count": len(rows)}
        return {**reply, "row_ids": ids} if body.get("return_ids", True) else reply

    def query(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        table = self.table(name)
        limit, offset = body.get("limit", 100), body.get("offset", 0)
        if type(limit) is not int or not 0 <= limit <= MAX_LIMIT:  # 0: only the total
            raise RefusedError(422, f"limit: 0 to {MAX_LIMIT}")
        if type(offset) is not int or offset < 0:
            raise RefusedError(422, "offset: 0 or more")
        matching = table.matching(body.get("filter", {}))
        for field, way in reversed(list(body.get("sort", {}).items())):
            if way not in (1, -1):
                raise RefusedError(422, f"sort: {field} is 1 or -1")
            matching.sort(key=lambda row, f=field: _rank(row.get(f)), reverse=way == -1)  # type: ignore[misc]  # mypy: cannot infer a lambda with a default
        page = matching[offset : offset + limit]
        projection = body.get("projection")
        rows = [_projected(row, projection) if projection else row for row in page]
        return {
            "rows": rows,
            "total": len(matching),
            "limit": limit,
            "offset": offset,
        }

    def update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        table = self.table(name)
        matching = table.matching(body.get("filter"))
        for row in matching:
            table.put(_updated(row, body.get("update")))
        if matching or not body.get("upsert"):
            return {"modified_count": len(matching)}
        equals = {
            field: condition["$eq"]
            for field, condition in _check_filter(body["filter"]).items()
            if "$eq" in condition
        }
        row_id = str(uuid.uuid4())
        table.put({**_updated(equals, body.get("update")), "_id": row_id})
        return {"modified_count": 0, "upserted_id": row_id}

    def delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        table = self.table(name)
        matching = table.matching(body.get("filter"))
        limit = body.get("limit", 0)
        for row in matching[: limit or None]:
            table.remove(row["_id"])
        return {"deleted_count": len(matching[: limit or None])}


def _projected(row: Row, projection: dict[str, int]) -> Row:
    if any(projection[field] for field in projection if field != "_id"):
        fields = {field for field in projection if projection[field]} | {"_id"}
    else:
        fields = set(row)
    dropped = {field for field in projection if not projection[field]}
    return {field: value for field, value in row.items() if field in fields - dropped}
