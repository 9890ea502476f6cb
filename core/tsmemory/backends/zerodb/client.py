"""Requests of ZeroDB's API for tables, in both colours, and what its errors mean.

The shapes are those of the vendor's package (``ainative-python`` 3.1.1): paths and bodies as in
``ainative/zerodb/tables.py``, the header ``X-API-Key`` as in ``auth.py``, 401 and 429 as in
``client.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from tsmemory.engine.network import ErrorClass
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
    "MAX_ROWS",
    "AsyncFace",
    "Face",
    "RefusedError",
    "Step",
    "UnsureError",
    "classify",
    "create",
    "delete",
    "insert",
    "pause",
    "query",
    "update",
]  # fmt: skip

MAX_ROWS = 1_000
"""Of one insert (`tables.py`: "max 1000 per request"), and of one query."""

Step = Callable[[Any], Any]
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_encode = msgspec.json.Encoder().encode


class _Call(NamedTuple):
    method: str
    path: str
    body: dict[str, Any]
    once: bool = False
    """An insert: sent again after a lost reply it would add its rows twice."""


class RefusedError(Exception):
    """The service answered with an error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"ZeroDB answered {status}: {detail}")
        self.status = status


class UnsureError(Exception):
    """An insert that may or may not have taken effect; its cause is what went wrong."""


def create(schema: Mapping[str, Any], description: str) -> Callable[[str], Step]:
    """Create the table of this name; `RefusedError` with 409 where it is there."""
    return lambda table: _step(
        _Call(
            "POST",
            "",
            {"table_name": table, "schema": schema, "description": description},
        )
    )


def insert(rows: Sequence[Mapping[str, Any]]) -> Step:
    """Add rows, `MAX_ROWS` at most."""
    return _step(_Call("POST", "/rows", {"rows": rows, "return_ids": False}, once=True))


def query(
    condition: Mapping[str, Any],
    *,
    sort: Mapping[str, int] | None = None,
    limit: int = MAX_ROWS,
    offset: int = 0,
) -> Step:
    """``{"rows": […], "total": n}``."""
    body: dict[str, Any] = {"filter": condition, "limit": limit, "offset": offset}
    return _step(_Call("POST", "/query", {**body, "sort": sort} if sort else body))


def update(condition: Mapping[str, Any], changes: Mapping[str, Any]) -> Step:
    """``{"modified_count": n}``: each row that passes the filter gets the fields."""
    body = {"filter": condition, "update": {"$set": changes}, "upsert": False}
    return _step(_Call("PUT", "/rows", body))


def delete(condition: Mapping[str, Any]) -> Step:
    """``{"deleted_count": n}``."""
    return _step(_Call("DELETE", "/rows", {"filter": condition, "limit": 0}))


def pause(seconds: float) -> Step:
    """Wait, without blocking an event loop."""
    return lambda face: face.pause(seconds)


def _step(call: _Call) -> Step:
    return lambda face: face.send(call)


class _Requests:
    """Where the table is, and the headers that open it."""

    def __init__(self, http: Any, tables: str, table: str, api_key: str) -> None:
        self.http = http
        self._tables = tables
        self._table = table
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/json"}

    def _request(self, call: _Call) -> dict[str, Any]:
        place = f"/{quote(self._table, safe='')}{call.path}" if call.path else ""
        return {
            "method": call.method,
            "url": f"{self._tables}{place}",
            "content": _encode(call.body),
            "headers": self._headers,
        }


class Face(_Requests):
    """The synchronous colour, around an `httpx.Client`."""

    def send(self, call: _Call) -> Any:
        try:
            return _read(self.http.request(**self._request(call)))
        except (httpx.TransportError, RefusedError) as error:
            if _unsure(call, error):
                raise UnsureError from error
            raise

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


class AsyncFace(_Requests):
    """The asynchronous colour, around an `httpx.AsyncClient`."""

    async def send(self, call: _Call) -> Any:
        try:
            return _read(await self.http.request(**self._request(call)))
        except (httpx.TransportError, RefusedError) as error:
            if _unsure(call, error):
                raise UnsureError from error
            raise

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _read(response: httpx.Response) -> Any:
    if response.status_code >= 400:
        raise RefusedError(response.status_code, _detail(response))
    try:
        found = msgspec.json.decode(response.content)
    except msgspec.DecodeError as error:
        raise RefusedError(502, f"what came back is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RefusedError(502, "what came back is not a JSON object")
    return found


def _detail(response: httpx.Response) -> str:
    try:
        found = msgspec.json.decode(response.content)
        detail = found["detail"]
    except (msgspec.DecodeError, TypeError, LookupError):
        return response.reason_phrase
    return detail if isinstance(detail, str) else str(detail)[:500]


def _unsure(call: _Call, error: Exception) -> bool:
    """Whether the rows of an insert may be there all the same."""
    refused = isinstance(error, RefusedError) and error.status < 500
    return call.once and not refused and not isinstance(error, _NOT_SENT)


_REFUSALS: dict[int, tuple[type[TSMemoryError], str]] = {
    401: (AuthenticationError, "check ZERODB_API_KEY"),
    403: (AuthenticationError, "may this key use the project?"),
    404: (UnavailableError, "is the project id right, and has setup() created the table?"),
    413: (InvalidInputError, "the request is too large"),
    429: (ThrottledError, "it asks to slow down, and went on asking"),
}


def classify(error: Exception) -> ErrorClass:
    """What an error of the driver or the service means."""
    if isinstance(error, UnsureError) or (isinstance(error, RefusedError) and error.status == 409):
        return ErrorClass(None)  # the operation answers these itself
    if isinstance(error, RefusedError):
        again = error.status == 429 or error.status >= 500
        kind, advice = _REFUSALS.get(
            error.status, (UnavailableError if again else BackendError, "")
        )
        return ErrorClass(kind(f"{error}; {advice}" if advice else str(error)), again)
    if isinstance(error, httpx.TimeoutException):
        late = TimeoutError(f"ZeroDB did not answer in time ({type(error).__name__})")
        return ErrorClass(late, True)
    if isinstance(error, httpx.TransportError):
        return ErrorClass(UnavailableError(f"ZeroDB cannot be reached: {error}"), True)
    return ErrorClass(None)
