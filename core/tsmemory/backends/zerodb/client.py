"""Requests of ZeroDB's API for tables, sync and async, and what its errors mean.

Public texts of the vendor disagree about the API, and the service could not be asked. So two
dialects are spoken:

- ``sdk``: the vendor's package (``ainative-python`` 3.1.1, ``ainative/zerodb/tables.py``);
- ``specification``: the "Tables API Specification" v1 (January 2026).

1. Until it is known which of them the service speaks, a request that one dialect's errors say is
   another's (404 or 405 for its path, 422 ``INVALID_FIELD_NAME`` for its body) is sent in the
   other. Neither error comes from a request that took effect.
2. The first reply that fits decides.
3. A page that is shorter than what was asked for, with more behind it, is continued.
4. A connection that did not finish its exchange is closed, with its client (`engine.pool`).
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from tsmemory.engine import steps as runner
from tsmemory.engine.network import ErrorClass
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    ThrottledError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
)

__all__ = [
    "DIALECTS", "INSERT_ROWS", "MAX_ROWS", "Api", "AsyncApi", "Connection", "Dialect",
    "RefusedError", "Step", "UnsureError", "classify", "create", "delete", "insert", "pause",
    "query", "update",
]  # fmt: skip

MAX_ROWS = 1_000
"""Of one query: both dialects' maximum."""
INSERT_ROWS = 100
"""Of one insert: what the specification allows the free tier."""

Step = Callable[[Any], Any]
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Dialect(NamedTuple):
    """How one of the vendor's texts writes the requests."""

    name: str
    tables: str
    """Where tables are, behind the service's address."""
    rows_field: str
    update_method: str
    unlimited: dict[str, int]
    """What a deletion without a limit says about it."""


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("sdk", "/api/v1/projects/{project}/database/tables", "rows", "PUT", {"limit": 0}),
        Dialect("specification", "/v1/public/database/tables", "row_data", "PATCH", {}),
    )
}


class _Call(NamedTuple):
    verb: str
    body: dict[str, Any]


class RefusedError(Exception):
    """The service answered with an error, or with something that is no reply (502)."""

    def __init__(self, status: int, detail: str, code: str = "", wait: float = 0.0) -> None:
        super().__init__(f"ZeroDB answered {status}: {detail}")
        self.status, self.code = status, code
        self.wait = wait
        """Seconds that it asks to wait."""

    @property
    def table_exists(self) -> bool:
        return self.status == 409 or self.code == "TABLE_ALREADY_EXISTS"

    @property
    def is_other_dialect(self) -> bool:
        """Step 1."""
        return self.status in (404, 405) or self.code == "INVALID_FIELD_NAME"


class UnsureError(Exception):
    """An insert that may or may not have taken effect; its cause is what went wrong."""


# -- requests --------------------------------------------------------------------------------


def create(table: str, schema: Mapping[str, Any], description: str) -> Step:
    """Create a table; `RefusedError` with `table_exists` where it is there."""
    body = {"table_name": table, "schema": schema, "description": description}
    return lambda api: api.send(_Call("create", body))


def insert(rows: Sequence[Mapping[str, Any]]) -> Step:
    """Add rows, `INSERT_ROWS` at most."""
    return lambda api: api.send(_Call("insert", {"rows": rows, "return_ids": False}))


def query(
    condition: Mapping[str, Any],
    *,
    sort: Mapping[str, int] | None = None,
    limit: int = MAX_ROWS,
    offset: int = 0,
    projection: Mapping[str, int] | None = None,
) -> Step:
    """``{"rows": […], "total": n}``."""
    body: dict[str, Any] = {"filter": condition, "limit": limit, "offset": offset}
    body |= {"sort": sort} if sort else {}
    body |= {"projection": projection} if projection else {}
    return lambda api: api.send(_Call("query", body))


def update(condition: Mapping[str, Any], changes: Mapping[str, Any]) -> Step:
    """``{"modified_count": n}``: each row that passes the filter gets the fields."""
    body = {"filter": condition, "update": {"$set": changes}, "upsert": False}
    return lambda api: api.send(_Call("update", body))


def delete(condition: Mapping[str, Any]) -> Step:
    """``{"deleted_count": n}``."""
    return lambda api: api.send(_Call("delete", {"filter": condition}))


def pause(seconds: float) -> Step:
    """Wait, without blocking an event loop."""
    return lambda api: api.pause(seconds)


class Connection:
    """Where the table is, the key, and the dialect once it is known; of both modes."""

    def __init__(self, root: str, project: str, table: str, key: str, dialect: str | None) -> None:
        self.dialect = DIALECTS[dialect] if dialect else None
        self._root, self._project, self._table = root, project, table
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self._targets: dict[tuple[str, str], tuple[str, httpx.URL]] = {}

    def exchange(self, call: _Call) -> Steps[dict[str, Any]]:
        """The requests that a call takes: each step is given an httpx client."""
        refusal: RefusedError | None = None
        for dialect in [self.dialect] if self.dialect else list(DIALECTS.values()):
            try:
                reply = yield from self._answered(dialect, call)
            except RefusedError as error:
                if self.dialect is None and error.is_other_dialect:
                    refusal = refusal or error
                    continue
                if error.table_exists:
                    self.dialect = dialect  # step 2
                raise (refusal if refusal and not error.table_exists else error) from None
            self.dialect = dialect
            return reply
        assert refusal is not None  # there is at least one dialect
        raise refusal

    def _answered(self, dialect: Dialect, call: _Call) -> Steps[dict[str, Any]]:
        reply = yield from self._page(dialect, call)
        if call.verb != "query":
            return reply
        rows, limit, offset = reply["rows"], call.body["limit"], call.body["offset"]
        while len(rows) < limit and offset + len(rows) < reply["total"]:  # step 3
            body = {**call.body, "offset": offset + len(rows), "limit": limit - len(rows)}
            page = yield from self._page(dialect, _Call("query", body))
            if not page["rows"]:
                break
            rows += page["rows"]
        return reply

    def _page(self, dialect: Dialect, call: _Call) -> Steps[dict[str, Any]]:
        request = self._request(dialect, call)
        return _read(call, (yield lambda http: http.request(**request)))

    def _request(self, dialect: Dialect, call: _Call) -> dict[str, Any]:
        method, url = self._target(dialect, call.verb)
        body = call.body
        if call.verb == "insert":
            body = {**body, dialect.rows_field: body["rows"]}
            if dialect.rows_field != "rows":
                del body["rows"]
        elif call.verb == "delete":
            body = {**body, **dialect.unlimited}
        return {
            "method": method,
            "url": url,
            "content": _encode(body),
            "headers": self._headers,
        }

    def _target(self, dialect: Dialect, verb: str) -> tuple[str, httpx.URL]:
        """The method and address of a verb, parsed once: that takes a tenth of a request."""
        if (dialect.name, verb) not in self._targets:
            method, path = {
                "create": ("POST", ""),
                "insert": ("POST", "/rows"),
                "query": ("POST", "/query"),
                "update": (dialect.update_method, "/rows"),
                "delete": ("DELETE", "/rows"),
            }[verb]
            tables = self._root + dialect.tables.format(project=quote(self._project, safe=""))
            url = f"{tables}/{quote(self._table, safe='')}{path}" if path else tables
            self._targets[dialect.name, verb] = method, httpx.URL(url)
        return self._targets[dialect.name, verb]


class Api:
    """Calls over a lease of `httpx.Client`s."""

    def __init__(self, connection: Connection, lease: Callable[[], Any]) -> None:
        self._connection, self._lease = connection, lease
        self.close: Callable[[], Any] = lambda: None

    def send(self, call: _Call) -> Any:
        try:
            with self._lease() as http:
                return runner.run(self._connection.exchange(call), lambda step: step(http))
        except (httpx.TransportError, RefusedError) as error:
            if _is_unsure(call, error):
                raise UnsureError from error
            raise

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


class AsyncApi:
    """Same as `Api`, awaited, over `httpx.AsyncClient`s."""

    def __init__(self, connection: Connection, lease: Callable[[], Any]) -> None:
        self._connection, self._lease = connection, lease
        self.close: Callable[[], Any] = _nothing

    async def send(self, call: _Call) -> Any:
        try:
            async with self._lease() as http:
                return await runner.arun(self._connection.exchange(call), lambda step: step(http))
        except (httpx.TransportError, RefusedError) as error:
            if _is_unsure(call, error):
                raise UnsureError from error
            raise

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _nothing() -> None:
    return None


# -- answers ---------------------------------------------------------------------------------

_COUNTS = {
    "query": "total",
    "update": "modified_count",
    "delete": "deleted_count",
    "insert": "inserted_count",
}


def _read(call: _Call, response: httpx.Response) -> dict[str, Any]:
    if response.status_code >= 400:
        raise _refused(response)
    try:
        reply = _decode(response.content)
    except msgspec.DecodeError as error:
        raise RefusedError(502, f"what came back is not JSON: {error}") from error
    if not isinstance(reply, dict):
        raise RefusedError(502, "what came back is not a JSON object")
    count = _COUNTS.get(call.verb)
    if count is not None and type(reply.get(count)) is not int:
        raise RefusedError(502, f"the reply to {call.verb} has no number {count!r}")
    if call.verb == "insert" and reply["inserted_count"] != len(call.body["rows"]):
        raise RefusedError(502, "not all rows were inserted")
    if call.verb == "query":
        rows = reply.get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RefusedError(502, "the reply to query has no list 'rows' of objects")
    return reply


def _refused(response: httpx.Response) -> RefusedError:
    detail, code = response.reason_phrase, ""
    try:
        reply = _decode(response.content)
        code = str(reply.get("error_code") or "")
        detail = str(reply["detail"])[:500]
    except (msgspec.DecodeError, TypeError, LookupError, AttributeError):
        pass  # the status says enough
    wait = _retry_after(response.headers.get("Retry-After", ""))
    return RefusedError(response.status_code, detail, code, wait)


def _retry_after(text: str) -> float:
    """Seconds, from either form of the header (RFC 9110, section 10.2.3)."""
    try:
        if text.strip().isdecimal():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _is_unsure(call: _Call, error: Exception) -> bool:
    """Whether the rows of an insert may be there all the same."""
    refused = isinstance(error, RefusedError) and error.status < 500
    return call.verb == "insert" and not refused and not isinstance(error, _NOT_SENT)


_REFUSALS: dict[int, tuple[type[TSMemoryError], str]] = {
    401: (AuthenticationError, "check ZERODB_API_KEY"),
    403: (AuthenticationError, "may this key use the project?"),
    404: (UnavailableError, "is the project id right, and has setup() created the table?"),
    413: (InvalidInputError, "the request is too large"),
    429: (ThrottledError, "it asks to slow down"),
}


def classify(error: Exception) -> ErrorClass:
    """What an error of the driver or the service means."""
    if isinstance(error, UnsureError) or (isinstance(error, RefusedError) and error.table_exists):
        return ErrorClass(None)  # the operation answers these itself
    if isinstance(error, RefusedError):
        again = error.status == 429 or error.status >= 500
        kind, advice = _REFUSALS.get(
            error.status, (UnavailableError if again else BackendError, "")
        )
        if error.wait:
            advice += f"; it asks to wait {error.wait:.0f} s (retry_for bounds how long we do)"
        return ErrorClass(kind(f"{error}; {advice}" if advice else str(error)), again, error.wait)
    if isinstance(error, httpx.TimeoutException):
        late = TimeoutError(f"ZeroDB did not answer in time ({type(error).__name__})")
        return ErrorClass(late, True)
    if isinstance(error, httpx.TransportError):
        return ErrorClass(UnavailableError(f"ZeroDB cannot be reached: {error}"), True)
    return ErrorClass(None)
