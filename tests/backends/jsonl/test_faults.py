"""JSONL: interrupts, forks, damaged bytes, and files that others moved, edited or locked away."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.backends._processes import ROOT
from tsmemory import CorruptRecordError, Message, Store, TSMemoryError, UnavailableError, open_store
from tsmemory.backends.jsonl import JSONLBackend

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files, signals and forks")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "chats"


def url(directory: Path) -> str:
    return f"jsonl:///{directory}?durability=normal&timeout=5"


def log_of(directory: Path, session: str = "s", user: str = "default") -> Path:
    return directory / user / f"{session}.jsonl"


def texts(store: Store, session: str = "s") -> list[str]:
    return [m.text for m in store.conversation(session).iter_messages()]


def run_python(script: str) -> str:
    """In a process of its own: signals and forks are not for pytest's."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- what an append depends on ----------------------------------------------------------------


@pytest.mark.parametrize("session", ["new", "s"])
def test_an_append_without_its_meta_file_is_no_failure(
    directory: Path, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("first"))
        meta = directory / "default" / f"{session}.meta.json"
        meta.unlink(missing_ok=True)
        (meta / "in the way").mkdir(parents=True)
        chat = store.conversation(session)
        chat.append(Message.user("x"))
        chat.update_session(title="t")
        chat.append(Message.user("y"))
        assert "cannot be written" in caplog.text
    with open_store(url(directory)) as store:
        assert texts(store, session)[-2:] == ["x", "y"]
        assert store.conversation(session).session().title == "t"
        assert len(store.list_sessions().items) == len({"s", session})


def test_a_list_of_sessions_that_cannot_be_written_is_no_failure(directory: Path) -> None:
    with open_store(url(directory)) as store:
        store.setup()
        (directory / ".tsmemory" / "sessions.jsonl").mkdir()
        store.conversation("s").append(Message.user("x"))
        assert texts(store) == ["x"]


# -- edited by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize("kept_open", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_last_newline_that_an_editor_removed(
    directory: Path, count: int, kept_open: bool
) -> None:
    store = open_store(url(directory))
    store.conversation("s").append(*(Message.user(str(i)) for i in range(count)))
    before = [str(i) for i in range(count)]
    path = log_of(directory)
    path.write_bytes(path.read_bytes()[:-1])
    if not kept_open:
        store.close()
        store = open_store(url(directory))
    with store:
        assert texts(store) == before
        assert [m.text for m in store.conversation("s").window(5)] == before
        assert store.list_sessions().items[0].message_count == count
        store.conversation("s").append(Message.user("next"))
        assert texts(store) == [*before, "next"]
        assert store.verify() == []
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    with open_store(url(directory)) as store:
        assert texts(store) == [*before, "next"]


def test_a_log_without_a_whole_batch_is_broken_not_empty(directory: Path) -> None:
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("only"))
        path = log_of(directory)
        data = path.read_bytes()[:-30]
        path.write_bytes(data)
        with pytest.raises(CorruptRecordError, match="lost its messages"):
            store.conversation("s").session()
        with pytest.raises(CorruptRecordError):
            store.conversation("s").append(Message.user("next"))
        assert path.read_bytes() == data
        assert len(store.verify()) == 1
        store.conversation("s").delete()
        store.conversation("s").append(Message.user("next"))
        assert texts(store) == ["next"]


def test_a_removed_line_is_a_lost_part(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"), Message.user("b"))
        chat.append(Message.user("c"))
        chat.update_session(title="t")
        path = log_of(directory)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:3] + lines[4:]))
        data = path.read_bytes()
        with pytest.raises(CorruptRecordError, match="message_count is 3"):
            chat.append(Message.user("d"))
        assert path.read_bytes() == data
        assert [p.message_id for p in store.verify()] == [None]
        assert [m.text for m in chat.iter_messages(on_error="skip")] == ["a", "b"]


def test_a_change_in_place_is_seen(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("aaaa"), Message.user("b"))
        assert texts(store) == ["aaaa", "b"]
        path = log_of(directory)
        path.write_bytes(path.read_bytes().replace(b"aaaa", b"cccc"))
        os.utime(path, ns=(1, 1))  # whatever the resolution of the file system's times
        assert texts(store) == ["cccc", "b"]


# -- moved, removed, restored -----------------------------------------------------------------


@needs_posix
def test_a_store_that_is_removed_moved_and_restored_while_open(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        backup = directory.with_name("backup")
        shutil.copytree(directory, backup)
        chat.append(Message.user("b"))
        directory.rename(directory.with_name("moved"))
        assert chat.session() is None
        assert store.list_sessions().items == []
        chat.append(Message.user("new"))
        assert texts(store) == ["new"]
        shutil.rmtree(directory)
        shutil.copytree(backup, directory)
        assert texts(store) == ["a"]
        chat.append(Message.user("after"))
        assert store.verify() == []
    for path, expected in ((directory, ["a", "after"]), (directory.with_name("moved"), ["a", "b"])):
        with open_store(url(path)) as store:
            assert texts(store) == expected
            assert store.list_sessions().items[0].message_count == 2


def test_the_directory_does_not_follow_chdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_store("jsonl:///chats") as store:
        store.conversation("s").append(Message.user("a"))
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.conversation("s").append(Message.user("b"))
        assert texts(store) == ["a", "b"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_sessions_that_others_put_there_are_listed(directory: Path) -> None:
    with open_store(url(directory)) as store:
        for i in range(5):
            store.conversation(str(i)).append(Message.user("x"))
        store.list_sessions()
    shutil.move(log_of(directory, "3"), directory / "elsewhere")
    with log_of(directory, "1").open("a") as file:
        later = {"create_time": 2 * 10**15, "message_id": "by hand", "role": "user"}
        file.write(json.dumps(later) + "\n")
    with open_store(url(directory)) as store:
        assert [s.session_id for s in store.iter_sessions()] == ["1", "4", "2", "0"]
    for name in (
        "sessions.jsonl",
        *(f.name for f in (directory / ".tsmemory").glob("*.*") if f.name != "sessions.jsonl"),
    ):
        (directory / ".tsmemory" / name).unlink()
    with open_store(url(directory)) as store:
        assert [s.session_id for s in store.iter_sessions()] == ["1", "4", "2", "0"]


def test_other_processes_activity_is_seen_at_once(directory: Path) -> None:
    with open_store(url(directory)) as mine, open_store(url(directory)) as other:
        for i in range(4):
            mine.conversation(str(i)).append(Message.user("x"))
        first = mine.list_sessions(limit=2)
        assert [s.session_id for s in first] == ["3", "2"]
        other.conversation("0").append(Message.user("y"))
        other.conversation("new").append(Message.user("y"))
        other.conversation("3").delete()
        assert [s.session_id for s in mine.list_sessions()] == ["new", "0", "2", "1"]
        rest = mine.list_sessions(limit=5, cursor=first.next_cursor)
        assert [s.session_id for s in rest] == ["1"]


def test_the_list_of_sessions_is_rewritten_beside_writers(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmemory.backends.jsonl.catalogue._REWRITE_BYTES", 2000)
    with open_store(url(directory)) as store, open_store(url(directory)) as other:

        def write(store: Store, names: str) -> None:
            for i in range(120):
                store.conversation(names[i % len(names)]).append(Message.user("x"))

        threads = [
            threading.Thread(target=write, args=(s, names))
            for s, names in ((store, "abc"), (other, "def"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sizes = {s.session_id: s.message_count for s in store.iter_sessions()}
        assert sizes == dict.fromkeys("abcdef", 40)
        listed = [s.session_id for s in other.iter_sessions()]
        assert listed == [s.session_id for s in store.iter_sessions()]
    assert (directory / ".tsmemory" / "sessions.jsonl").stat().st_size < 8000


# -- what is not ours -------------------------------------------------------------------------


@needs_posix
def test_directories_and_links_are_not_sessions(directory: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    with open_store(url(outside)) as store:
        store.conversation("kept", user_id="u").append(Message.user("x"))
    with open_store(url(directory)) as store:
        store.conversation("s").append(Message.user("x"))
        (directory / "default" / "x.jsonl").mkdir()
        (directory / "linked").symlink_to(outside / "u", target_is_directory=True)
        log_of(directory, "link").symlink_to(log_of(outside, "kept", "u"))
        assert [s.session_id for s in store.iter_sessions()] == ["s"]
        assert store.stats().sessions == 1
        assert store.verify() == []
        for session, user in (("x", "default"), ("kept", "linked"), ("link", "default")):
            with pytest.raises(UnavailableError):
                store.conversation(session, user_id=user).append(Message.user("y"))
        with pytest.raises(UnavailableError):
            store.erase_user("linked")
        store.clear()
        assert list(store.iter_sessions()) == []
    with open_store(url(outside)) as store:
        assert texts_of_kept(store) == ["x"]


def texts_of_kept(store: Store) -> list[str]:
    return [m.text for m in store.conversation("kept", user_id="u").iter_messages()]


@needs_posix
def test_only_the_owner_may_read(directory: Path) -> None:
    old = os.umask(0)
    try:
        with open_store(url(directory)) as store:
            chat = store.conversation("s")
            chat.append(Message.user("x"), Message.user("y"))
            chat.delete_message(chat.window(1)[0].message_id)
            chat.compact()
            store.list_sessions()
    finally:
        os.umask(old)
    for path in (directory, *directory.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_an_erased_session_leaves_no_name(directory: Path) -> None:
    with open_store(url(directory)) as store:
        for user in ("ann", "bob"):
            for session in ("first", "second"):
                store.conversation(session, user_id=user).append(Message.user("x"))
        names = directory / ".tsmemory" / "sessions.jsonl"
        store.conversation("first", user_id="ann").delete()
        assert names.read_text().count("first") == 1
        store.erase_user("ann")
        assert "ann" not in names.read_text()
        assert [s.session_id for s in store.iter_sessions()] == ["second", "first"]
        store.clear()
        assert not names.exists()


# -- interrupts and forks ---------------------------------------------------------------------

_INTERRUPTED = """
import random, signal
from tsmemory import Message, open_store
random.seed(3)
url = {url!r}
store, other = open_store(url), open_store(url)
chats = [store.conversation(str(i)) for i in range(3)]
others = [other.conversation(str(i)) for i in range(3)]
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted, acknowledged = 0, [set(), set(), set()]
for number in range({rounds}):
    chat, which = chats[number % 3], number % 3
    message = Message.user("x", message_id=str(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + random.random() * 0.0004)
        chat.append(message)
        if number % 5 == 0:
            store.list_sessions(limit=2)
        if number % 7 == 0:
            chat.update_message(str(number), content="y")
        while True:
            chat.window(4)
    except KeyboardInterrupt:
        interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if chat.get_message(str(number)) is not None:
        acknowledged[which].add(str(number))
    others[which].append(Message.user("z", message_id=f"other {{number}}"))
assert interrupted > {rounds} * 0.9, interrupted
for which in range(3):
    ids = {{m.message_id for m in chats[which].iter_messages()}}
    assert acknowledged[which] <= ids
    assert {{f"other {{n}}" for n in range(which, {rounds}, 3)}} <= ids
    assert chats[which].count() == len(ids)
assert store.verify() == [] == other.verify()
assert len(list(store.iter_sessions())) == 3
"""


@needs_posix
@pytest.mark.parametrize("kind", ["jsonl", "memory"])
def test_interrupts_at_random_instants(directory: Path, kind: str) -> None:
    soak = bool(os.environ.get("TSMEMORY_SOAK"))
    script = _INTERRUPTED.format(url=url(directory), rounds=5000 if soak else 1000)
    if kind == "memory":
        script = script.replace("open_store(url), open_store(url)", '(open_store("memory:"),) * 2')
    run_python(script)


_FORKING = """
import os, threading
from tsmemory import Message, open_store
store = open_store({url!r})
chat = store.conversation("s")
stop = threading.Event()
def write():
    while not stop.is_set():
        chat.append(Message.user("parent"))
        store.list_sessions(limit=1)
threads = [threading.Thread(target=write) for _ in range(2)]
for thread in threads: thread.start()
failed = 0
for number in range({rounds}):
    child = os.fork()
    if child == 0:
        try:
            chat.append(Message.user("child", message_id=f"child {{number}}"))
            assert store.list_sessions(limit=1).items
        except BaseException as error:
            print(number, type(error), error, flush=True)
            os._exit(1)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads: thread.join()
assert not failed, failed
kept = [m for m in chat.iter_messages() if m.text == "child"]
assert len(kept) == {expected}, len(kept)
assert store.verify() == []
"""


@needs_posix
@pytest.mark.parametrize("kind", ["jsonl", "memory"])
def test_every_forked_child_writes_while_threads_write(directory: Path, kind: str) -> None:
    # Without what the backends do after a fork, one of JSONL hangs at once, where a file is locked
    # most of the time; one of memory within sixty forks.
    rounds = 40 if kind == "jsonl" and not os.environ.get("TSMEMORY_SOAK") else 200
    target = url(directory) if kind == "jsonl" else "memory:"
    expected = rounds if kind == "jsonl" else 0
    run_python(_FORKING.format(url=target, rounds=rounds, expected=expected))


# -- damage -----------------------------------------------------------------------------------


def _build(directory: Path) -> list[Path]:
    with open_store(url(directory)) as store:
        chat = store.conversation("s", ttl=10**6)
        chat.append(Message.system("rules"), Message.user("né", metadata={"k": [1, b"2"]}))
        chat.append(Message.assistant("x", message_id="m\\1"))
        chat.put_message(Message.user("old", message_id="old", create_time=7))
        chat.delete_message("old")
        chat.truncate(2)
        chat.update_session(title="T", metadata={"n": 1})
        chat.append(Message.user("last"))
        store.conversation("neighbour").append(Message.user("fine"))
    return [
        log_of(directory),
        log_of(directory).with_name("s.meta.json"),
        directory / ".tsmemory" / "sessions.jsonl",
    ]


_VALUES = [
    b"null", b"-1", b"0", b"1e400", b"9223372036854775807", b"99999999999999999999", b'""', b'"x"',
    b"[]", b"{}", b"true", b"[" * 2000 + b"]" * 2000, b'"\\ud800"',
]  # fmt: skip


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """The same bytes with one thing wrong."""
    kind = rng.randrange(5)
    at = rng.randrange(len(data))
    if kind == 0:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + rng.randrange(1, 40) :]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]
    if kind == 3:
        return data[:at] + bytes(min(rng.randrange(1, 300), len(data) - at)) + data[at + 300 :]
    # A field of a line has another value.
    begin = data.find(b":", at) + 1
    end = min((i for i in (data.find(b",", begin), data.find(b"}", begin)) if i > 0), default=begin)
    return data[:begin] + rng.choice(_VALUES) + data[end:]


def test_damaged_bytes_raise_only_errors_of_the_tree(tmp_path: Path) -> None:
    rng = random.Random(5)
    original = tmp_path / "original"
    files = _build(original)
    contents = {path.relative_to(original): path.read_bytes() for path in files}
    rounds = 3000 if os.environ.get("TSMEMORY_SOAK") else 120
    for number in range(rounds):
        directory = tmp_path / str(number)
        shutil.copytree(original, directory)
        name = rng.choice(list(contents))
        damaged = _damaged(rng, contents[name])
        (directory / name).write_bytes(damaged)
        with open_store(url(directory)) as store:
            chat = store.conversation("s")
            for use in (
                lambda c=chat: c.window(2),
                lambda c=chat: list(c.iter_messages(on_error="skip")),
                lambda c=chat: c.session(),
                lambda s=store: list(s.iter_sessions(on_error="skip")),
                lambda s=store: s.stats(),
                lambda s=store: s.verify(),
                lambda c=chat: c.append(Message.user("next")),
                lambda c=chat: c.compact(),
                lambda c=chat: c.list_messages(limit=2),
            ):
                try:
                    use()
                except TSMemoryError:
                    pass
                except Exception as error:
                    raise AssertionError((number, name, damaged)) from error
            neighbours = [s.session_id for s in store.iter_sessions(on_error="skip")]
            assert "neighbour" in neighbours, (number, name, damaged)
            chat.delete()
            store.clear()
        shutil.rmtree(directory)


# -- contention -------------------------------------------------------------------------------


def test_replace_and_update_make_progress_beside_appenders(directory: Path) -> None:
    with open_store(url(directory)) as store:
        chat = store.conversation("s")
        chat.append(*(Message.user(str(i)) for i in range(300)))
        stop = threading.Event()
        appended = []

        def append() -> None:
            with open_store(url(directory)) as mine:
                while not stop.is_set():
                    appended.extend(mine.conversation("s").append(Message.user("x")))

        threads = [threading.Thread(target=append) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                chat.update_message(
                    chat.list_messages(limit=1).items[0].message_id, content="changed"
                )
            chat.replace([Message.user("all that is left")])
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert texts(store)[0] == "all that is left"
        assert store.verify() == []


@needs_posix
def test_a_read_only_medium(directory: Path) -> None:
    files = _build(directory)
    script = f"""
import os
from tsmemory import Message, UnavailableError, open_store
with open_store({url(directory)!r}) as store:
    os.setuid(65534) if os.getuid() == 0 else None
    chat = store.conversation("s")
    assert [m.text for m in chat.window(5)][-1] == "last"
    assert len(store.list_sessions().items) == 2
    assert store.stats().sessions == 2
    try:
        chat.append(Message.user("x"))
    except UnavailableError as error:
        assert "may you" in str(error)
    else:
        raise AssertionError("written")
"""
    everything = [directory, *directory.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in directory.parents:
        if path.stat().st_uid == os.getuid() and path != Path(path.anchor):
            path.chmod(path.stat().st_mode | 0o111)
    before = [path.read_bytes() for path in files]
    run_python(script)
    assert [path.read_bytes() for path in files] == before
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_bad_arguments() -> None:
    for bad in ("", "a\0b"):
        with pytest.raises(TSMemoryError):
            JSONLBackend(bad)
    for timeout in (-1, float("nan"), float("inf")):
        with pytest.raises(TSMemoryError):
            JSONLBackend("x", timeout=timeout)


def test_open_files_are_few_at_any_number_of_sessions(directory: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    before = len(os.listdir("/proc/self/fd"))
    with open_store(url(directory)) as store:
        for i in range(300):
            store.conversation(str(i)).append(Message.user("x"))
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) - before < 150  # macOS allows 256 in all


def test_no_lock_and_no_file_stays_open_after_close(directory: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    before = len(os.listdir("/proc/self/fd"))
    store = open_store(url(directory))
    for i in range(100):
        store.conversation(str(i)).append(Message.user("x"))
    store.list_sessions()
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before
