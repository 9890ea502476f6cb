"""The JSONL backend: append-only files."""

from __future__ import annotations

from tsmemory.backends.jsonl.backend import JSONLBackend

__all__ = ["JSONLBackend"]
