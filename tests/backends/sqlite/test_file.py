"""The file: whose it is, whether it is still the same one, and what becomes of what is deleted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.backends.sqlite._scripts import run_script
from tsmemory import Message, TSMemoryError, UnavailableError, open_store
from tsmemory.backends.sqlite import MIGRATIONS, SCHEMA
from tsmemory.backends.sqlite.layout import APPLICATION_ID

VERSION_1 = Path(__file__).parent / "data" / "version_1.sql"
"""A file of schema version 1, as a dump: from before the first release."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def url(path: Path, **options: object) -> str:
    return f"sqlite:///{path}?" + "&".join(f"{k}={v}" for k, v in options.items())


# -- whose it is ------------------------------------------------------------------------------


def test_a_new_file_is_its_owner_s_alone(path: Path) -> None:
    with open_store(url(path)) as store:
        store.conversation("s").append(Message.user("x"))
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize(
    "make",
    [
        "CREATE TABLE notes (id INTEGER)",
        "CREATE TABLE sessions (id INTEGER); PRAGMA user_version = 1",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 3",
    ],
)
def test_another_program_s_database_is_refused(path: Path, make: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(make)
    before = path.read_bytes()
    with open_store(url(path)) as store:
        with pytest.raises(UnavailableError, match="another program's database"):
            store.conversation("s").append(Message.user("x"))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"These are notes, and no database. " * 100)
    with open_store(url(path)) as store:
        with pytest.raises(UnavailableError, match="no SQLite database"):
            store.stats()


def test_a_file_of_version_1_is_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1.read_text())
    with open_store(url(path)) as store:
        store.backend.clock = lambda: 1_700_000_600_000_000
        listed = [s.session_id for s in store.list_sessions(user_id="bob")]
        assert listed == ["short", "s2", "s1", "s0"]
        chat = store.conversation("s2", user_id="bob")
        assert [m.message_id for m in chat.list_messages()] == ["m1", "m2", "m3"]
        assert chat.get_message("m1").metadata == {"n": 2, "raw": b"\0"}
        assert (chat.session().title, chat.session().summary) == ("title", "sum")
        assert store.conversation("short", user_id="bob").get_ttl() > 0
        chat.append(Message.user("new"))
        assert len(chat.window(9)) == 4
        assert store.list_sessions(user_id="bob").items[0].session_id == "s2"
        assert store.verify() == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        with closing(sqlite3.connect(":memory:")) as new:
            new.executescript(SCHEMA)
            assert _columns(db) == _columns(new)


def _columns(db: sqlite3.Connection) -> dict[str, object]:
    names = db.execute(
        "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'search%' ORDER BY name"
    ).fetchall()
    return {
        name: db.execute(
            f"SELECT name FROM pragma_{'index' if kind == 'index' else 'table'}_info(?)", (name,)
        ).fetchall()
        for name, kind in names
    }


# -- whether it is still the same ---------------------------------------------------------------


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with open_store("sqlite:///chat.db") as store:
        monkeypatch.chdir(tmp_path / "two")
        chat = store.conversation("s")
        threads = [
            threading.Thread(target=chat.append, args=(Message.user("x"),)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert chat.count() == 8
    assert os.listdir(tmp_path / "two") == []


@pytest.fixture
def store_and_backup(path: Path, tmp_path: Path) -> Iterator[tuple[object, Path]]:
    """An open store with two messages, and a backup made when it had one."""
    backup = tmp_path / "backup.db"
    with open_store(url(path)) as store:
        store.conversation("s").append(Message.user("old"))
        with closing(sqlite3.connect(path)) as db:
            db.execute("VACUUM INTO ?", (str(backup),))
        store.conversation("s").append(*(Message.user("new" * 500) for _ in range(20)))
        yield store, backup


def test_a_removed_file_is_an_error(path: Path, store_and_backup: tuple) -> None:
    store, _ = store_and_backup
    chat = store.conversation("s")
    path.unlink()
    for call in (lambda: chat.append(Message.user("x")), lambda: chat.window(3), store.stats):
        with pytest.raises(UnavailableError, match="removed or moved"):
            call()
    assert not path.exists()


def test_a_moved_file_is_an_error_until_it_is_back(path: Path, store_and_backup: tuple) -> None:
    store, _ = store_and_backup
    chat = store.conversation("s")
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(UnavailableError, match="removed or moved"):
        chat.append(Message.user("x"))
    path.with_name("elsewhere.db").rename(path)
    chat.append(Message.user("x"))
    assert chat.count() == 22
    assert store.verify() == []


def test_a_backup_put_in_its_place_is_what_is_read(path: Path, store_and_backup: tuple) -> None:
    store, backup = store_and_backup
    chat = store.conversation("s")
    for name in (path, path.with_name("chat.db-wal"), path.with_name("chat.db-shm")):
        name.unlink()
    shutil.copy(backup, path)
    assert [m.text for m in chat.iter_messages()] == ["old"]
    chat.append(Message.user("after"))
    assert store.verify() == []
    store.close()
    with open_store(url(path)) as again:
        assert [m.text for m in again.conversation("s").iter_messages()] == ["old", "after"]


def test_a_backup_copied_over_it_is_an_error(path: Path, store_and_backup: tuple) -> None:
    store, backup = store_and_backup
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint")
    chat = store.conversation("s")
    assert chat.count() == 21
    shutil.copy(backup, path)
    with pytest.raises(UnavailableError, match="overwritten"):
        chat.append(Message.user("x"))


def test_a_size_that_another_thread_has_seen_grow_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This thread looked before the file grew, and compares after the other one did."""
    with open_store(url(path)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("x"))
        real, looks = os.stat, 0

        def stat_file(name: object, **options: object) -> os.stat_result:
            nonlocal looks
            status = real(name, **options)  # type: ignore[arg-type, call-overload]
            if name != str(path):
                return status
            looks += 1
            old = list(status)
            old[stat.ST_SIZE] -= 4096 if looks == 1 else 0
            return os.stat_result(old)

        monkeypatch.setattr(os, "stat", stat_file)
        chat.append(Message.user("y"))
        assert looks > 1
        assert chat.count() == 2


def test_a_removed_wal_is_an_error(path: Path, store_and_backup: tuple) -> None:
    store, _ = store_and_backup
    path.with_name("chat.db-wal").unlink()
    with pytest.raises(UnavailableError, match="-wal"):
        store.conversation("s").append(Message.user("x"))


def test_vacuum_by_another_program_is_no_harm(path: Path, store_and_backup: tuple) -> None:
    store, _ = store_and_backup
    chat = store.conversation("s")
    chat.clear()
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    chat.append(Message.user("x"))
    assert [m.text for m in chat.iter_messages()] == ["x"]


def test_a_read_only_medium_is_read(path: Path, tmp_path: Path) -> None:
    with open_store(url(path)) as store:
        store.conversation("s").append(Message.user("archived"))
    mount = tmp_path / "mount"
    mount.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    path.rename(source / "chat.db")
    bind = f"mount --bind {source} {mount} && mount -o remount,ro,bind {mount}"
    if subprocess.run(bind, shell=True, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        with open_store(url(mount / "chat.db")) as store:
            chat = store.conversation("s")
            assert [m.text for m in chat.window(5)] == ["archived"]
            assert store.verify() == []
            with pytest.raises(UnavailableError, match="read-only"):
                chat.append(Message.user("x"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


FULL_DISK = """
import resource, signal, sys
from tsmemory import BackendError, Message, open_store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(f"sqlite:///{sys.argv[1]}")
chat = store.conversation("s")
chat.append(Message.user("before"))
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
stored, refused = 1, 0
for _ in range(30):
    try:
        chat.append(Message.user("x" * 20_000))
        stored += 1
    except BackendError:
        refused += 1
assert stored > 1 and refused, (stored, refused)
assert chat.count() == len(list(chat.iter_messages())) == stored
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
chat.append(Message.user("after"))
assert chat.count() == stored + 1
assert store.verify() == []
store.close()
"""


def test_a_full_disk(path: Path) -> None:
    run_script(FULL_DISK, path)


# -- what is deleted ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete_message", "clear", "delete", "erase_user", "replace"])
def test_deleted_text_is_in_no_file(path: Path, how: str) -> None:
    with open_store(url(path)) as store:
        chat = store.conversation("s", user_id="u")
        chat.append(*(Message.user("the-secret-word " * 50, message_id=str(i)) for i in range(9)))
        if how == "erase_user":
            store.erase_user("u")
        else:
            {
                "delete_message": lambda: chat.delete_message(*map(str, range(9))),
                "clear": chat.clear,
                "delete": chat.delete,
                "replace": lambda: chat.replace([Message.user("other")]),
            }[how]()
        for file in path.parent.iterdir():
            assert b"the-secret-word" not in file.read_bytes(), file.name


def test_deleting_does_not_wait_for_a_reader(path: Path) -> None:
    with open_store(url(path)) as store:
        chat = store.conversation("s", user_id="u")
        chat.append(*(Message.user("the-secret-word") for _ in range(200)))
        with closing(sqlite3.connect(path)) as reader:
            rows = reader.execute("SELECT * FROM messages")
            rows.fetchone()
            chat.delete()  # the default timeout is 30 s, the test's own is not much longer
            assert len(rows.fetchall()) == 199
        store.backend._wal._not_before = 0.0
        store.conversation("t").append(Message.user("later"))
        for file in path.parent.iterdir():
            assert b"the-secret-word" not in file.read_bytes(), file.name


def test_errors_are_of_the_tree(path: Path) -> None:
    with open_store(url(path)) as store:
        store.setup()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DROP TABLE messages")
        chat = store.conversation("s")
        for call in (lambda: chat.append(Message.user("x")), lambda: chat.window(3)):
            with pytest.raises(TSMemoryError):
                call()


def test_two_threads_that_open_the_file_at_once_share_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first had opened it, and meets the first one's connection."""
    with open_store(url(path)) as store:
        chat = store.conversation("s")
        file, connections = store.backend.connections.file, store.backend.connections
        look, looks = file.check, iter([True])

        def look_and_wait(in_use: bool) -> object:
            identity = look(in_use)
            if next(looks, False):
                other = threading.Thread(target=chat.count)
                other.start()
                other.join()
            return identity

        monkeypatch.setattr(file, "check", look_and_wait)
        closed: list[object] = []
        monkeypatch.setattr(connections, "_discard", closed.append)
        chat.append(Message.user("x"))
        assert closed == []
        assert [m.text for m in chat.window(5)] == ["x"]
