"""From an id to a file name, and back: injective on every file system, readable for plain ids.

A name is the id's UTF-8, every byte but ``a-z 0-9 . _ -`` percent-encoded in lower case, so that
ids which differ only in case, or only in Unicode's normal form, get different names on file systems
that ignore either. A dot at an end, and the first letter of a name that Windows reserves (``con``,
``nul`` …), are encoded too. A name that would be longer than `MAX_NAME` is its beginning, a ``~``
(which no other name holds) and the SHA-256 of the id; what the id was stands in the file.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_to_bytes

__all__ = ["MAX_NAME", "file_name", "id_of"]

MAX_NAME = 190
"""Bytes: with the longest ending, ``.meta.json.tmp``, well under the 255 that file systems allow
(and the 255 of a path component on Windows)."""

_ENCODED = re.compile(rb"[^a-z0-9._-]|\A\.|\.\Z")
_RESERVED = re.compile(rb"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)")
_BEGINNING = 100  # bytes of a long name that are kept for people to recognise it by


def file_name(id_: str) -> str:
    """The name, without an ending, of the file or directory that belongs to `id_`."""
    raw = id_.encode()
    name = _ENCODED.sub(lambda found: b"%%%02x" % found[0][0], raw)
    if _RESERVED.match(name):
        name = b"%%%02x" % name[0] + name[1:]
    if len(name) > MAX_NAME:
        beginning = re.sub(rb"%.?\Z", b"", name[:_BEGINNING])
        name = beginning + b"~" + hashlib.sha256(raw).hexdigest().encode()
    return name.decode()


def id_of(name: str) -> str | None:
    """The id whose `file_name` is `name`; None where only the file itself can tell."""
    try:
        id_ = unquote_to_bytes(name).decode()
    except UnicodeDecodeError:
        return None
    return id_ if id_ and file_name(id_) == name else None
