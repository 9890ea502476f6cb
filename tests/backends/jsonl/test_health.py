"""What `doctor` reports of a directory: what a killed process or an administrator left there."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsmemory import Message, Store
from tsmemory.backends.jsonl import JSONLBackend, health
from tsmemory.engine.records import Finding

NOW = 1_795_300_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(JSONLBackend(tmp_path / "chats", durability="normal")) as store:
        store.conversation("a", user_id="ada").append(Message.user("x"))
        yield store


def _look(store: Store) -> dict[str, Finding]:
    return {finding.name: finding for finding in store.run(store.backend.check_server())}


def test_a_sound_directory(store: Store) -> None:
    found = _look(store)
    assert all(finding.ok for finding in found.values())
    space = found.pop("free_space").value
    assert space.endswith(" GB")
    assert {finding.name: finding.value for finding in found.values()} == {
        "unreadable": "none",
        "torn_tails": "none",
        "summaries": "all there",
        "expired_sessions": "0",
        "temporary_files": "none",
        "permissions": "not open",
        "locks": "none held",
    }


def test_what_a_killed_process_left(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "chats" / "ada" / "a.jsonl"
    with log.open("ab") as file:
        file.write(b'{"create_time":17,"mess')
    left = log.with_name("a.jsonl.tmp")
    left.write_bytes(log.read_bytes())
    assert _look(store)["temporary_files"].ok  # its writer may be at work
    os.utime(left, (1, 1))
    chat = store.conversation("long")
    chat.append(*(Message.user("x" * 1_000) for _ in range(80)))
    (tmp_path / "chats" / "default" / "long.meta.json").unlink()
    store.conversation("old", ttl=0.001).append(Message.user("x"))
    backend = store.backend
    assert isinstance(backend, JSONLBackend)
    backend.clock = lambda: 2 * NOW
    found = _look(store)
    torn = found["torn_tails"]
    assert torn.value.startswith(f"1 ({os.path.join('ada', 'a.jsonl')}): an unfinished write")
    assert torn.ok  # the next writer mends it
    assert not found["temporary_files"].ok
    assert found["temporary_files"].value.startswith(f"1 ({os.path.join('ada', 'a.jsonl.tmp')})")
    assert "long.meta.json): missing or damaged" in found["summaries"].value
    assert found["expired_sessions"].value == '1; "tsmemory purge" removes them'
    store.conversation("a", user_id="ada").compact()
    store.conversation("a", user_id="ada").append(Message.user("x"))
    found = _look(store)
    assert [found[name].value for name in ("torn_tails", "temporary_files")] == ["none", "none"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_what_others_may_read(store: Store, tmp_path: Path) -> None:
    chats = tmp_path / "chats"
    (chats / "ada" / "a.jsonl").chmod(0o644)
    assert _look(store)["permissions"].ok  # nobody else may enter the directory
    chats.chmod(0o755)
    found = _look(store)["permissions"]
    assert not found.ok
    log = os.path.join("ada", "a.jsonl")
    assert found.value.startswith(f"2 (., {log}): open to every user of this machine; ")
    assert found.value.endswith(f"chmod -R o= {chats}")


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_lock_that_stays(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.0)
    (lock,) = (tmp_path / "chats" / ".tsmemory").glob("??.lock")
    with lock.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        found = _look(store)["locks"]
        assert not found.ok
        assert lock.name in found.value
        if sys.platform == "linux":
            assert f"by process {os.getpid()}" in found.value
    assert _look(store)["locks"].ok
