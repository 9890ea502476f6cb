"""One local Tablestore for the whole directory, emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tsmemory.testing.servers.tablestore import TablestoreProcess
from tsmemory.testing.servers.tablestore.fixtures import (  # noqa: F401 - fixtures are found by name
    empty_tablestore,
    tablestore_server,
)


@pytest.fixture
def server(empty_tablestore: TablestoreProcess) -> TablestoreProcess:  # noqa: F811 - as above
    return empty_tablestore


@pytest.fixture
def client(server: TablestoreProcess) -> Iterator[Any]:
    """A client that reports an error instead of trying again."""
    from tablestore import NoRetryPolicy

    found = server.client(retry_policy=NoRetryPolicy())
    yield found
    found.connection.pool.clear()


@pytest.fixture
def make_table(client: Any) -> Callable[..., str]:
    """Creates a table; by default ``t`` with the key (p STRING, q INTEGER)."""
    from tablestore import CapacityUnit, ReservedThroughput, TableMeta, TableOptions

    def make(
        name: str = "t",
        key: Any = (("p", "STRING"), ("q", "INTEGER")),
        defined: Any = (),
        indexes: Any = (),
        **options: Any,
    ) -> str:
        client.create_table(
            TableMeta(name, list(key), list(defined)),
            TableOptions(**options),
            ReservedThroughput(CapacityUnit(0, 0)),
            list(indexes),
        )
        return name

    return make
