"""One local Tablestore for the whole directory, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tsmemory.testing.servers.tablestore import TablestoreProcess
from tsmemory.testing.servers.tablestore.fixtures import (  # noqa: F401  # fixtures are found by name
    empty_tablestore,
    tablestore_server,
)

from ._open import Writer


@pytest.fixture
def server(empty_tablestore: TablestoreProcess) -> TablestoreProcess:  # noqa: F811  # as above
    return empty_tablestore


@pytest.fixture(scope="session")
def processes() -> Iterator[dict[str, Writer]]:
    """Four processes, forked from one that has imported the SDK."""
    found = {name: Writer(name) for name in "abcd"}
    yield found
    for writer in found.values():
        writer.end()


@pytest.fixture
def writers(processes: dict[str, Writer]) -> Iterator[dict[str, Writer]]:
    """Those processes, each waiting for a task; one that a failed test left busy is replaced."""
    yield processes
    for name, writer in processes.items():
        if writer.busy:
            writer.end()
            processes[name] = Writer(name)
