"""Where a session's files are: from ids to names and back.

The mapping is injective on every file system, and readable for plain ids. A name is the id's UTF-8
with every byte but ``a-z 0-9 . _ -`` percent-encoded in lower case, so that ids which differ only
in case, or only in Unicode's normal form, get different names on file systems that ignore either. A
dot at an end, and the first letter of a name that Windows reserves (``con``, ``nul`` …), are
encoded too. A name that would be longer than `MAX_NAME` is the beginning of it, a ``~`` (which no
other name contains) and the SHA-256 of the id; the file itself then says what the id was.

Paths are plain strings: building `pathlib.Path` objects would take a quarter of an append.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from tsmemory.engine.records import Key

__all__ = ["MAX_NAME", "file_name", "id_of", "log_path", "meta_path", "names_of", "temporary"]

MAX_NAME = 190
"""Bytes: with the longest ending, ``.meta.json.tmp``, well under the 255 that file systems allow
(and the 255 of a path component on Windows)."""

_ENCODED = re.compile(rb"[^a-z0-9._-]|\A\.|\.\Z")
_RESERVED = re.compile(rb"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)")
_BEGINNING = 100  # bytes of a long name that are kept, so that people recognise it


@lru_cache(maxsize=4096)
def file_name(id_: str) -> str:
    """The name, without an ending, of the file or directory that belongs to `id_`."""
    raw = id_.encode()
    name = _ENCODED.sub(lambda match: b"%%%02x" % match[0][0], raw)
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
    except UnicodeError:
        return None
    return id_ if id_ and file_name(id_) == name else None


def log_path(directory: str, key: Key) -> str:
    """The ``.jsonl`` of a session in a store's directory."""
    return f"{directory}{os.sep}{file_name(key[0])}{os.sep}{file_name(key[1])}.jsonl"


def meta_path(path: str) -> str:
    """The ``.meta.json`` beside a log."""
    return path.removesuffix(".jsonl") + ".meta.json"


def temporary(path: str) -> str:
    """The file that is written before it is renamed to `path`."""
    return path + ".tmp"


def names_of(path: str) -> tuple[str, str]:
    """The user's directory and the session's file name (without its ending) in the path of a
    log."""
    directory, name = os.path.split(path)
    return os.path.basename(directory), name.removesuffix(".jsonl")
