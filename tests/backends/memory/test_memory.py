"""The memory backend: eviction, size, order, and what it does not keep."""

from __future__ import annotations

import threading

import pytest

from tsmemory import Message, Store, open_store
from tsmemory.backends import memory
from tsmemory.backends.memory import MemoryBackend


def sessions(store: Store) -> list[str]:
    return sorted(s.session_id for s in store.iter_sessions())


def test_the_least_recently_used_session_is_evicted() -> None:
    store = open_store("memory:?max_sessions=3")
    for name in "abc":
        store.conversation(name).append(Message.user(name))
    store.conversation("a").window(5)  # reading is use
    store.conversation("b").append(Message.user("again"))  # so is writing
    store.conversation("d").append(Message.user("d"))
    assert sessions(store) == ["a", "b", "d"]
    assert store.conversation("c").session() is None
    store.conversation("e").update_session(title="e")
    assert sessions(store) == ["b", "d", "e"]
    assert store.verify() == []


def test_listing_is_not_use() -> None:
    store = open_store("memory:", max_sessions=2)
    for name in "ab":
        store.conversation(name).append(Message.user(name))
    store.list_sessions()
    store.conversation("c").append(Message.user("c"))
    assert sessions(store) == ["b", "c"]


def test_size_and_cleanup() -> None:
    now = [1_000_000]
    backend = MemoryBackend(clock=lambda: now[0])
    store = Store(backend, ttl=2)
    for name in "ab":
        store.conversation(name).append(Message.user(name))
    store.conversation("b").set_ttl(None)
    assert backend.size() == 2
    now[0] += 2_000_000
    assert sessions(store) == ["b"]
    assert backend.size() == 2  # nobody sees it, and it is still there
    assert store.purge_expired() == (1, 1)
    assert backend.size() == 1


def test_eviction_under_threads() -> None:
    store = open_store("memory:", max_sessions=5)

    def write(name: int) -> None:
        for i in range(100):
            store.conversation(f"{name}.{i % 7}").append(Message.user("x"))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions(store)) == 5
    assert store.verify() == []


def test_closing_keeps_the_data_of_the_object() -> None:
    store = open_store("memory:")
    store.conversation("s").append(Message.user("x"))
    store.close()
    assert store.conversation("s").count() == 1
    assert open_store("memory:").conversation("s").count() == 0


def test_a_page_of_sessions_looks_at_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory:")
    for i in range(3000):
        store.conversation(str(i), user_id=f"u{i % 2}").append(Message.user("x"))
    for i in range(0, 3000, 7):
        store.conversation(str(i), user_id=f"u{i % 2}").append(Message.user("y"))
    looked = []
    decode = memory.decode_session
    monkeypatch.setattr(memory, "decode_session", lambda data: looked.append(1) or decode(data))
    page = store.list_sessions(limit=20)
    assert [int(s.session_id) for s in page] == list(range(2996, 2996 - 7 * 20, -7))
    mine = store.list_sessions(user_id="u0", limit=20, cursor=None)
    assert [int(s.session_id) for s in mine] == list(range(2996, 2996 - 14 * 20, -14))
    assert len(looked) <= 2 * 21
    looked.clear()
    assert len({s.session_id for s in store.iter_sessions()}) == 3000
    assert len(looked) <= 3100


def test_the_order_follows_erasing_eviction_and_expiry() -> None:
    now = [1_000_000]
    store = Store(MemoryBackend(clock=lambda: now[0], max_sessions=4))
    for name in "abcdef":
        now[0] += 1
        store.conversation(name, ttl=1 if name == "d" else None).append(Message.user(name))
    now[0] += 2_000_000
    store.conversation("e").delete()
    assert [s.session_id for s in store.list_sessions()] == ["f", "c"]
    store.conversation("c").update_session(title="t")
    assert [s.session_id for s in store.list_sessions()] == ["c", "f"]
