"""Pytest fixtures: ``pytest_plugins = ["tsmemory.testing.servers.tablestore.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .process import TablestoreProcess


@pytest.fixture(scope="session")
def tablestore_server() -> Iterator[TablestoreProcess]:
    """A Tablestore instance in its own process, for the whole session."""
    with TablestoreProcess() as server:
        yield server


@pytest.fixture
def empty_tablestore(tablestore_server: TablestoreProcess) -> TablestoreProcess:
    """The session's instance without tables, faults, latencies or counts."""
    tablestore_server.reset()
    return tablestore_server
