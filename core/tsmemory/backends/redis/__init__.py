"""The Redis and Valkey backend."""

from __future__ import annotations

from tsmemory.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
