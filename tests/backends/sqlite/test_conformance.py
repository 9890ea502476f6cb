"""The contract, over the SQLite backend."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tsmemory.backends.sqlite import SQLiteBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle


class TestSQLite(BackendConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Engine:
        path = tmp_path / "chat.db"

        def damage(user_id: str, session_id: str, message_id: str | None) -> None:
            session = "SELECT pk FROM sessions WHERE user_id = ? AND session_id = ?"
            with closing(sqlite3.connect(path)) as db, db:
                if message_id is None:
                    sql = "UPDATE sessions SET body = x'7b' WHERE pk = (%s)" % session
                    changed = db.execute(sql, (user_id, session_id))
                else:
                    sql = "UPDATE messages SET body = x'ff' WHERE session = (%s) AND message_id = ?"
                    changed = db.execute(sql % session, (user_id, session_id, message_id))
                assert changed.rowcount == 1

        return Engine(open=lambda: SQLiteBackend(path, durability="normal"), damage=damage)


def test_random_operations() -> None:
    with tempfile.TemporaryDirectory() as directory:
        names = (Path(directory) / f"{i}.db" for i in range(10**9))
        run_against_oracle(lambda: SQLiteBackend(next(names), durability="normal"))
