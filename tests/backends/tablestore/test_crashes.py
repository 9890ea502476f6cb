"""A writer that stops between its two requests, and what others and its retry make of it."""

from __future__ import annotations

from typing import Any

import pytest

from tsmemory import BackendError, Message, Store, where
from tsmemory.backends.tablestore.sdk import BatchWrite
from tsmemory.engine.records import Key
from tsmemory.testing.servers.tablestore import Fault, TablestoreProcess

from ._open import backend


def _batch(name: str, size: int = 3) -> list[Message]:
    return [Message.user(f"{name}{i}", message_id=f"{name}{i}") for i in range(size)]


def _texts(messages: Any) -> list[str]:
    return [m.text for m in messages]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not arrived is called off soon: here no writer is slow, each has stopped."""
    monkeypatch.setattr("tsmemory.backends.tablestore.backend._PATIENCE", 0.05)


@pytest.fixture(params=["isolated", "agent-memory"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(server: TablestoreProcess, layout: Any) -> Any:
    with Store(backend(server, layout=layout, retry_for=0.1)) as store:  # what fails, fails on
        store.setup()
        yield store


@pytest.fixture
def other(server: TablestoreProcess, layout: Any) -> Any:
    with Store(backend(server, layout=layout, retry_for=1.0)) as store:
        yield store


def _fail(server: TablestoreProcess, chat: Any, batch: list[Message], fault: Fault) -> None:
    server.inject(fault)
    with pytest.raises(BackendError):
        chat.append(*batch)
    server.clear_faults()


_NEVER = Fault("error", ("BatchWriteRow",))


def _land(server: TablestoreProcess, chat: Any, batch: list[Message], keep: set[int]) -> None:
    """Append `batch` as a writer would that stopped when only the rows `keep` had arrived."""
    from tablestore import Row

    stored = chat.append(*batch)
    layout = chat.store.backend.layout
    client = server.client()
    for i, message in enumerate(stored):
        if i not in keep:
            place = layout.message_key(
                Key(chat.user_id, chat.session_id), message.create_time, message.message_id
            )
            client.delete_row("message", Row(place), None)
    client.connection.pool.clear()


def test_the_retry_finishes(server: TablestoreProcess, store: Any) -> None:
    chat = store.conversation("s", user_id="u")
    chat.append(*_batch("a"))
    _fail(server, chat, _batch("b"), _NEVER)
    assert _texts(chat.list_messages()) == ["a0", "a1", "a2"]
    stored = chat.append(*_batch("b"))
    assert chat.list_messages().items[3:] == stored
    assert chat.count() == 6
    assert store.verify() == []


def test_the_retry_of_another_process_finishes(
    server: TablestoreProcess, store: Any, other: Any
) -> None:
    chat, retry = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    _fail(server, chat, _batch("b"), _NEVER)
    retry.append(*_batch("b"), if_version=1)
    retry.append(*_batch("c"))
    assert _texts(chat.window(None)) == [f"{n}{i}" for n in "abc" for i in range(3)]
    assert chat.count() == 9


def test_others_go_on(server: TablestoreProcess, store: Any, other: Any) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    _fail(server, chat, _batch("b"), _NEVER)
    others.append(*_batch("c"))
    assert _texts(chat.window(None)) == ["a0", "a1", "a2", "c0", "c1", "c2"]
    assert chat.count() == 6
    chat.append(*_batch("b"))
    expected = [f"{n}{i}" for n in "acb" for i in range(3)]
    assert _texts(chat.list_messages()) == _texts(others.window(None)) == expected
    assert chat.count() == others.count() == 9
    assert others.get_message("b1").text == "b1"
    assert _texts(chat.list_messages(limit=2, order="desc")) == ["b2", "b1"]
    assert _texts(chat.list_messages(where=~where("x").exists())) == expected
    assert store.verify() == other.verify() == []
    assert chat.delete().messages == 9


@pytest.mark.parametrize("landed", [{0}, {2}, {0, 2}, {1, 2}, {0, 1}])
def test_a_batch_that_arrived_in_part(
    server: TablestoreProcess, store: Any, other: Any, landed: set[int]
) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    _land(server, chat, _batch("b"), landed)
    shown = [f"b{i}" for i in range(3) if all(j in landed for j in range(i + 1))]
    first = ["a0", "a1", "a2"]
    for seen in (chat.window(None), chat.window(2), chat.list_messages().items):
        assert _texts(seen)[-1:] == (first + shown)[-1:]
    assert _texts(chat.window(None)) == _texts(chat.list_messages()) == first + shown
    others.append(*_batch("c"))
    assert _texts(others.window(None)) == first + shown + ["c0", "c1", "c2"]
    assert others.count() == 6 + len(shown)
    others.append(*_batch("b"))
    rest = [f"b{i}" for i in range(len(shown), 3)]
    assert _texts(others.window(None)) == first + shown + ["c0", "c1", "c2"] + rest
    assert others.count() == 9
    assert other.verify() == []


def test_a_slow_writer_is_fenced_off(
    store: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows come after the others called them off: they go to the end, none is lost."""
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    other.backend._writer.scope = "another process"  # it waits for no turn of this one
    perform = store.backend._perform
    held = []

    def slowly(step: Any) -> Any:
        if isinstance(step, BatchWrite) and not held:
            held.append(step)
            others.append(*_batch("c"))  # waits, calls off, goes on
        return perform(step)

    monkeypatch.setattr(store.backend, "_perform", slowly)
    stored = chat.append(*_batch("b"))
    expected = [f"{n}{i}" for n in "acb" for i in range(3)]
    assert _texts(chat.list_messages()) == expected
    assert chat.list_messages().items[6:] == stored
    assert chat.count() == 9
    assert store.verify() == []


def test_an_unfinished_deletion_is_finished(
    server: TablestoreProcess, store: Any, other: Any
) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a", 6))
    server.inject(Fault("error", ("BatchWriteRow",)))
    with pytest.raises(BackendError):
        chat.delete_message("a1", "a2")
    server.clear_faults()
    others.append(*_batch("b", 1))
    assert _texts(chat.window(None)) == ["a0", "a3", "a4", "a5", "b0"]
    assert chat.count() == 5
    server.inject(Fault("error", ("BatchWriteRow",)))
    with pytest.raises(BackendError):
        chat.truncate(2)
    server.clear_faults()
    others.append(*_batch("c", 1))
    assert _texts(chat.window(None)) == ["a5", "b0", "c0"]
    assert store.verify() == []


def test_an_unfinished_move_is_finished(server: TablestoreProcess, store: Any, other: Any) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    first, *_ = chat.append(*_batch("a"))
    server.inject(Fault("error", ("BatchWriteRow",), nth=2, times=1000))
    moved = Message.user("moved", message_id="a0", create_time=first.create_time + 5000)
    with pytest.raises(BackendError):
        chat.put_message(moved)
    server.clear_faults()
    others.append(*_batch("b", 1))
    assert _texts(chat.list_messages()) == ["a1", "a2", "moved", "b0"]
    assert chat.count() == 4
    server.inject(_NEVER)
    with pytest.raises(BackendError):
        chat.put_message(Message.user("x", message_id="a1", create_time=7))
    server.clear_faults()
    others.append(*_batch("c", 1))
    assert _texts(chat.list_messages()) == ["a1", "a2", "moved", "b0", "c0"]
    assert chat.count() == 5
    assert store.verify() == []


def test_an_unfinished_erasure_is_finished(
    server: TablestoreProcess, store: Any, other: Any, layout: str
) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    after_the_mark = 2 if layout == "isolated" else 1
    server.inject(Fault("error", ("BatchWriteRow",), nth=after_the_mark, times=1000))
    with pytest.raises(BackendError):
        chat.delete()
    server.clear_faults()
    assert others.session() is None
    assert other.list_sessions(user_id="u").items == []
    others.append(*_batch("b"), if_version=0)
    assert _texts(chat.window(None)) == ["b0", "b1", "b2"]
    assert store.verify() == []


def test_an_import_that_was_called_off(server: TablestoreProcess, store: Any, other: Any) -> None:
    chat, others = (s.conversation("s", user_id="u") for s in (store, other))
    chat.append(*_batch("a"))
    brought = [Message.user(f"p{i}", message_id=f"p{i}", create_time=100 + i) for i in range(3)]
    server.inject(_NEVER)
    with pytest.raises(BackendError):
        chat.put_messages(brought)
    server.clear_faults()
    others.append(*_batch("b", 1))
    assert _texts(others.list_messages()) == ["a0", "a1", "a2", "b0"]
    assert chat.put_messages(brought) == brought
    assert _texts(others.list_messages()) == ["p0", "p1", "p2", "a0", "a1", "a2", "b0"]
    assert others.count() == 7
    assert store.verify() == []


def test_two_users_at_one_place(server: TablestoreProcess, store: Any, layout: str) -> None:
    one, two = (store.conversation("s", user_id=user) for user in "ab")
    message = Message.user("x", message_id="x", create_time=5)
    one.put_message(message)
    two.append(*_batch("b", 1))
    if layout == "isolated":
        two.put_message(message)
        assert _texts(two.list_messages()) == ["x", "b0"]
    else:
        with pytest.raises(BackendError, match="another user"):
            two.put_message(message)
        assert _texts(two.list_messages()) == ["b0"]
    assert _texts(one.list_messages()) == ["x"]
