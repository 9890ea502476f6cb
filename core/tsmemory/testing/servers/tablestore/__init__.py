"""A local Tablestore (Alibaba Cloud OTS) for development and tests.

The unmodified official SDK talks to it over HTTP on loopback::

    with LocalTablestore() as server:
        client = server.client()
        client.list_table()

or, from a shell,
``python -m tsmemory.testing.servers.tablestore --port 8087 --data tablestore.db``.

`LocalTablestore` serves from threads of this process, `TablestoreProcess` from a process of its
own; both count requests, inject faults and delay replies on request (`control.ServerControl`). What
the service limits is limited here, by the same codes (`limits`); where the service's behaviour is
not known, the harsher reading is the default and `ServerOptions` has the other.
"""

from __future__ import annotations

from .control import Counters, OperationCount, ServerControl
from .errors import ServiceError
from .faults import Fault
from .local import LocalTablestore
from .options import ServerOptions
from .process import TablestoreProcess

__all__ = [
    "Counters",
    "Fault",
    "LocalTablestore",
    "OperationCount",
    "ServerControl",
    "ServerOptions",
    "ServiceError",
    "TablestoreProcess",
]
