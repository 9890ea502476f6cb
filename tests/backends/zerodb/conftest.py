"""A local server of ZeroDB's API, with a table for every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tsmemory.backends.zerodb import ZeroDBBackend
from tsmemory.testing.servers.zerodb import LocalZeroDB

_NAMES = (f"chat{i}" for i in itertools.count())


@pytest.fixture(scope="session")
def local_server() -> Iterator[LocalZeroDB]:
    with LocalZeroDB() as server:
        yield server


@pytest.fixture(scope="session")
def specification_server() -> Iterator[LocalZeroDB]:
    with LocalZeroDB(dialect="specification") as server:
        yield server


@pytest.fixture
def server(local_server: LocalZeroDB) -> LocalZeroDB:
    """The server, nothing counted, nothing about to fail."""
    local_server.requests.clear()
    local_server.forgive()
    return local_server


@pytest.fixture
def table() -> str:
    """The name of a table that is not there yet."""
    return next(_NAMES)


@pytest.fixture
def backend(server: LocalZeroDB, table: str) -> Iterator[ZeroDBBackend]:
    opened = open_on(server, table)
    opened.run(opened.setup())
    server.requests.clear()
    yield opened
    opened.close()


def open_on(server: LocalZeroDB, table: str, **options: Any) -> ZeroDBBackend:
    """A backend of its own, as another process would have."""
    return ZeroDBBackend.from_url(server.url, api_key=server.api_key, table=table, **options)
