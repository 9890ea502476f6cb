"""HTTP in front of `Tables`: routes, the key, faults, and the count of what was asked."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tsmemory.testing.servers.zerodb._tables import MAX_ROWS, RefusedError, Tables

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LocalZeroDB"]

DEFAULT_PROJECT = "local-project"
DEFAULT_API_KEY = "local-api-key"
FREE_TIER_ROWS = 100
"""Rows of one insert, in the specification's free tier."""
_MAX_BODY = 16 * 1024 * 1024  # bytes; ours, the vendor names none
_PATHS = {
    "sdk": re.compile(
        r"/api/v1/projects/(?P<project>[^/]+)/database/tables"
        r"(?:/(?P<table>[^/]+)(?:/(?P<verb>rows|query))?)?"
    ),
    "specification": re.compile(
        r"/v1/public/database/tables(?:/(?P<table>[^/]+)(?:/(?P<verb>rows|query))?)?"
    ),
}
_CODES = {401: "INVALID_API_KEY", 404: "TABLE_NOT_FOUND", 429: "RATE_LIMIT_EXCEEDED"}
"""The specification's error codes that follow from the status."""

Call = Callable[[Tables, str, dict[str, Any], dict[str, str]], dict[str, Any]]


def _drop(tables: Tables, name: str, body: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    # The package sends the confirmation in the body, the specification in the query.
    confirmed = body.get("confirm") is True or query.get("confirm") == "true"
    return tables.drop(name, {"confirm": confirmed})


def _insert(field: str, most: int) -> Call:
    def insert(
        tables: Tables, name: str, body: dict[str, Any], _: dict[str, str]
    ) -> dict[str, Any]:
        if field not in body:
            wrong = next((n for n in ("rows", "row_data", "data", "items") if n in body), "")
            raise RefusedError(422, f"Use {field!r} instead of {wrong!r}", "INVALID_FIELD_NAME")
        rows = body[field]
        if isinstance(rows, list) and len(rows) > most:
            raise RefusedError(422, f"{field}: {most} a request, not {len(rows)}")
        return tables.insert(name, {**body, "rows": rows})

    return insert


def _routes(insert: tuple[int, Call], update: str) -> dict[tuple[str, str], tuple[str, int, Call]]:
    """By method and kind of path: the verb, the status, and what answers."""
    return {
        ("POST", "tables"): ("create", 201, lambda t, _, body, __: t.create(body)),
        ("GET", "tables"): (
            "tables",
            200,
            lambda t, _, __, q: t.listed(int(q.get("limit", 100)), int(q.get("offset", 0))),
        ),
        ("GET", "table"): ("table", 200, lambda t, name, _, __: t.described(name)),
        ("DELETE", "table"): ("drop", 200, _drop),
        ("POST", "rows"): ("insert", *insert),
        (update, "rows"): ("update", 200, lambda t, name, body, _: t.update(name, body)),
        ("DELETE", "rows"): ("delete", 200, lambda t, name, body, _: t.delete(name, body)),
        ("POST", "query"): ("query", 200, lambda t, name, body, _: t.query(name, body)),
    }


_ROUTES = {
    "sdk": _routes((200, _insert("rows", MAX_ROWS)), "PUT"),
    "specification": _routes((201, _insert("row_data", FREE_TIER_ROWS)), "PATCH"),
}


@dataclass
class _Fault:
    """What happens to a request instead of its answer."""

    verb: str | None
    """Which: create, tables, table, drop, insert, update, delete, query; None: any."""
    status: int | None
    """The answer; None: the connection ends without one."""
    when: Literal["before", "after"]
    """Whether the request takes effect first."""
    later: int = 0
    """How many such requests are answered well before."""


class LocalZeroDB:
    """A ZeroDB project's tables, served by threads of this process; a context manager.

    Args:
        project, api_key: what clients must present (path, and the header ``X-API-Key``; the
            specification has no project in its paths).
        dialect: which of the vendor's texts it plays: ``"sdk"`` or ``"specification"``.
        requests_per_minute: more are answered with 429 and ``Retry-After``; None: no limit.
        host: the address to listen on.
        port: 0 chooses a free one.

    Raises:
        OSError: the address is taken.
    """

    def __init__(
        self,
        *,
        project: str = DEFAULT_PROJECT,
        api_key: str = DEFAULT_API_KEY,
        dialect: Literal["sdk", "specification"] = "sdk",
        requests_per_minute: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.project = project
        self.api_key = api_key
        self.dialect = dialect
        self.requests_per_minute = requests_per_minute
        self._times: deque[float] = deque()
        self.tables = Tables()
        """The data itself, for tests that go round the API."""
        self.requests: Counter[str] = Counter()
        """How often each of create, tables, table, drop, insert, update, delete, query came."""
        self._faults: list[_Fault] = []
        self._http = _HTTPServer((host, port), _Handler)
        self._http.owner = self
        self._address = host, int(self._http.server_address[1])
        self.endpoint = f"http://{host}:{self._address[1]}"
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="local-zerodb", daemon=True)

    @property
    def url(self) -> str:
        """What `open_store` takes; the key comes from ``ZERODB_API_KEY`` or ``api_key=``."""
        return f"zerodb+{self.endpoint}/{self.project}"

    def fail(self, status: int, *, times: int = 1, verb: str | None = None) -> None:
        """Answer the next requests with an error; they do not take effect."""
        self._faults += [_Fault(verb, status, "before") for _ in range(times)]

    def drop(
        self,
        when: Literal["before", "after"],
        *,
        times: int = 1,
        verb: str | None = None,
        status: int | None = None,
        later: int = 0,
    ) -> None:
        """End the connection instead of answering, before or after the request takes effect.

        Args:
            times: how many requests.
            verb: which; see `requests`. None: any.
            status: answer with this error all the same (with "after": a 500 for work done).
            later: how many such requests are answered well before.
        """
        self._faults += [_Fault(verb, status, when, later) for _ in range(times)]

    def forgive(self) -> None:
        """Forget the faults that have not come yet."""
        self._faults.clear()

    def retry_after(self) -> int:
        """Seconds until the next request is answered: the header of a 429."""
        if not self._times:
            return 1
        return max(1, math.ceil(self._times[0] + 60 - time.monotonic()))

    def _fault(self, verb: str) -> _Fault | None:
        for i, fault in enumerate(self._faults):
            if fault.verb in (None, verb):
                if fault.later == 0:
                    return self._faults.pop(i)
                fault.later -= 1
        return None

    def _serve(self) -> None:
        # Not serve_forever, which looks many times a second whether it should end.
        while not self._stopped:
            self._http.handle_request()

    def start(self) -> Self:
        """Begin to answer, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every connection and let go of the port."""
        self._stopped = True
        if self._thread.is_alive():  # it waits for the next connection
            socket.create_connection(self._address).close()
        self._thread.join()
        self._http.end_connections()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(
        self, method: str, target: str, key: str | None, body: bytes
    ) -> tuple[int, dict[str, Any]] | None:
        """The status and body for a request; None: end the connection."""
        parts = urlsplit(target)
        match = _PATHS[self.dialect].fullmatch(parts.path)
        if match is None:
            return 404, {"detail": "Not Found"}
        kind = match["verb"] or ("table" if match["table"] else "tables")
        routes = _ROUTES[self.dialect]
        if (method, kind) not in routes:
            return 405, {"detail": "Method Not Allowed"}
        verb, status, call = routes[method, kind]
        with self.tables.lock:
            self.requests[verb] += 1
            fault = self._fault(verb)
            if fault is None or fault.when == "after":
                try:
                    self._admit(key, unquote(match.groupdict().get("project", self.project)))
                    query = {n: v[0] for n, v in parse_qs(parts.query).items()}
                    name = unquote(match["table"] or "")
                    reply = status, call(self.tables, name, _decoded(body), query)
                except RefusedError as error:
                    reply = self._refusal(error)
            if fault is None:
                return reply
            if fault.status is None:
                return None
            return fault.status, {"detail": "a fault that was asked for"}

    def _refusal(self, error: RefusedError) -> tuple[int, dict[str, Any]]:
        if self.dialect == "sdk":
            return error.status, {"detail": error.detail}
        status = 400 if error.code == "TABLE_ALREADY_EXISTS" else error.status
        code = error.code or _CODES.get(status, "QUERY_SYNTAX_ERROR")
        return status, {"detail": error.detail, "error_code": code}

    def _admit(self, key: str | None, project: str) -> None:
        if key != self.api_key:
            raise RefusedError(401, "Invalid API credentials")
        if project != self.project:
            raise RefusedError(404, "Project not found")
        if self.requests_per_minute is not None:
            now = time.monotonic()
            while self._times and self._times[0] <= now - 60:
                self._times.popleft()
            if len(self._times) >= self.requests_per_minute:
                raise RefusedError(429, "Too many requests")
            self._times.append(now)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(body) if body else {}
    except ValueError as error:
        raise RefusedError(422, f"the body is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise RefusedError(422, "the body is a JSON object")
    return decoded


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: LocalZeroDB

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Kept-alive connections would keep their threads, and their clients waiting."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has just ended by itself
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HTTPServer  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever handed this one

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MAX_BODY:
            self.close_connection = True
            return self._reply(413, {"detail": f"the body has more than {_MAX_BODY} bytes"})
        body = self.rfile.read(size)
        key = self.headers.get("X-API-Key")
        reply = self.server.owner.answer(self.command, self.path, key, body)
        if reply is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self._reply(*reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  # the names of http.server

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        if status == 429:
            self.send_header("Retry-After", str(self.server.owner.retry_after()))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as in http.server
        """Nothing: requests are counted, not logged."""
