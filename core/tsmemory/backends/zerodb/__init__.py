"""The ZeroDB backend."""

from __future__ import annotations

from tsmemory.backends.zerodb.backend import ZeroDBBackend

__all__ = ["ZeroDBBackend"]
