"""A local server of the part of ZeroDB's API that keeps tables: for development and tests.

It plays either of two dialects: that of the vendor's package (``ainative-python`` 3.1.1,
``ainative/zerodb/tables.py``, ``client.py`` and ``auth.py``; the package runs against this server
unmodified), or that of the "Tables API Specification" v1 of January 2026. Where they say nothing,
the server is strict: an operator, field or value that is not documented is refused with 422, so
that a client cannot come to rely on it here.

    with LocalZeroDB() as server:
        store = open_store(server.url)

What it keeps is in memory. It is no ZeroDB: one process, one lock, no vectors.
"""

from __future__ import annotations

from tsmemory.testing.servers.zerodb._server import LocalZeroDB
from tsmemory.testing.servers.zerodb._tables import MAX_LIMIT, MAX_ROWS

__all__ = ["MAX_LIMIT", "MAX_ROWS", "LocalZeroDB"]
