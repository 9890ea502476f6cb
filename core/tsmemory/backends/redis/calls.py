"""Calls of scripts and commands: what is sent, and whether a reply answers it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import redis.exceptions as driver

__all__ = ["Aside", "Call", "ForeignReplyError", "Script", "plain", "scripted"]

_numbers = itertools.count()
_PROCESS = os.urandom(4).hex()


class ForeignReplyError(driver.ConnectionError):
    """The reply to another command was read."""


class Script(NamedTuple):
    """A script and the name by which the server knows it."""

    text: str
    sha: str


class Call(NamedTuple):
    """A script, or a plain command, with its keys and arguments."""

    script: Script | None
    keys: Sequence[str | bytes]
    args: Sequence[Any] = ()
    node: Any = None
    """The Cluster's node to ask; None: the one that has the keys."""
    number: bytes = b""
    """What a script's reply begins with."""

    def pack(self, *, whole: bool = False) -> bytes:
        """The command as it is sent; `whole` sends the script itself, which loads it."""
        script = self.script
        if script is None:
            return _pack(self.args)
        verb, name = ("EVAL", script.text) if whole else ("EVALSHA", script.sha)
        return _pack((verb, name, len(self.keys), *self.keys, *self.args, self.number))

    def answer(self, reply: Any) -> Any:
        """What a reply holds for this call.

        Raises:
            ForeignReplyError: it answers another.
        """
        if self.script is None or isinstance(reply, Exception):
            return reply
        if type(reply) is not list or len(reply) != 2 or reply[0] != self.number:
            raise ForeignReplyError("a reply to another command was read")
        return reply[1]


def scripted(
    script: Script, keys: Sequence[str | bytes], args: Sequence[Any] = (), node: Any = None
) -> Call:
    """A call of a script, numbered."""
    return Call(script, keys, args, node, f"{_PROCESS}.{next(_numbers):x}".encode())


def plain(*args: Any, node: Any = None) -> Call:
    """A plain command; its first argument after the name is its key, unless `node` is given."""
    return Call(None, args[1:2] if node is None else (), args, node)


def _pack(parts: Iterable[Any]) -> bytes:
    """A command in the protocol's form: https://valkey.io/topics/protocol/."""
    packed = [b""]
    for part in parts:
        encoded = part if isinstance(part, bytes) else str(part).encode()
        packed += (b"$%d\r\n" % len(encoded), encoded, b"\r\n")
    packed[0] = b"*%d\r\n" % (len(packed) // 3)
    return b"".join(packed)


class Aside(NamedTuple):
    """Questions that go along with a client's first exchange, and what hears the replies."""

    questions: Callable[[Any], Sequence[Call]]
    hear: Callable[[list[Any]], None]
