"""HTTP/1.1 on sockets: one thread a connection, kept alive, each reply in a single send."""

from __future__ import annotations

import hmac
import json
import selectors
import socket
import socketserver
import threading
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import IO

from .errors import ServiceError, invalid
from .service import Reply, Service

CONTROL_KEY_HEADER = "x-control-key"
_CONTROL = "/_control/"
_MAX_HEADERS = 64 * 1024
# A body over the service's 5 MB is still read, so that it can be answered.
_MAX_BODY = 64 * 1024 * 1024


class _BadRequestError(Exception):
    """What came in is not HTTP; the connection is closed after the reply."""


class _Connection(socketserver.BaseRequestHandler):
    """Reads requests off one connection and answers them in order."""

    server: TablestoreHTTPServer  # pyright: ignore[reportIncompatibleVariableOverride]  # only ever handed this one

    def handle(self) -> None:
        sock: socket.socket = self.request
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.opened(sock)
        try:
            with sock.makefile("rb") as stream, suppress(ConnectionError):
                while self._one(sock, stream):
                    pass
        finally:
            self.server.closed(sock)

    def _one(self, sock: socket.socket, stream: IO[bytes]) -> bool:
        """Answer one request; whether the connection stays open."""
        service = self.server.service
        try:
            request = _read_request(stream)
        except _BadRequestError as error:
            sock.sendall(_encode(service.refuse(invalid(str(error))), keep=False))
            return False
        if request is None:
            return False
        method, path, headers, body = request
        keep = headers.get("connection", "").lower() != "close"
        reply: Reply | None
        if path.startswith(_CONTROL):
            reply = _control_reply(service, path[len(_CONTROL) :], method, headers, body)
        elif method != "POST":
            reply = service.refuse(
                ServiceError("OTSMethodNotAllowed", "Only POST method for requests is supported.")
            )
        else:
            reply = service.handle(path, headers, body)
        if reply is None:
            return False
        sock.sendall(_encode(reply, keep=keep))
        return keep


def _read_request(stream: IO[bytes]) -> tuple[str, str, dict[str, str], bytes] | None:
    """Method, path, headers in lower case, body; None at the end of the stream."""
    line = stream.readline(_MAX_HEADERS)
    if not line:
        return None
    parts = line.decode("latin-1").split()
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _BadRequestError("Not an HTTP/1.1 request.")
    lines: list[bytes] = []
    size = len(line)
    while (line := stream.readline(_MAX_HEADERS)) not in (b"\r\n", b"\n", b""):
        size += len(line)
        if size > _MAX_HEADERS:
            raise _BadRequestError("The headers are too large.")
        lines.append(line)
    headers: dict[str, str] = {}
    for text in b"".join(lines).decode("latin-1").split("\n")[:-1]:
        name, colon, value = text.partition(":")
        if not colon:
            raise _BadRequestError("Invalid header.")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise _BadRequestError("A Content-Length is required.")
    try:
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise _BadRequestError("Invalid Content-Length.") from None
    if not 0 <= length <= _MAX_BODY:
        raise _BadRequestError("Invalid Content-Length.")
    body = stream.read(length)
    if len(body) < length:
        return None
    return parts[0], parts[1], headers, body


def _control_reply(
    service: Service, verb: str, method: str, headers: Mapping[str, str], body: bytes
) -> Reply:
    """Answer a control request, from a program that has the key.

    A web page could send one, too: it is refused by its ``Origin``, and cannot set the header of
    the key without a preflight, which is not answered.
    """
    given = headers.get(CONTROL_KEY_HEADER, "")
    key = service.control_key
    status, result = 403, {"error": f"the control endpoints want the key in {CONTROL_KEY_HEADER}"}
    if "origin" in headers or method != "POST":
        result = {"error": "the control endpoints are not for web pages"}
    elif key and hmac.compare_digest(given.encode("latin-1"), key.encode("latin-1")):
        try:
            arguments = json.loads(body) if body else {}
            status, result = 200, service.control.call(verb, arguments)
        except (ValueError, TypeError) as error:
            status, result = 400, {"error": str(error)}
    content = json.dumps(result).encode("utf-8")
    return Reply(status, {"content-type": "application/json"}, content)


def _encode(reply: Reply, *, keep: bool) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Error"
    lines = [f"HTTP/1.1 {reply.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines.append(f"content-length: {len(reply.body)}")
    if not keep:
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + reply.body


class TablestoreHTTPServer(socketserver.ThreadingTCPServer):
    """Listens on loopback.

    Args:
        service: answers the requests.
        host: an address to listen on.
        port: 0 chooses a free one.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, service: Service, host: str, port: int) -> None:
        self.service = service
        self._sockets: set[socket.socket] = set()
        self._idle = threading.Condition()
        super().__init__((host, port), _Connection)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="local-tablestore", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Accept connections, in a thread. Can be called twice."""
        if self._thread.ident is None:
            self._thread.start()

    def _serve(self) -> None:
        # Not `serve_forever`, which looks for its end, and wakes for it, at intervals.
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while all(key.fileobj is self for key, _ in selector.select()):
                self.handle_request()

    def opened(self, sock: socket.socket) -> None:
        """A connection has begun."""
        with self._idle:
            self._sockets.add(sock)

    def closed(self, sock: socket.socket) -> None:
        """A connection has ended."""
        with self._idle:
            self._sockets.discard(sock)
            self._idle.notify_all()

    def stop(self) -> None:
        """Stop listening, end every connection and wait for what is being done, 5 s at most. Can
        be called twice."""
        self.service.stop()
        self._stop.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._stopped.close()
        self.server_close()
        with self._idle:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._idle.wait_for(lambda: not self._sockets, timeout=5)
