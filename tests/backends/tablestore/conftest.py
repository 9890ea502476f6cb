"""One local Tablestore for the whole directory, emptied before each test."""

from __future__ import annotations

import pytest

from tsmemory.testing.servers.tablestore import TablestoreProcess
from tsmemory.testing.servers.tablestore.fixtures import (  # noqa: F401  # fixtures are found by name
    empty_tablestore,
    tablestore_server,
)


@pytest.fixture
def server(empty_tablestore: TablestoreProcess) -> TablestoreProcess:  # noqa: F811  # as above
    return empty_tablestore
