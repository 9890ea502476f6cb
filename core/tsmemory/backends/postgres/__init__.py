"""The PostgreSQL backend."""

from __future__ import annotations

from tsmemory.backends.postgres.backend import PostgresBackend

__all__ = ["PostgresBackend"]
