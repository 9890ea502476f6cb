"""Damaged rows: what cannot be read is named, and takes nothing else with it."""

from __future__ import annotations

import itertools
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tsmemory import CorruptRecordError, Message, Store, TSMemoryError, open_store
from tsmemory.backends.sqlite import reader

VALUES: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("negative", -5),
    ("zero", 0),
    ("largest", 2**63 - 1),
    ("real", 1.5),
    ("infinite", float("inf")),
    ("text", "text"),
    ("blob", b"\xff\x00"),
    ("no utf-8", "CAST(x'c328ff' AS TEXT)"),
    ("empty", b""),
    ("json", b'{"role":"user","content":"x"}'),
    ("deep", b'{"metadata":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}}"),
    ("tagged", b'{"role":"user","content":"x","metadata":{"a":{"$float":{}}}}'),
    ("escaped", b'{"v":1,"escaped":[]}'),
)
COLUMNS = {
    "sessions": (
        "user_id", "session_id", "create_time", "update_time", "version", "message_count",
        "last_time", "ttl", "expires_at", "body", "listed_time",
    ),
    "messages": ("session", "create_time", "message_id", "pinned", "body"),
}  # fmt: skip


def _damage(path: Path, table: str, column: str, value: Any) -> bool:
    """Whether SQLite let it be written."""
    literal = isinstance(value, str) and value.startswith("CAST(")
    sql = f"UPDATE {table} SET {column} = {value if literal else '?'} WHERE pk = 2"
    with closing(sqlite3.connect(path)) as db, db:
        try:
            db.execute(sql, () if literal else (value,))
        except sqlite3.IntegrityError:
            return False
    return True


def _page_through_messages(store: Store, path: Path, order: Any) -> None:
    """Pages of one message come to an end, and the neighbours of a broken one are on them."""
    chat = store.conversation("s2", user_id="u")
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = chat.list_messages(order=order, limit=1, cursor=cursor, on_error="skip")
        cursor, pages = page.next_cursor, pages + 1
        assert pages <= 3


def _use(store: Store) -> None:
    """Every operation, on the damaged session and on all: only errors of the tree, and an end."""
    chat = store.conversation("s2", user_id="u")
    calls = (
        lambda: chat.append(Message.user("more")),
        lambda: chat.window(3),
        lambda: list(chat.iter_messages(on_error="skip")),
        lambda: chat.list_messages(order="desc", limit=1),
        lambda: chat.get_message("m2"),
        lambda: chat.update_message("m2", content="y"),
        lambda: chat.session(),
        lambda: chat.count(),
        lambda: chat.truncate(1),
        lambda: chat.update_session(title="t"),
        lambda: chat.replace([Message.user("z")]),
        lambda: store.list_sessions(user_id="u"),
        lambda: store.stats(),
        lambda: chat.delete_message("m2"),
        lambda: chat.delete(),
        lambda: store.purge_expired(),
    )
    for call in calls:
        with suppress(TSMemoryError):
            call()


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, columns in COLUMNS.items() for column in columns],
)
def test_damaged_columns(tmp_path: Path, table: str, column: str) -> None:
    for name, value in VALUES:
        path = tmp_path / f"{name}.db"
        with open_store(f"sqlite:///{path}?durability=normal") as store:
            for i in (1, 2, 3):
                store.conversation(f"s{i}", user_id="u").append(
                    Message.user("x", message_id=f"m{i}")
                )
            if not _damage(path, table, column, value):
                continue
            for order in ("asc", "desc"):
                # Pages of one, so that the damaged row's own place is a cursor.
                sessions = list(
                    itertools.islice(
                        store.iter_sessions(user_id="u", order=order, on_error="skip"), 9
                    )
                )
                others = [s.session_id for s in sessions if s.session_id in ("s1", "s3")]
                assert sorted(others) == ["s1", "s3"], (name, order)
                paged, cursor = [], None
                for _ in range(5):
                    page = store.list_sessions(
                        user_id="u", order=order, limit=1, cursor=cursor, on_error="skip"
                    )
                    paged += [s.session_id for s in page if s.session_id in ("s1", "s3")]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                assert sorted(paged) == ["s1", "s3"], (name, order)
            for order in ("asc", "desc"):
                _page_through_messages(store, path, order)
            problems = store.verify()
            _use(store)
            assert [m.text for m in store.conversation("s3", user_id="u").window(3)] == ["x"]
            if column == "body":
                assert problems or name == "json", name


def test_a_write_to_a_damaged_session_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    for column, value in (("body", b"{"), ("version", "x"), ("last_time", b"1"), ("ttl", "x")):
        with open_store(f"sqlite:///{path}") as store:
            chat = store.conversation(column)
            chat.append(Message.user("x"))
            with closing(sqlite3.connect(path)) as db:
                with db:
                    db.execute(
                        f"UPDATE sessions SET {column} = ? WHERE session_id = ?", (value, column)
                    )
                before = _rows(db)
                for write in (
                    lambda c=chat: c.append(Message.user("y")),
                    lambda c=chat: c.append(Message.user("y"), if_version=1),
                    lambda c=chat: c.put_message(Message.user("y")),
                    lambda c=chat: c.replace([]),
                    lambda c=chat: c.update_session(title="t"),
                    lambda c=chat: c.clear(),
                ):
                    with pytest.raises(CorruptRecordError):
                        write()
                assert _rows(db) == before


def _rows(db: sqlite3.Connection) -> list[Any]:
    """Everything that is stored; the index for searches cannot be dumped."""
    return [
        row
        for table in ("sessions", "messages", "search_data")
        for row in db.execute(f"SELECT * FROM {table} ORDER BY 1")
    ]


def test_sessions_are_listed_by_activity_whatever_the_index_lags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_FIRST_PAGE", 3)  # a filter takes several, each larger
    rng = random.Random(3)
    clock = [1_000_000_000_000_000]
    with open_store(f"sqlite:///{tmp_path / 'chat.db'}?durability=normal") as store:
        store.backend.clock = lambda: clock[0]
        for _ in range(400):
            clock[0] += rng.choice((1, 1_000, 5_000_000, 40_000_000, 100_000_000))
            chat = store.conversation(f"s{rng.randrange(40)}", user_id=rng.choice("ab"))
            chat.append(Message.user("x"))
            if rng.random() < 0.2:
                chat.update_session(metadata={"even": int(chat.session_id[1:]) % 2 == 0})
        with closing(sqlite3.connect(tmp_path / "chat.db")) as db:
            rows = db.execute(
                "SELECT user_id, session_id, update_time, listed_time FROM sessions "
                "ORDER BY update_time, user_id, session_id"
            ).fetchall()
        assert any(updated != listed for _, _, updated, listed in rows)
        for user, order in itertools.product(("a", "b", None), ("asc", "desc")):
            expected = [row[:2] for row in rows if user in (None, row[0])]
            if order == "desc":
                expected.reverse()
            whose = {} if user is None else {"user_id": user}
            listed, cursor = [], None
            while True:
                page = store.list_sessions(**whose, order=order, limit=7, cursor=cursor)
                listed += [(s.user_id, s.session_id) for s in page]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert listed == expected
            found = store.list_sessions(**whose, order=order, where={"even": True})
            filtered = [(s.user_id, s.session_id) for s in found]
            assert filtered == [key for key in expected if key in filtered]
            assert len(filtered) > 8
            assert list(store.iter_sessions(**whose, order=order, where={"even": True})) == [*found]
        middle = rows[len(rows) // 2][2]
        recent = store.list_sessions(updated_from=middle, limit=1000)
        assert len(recent) == sum(row[2] >= middle for row in rows)
        early = store.list_sessions(updated_to=middle, limit=1000)
        assert len(early) == sum(row[2] <= middle for row in rows)


def test_a_page_of_sessions_reads_no_more_of_them_the_more_there_are(tmp_path: Path) -> None:
    clock = [1_000_000_000_000_000]
    work = []
    with open_store(f"sqlite:///{tmp_path / 'chat.db'}?durability=normal") as store:
        store.backend.clock = lambda: clock[0]
        for count in (60, 600):
            while len(list(store.iter_sessions())) < count:
                for _ in range(30):
                    clock[0] += 30_000_000
                    store.conversation(f"s{clock[0]}").append(Message.user("x"))
            steps = itertools.count()
            (db,) = store.backend.connections.idle
            db.set_progress_handler(lambda steps=steps: next(steps) < 0, 1)
            assert len(store.list_sessions(limit=20)) == 20
            db.set_progress_handler(None, 1)
            work.append(next(steps))
    assert work[1] < work[0] * 1.1
