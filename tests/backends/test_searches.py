"""Searches of the embedded backends, held to the evaluator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._searches import hold_to_the_evaluator
from tsmemory import open_store


@pytest.mark.parametrize("kind", ["memory", "jsonl", "sqlite", "sqlite without index"])
def test_generated_searches(kind: str, tmp_path: Path) -> None:
    urls = {
        "memory": "memory:",
        "jsonl": f"jsonl:///{tmp_path / 'chats'}",
        "sqlite": f"sqlite:///{tmp_path / 'a.db'}?durability=normal",
        "sqlite without index": f"sqlite:///{tmp_path / 'b.db'}?durability=normal&search=false",
    }
    with open_store(urls[kind]) as store:
        store.setup()
        hold_to_the_evaluator(store, 40)
