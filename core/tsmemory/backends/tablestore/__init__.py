"""The Tablestore backend."""

from __future__ import annotations

from tsmemory.backends.tablestore.backend import TablestoreBackend

__all__ = ["TablestoreBackend"]
