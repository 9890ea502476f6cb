"""Which dialect is spoken, and answers that neither of them documents."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.backends.zerodb.conftest import open_on
from tsmemory import Message, Store, ThrottledError, TSMemoryError, UnavailableError
from tsmemory.backends.zerodb import ZeroDBBackend
from tsmemory.testing.servers.zerodb import LocalZeroDB


@pytest.fixture(params=["sdk", "specification"])
def either(request: pytest.FixtureRequest) -> Iterator[LocalZeroDB]:
    with LocalZeroDB(dialect=request.param) as server:
        yield server


def test_the_dialect_is_found_by_setup(either: LocalZeroDB) -> None:
    with Store(open_on(either, "t")) as store:
        backend: Any = store.backend
        assert backend.dialect is None
        store.setup()
        assert backend.dialect == either.dialect
        store.setup()  # the table is there: 409, or 400 TABLE_ALREADY_EXISTS
    with Store(open_on(either, "t")) as store:
        store.setup()
        assert store.backend.dialect == either.dialect  # type: ignore[attr-defined]  # ZeroDB's


def test_the_dialect_is_found_at_first_use(either: LocalZeroDB) -> None:
    with Store(open_on(either, "t")) as store:
        store.setup()
    for use in (
        lambda chat: chat.append(Message.user("a")),
        lambda chat: chat.window(5),
        lambda chat: chat.delete(),
    ):
        with Store(open_on(either, "t")) as store:
            use(store.conversation("s"))
            assert store.backend.dialect == either.dialect  # type: ignore[attr-defined]  # ZeroDB's


def test_the_dialect_is_found_by_an_async_store(either: LocalZeroDB) -> None:
    async def use() -> None:
        async with Store(open_on(either, "t")) as store:
            await store.asetup()
            assert store.backend.dialect == either.dialect  # type: ignore[attr-defined]  # ZeroDB's
            chat = store.conversation("s")
            await chat.aappend(Message.user("a", message_id="a"), Message.user("b"))
        async with Store(open_on(either, "t")) as store:
            chat = store.conversation("s")
            await chat.aput_message(Message.user("A", message_id="a"))
            assert [m.text for m in await chat.alist_messages()] == ["A", "b"]
            assert (await store.aerase_user("default")).messages == 2

    asyncio.run(use())


def test_doctor_names_the_dialect(either: LocalZeroDB) -> None:
    with Store(open_on(either, "t")) as store:
        store.setup()
    with Store(open_on(either, "t")) as store:
        finding, *_ = store.run(store.backend.check_server())
        assert finding.value.startswith(either.dialect)


def test_a_dialect_that_is_given_is_kept(either: LocalZeroDB) -> None:
    other = {"sdk": "specification", "specification": "sdk"}[either.dialect]
    url = f"{either.url}?dialect={other}&table=t"
    with Store(ZeroDBBackend.from_url(url, api_key=either.api_key)) as store:
        with pytest.raises(UnavailableError, match="404"):
            store.setup()


def test_portions_of_a_hundred(either: LocalZeroDB) -> None:
    with Store(open_on(either, "t")) as store:
        store.setup()
        either.requests.clear()
        store.conversation("s").append(*(Message.user(str(i)) for i in range(399)))
        assert either.requests["insert"] == 4  # with the session's own row
        assert store.conversation("s").count() == 399


def test_a_rate_limit_is_honoured() -> None:
    with LocalZeroDB(requests_per_minute=5) as server:
        with Store(open_on(server, "t", retry_for=10)) as store:
            store.setup()
            store.conversation("s").append(Message.user("a"))
            # The service asks for about a minute, which is more than we may wait: at once.
            server.requests.clear()
            with pytest.raises(ThrottledError, match=r"asks to wait (59|60) s"):
                store.conversation("s").append(Message.user("b"))
            assert sum(server.requests.values()) == 1


# A second is waited for in test_faults.py.
@pytest.mark.parametrize("header", ["0", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", "-5"])
def test_retry_after(header: str) -> None:
    answers = [
        httpx.Response(429, headers={"Retry-After": header}, json={"detail": "slow down"}),
        httpx.Response(200, json={"rows": [], "total": 0}),
    ]
    with httpx.Client(transport=httpx.MockTransport(lambda _: answers.pop(0))) as client:
        store = Store(ZeroDBBackend("p", api_key="k", client=client))
        assert store.conversation("s").count() == 0
        assert answers == []


def one_answer(answer: Any) -> Callable[[httpx.Request], httpx.Response]:
    """A service that gives that answer to everything."""

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(answer).encode())

    return respond


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"rows": None, "total": 0},
        {"rows": {}, "total": 0},
        {"rows": [1], "total": 1},
        {"rows": [], "total": "0"},
        {"rows": [{}], "total": 1},
        {"rows": [{"place": "z", "state": "kept"}], "total": 1},
        {"rows": [{"place": "z", "state": "kept", "key": 7, "activity": None}], "total": 1},
        {"rows": [{"place": 5, "message": [], "key": {}}], "total": 10},
        {"rows": [], "total": 5, "modified_count": "1", "deleted_count": None},
        {"data": {"rows": []}, "success": True},
    ],
)
def test_answers_of_another_shape(answer: Any) -> None:
    """Whatever comes back, what leaves is a result or an error of the tree."""
    with httpx.Client(transport=httpx.MockTransport(one_answer(answer))) as client:
        store = Store(ZeroDBBackend("p", api_key="k", client=client, retry_for=0))
        chat = store.conversation("s")
        for call in (
            lambda: chat.append(Message.user("a")),
            lambda: chat.window(5),
            lambda: chat.list_messages(),
            lambda: chat.get_message("m"),
            lambda: chat.session(),
            lambda: chat.truncate(1),
            lambda: chat.delete(),
            lambda: list(store.list_sessions()),
            lambda: store.purge_expired(),
            lambda: store.stats(),
            lambda: store.verify(),
            lambda: chat.compact(),
        ):
            with suppress(TSMemoryError):
                call()


def test_a_service_with_smaller_pages(server: LocalZeroDB, table: str) -> None:
    """A page that is cut short, with more behind it, is continued."""

    def capped(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "limit" in body and request.url.path.endswith("/query"):
            body["limit"] = min(7, body["limit"])
        status, answer = server.answer(
            request.method, request.url.path, server.api_key, json.dumps(body).encode()
        ) or (500, {})
        return httpx.Response(status, json=answer)

    with httpx.Client(transport=httpx.MockTransport(capped)) as client:
        backend = ZeroDBBackend(
            server.project, api_key="k", api_url=server.endpoint, table=table, client=client
        )
        store = Store(backend)
        store.setup()
        texts = [str(i) for i in range(40)]
        store.conversation("s").append(*(Message.user(text) for text in texts))
        assert [m.text for m in store.conversation("s").iter_messages()] == texts
        assert [m.text for m in store.conversation("s").window(20)] == texts[-20:]
        for i in range(20):
            store.conversation(f"x{i}").append(Message.user("x"))
        assert len(list(store.iter_sessions())) == 21
        assert store.verify() == []


def test_two_thousand_cancellations_use_no_connection_up(server: LocalZeroDB, table: str) -> None:
    async def main() -> list[str]:
        generator = random.Random(5)
        async with Store(open_on(server, table, pool_size=4, timeout=5)) as store:
            await store.asetup()
            chat = store.conversation("s")
            await chat.aappend(Message.user("a"))
            for _ in range(80):
                tasks = [asyncio.ensure_future(chat.awindow(5)) for _ in range(25)]
                await asyncio.sleep(generator.choice([0, 0, 0.001]))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return [m.text for m in await chat.awindow(5)]

    assert asyncio.run(main()) == ["a"]
