"""Ports of the loopback address that nobody else gets, for servers that cannot choose their own."""

from __future__ import annotations

import os
import socket
import sys
import weakref

__all__ = ["ReservedPort"]

_BUS = 10_000


class ReservedPort:
    """A free port, kept for one server until `release`, also while that server is restarted.

    A socket is bound to it that never listens. Such a socket keeps the system from giving the port
    to anyone who asks for any port, or to an outgoing connection; and it does not disturb a server
    that asks for this very port with ``SO_REUSEADDR``, as Redis, PostgreSQL and PgBouncer do. That
    is how Linux has it (``inet_csk_bind_conflict``); elsewhere the port is free, but not kept.

    Args:
        bus: keep the port 10,000 above it too, on which Redis Cluster's nodes talk.

    Attributes:
        number: the port.
    """

    def __init__(self, *, bus: bool = False) -> None:
        descriptors: list[int] = []
        self._release = weakref.finalize(self, _close, descriptors)
        passed_over = []
        while True:
            self.number, descriptor = _bind(0)
            if not bus:
                break
            try:
                descriptors.append(_bind(self.number + _BUS)[1])
                break
            except (OSError, OverflowError):  # taken, or no port
                passed_over.append(descriptor)  # so that it does not come again
        descriptors.append(descriptor)
        _close(passed_over)
        if sys.platform != "linux":
            self._release()

    def release(self) -> None:
        """Give it back. Can be called twice."""
        self._release()


def _bind(port: int) -> tuple[int, int]:
    """The port bound, and the descriptor that holds it."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        return bound.getsockname()[1], bound.detach()


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
