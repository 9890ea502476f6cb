"""JSONL: many writers, kills, and files cut short."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests._soak import SOAK
from tests.backends._processes import ROOT, check_writers, write_together
from tsmemory import CorruptRecordError, Message, TimeoutError, open_store
from tsmemory.backends.jsonl.files import File, Locks

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "chats"


def url(directory: Path, **options: object) -> str:
    return f"jsonl:///{directory}?" + "&".join(f"{k}={v}" for k, v in options.items())


def log_of(directory: Path, session: str = "s", user: str = "default") -> Path:
    return directory / user / f"{session}.jsonl"


def lines_of(path: Path) -> list[dict[str, object]]:
    """Every line is JSON by itself, and the last one is whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [msgspec.json.decode(line) for line in data.splitlines()]


# -- many writers -----------------------------------------------------------------------------


def test_8_processes_of_200_appends(directory: Path) -> None:
    write_together(url(directory), "s", 8, 200)
    with open_store(url(directory)) as store:
        check_writers(list(store.conversation("s").iter_messages()), 8, 200)
        assert store.conversation("s").count() == 1600
        assert store.verify() == []
    assert len(lines_of(log_of(directory))) == 1601


def test_8_threads_of_100_appends(directory: Path) -> None:
    with open_store(url(directory, durability="normal")) as store:

        def write(name: int) -> None:
            for i in range(100):
                store.conversation("s").append(Message.user(f"{name}.{i}"))
                store.conversation("s").window(3)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_writers(list(store.conversation("s").iter_messages()), 8, 100)
        assert store.verify() == []


def test_a_reader_beside_writers_and_compactions(directory: Path) -> None:
    with open_store(url(directory, durability="normal")) as writing:
        chat = writing.conversation("s")
        stored = chat.append(*(Message.user(f"{i}") for i in range(200)))
        done = threading.Event()

        def write() -> None:
            for message in stored[:60]:
                chat.append(Message.user("new"), Message.user("new too"))
                chat.delete_message(message.message_id)
                chat.compact()
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            with open_store(url(directory)) as store:
                mine = store.conversation("s")
                assert len(mine.window(20)) in (20, 21)
                assert mine.session().message_count >= 200
                assert len(list(mine.iter_messages())) >= 200
        thread.join()
        assert chat.count() == 260
        assert writing.verify() == []


def test_a_lock_that_stays(directory: Path) -> None:
    with open_store(url(directory, timeout=0.05)) as store:
        store.conversation("s").append(Message.user("x"))
        lock = Locks(str(directory / ".tsmemory"), 1).of_session(str(log_of(directory)))

        def try_to_write() -> None:
            with pytest.raises(TimeoutError, match="another writer"):
                store.conversation("s").append(Message.user("y"))
            assert store.conversation("s").count() == 1

        lock.run(try_to_write)
        store.conversation("s").append(Message.user("y"))


@needs_fork
def test_a_forked_child_writes_too(directory: Path) -> None:
    # In a process of its own: the child of a fork must not run pytest's.
    script = f"""
import os
from tsmemory import Message
from tsmemory import open_store
with open_store({url(directory)!r}) as store:
    chat = store.conversation("s")
    chat.append(Message.user("parent"))
    child = os.fork()
    if child == 0:
        chat.append(Message.user("child"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    chat.append(Message.user("parent again"))
    assert [m.text for m in chat.window(9)] == ["parent", "child", "parent again"]
    assert store.verify() == []
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


# -- kills ------------------------------------------------------------------------------------


KILLS = 50 if SOAK else 20


class Crasher:
    """Writers in processes of their own, killed in the middle of their work."""

    def __init__(self, url: str, session: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.jsonl._crasher", url, session],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Crasher:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def crash(self, kind: str, name: str, rounds: int, pause: float) -> list[str]:
        """What the writer had acknowledged when it was killed, some time after `rounds`."""
        self.process.stdin.write(f"{kind} {name}\n")
        self.process.stdin.flush()
        done: list[str] = []
        pid = 0
        while not pid or len(done) < rounds:
            line = self.process.stdout.readline().strip()
            if line.startswith("pid "):
                pid = int(line[4:])
            else:
                done.append(line)
        time.sleep(pause)  # a random instant of the writer's work; nothing announces one
        os.kill(pid, signal.SIGKILL)
        for line in iter(self.process.stdout.readline, "dead\n"):
            done.append(line.strip())  # noqa: PERF401  # as long as they come
        return [f"{name}.{number}" for number in done]


@needs_fork
def test_kills_in_append(directory: Path) -> None:
    rng = random.Random(7)
    acknowledged: list[str] = []
    with Crasher(url(directory), "s") as crasher:
        for i in range(KILLS):
            pause = rng.random() * 0.004
            acknowledged += crasher.crash("append", f"r{i}", rng.randrange(1, 12), pause)
            with open_store(url(directory)) as store:
                kept = [m.message_id for m in store.conversation("s").iter_messages()]
                assert set(acknowledged) <= set(kept)
                assert len(set(kept)) == len(kept) == store.conversation("s").count()
                assert store.verify() == []
    assert len(acknowledged) > 5 * KILLS
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("last"))
    lines_of(log_of(directory))


@needs_fork
def test_kills_in_compact(directory: Path) -> None:
    rng = random.Random(11)
    acknowledged: list[str] = []
    with Crasher(url(directory), "s") as crasher:
        for i in range(KILLS):
            pause = rng.random() * 0.01
            acknowledged += crasher.crash("compact", f"r{i}", rng.randrange(1, 4), pause)
            with open_store(url(directory)) as store:
                chat = store.conversation("s")
                kept = [m.message_id for m in chat.iter_messages()]
                assert set(acknowledged) <= set(kept)
                # Of a round that was killed the first message may be there still.
                assert sum(mid.endswith(".gone") for mid in kept) <= 1
                assert len(set(kept)) == len(kept) == chat.count()
                assert store.verify() == []
                chat.delete_message(*(mid for mid in kept if mid.endswith(".gone")))
    assert len(acknowledged) > 2 * KILLS
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.compact()
        assert [m.message_id for m in chat.iter_messages()] == [
            mid for mid in kept if not mid.endswith(".gone")
        ]
        assert not list(directory.glob("*/*.tmp"))
    lines_of(log_of(directory))


def test_compacting_removes_what_a_killed_writer_left(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("kept"))
        path = log_of(directory)
        for unfinished in ("s.jsonl.tmp", "s.meta.json.tmp"):
            path.with_name(unfinished).write_bytes(b"{")
        assert chat.compact() == 0  # there is nothing to gain
        assert not list(directory.glob("*/*.tmp"))
        assert [m.text for m in chat.window(9)] == ["kept"]


# -- files cut short --------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("meta", ["kept", "missing", "behind"])
def test_a_file_cut_at_every_byte_of_its_last_record(
    directory: Path, batch: int, meta: str
) -> None:
    path = log_of(directory)
    note = path.with_name("s.meta.json")
    options = url(directory, durability="normal")
    with open_store(options) as store:
        chat = store.conversation("s")
        chat.append(Message.user("first", message_id="a"), Message.user("second", message_id="b"))
        before, noted = path.read_bytes(), note.read_bytes()
        chat.append(*(Message.user(f"né {i}", message_id=f"n{i}") for i in range(batch)))
    whole, noted_last = path.read_bytes(), note.read_bytes()
    for size in range(len(before), len(whole) - 1):
        path.write_bytes(whole[:size])
        note.write_bytes(noted if meta == "behind" else noted_last)
        if meta == "missing":
            note.unlink()
        with open_store(options) as store:
            chat = store.conversation("s")
            assert [m.text for m in chat.window(None)] == ["first", "second"], size
            assert [m.text for m in chat.list_messages(order="desc")] == ["second", "first"]
            assert (chat.count(), chat.session().version) == (2, 1)
            assert store.verify() == []
            chat.append(Message.user("next", message_id="next"))
            assert [m.text for m in chat.list_messages()] == ["first", "second", "next"]
            assert store.verify() == []
        assert path.read_bytes().startswith(before)
        assert [line.get("message_id") for line in lines_of(path)] == [None, "a", "b", "next"]
    path.write_bytes(whole)
    with open_store(options) as store:
        assert store.conversation("s").count() == 2 + batch


def test_a_process_that_read_before_the_cut_sees_it_too(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        for text in "abc":
            chat.append(Message.user(text))
        path = log_of(directory)
        path.write_bytes(path.read_bytes()[:-20])
        assert [m.text for m in chat.list_messages()] == ["a", "b"]
        chat.append(Message.user("d"))
        assert [m.text for m in chat.list_messages()] == ["a", "b", "d"]
        assert store.verify() == []


@pytest.mark.parametrize("part", [b"{", b'{"create_time":5,', b"\0" * 500, b"\0\n" * 3, b"\n"])
def test_what_an_unfinished_write_left_is_cut_off(directory: Path, part: bytes) -> None:
    path = log_of(directory)
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        whole = path.read_bytes()
        path.write_bytes(whole + part)
        assert [m.text for m in chat.window(5)] == ["a"]
        assert store.verify() == []
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        assert [m.text for m in chat.window(5)] == ["a"]
        chat.append(Message.user("b"))
        assert path.read_bytes().startswith(whole + b'{"create_time":')
        assert [m.text for m in chat.window(5)] == ["a", "b"]


def test_a_compaction_killed_between_its_two_renames(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        a, b = chat.append(Message.user("a"), Message.system("b"))
        chat.delete_message(a.message_id)
        chat.update_session(title="t", summary="u", metadata={"k": 1})
        session = chat.session()
        note = log_of(directory).with_name("s.meta.json")
        old = note.read_bytes()
        assert chat.compact() > 0
        note.write_bytes(old)
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        assert chat.session() == session
        assert list(chat.window(5)) == [b]
        assert store.verify() == []
        chat.append(Message.user("c"))
        assert store.conversation("s").session().version == session.version + 1


def test_a_full_disk_leaves_the_file_as_it_was(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        before = log_of(directory).read_bytes()

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tsmemory.backends.jsonl.files._sync", fail)
        with pytest.raises(Exception, match="No space left"):
            chat.append(Message.user("b"))
        assert log_of(directory).read_bytes() == before
        assert chat.count() == 1
        monkeypatch.undo()
        chat.append(Message.user("c"))
        assert [m.text for m in chat.window(5)] == ["a", "c"]


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("damage", ["start", "end", "all", "other"])
def test_a_bad_line_in_the_middle_is_a_broken_record(
    directory: Path, damage: str, meta: bool
) -> None:
    path = log_of(directory)
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        for text in "abc":
            chat.append(Message.user(text, message_id=text))
    lines = path.read_bytes().splitlines(keepends=True)
    size = len(lines[2])
    lines[2] = {
        "start": b"garbage!" + lines[2][8:],
        "end": lines[2][: size - 6] + b"#####\n",
        "all": b"\0" * (size - 1) + b"\n",
        "other": b'["valid", "but no message"]'.ljust(size - 1) + b"\n",
    }[damage]
    path.write_bytes(b"".join(lines))
    if not meta:
        path.with_name("s.meta.json").unlink()
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        for read in (lambda: chat.window(3), lambda: list(chat.iter_messages())):
            with pytest.raises(CorruptRecordError) as caught:
                read()
        broken = caught.value.message_id
        assert broken == ("b" if damage == "end" else f"~broken at byte {sum(map(len, lines[:2]))}")
        assert [m.text for m in chat.iter_messages(on_error="skip")] == ["a", "c"]
        assert [m.text for m in chat.list_messages(order="desc", on_error="skip")] == ["c", "a"]
        assert [p.message_id for p in store.verify()] == [broken]
        assert chat.count() == 3
        chat.append(Message.user("d", message_id="d"))
        chat.delete_message("a")
        chat.compact()
        assert [m.text for m in chat.iter_messages(on_error="skip")] == ["c", "d"]
        (problem,) = store.verify()
        chat.delete_message(problem.message_id)
        assert store.verify() == []
        assert [m.text for m in chat.window(5)] == ["c", "d"]


@pytest.mark.parametrize("meta", [True, False])
def test_a_bad_last_line_is_not_taken_for_an_unfinished_one(directory: Path, meta: bool) -> None:
    path = log_of(directory)
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("a", message_id="a"))
        store.conversation("s").append(Message.user("b", message_id="b"))
    *before, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(before) + b"#" * (len(last) - 1) + b"\n")
    if not meta:
        path.with_name("s.meta.json").unlink()
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        with pytest.raises(CorruptRecordError):
            chat.window(5)
        chat.append(Message.user("c"))
        assert [m.text for m in chat.iter_messages(on_error="skip")] == ["a", "c"]
        assert len(store.verify()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 100, b'{"v":1}'])
def test_a_damaged_meta_file_is_made_again(directory: Path, damage: bytes) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s", user_id="u", ttl=500)
        chat.append(Message.system("a"), Message.user("b"))
        chat.update_session(title="t", summary="s", metadata={"k": b"1"})
        chat.append(Message.user("c"))
        session = chat.session()
    note = log_of(directory, user="u").with_name("s.meta.json")
    note.write_bytes(damage)
    with open_store(url(directory)) as store:
        chat = store.conversation("s", user_id="u")
        assert chat.session() == session
        assert list(store.iter_sessions()) == [session]
        assert store.verify() == []
        chat.append(Message.user("d"))
    assert msgspec.json.decode(note.read_bytes())["version"] == session.version + 1


def test_bytes_read_are_counted(directory: Path) -> None:
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("a"))
        before = File.counted
        store.conversation("s").window(5)
        assert 0 < File.counted - before <= log_of(directory).stat().st_size + 200
