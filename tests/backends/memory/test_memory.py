"""The memory engine: eviction, size, and what it does not keep."""

from __future__ import annotations

import threading

from tsmemory import Message, Store, open_store
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
