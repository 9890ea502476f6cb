"""The embedded backend: one SQLite file."""

from __future__ import annotations

from tsmemory.backends.sqlite.backend import MIGRATIONS, SCHEMA, SQLiteBackend

__all__ = ["MIGRATIONS", "SCHEMA", "SQLiteBackend"]
