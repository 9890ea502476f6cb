"""Large changes: staged out of sight, all or nothing, and cleaned up after a writer that died."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from tsmemory import Message, Store
from tsmemory.backends.redis import RedisBackend, bulk, loading, reader, writer
from tsmemory.backends.redis.layout import KeyNames
from tsmemory.backends.redis.wire import Wire
from tsmemory.engine.records import Key
from tsmemory.model import Erased
from tsmemory.testing.servers.redis import RedisServer

SIZE = 170  # four scripts of a tenth of their usual size
FULL_SIZE = 1_700  # four scripts


@pytest.fixture(params=["valkey", "redis_6"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    found: RedisServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests with a tenth of the messages, all of which a test reads between any two."""
    rows = loading.SLICE_ROWS // 10
    for module in (bulk, loading, writer):
        monkeypatch.setattr(module, "SLICE_ROWS", rows)
    monkeypatch.setattr(reader, "PORTION_ROWS", reader.PORTION_ROWS // 10)
    monkeypatch.setattr(bulk, "_DELETIONS", bulk._DELETIONS // 10)
    monkeypatch.setattr(loading, "_REPAIR_ROWS", loading._REPAIR_ROWS // 10)


@pytest.fixture
def store(server: RedisServer, prefix: str) -> Any:
    with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
        yield store


def batch(name: str, size: int = SIZE) -> list[Message]:
    return [
        Message("system" if i % 50 == 0 else "user", f"{name}{i}", message_id=f"{name}{i}")
        for i in range(size)
    ]


def texts(store: Store, name: str = "s") -> list[str]:
    return [m.text for m in store.conversation(name, user_id="u").iter_messages()]


def changes(store: Store) -> dict[str, tuple[Any, list[str]]]:
    """By name: a large change of the session ``s`` (a0 …), and what it holds afterwards."""
    chat = store.conversation("s", user_id="u")
    a, b = [m.text for m in batch("a")], [m.text for m in batch("b")]
    return {
        "append": (lambda: chat.append(*batch("b")), a + b),
        "put": (
            lambda: chat.put_messages([Message.user("new", message_id=m) for m in a]),
            ["new"] * SIZE,
        ),
        "delete": (lambda: chat.replace(batch("a")[1::2]), a[1::2]),
        "replace": (lambda: chat.replace(batch("b")), b),
        "replace some": (lambda: chat.replace(batch("a")[::2] + batch("b")), a[::2] + b),
        "insert": (
            lambda: chat.put_messages([Message.user(t, create_time=i) for i, t in enumerate(b)]),
            b + a,
        ),
    }


class DiedError(BaseException):
    """The end of a writer."""


class Watched(threading.Thread):
    """A writer in a thread of its own that takes turns with the test, and may die on the way."""

    def __init__(self, change: Any, die_at: int | None) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self._change, self._die_at, self._count = change, die_at, 0
        self._ask = Wire.ask

    def run(self) -> None:
        with suppress(DiedError):
            self._change()

    def ask(self, wire: Any, calls: Any) -> Any:
        """In the place of `Wire.ask`."""
        if threading.current_thread() is not self:
            return self._ask(wire, calls)
        with self.turn:
            self._count += 1
            if self._count == self._die_at:
                raise DiedError
            return self._ask(wire, calls)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("name", ["append", "put", "delete", "replace", "replace some", "insert"])
def test_nothing_is_seen_before_the_last_slice(
    store: Store, server: RedisServer, prefix: str, name: str
) -> None:
    """A reader between any two requests sees all or nothing; so does the next writer, wherever the
    one before it dies."""
    change, after = changes(store)[name]
    before = [m.text for m in batch("a")]
    lease = KeyNames(prefix).session(Key("u", "s")).keys[4]
    other = Store(RedisBackend.from_url(server.url, prefix=prefix))
    for die_at in (None, 2, 4, 6) if server.kind == "valkey-server" else (4,):
        store.conversation("s", user_id="u").delete()
        store.conversation("s", user_id="u").append(*batch("a"))
        dying = Watched(change, die_at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "ask", lambda wire, calls, w=dying: w.ask(wire, calls))
            dying.start()
            while dying.is_alive():
                with dying.turn:
                    assert texts(other) in (before, after)
            dying.join()
        found = texts(store)
        assert found in ((before, after) if die_at else (after,))
        with server.client() as client:
            client.delete(lease)  # as its time does
        other.conversation("s", user_id="u").append(Message.user("next"))
        assert texts(store) == [*found, "next"]
        assert store.verify() == []
    other.close()
    keys = KeyNames(prefix).session(Key("u", "s"))
    with server.client() as client:
        store.conversation("s", user_id="u").delete()
        assert client.exists(*keys.keys, *keys.staging) == 0


def test_fork_truncate_and_clear(store: Store) -> None:
    chat = store.conversation("s", user_id="u")
    chat.append(*batch("a", FULL_SIZE))
    chat.fork("f")
    assert texts(store, "f") == texts(store)
    assert chat.truncate(30) == FULL_SIZE - 30
    assert texts(store) == [m.text for m in batch("a", FULL_SIZE)[-30:]]
    assert chat.get_message("a0") is None
    chat.append(Message.user("again", message_id="a0"))
    assert chat.count() == 31
    assert chat.clear() == 31
    assert store.conversation("f", user_id="u").delete() == Erased(1, FULL_SIZE)
    assert store.verify() == []


def test_writers_of_every_kind_make_progress(
    store: Store, server: RedisServer, prefix: str
) -> None:
    """Each gets its turn, and no message is lost."""
    chat = store.conversation("s", user_id="u")
    chat.append(Message.user("counter", message_id="c", metadata={"n": 0}))
    done = threading.Event()
    sent: list[str] = []

    def append(name: str) -> None:
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as mine:
            i = 0
            while not done.is_set():
                text = f"{name}{i}"
                mine.conversation("s", user_id="u").append(Message.user(text))
                sent.append(text)
                i += 1

    def count() -> None:
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as mine:
            mine_chat = mine.conversation("s", user_id="u")
            for _ in range(15):
                n = (mine_chat.get_message("c") or Message.user("")).metadata["n"]
                mine_chat.update_message("c", metadata={"n": n + 1})

    appenders = [threading.Thread(target=append, args=(name,)) for name in "xy"]
    counter = threading.Thread(target=count)
    for thread in (*appenders, counter):
        thread.start()
    counter.join()
    done.set()
    for thread in appenders:
        thread.join()
    counted = chat.get_message("c")
    assert counted is not None
    assert counted.metadata == {"n": 15}
    assert sorted(t for t in texts(store) if t != "counter") == sorted(sent)
    assert store.verify() == []
