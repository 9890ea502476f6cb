"""The search index: what it costs, what it lags, and what it never shows."""

from __future__ import annotations

from typing import Any

import pytest

from tests._searches import hold_to_the_evaluator
from tests.backends.tablestore._open import backend
from tsmemory import InvalidInputError, Message, Store
from tsmemory.testing.search_conformance import SearchConformance
from tsmemory.testing.servers.tablestore import TablestoreProcess


def found(store: Store, text: str, **arguments: Any) -> list[str]:
    page = store.search_messages(text, **{"user_id": "ada", "limit": 100, **arguments})
    assert page.next_cursor is None
    return [hit.message.message_id for hit in page]


@pytest.fixture
def store(server: TablestoreProcess):
    with Store(backend(server, search=True)) as opened:
        opened.setup()
        yield opened


class TestSearches(SearchConformance):
    """The suite's searches, by the index."""


def test_a_page_is_a_search_and_a_read(server: TablestoreProcess, store: Store) -> None:
    for i in range(40):
        chat = store.conversation(f"s{i % 4}", user_id="ada")
        chat.append(Message.user(f"needle {i}", message_id=f"{i}"), Message.assistant("hay"))
    with server.counting() as count:
        page = store.search_messages("needle", user_id="ada", limit=20)
    assert [hit.message.message_id for hit in page] == [f"{i}" for i in range(39, 19, -1)]
    assert count.total.requests == 2
    with server.counting() as count:
        assert found(store, "nowhere") == []
    assert count.total.requests == 1


def test_a_late_index_shows_nothing_that_is_gone(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s", user_id="ada")
    chat.append(*(Message.user(f"needle {i}", message_id=f"{i}") for i in range(3)))
    other = store.conversation("t", user_id="ada")
    other.append(Message.user("needle", message_id="t"))
    server.set_options(index_lag=3600.0)
    chat.append(Message.user("needle 3", message_id="3"))
    chat.update_message("0", content="thread")
    chat.delete_message("1")
    other.delete()
    assert found(store, "needle") == ["2"]  # "3" would be once the index has followed
    store.erase_user("ada")
    assert found(store, "needle") == []


def test_setup_indexes_what_is_there(server: TablestoreProcess) -> None:
    with Store(backend(server)) as store:
        store.setup()
        chat = store.conversation("s", user_id="ada")
        chat.append(*(Message.user(f"needle 京都 {i}", message_id=f"{i}") for i in range(130)))
        chat.append(Message.user(""), Message.user("hay"))
        chat.delete_message("7")
    with Store(backend(server, search=True)) as store:
        store.setup()
        store.setup()
        assert len(found(store, "京都 needle", limit=200)) == 129
        assert found(store, "needle 12*", session_id="s")[0] == "129"
        assert store.verify() == []


def test_texts_that_no_column_holds_are_found(store: Store) -> None:
    chat = store.conversation("s", user_id="ada")
    chat.append(Message.user("needle " + "hay " * 400_000, message_id="large"))
    chat.append(Message.user("hay " * 600_000, message_id="other"))
    assert found(store, "needle") == ["large"]
    assert found(store, "ꭰꭱ") == []
    chat.append(Message.user("ᎠᎡ", message_id="cherokee"))
    assert found(store, "ꭰꭱ") == ["cherokee"]


def test_many_of_one_time_are_paged(store: Store) -> None:
    chat = store.conversation("s", user_id="ada")
    chat.put_messages(
        [Message.user("needle", message_id=f"{i:03}", create_time=5) for i in range(70)]
    )
    cursor: str | None = None
    ids: list[str] = []
    for _ in range(7):
        page = store.search_messages("needle", user_id="ada", limit=11, cursor=cursor)
        ids += [hit.message.message_id for hit in page]
        cursor = page.next_cursor
    assert ids == [f"{i:03}" for i in reversed(range(70))]
    assert cursor is None


def test_where_there_is_no_index_to_ask(server: TablestoreProcess) -> None:
    with pytest.raises(InvalidInputError, match="isolated"):
        backend(server, search=True, layout="agent-memory")
    with pytest.raises(InvalidInputError, match="time to live"):
        backend(server, search=True, time_to_live=90_000)


def test_generated_searches(store: Store) -> None:
    hold_to_the_evaluator(store, 15)
