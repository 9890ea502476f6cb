"""Searches by the GIN index, held to the evaluator."""

from __future__ import annotations

from tests._searches import hold_to_the_evaluator
from tsmemory import open_store
from tsmemory.testing.servers.postgres import PostgresServer


def test_generated_searches(server: PostgresServer, prefix: str) -> None:
    with open_store(server.url, prefix=prefix) as store:
        store.setup()
        hold_to_the_evaluator(store, 40)
