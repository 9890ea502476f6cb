"""The law, over ZeroDB's API."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.backends.zerodb.conftest import _NAMES, open_on
from tsmemory.backends.zerodb.rows import key_of, spell
from tsmemory.engine.records import Key
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing.servers.zerodb import LocalZeroDB


class TestZeroDB(BackendConformance):
    expected_failures: ClassVar = {
        "test_other_content_under_a_stored_id_is_a_conflict": "content is not compared yet",
    }

    @pytest.fixture
    def engine(self, server: LocalZeroDB, table: str) -> Engine:
        def damage(user_id: str, session_id: str, message_id: str | None) -> None:
            name = key_of(Key(user_id, session_id))
            which = "" if message_id is None else spell(message_id)
            answer = server.tables.update(
                table,
                {
                    "filter": {"key": name, "message": which},
                    "update": {"$set": {"body": '{"role":'}},
                },
            )
            assert answer["modified_count"] == 1

        return Engine(open=lambda: open_on(server, table), damage=damage)


def test_random_operations(server: LocalZeroDB) -> None:
    run_against_oracle(lambda: open_on(server, next(_NAMES)), examples=10)
