"""Logging of backends: standard loggers named ``tsmemory.<part>``, ids hashed, never content.

One line per retry, recovery, repair, eviction, contention or slow wait; WARNING where an operator
should act or data may be at risk, INFO where the package mended it by itself. Nothing to set up:
the package adds no handler.
"""

from __future__ import annotations

import hashlib
import logging

from tsmemory.engine.records import Key

__all__ = ["get_logger", "hashed"]


def get_logger(part: str) -> logging.Logger:
    """The logger ``tsmemory.<part>``."""
    return logging.getLogger(f"tsmemory.{part}")


def hashed(key: Key | str) -> str:
    """A session's key or a single id as 12 hex digits: the same for the same ids, so that lines
    about one session can be found, and no id in a log."""
    text = key if isinstance(key, str) else f"{len(key.user_id)}:{key.user_id}{key.session_id}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
