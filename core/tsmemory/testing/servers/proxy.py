"""A proxy that loses replies on purpose."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CuttingProxy"]


class CuttingProxy:
    """Passes bytes between clients and a server, and cuts connections when asked.

    After ``cut_next_reply(text)`` the first connection whose request holds `text` is cut when the
    server has answered it and before the client has the answer: the write was made, its reply is
    lost. `cuts` counts them.

    Args:
        port: the server's.
        tls: makes it speak TLS to the clients, which the servers of the wheels cannot.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._wanted: bytes | None = None
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()

    def cut_next_reply(self, text: bytes = b"EVAL") -> None:
        """Lose the reply to the next request that holds `text`."""
        with self._lock:
            self._wanted = text

    def _take(self, received: bytes) -> bool:
        with self._lock:
            if self._wanted is None or self._wanted not in received:
                return False
            self._wanted = None
            return True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._tls is not None:
                try:
                    client = self._tls.wrap_socket(client, server_side=True)
                except OSError:  # a client that does not trust us
                    continue
            server = socket.create_connection(("127.0.0.1", self._target))
            for connection in (client, server):  # or small parts wait for an acknowledgement, 40 ms
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets |= {client, server}
            cut = threading.Event()
            for source, sink, requests in ((client, server, True), (server, client, False)):
                self._run(self._pump, source, sink, cut, requests)

    def _pump(
        self, source: socket.socket, sink: socket.socket, cut: threading.Event, requests: bool
    ) -> None:
        try:
            while received := source.recv(1 << 16):
                if requests and self._take(received):
                    cut.set()
                elif not requests and cut.is_set():
                    self.cuts += 1
                    break
                sink.sendall(received)
        except OSError:
            pass
        for closing in (source, sink):
            with suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # A closed listener alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._sockets:
            connection.close()
