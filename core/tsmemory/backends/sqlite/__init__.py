"""The embedded backend: one SQLite file."""

from __future__ import annotations

from tsmemory.backends.sqlite.backend import SQLiteBackend
from tsmemory.backends.sqlite.layout import MIGRATIONS, SCHEMA

__all__ = ["MIGRATIONS", "SCHEMA", "SQLiteBackend"]
