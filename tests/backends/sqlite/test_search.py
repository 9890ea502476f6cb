"""The index of a SQLite file: made later, done without, and empty of what was deleted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tsmemory import Message, open_store
from tsmemory.backends.sqlite import SQLiteBackend
from tsmemory.backends.sqlite import search as index
from tsmemory.engine.search import SearchQuery, parse_query
from tsmemory.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def _found(store: Store, text: str) -> list[str]:
    return sorted(hit.message.text for hit in store.search_messages(text, limit=100))


def _all_bytes(path: Path) -> bytes:
    return b"".join(part.read_bytes() for part in path.parent.glob(f"{path.name}*"))


def test_an_older_file_gets_its_index_in_slices(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(SQLiteBackend(path, search=False)) as store:
        store.conversation("s").append(*(Message.user(f"needle {i}") for i in range(25)))
        assert len(_found(store, "needle")) == 25  # by a scan
    monkeypatch.setattr(index, "_SLICE", 10)
    with Store(SQLiteBackend(path, search=True)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("needle, new"))
        assert len(_found(store, "needle")) == 26  # still by a scan
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT pending FROM search_state").fetchone() == (25,)
        chat.delete_message(*(m.message_id for m in chat.list_messages(limit=5)))
        store.setup()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT pending FROM search_state").fetchone() == (0,)
            (rows,) = db.execute(
                "SELECT count(*) FROM search WHERE search MATCH 'needle'"
            ).fetchone()
            assert rows == 21
        assert len(_found(store, "needle")) == 21


def test_a_file_without_an_index_stays_so(path: Path) -> None:
    with open_store(f"sqlite:///{path}?search=false") as store:
        store.conversation("s").append(Message.user("needle"))
    with open_store(f"sqlite:///{path}") as store:
        store.conversation("s").append(Message.user("another needle"))
        assert _found(store, "needle") == ["another needle", "needle"]
    with closing(sqlite3.connect(path)) as db:
        assert not index.is_indexed(db)


@pytest.mark.parametrize(
    "how", ["delete_message", "update", "replace", "truncate", "clear", "erase", "delete"]
)
def test_nothing_of_a_deleted_text_stays_in_the_file(path: Path, how: str) -> None:
    secret = "quicksilver"
    with open_store(f"sqlite:///{path}") as store:
        chat = store.conversation("s", user_id="ada")
        for i in range(30):
            chat.append(Message.user(f"hay {i}"))
        chat.append(Message.user(f"{secret} words", message_id="m"), Message.user("last"))
        others = store.conversation("s", user_id="bob")
        others.append(Message.user("hay of bob"))
        assert _found(store, secret)
        {
            "delete_message": lambda: chat.delete_message("m"),
            "update": lambda: chat.update_message("m", content="nothing"),
            "replace": lambda: chat.replace([Message.user("only this")]),
            "truncate": lambda: chat.truncate(1),
            "clear": lambda: chat.clear(),
            "erase": lambda: store.erase_user("ada"),
            "delete": lambda: chat.delete(),
        }[how]()
        assert _found(store, secret) == []
        assert _found(store, "bob") == ["hay of bob"]
        chat.append(Message.user("after it"))
    assert secret.encode() not in _all_bytes(path)


def test_a_stale_entry_is_no_hit(path: Path) -> None:
    """Another program changed a message's row, behind the index."""
    with open_store(f"sqlite:///{path}") as store:
        store.conversation("s").append(Message.user("needle", message_id="m"))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE messages SET body = CAST(replace(body, 'needle', 'thread') AS BLOB)")
        assert _found(store, "needle") == []


def test_other_users_cost_a_search_little(path: Path) -> None:
    """What one user's search looks at does not grow with what others stored, beyond a bound."""
    with open_store(f"sqlite:///{path}") as store:
        store.conversation("s", user_id="ada").append(Message.user("common word"))
        bobs = [Message.user("common") for _ in range(3 * index._LOOKED_AT_FIRST)]
        store.conversation("s", user_id="bob").append(bobs)
        query = SearchQuery(query=parse_query("common"), user_id="ada", limit=10)
        looked_at: list[int] = []

        def look(db: Any) -> None:
            scoped = f'(scope : "{index._scope_of(db, query)}" AND {index._words(query)})'
            for words, most in ((index._words(query), index._LOOKED_AT_FIRST), (scoped, 10)):
                sql = "SELECT rowid FROM search WHERE search MATCH ? LIMIT ?"
                looked_at.append(len(db.execute(sql, (words, most)).fetchall()))

        store.backend.connections.use(look)  # type: ignore[attr-defined]
        assert looked_at == [index._LOOKED_AT_FIRST, 1]
        page = store.search_messages("common", user_id="ada", limit=10)
        assert [hit.message.text for hit in page] == ["common word"]
        assert page.next_cursor is None
        pages = [store.search_messages("common", user_id="bob", limit=40)]
        while pages[-1].next_cursor:
            cursor = pages[-1].next_cursor
            pages.append(store.search_messages("common", user_id="bob", limit=40, cursor=cursor))
        ids = [hit.message.message_id for page in pages for hit in page]
        assert ids == [message.message_id for message in reversed(bobs)]
