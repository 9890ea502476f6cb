"""JSONL: what stands in the directory, what an operation reads, and opening and closing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsmemory import InvalidInputError, Message, UnavailableError, Window, open_store
from tsmemory.backends.jsonl import JSONLBackend
from tsmemory.backends.jsonl.files import File
from tsmemory.backends.jsonl.layout import MAX_NAME, file_name, id_of
from tsmemory.testing.conformance import HOSTILE_IDS

from ._edits import overwrite


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "chats"


def url(directory: Path, **options: object) -> str:
    return f"jsonl:///{directory}?" + "&".join(f"{k}={v}" for k, v in options.items())


# -- names ------------------------------------------------------------------------------------

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda id_: len(id_.encode()) <= 255
)


def folded(name: str) -> str:
    """As a file system that ignores case and normal forms compares it."""
    return unicodedata.normalize("NFC", name).casefold()


@given(ids, ids)
@example("a", "A")
@example("é", "e\u0301")
@example("con", "con.")
@example("ß", "SS")
@example("x" * 255, "x" * 254 + "y")
def test_names_are_injective_everywhere(one: str, other: str) -> None:
    assert (folded(file_name(one)) == folded(file_name(other))) == (one == other)


@given(ids)
@example(".")
@example("..")
@example("NUL")
@example("com1.txt")
@example("%41")
@example("a~b")
@example("\0")
def test_a_name_is_one_component_of_a_path(id_: str) -> None:
    name = file_name(id_)
    assert re.fullmatch(r"[a-z0-9_%~-]([a-z0-9._%~-]*[a-z0-9_%~-])?", name)
    assert len(name) <= MAX_NAME
    assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name)
    assert id_of(name) == (None if "~" in name else id_)


def test_plain_ids_are_readable() -> None:
    assert file_name("session-456_b.2") == "session-456_b.2"
    assert file_name("ada@example.com") == "ada%40example.com"
    assert file_name("日本語" * 40).startswith("%e6%97%a5")


def test_what_another_name_of_the_right_length_is() -> None:
    assert id_of("%") is None
    assert id_of("%ff") is None
    assert id_of("Abc") is None
    assert id_of("") is None


def test_two_files_a_session_and_nothing_after_it(directory: Path) -> None:
    with open_store(url(directory)) as store:
        for id_ in HOSTILE_IDS:
            store.conversation(id_, user_id="u").append(Message.user(id_))
        files = [path for path in (directory / "u").iterdir() if path.is_file()]
        assert len(files) == 2 * len(HOSTILE_IDS)
        store.conversation("a", user_id="u").delete()
        assert len(list((directory / "u").iterdir())) == len(files) - 2
        (directory / "u" / "a.meta.json").write_text("left by a crash")
        (directory / "u" / "b.jsonl.tmp").write_text("left by a crash")
        store.erase_user("u")
        assert [path.name for path in directory.iterdir()] == [".tsmemory"]
        assert all(path.stat().st_size == 0 for path in (directory / ".tsmemory").iterdir())


def test_ids_of_long_names_are_known_from_the_files(directory: Path) -> None:
    user, session = "Ü" * 120, "字" * 85
    with open_store(url(directory)) as store:
        store.conversation(session, user_id=user).append(Message.user("x"))
    for path in directory.glob("*/*.meta.json"):
        path.unlink()
    with open_store(url(directory)) as store:
        (found,) = store.iter_sessions()
        assert (found.user_id, found.session_id) == (user, session)


def test_a_file_under_another_name_is_not_taken_for_its_session(directory: Path) -> None:
    with open_store(url(directory)) as store:
        store.conversation("a").append(Message.user("x"))
        log = directory / "default" / "a.jsonl"
        log.with_name("b.jsonl").write_bytes(log.read_bytes())
        (problem,) = store.verify()
        assert problem[:3] == ("default", "b", None)
        assert "belongs to session 'a'" in problem.what
        with pytest.raises(Exception, match="copied or renamed"):
            store.conversation("b").append(Message.user("y"))


# -- the format -------------------------------------------------------------------------------


def test_the_lines_are_as_documented(directory: Path) -> None:
    with open_store(url(directory), clock=lambda: 1000) as store:
        chat = store.conversation("s", user_id="u")
        chat.append(Message.user("Grüße\n", message_id="a"))
        chat.append(Message.assistant("x", message_id="b"), Message.user("y", message_id="c"))
        chat.put_message(Message.user("old", message_id="d", create_time=7))
        chat.update_message("b", content="z")
        chat.delete_message("a")
        chat.truncate(1)
        chat.update_session(title="T")
        chat.append(Message.user("\ud800", message_id="e"))
        lines = (directory / "u" / "s.jsonl").read_text(encoding="utf-8").splitlines()
        meta = json.loads((directory / "u" / "s.meta.json").read_text(encoding="utf-8"))
    tag = json.loads(lines[0])["log"]
    assert lines[0] == (
        f'{{"tsmemory":1,"log":"{tag}","user_id":"u","session_id":"s","create_time":1000}}'
    )
    assert lines[1] == '{"create_time":1000,"message_id":"a","role":"user","content":"Grüße\\n"}'
    kinds = [
        (line.get("message_id"), line.get("op"), line.get("left"), *(set(line) & {"session"}))
        for line in map(json.loads, lines[2:])
    ]
    assert kinds == [
        ("b", None, 1),
        ("c", None, None),
        ("d", "insert", 1),
        (None, None, None, "session"),
        ("b", "replace", 1),
        (None, None, None, "session"),
        (None, None, 1),
        (None, None, None, "session"),
        (None, None, 1),
        (None, None, None, "session"),
        (None, None, None, "session"),
        ("e", None, None),
    ]
    assert json.loads(lines[8]) == {"delete": ["a"], "left": 1}
    assert json.loads(lines[10])["truncate"] == [1001, "b"]
    assert json.loads(lines[12])["session"]["record"] == {"title": "T"}
    assert json.loads(lines[13])["escaped"]["content"] == "\\ud800"
    # The note is of the last change to title, summary or metadata; it follows appends later.
    assert (meta["message_count"], meta["version"], meta["log"]) == (1, 7, tag)
    assert meta["bytes"] == sum(len(line.encode()) + 1 for line in lines[:13])
    assert meta["skip"] == sum(len(line.encode()) + 1 for line in lines[:3])
    assert meta["record"] == {"title": "T"}


def test_what_another_program_wrote_is_read(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("one"))
    log = directory / "default" / "s.jsonl"
    with log.open("a", encoding="utf-8") as file:
        last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        written = {"role": "system", "content": "two", "message_id": "by hand", "extra": 1}
        file.write(json.dumps({**written, "create_time": last["create_time"] + 1}) + "\n")
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        assert [m.text for m in chat.list_messages()] == ["one", "two"]
        assert (chat.count(), chat.session().version) == (2, 2)
        assert store.verify() == []
        chat.append(Message.user("three"))
        chat.delete_message(last["message_id"])
        assert chat.compact() > 0
        assert [m.text for m in chat.window(1)] == ["two", "three"]


def test_a_newer_format_is_left_alone(directory: Path) -> None:
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("x"))
        log = directory / "default" / "s.jsonl"
        data = log.read_bytes().replace(b'{"tsmemory":1', b'{"tsmemory":2')
        overwrite(log, data)
        with pytest.raises(UnavailableError, match="newer tsmemory"):
            store.conversation("s").append(Message.user("y"))
        assert log.read_bytes() == data


def test_compact_writes_plainly_what_is_left(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(*(Message.user(str(i), message_id=str(i)) for i in range(50)))
        chat.put_message(Message.user("tie", message_id="tie", create_time=5))
        chat.put_message(Message.user("tie too", message_id="tie too", create_time=5))
        chat.update_message("20", content="twenty")
        chat.delete_message("10", "11")
        session, messages = chat.session(), list(chat.iter_messages())
        log = directory / "default" / "s.jsonl"
        size = log.stat().st_size
        freed = chat.compact()
        assert freed == size - log.stat().st_size > 0
        assert chat.compact() == 0
        assert (chat.session(), list(chat.iter_messages())) == (session, messages)
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        assert chat.list_messages(order="desc").items == messages[::-1]
        assert store.verify() == []
        assert b'"10"' not in log.read_bytes()


def test_clear_leaves_no_text(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("secret"))
        chat.update_session(title="kept")
        chat.clear()
        assert chat.session().title == "kept"
        for path in (directory / "default").iterdir():
            assert "secret" not in path.read_text(encoding="utf-8")


# -- what an operation reads ------------------------------------------------------------------

SIZE = 100_000


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("long") / "chats"
    with open_store(url(directory, durability="normal")) as store:
        for size in (100, SIZE):
            chat = store.conversation(str(size))
            chat.append(Message.system("rules"))
            for start in range(1, size, 10_000):
                count = min(10_000, size - start)
                roles = ("assistant", "user")
                chat.append(*(Message(roles[i % 2], f"text {start + i}") for i in range(count)))
            assert chat.count() == size
    return directory


def bytes_read(work) -> int:
    before = File.counted
    work()
    return File.counted - before


def test_a_new_process_reads_a_window_from_the_end(long_history: Path) -> None:
    size = (long_history / "default" / f"{SIZE}.jsonl").stat().st_size
    for last in (20, Window(last=20, summary=True)):
        with open_store(url(long_history)) as store:
            chat = store.conversation(str(SIZE))
            read = bytes_read(lambda c=chat, w=last: c.window(w))
            assert read < 40_000 < size / 100
            assert chat.window(20)[0].role == "system"
            assert len(chat.window(20)) in (21, 22)
            assert bytes_read(lambda c=chat: c.list_messages(order="desc", limit=50)) < size / 100
            assert bytes_read(lambda c=chat: (c.session(), c.count())) < 1000


def test_an_append_reads_nothing_of_the_history(long_history: Path) -> None:
    costs = []
    for size in (100, SIZE):
        with open_store(url(long_history, durability="normal")) as store:
            chat = store.conversation(str(size))
            chat.append(Message.user("the first of a process reads the file, once"))
            log = long_history / "default" / f"{size}.jsonl"
            before = log.stat().st_size
            read = bytes_read(lambda c=chat: c.append(Message.user("x"), Message.user("y")))
            costs.append((read, log.stat().st_size - before))
            assert bytes_read(lambda c=chat: c.window(20)) < 20_000
            assert bytes_read(lambda c=chat: c.get_message("none")) < 1000
    assert costs[0] == costs[1]
    assert costs[0][0] < 1000


def test_what_was_changed_last_is_seen_from_the_end(long_history: Path) -> None:
    with open_store(url(long_history, durability="normal")) as store:
        chat = store.conversation(str(SIZE))
        newest = chat.list_messages(order="desc", limit=5).items
        chat.put_message(Message.user("older than all", message_id="old", create_time=1))
        chat.update_message(newest[2].message_id, content="changed")
        chat.delete_message(newest[0].message_id)
    with open_store(url(long_history)) as store:
        chat = store.conversation(str(SIZE))

        def look() -> None:
            found = chat.list_messages(order="desc", limit=3).items
            assert found[0] == newest[1]
            assert (found[1].message_id, found[1].text) == (newest[2].message_id, "changed")
            assert found[2] == newest[3]

        assert bytes_read(look) < 40_000


# -- opening and closing ----------------------------------------------------------------------


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("jsonl:///a%20b/c?durability=normal&timeout=3") as store:
        store.setup()
        assert isinstance(store.backend, JSONLBackend)
        assert (store.backend.durability, store.backend.timeout) == ("normal", 3.0)
        assert "a b" in repr(store)
    assert (tmp_path / "a b" / "c").is_dir()
    for bad in (
        "jsonl://",
        "jsonl:///",
        "jsonl://host/chats",
        "jsonl:///chats#x",
        "jsonl:///chats?durability=none",
        "jsonl:///chats?timeout=-1",
        "jsonl:///chats?speed=fast",
    ):
        with pytest.raises(InvalidInputError):
            open_store(bad)


@pytest.mark.parametrize(("durability", "expected"), [("full", 1), ("normal", 0)])
def test_an_append_syncs_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, durability: str, expected: int
) -> None:
    with open_store(url(directory, durability=durability)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        calls = []
        monkeypatch.setattr("tsmemory.backends.jsonl.files._sync", calls.append)
        monkeypatch.setattr(os, "fsync", calls.append)
        chat.append(Message.user("b"), Message.user("c"))
        assert len(calls) == expected


def test_reading_what_is_not_there_makes_nothing(directory: Path) -> None:
    with open_store(url(directory)) as store:
        assert store.list_sessions().items == []
        assert store.conversation("s").window(5) == []
        assert store.stats().sessions == 0
    assert not directory.exists()


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("x")
    with open_store(url(tmp_path / "chats")) as store:
        with pytest.raises(Exception, match="chats"):
            store.conversation("s").append(Message.user("x"))


def test_a_closed_store_says_so(directory: Path) -> None:
    store = open_store(url(directory))
    store.setup()
    store.close()
    with pytest.raises(UnavailableError, match="closed"):
        store.stats()


def test_tasks_of_one_loop(directory: Path) -> None:
    async def main() -> None:
        async with open_store(url(directory, durability="normal")) as store:
            chat = store.conversation("s")
            await asyncio.gather(*(chat.aappend(Message.user(str(i))) for i in range(60)))
            assert await chat.acount() == 60

    asyncio.run(main())


def test_the_short_way_of_an_append_is_what_replaying_gives(directory: Path) -> None:
    with open_store(url(directory, durability="normal")) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        chat.append(Message.system("né"), Message.user("\ud800"), Message.user('"left":1'))
        chat.put_message(Message.user("later", create_time=2**62))
        chat.append(Message.user("x"))
        path = str(directory / "default" / "s.jsonl")
        ours = store.backend._cache.load(path, indexed=True).index
        for meta in directory.glob("*/*.meta.json"):
            meta.unlink()
        store.backend._cache.clear()
        theirs = store.backend._cache.load(path, indexed=True).index
        for name in ("head", "record", "end", "tail", "entries", "order", "pinned", "_time"):
            assert getattr(ours, name) == getattr(theirs, name), name
