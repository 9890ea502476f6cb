"""SQLite: what the contract leaves open, on real files, with real processes and real kills."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.backends._processes import check_writers, start_writers, write_together
from tests.backends.sqlite._scripts import SOAK
from tsmemory import (
    InvalidInputError,
    Message,
    Store,
    TimeoutError,
    UnavailableError,
    Window,
    open_store,
)
from tsmemory.backends.sqlite import MIGRATIONS, SCHEMA, SQLiteBackend
from tsmemory.backends.sqlite.layout import APPLICATION_ID


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def url(path: Path, **options: object) -> str:
    return f"sqlite:///{path}?" + "&".join(f"{k}={v}" for k, v in options.items())


def set_up(path: Path) -> None:
    with open_store(url(path)) as store:
        store.setup()


# -- many writers -----------------------------------------------------------------------------


def test_8_processes_of_200_appends(path: Path) -> None:
    write_together(url(path), "s", 8, 200)
    with open_store(url(path)) as store:
        check_writers(list(store.conversation("s").iter_messages()), 8, 200)
        assert store.conversation("s").count() == 1600
        assert store.verify() == []


def test_8_threads_of_200_appends(path: Path) -> None:
    with open_store(url(path, durability="normal")) as store:

        def write(name: int) -> None:
            chat = store.conversation("s")
            for i in range(200):
                chat.append(Message.user(f"{name}.{i}"))

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_writers(list(store.conversation("s").iter_messages()), 8, 200)
        assert store.verify() == []


def test_12_processes_open_one_empty_file(path: Path) -> None:
    path.touch()
    write_together(url(path), "s", 12, 1)
    with open_store(url(path)) as store:
        assert store.conversation("s").count() == 12
        assert store.verify() == []


def test_tasks_of_one_loop(path: Path) -> None:
    async def main() -> None:
        async with open_store(url(path, durability="normal")) as store:
            chat = store.conversation("s")
            await asyncio.gather(*(chat.aappend(Message.user(str(i))) for i in range(60)))
            assert await chat.acount() == 60

    asyncio.run(main())
    asyncio.run(main_again(path))


async def main_again(path: Path) -> None:
    async with open_store(url(path)) as store:
        assert len(await store.conversation("s").awindow(None)) == 60


def test_the_loop_runs_on_while_another_process_holds_the_lock(path: Path) -> None:
    set_up(path)

    async def main() -> int:
        ticks = 0
        async with open_store(url(path)) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                task = asyncio.create_task(store.conversation("s").aappend(Message.user("x")))
                for _ in range(20):
                    await asyncio.sleep(0.005)
                    ticks += 1
                assert not task.done()
                other.execute("COMMIT")
                await task
        return ticks

    assert asyncio.run(main()) == 20


# -- kills ------------------------------------------------------------------------------------


def test_kills_in_a_tight_append_loop(path: Path) -> None:
    rng = random.Random(7)
    acknowledged: list[str] = []
    for round_number in range(50 if SOAK else 8):
        process = start_writers(url(path), "s", 100_000, f"r{round_number}")
        process.stdin.write("go\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(rng.randrange(1, 30))]
        time.sleep(rng.random() * 0.002)  # a random instant of its work; nothing announces one
        os.kill(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        lines += out.splitlines(keepends=True)
        # The last line may be cut short; what is whole was acknowledged.
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        with open_store(url(path)) as store:
            kept = [m.message_id for m in store.conversation("s").iter_messages()]
            assert set(acknowledged) <= set(kept)
            assert len(set(kept)) == len(kept) == store.conversation("s").count()
            assert store.verify() == []
    assert len(acknowledged) > 40


# -- cost: statements, and none that grow with the history ------------------------------------


def _trace(store: Store, work) -> list[str]:
    store.setup()
    (db,) = store.backend.connections.idle
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    work()
    db.set_trace_callback(None)
    return statements


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "chat.db"
    with open_store(url(path, durability="normal")) as store:
        for size in (100, 10_000):
            chat = store.conversation(str(size))
            chat.append(Message.system("rules"))
            for start in range(1, size, 5000):
                roles = ("user", "assistant")
                batch = [
                    Message(roles[(i + 1) % 2], f"text {i}")
                    for i in range(start, min(start + 5000, size))
                ]
                chat.append(*batch)
            assert chat.count() == size
    return path


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_window_is_two_selects_in_one_transaction(long_history: Path, size: int) -> None:
    with open_store(url(long_history)) as store:
        chat = store.conversation(str(size))
        statements = _trace(store, lambda: chat.window(20))
        words = [statement.split()[0] for statement in statements]
        assert words == ["BEGIN", "SELECT", "SELECT", "COMMIT"]  # the second: instructions
        assert chat.window(20)[0].role == "system"
        assert len(chat.window(20)) in (21, 22)


@pytest.mark.parametrize("size", [100, 10_000])
def test_an_append_is_one_transaction(long_history: Path, size: int) -> None:
    with open_store(url(long_history)) as store:
        chat = store.conversation(str(size))
        for batch in (1, 4, 200):
            messages = [Message.user(str(i)) for i in range(batch)]
            traced = _trace(store, lambda m=messages: chat.append(*m))
            statements = [
                s.split()[0]
                for s in traced
                if "search_" not in s and not s.startswith(("--", "PRAGMA"))
            ]
            assert statements.count("INSERT") <= 2 * batch  # the row, and its entry in the index
            assert [s for s in statements if s != "INSERT"] == [
                "BEGIN",
                "UPDATE",  # the session
                "COMMIT",
            ]


@pytest.mark.parametrize("size", [100, 10_000])
def test_every_hot_read_searches_an_index(long_history: Path, size: int) -> None:
    with open_store(url(long_history)) as store:
        chat = store.conversation(str(size))
        page = chat.list_messages(limit=10, order="desc")
        reads = {
            "window": lambda: chat.window(20),
            "page": lambda: chat.list_messages(limit=10, cursor=None),
            "next page": lambda: chat.list_messages(
                limit=10, order="desc", cursor=page.next_cursor
            ),
            "range": lambda: chat.list_messages(created_from=1, created_to=2),
            "by id": lambda: chat.get_message("none"),
            "append 4": lambda: chat.append(*(Message.user("x") for _ in range(4))),
            "update": lambda: chat.put_message(Message.user("x", message_id="x")),
            "delete 4": lambda: chat.delete_message("x", "y", "z", "w"),
            "sessions": lambda: store.list_sessions(user_id="default", limit=5),
            "everyone": lambda: store.list_sessions(limit=5),
        }
        for name, read in reads.items():
            for statement in _trace(store, read):
                if statement.startswith(("BEGIN", "COMMIT", "INSERT", "PRAGMA", "--")):
                    continue
                if "search" in statement:  # FTS5's own, and which part of the file it indexes
                    continue
                (db,) = store.backend.connections.idle
                plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
                ours = [
                    step
                    for step in plan
                    if "messages" in step or ("sessions" in step and name != "everyone")
                ]
                assert all(step.startswith("SEARCH") for step in ours), (name, plan)
                if "message_id IN" in statement or "message_id =" in statement:
                    lookups = [step for step in ours if "messages" in step]
                    assert all("message_id=?" in step for step in lookups), (name, plan)
                assert any(" USING " in step for step in plan), (name, plan)
                if name in ("sessions", "everyone"):
                    # Sorted are those that were active at once with the last one of the page.
                    assert any("listed_time>?" in step for step in plan), (name, plan)
                else:
                    assert not any("TEMP B-TREE" in step for step in plan), (name, plan)


# -- the file ---------------------------------------------------------------------------------


def test_the_schema_is_what_the_module_says(path: Path) -> None:
    set_up(path)
    with closing(sqlite3.connect(path)) as db:
        found = [
            sql
            for (sql,) in db.execute(
                "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'search%'"
            )
        ]
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [" ".join(s.split()) for s in found] == [
        " ".join(s.split()) for s in SCHEMA.split(";") if s.strip()
    ]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
def test_durability(path: Path, durability: str, synchronous: int) -> None:
    with open_store(url(path, durability=durability)) as store:
        store.setup()
        (db,) = store.backend.connections.idle
        assert db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    with open_store(f"sqlite:///{path}", durability=durability) as store:
        assert store.backend.durability == durability


def test_full_durability_is_the_default(path: Path) -> None:
    assert SQLiteBackend(path).durability == "full"


def test_a_file_of_a_newer_release_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    with open_store(url(path)) as store:
        with pytest.raises(UnavailableError, match="newer tsmemory"):
            store.stats()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_erased_text_is_not_in_the_files(path: Path) -> None:
    secret = "the-secret-word-" * 8
    with open_store(url(path)) as store:
        for i in range(30):
            store.conversation(f"s{i}", user_id="u").append(Message.user(secret))
        store.conversation("s", user_id="other").append(Message.user("stays"))
        store.erase_user("u")
        for file in path.parent.iterdir():
            assert b"the-secret-word" not in file.read_bytes(), file.name
        assert store.stats().messages == 1


def test_what_another_program_wrote_into_the_file_is_read(path: Path) -> None:
    with open_store(url(path)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("one"))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO messages (session, create_time, message_id, pinned, body) "
                "SELECT pk, last_time + 1, 'by hand', 0, ? FROM sessions",
                (b'{"role":"assistant","content":"two"}',),
            )
        assert [m.text for m in chat.list_messages()] == ["one", "two"]
        ((user, session, message, what),) = store.verify()
        assert (user, session, message) == ("default", "s", None)
        assert what == "message_count is 1, but there are 2 messages"


def test_a_damaged_file_is_found(path: Path) -> None:
    with open_store(url(path)) as store:
        chat = store.conversation("s")
        chat.append(*(Message.user("x" * 500) for _ in range(200)))
    data = bytearray(path.read_bytes())
    data[40_960:45_056] = bytes(4096)
    path.write_bytes(data)
    with open_store(url(path)) as store:
        assert store.verify()


# -- opening and closing ----------------------------------------------------------------------


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///a%20b.db") as store:
        store.setup()
    assert (tmp_path / "a b.db").exists()
    for bad in (
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/chat.db",
        "sqlite:///chat.db?durability=none",
        "sqlite:///chat.db?timeout=soon",
        "sqlite:///chat.db?timeout=-1",
        "sqlite:///chat.db?speed=fast",
    ):
        with pytest.raises(InvalidInputError):
            open_store(bad)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with open_store(url(tmp_path / "none" / "chat.db")) as store:
        with pytest.raises(UnavailableError, match="does the directory exist"):
            store.stats()


def test_a_lock_that_stays(path: Path) -> None:
    with open_store(url(path, timeout=0.05)) as store:
        store.setup()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError, match="write lock"):
                store.conversation("s").append(Message.user("x"))
            assert store.conversation("s").count() == 0
            other.execute("ROLLBACK")
        store.conversation("s").append(Message.user("x"))


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(url(path))
    store.setup()
    store.close()
    with pytest.raises(UnavailableError, match="closed"):
        store.stats()


def test_a_leak_is_reported(path: Path) -> None:
    store = open_store(url(path))
    store.setup()
    with pytest.warns(ResourceWarning, match="unclosed SQLiteBackend"):
        del store


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_opens_its_own_connections(path: Path) -> None:
    # In a process of its own: the child of a fork must not run pytest's.
    script = f"""
import os
from tsmemory import Message
from tsmemory import open_store
with open_store({url(path)!r}) as store:
    chat = store.conversation("s")
    chat.append(Message.user("parent"))
    parents = set(store.backend.connections.idle)
    child = os.fork()
    if child == 0:
        chat.append(Message.user("child"))
        os._exit(0 if parents.isdisjoint(store.backend.connections.idle) else 1)
    assert os.waitpid(child, 0)[1] == 0
    chat.append(Message.user("parent again"))
    assert [m.text for m in chat.window(9)] == ["parent", "child", "parent again"]
    assert store.verify() == []
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_message_over_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite's own limit is 1 GB; a lower one takes the same way.
    monkeypatch.setattr("tsmemory.backends.sqlite.backend.MAX_BODY", 1000)
    with open_store(url(path)) as store:
        chat = store.conversation("s")
        with pytest.raises(InvalidInputError, match="limit of 1000"):
            chat.append(Message.user("fits"), Message.user("x" * 1001))
        assert chat.session() is None


def test_windows_of_a_long_history_read_little(long_history: Path) -> None:
    with open_store(url(long_history)) as store:
        report = store.conversation("10000").window(Window(last=20), explain=True)
        assert report.older
        assert len(report.messages) + len(report.left_out) < 32


def test_the_view_for_people(path: Path) -> None:
    with open_store(url(path)) as store:
        chat = store.conversation("s", user_id="ada")
        blocks = [
            {"type": "text", "text": "look "},
            {"type": "image"},
            {"type": "text", "text": "!"},
        ]
        moment = 1_700_000_000_250_000
        chat.put_message(Message.user("it's", message_id="a", create_time=moment))
        chat.append(
            Message.assistant(blocks, message_id="b"),
            Message.assistant("", message_id="c"),
            Message.user("lone \ud800", message_id="d"),
            Message.user("broken", message_id="e"),
        )
        store.conversation("gone").append(Message.user("expired"))
        store.conversation("gone").set_ttl(60)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE messages SET body = x'ff7b' WHERE message_id = 'e'")
        db.execute("UPDATE sessions SET expires_at = 1 WHERE session_id = 'gone'")
        found = db.execute("SELECT message_id, role, text FROM messages_view").fetchall()
        first = db.execute(
            "SELECT user_id, session_id, created_at FROM messages_view WHERE message_id = 'a'"
        ).fetchone()
    assert found[:3] == [
        ("a", "user", "it's"), ("b", "assistant", "look !"), ("c", "assistant", "")
    ]  # fmt: skip
    assert found[3][:2] == ("d", "user")
    assert found[3][2].startswith("lone ")
    assert (found[4][0], found[4][1]) == ("e", None)
    assert len(found) == 5
    assert first == ("ada", "s", "2023-11-14 22:13:20.250")
