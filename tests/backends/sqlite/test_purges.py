"""Old text is erased from the index after each deletion, however many there were before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tsmemory import Message, open_store
from tsmemory.backends.sqlite import search


@pytest.mark.parametrize(
    ("limit", "edits"), [(60, 100), pytest.param(None, 2_300, marks=pytest.mark.slow)]
)
def test_thousands_of_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, edits: int
) -> None:
    """More than 2,000 merges of the whole made the index corrupt before SQLite 3.42."""
    if limit is not None:
        monkeypatch.setattr(search, "_MAX_STRUCTURE", limit)
    path = tmp_path / "chat.db"
    with open_store(f"sqlite:///{path}?durability=normal") as store:
        chat = store.conversation("s")
        chat.append(*(Message.user(f"other{i} ferry", message_id=f"o{i}") for i in range(9)))
        chat.append(Message.user("first", message_id="m"))
        for i in range(edits):
            chat.update_message("m", content=f"edit{i} bergen")
        found = store.search_messages("bergen", user_id="default")
        assert [hit.message.text for hit in found] == [f"edit{edits - 1} bergen"]
        assert len(store.search_messages("ferry", user_id="default", limit=20).items) == 9
        assert list(store.search_messages("edit3", user_id="default")) == []
        assert store.verify() == []
    with closing(sqlite3.connect(path)) as db:
        ((size,),) = db.execute("SELECT length(block) FROM search_data WHERE id = 10").fetchall()
        assert size <= (limit or 2_000) + 100
