"""What goes wrong on the way: no message is lost, none doubled, none seen in part."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest

from tests.backends.zerodb.conftest import open_on
from tsmemory import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    Message,
    Store,
    ThrottledError,
    TimeoutError,
    UnavailableError,
)
from tsmemory.backends.zerodb import ZeroDBBackend
from tsmemory.testing.servers.zerodb import LocalZeroDB


def texts(store: Store) -> list[str]:
    return [m.text for m in store.conversation("s", user_id="u").iter_messages()]


# A 429 asks for a pause of a second, which is the same for every request and every time.
@pytest.mark.parametrize(
    ("status", "verb"),
    [(429, "insert"), *((s, v) for s in (500, 503) for v in ("query", "insert", "update"))],
)
def test_a_passing_error_is_tried_again(
    server: LocalZeroDB, backend: ZeroDBBackend, verb: str, status: int
) -> None:
    store = Store(backend)
    server.fail(status, times=1 if status == 429 else 2, verb=verb)
    store.conversation("s", user_id="u").append(Message.user("a"))
    assert texts(store) == ["a"]
    assert store.verify() == []


@pytest.mark.parametrize("verb", ["query", "insert", "update", "delete"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [None, 502])
def test_a_lost_reply_neither_loses_nor_doubles(
    server: LocalZeroDB,
    backend: ZeroDBBackend,
    verb: str,
    when: Literal["before", "after"],
    status: int | None,
) -> None:
    store = Store(backend)
    chat = store.conversation("s", user_id="u")

    def lose_one() -> None:
        server.forgive()  # what the change before it had no such request for
        server.drop(when, verb=verb, status=status)

    for batch in (["a", "b"], ["c"], ["d", "e"]):
        lose_one()
        chat.append(*(Message.user(text, message_id=text) for text in batch))
    lose_one()
    chat.put_message(Message.user("C", message_id="c"))
    lose_one()
    assert chat.delete_message("a") == 1
    assert texts(store) == ["b", "C", "d", "e"]
    assert chat.count() == 4
    assert store.verify() == []


def _append(store: Store) -> None:
    store.conversation("s", user_id="u").append(
        Message.user("c", message_id="c"), Message.system("d", message_id="d")
    )


def _put(store: Store) -> None:
    store.conversation("s", user_id="u").put_messages(
        [Message.user("B", message_id="b"), Message.user("c", message_id="c")]
    )


def _delete(store: Store) -> None:
    store.conversation("s", user_id="u").delete_message("a")


def _truncate(store: Store) -> None:
    store.conversation("s", user_id="u").truncate(1)


def _replace(store: Store) -> None:
    store.conversation("s", user_id="u").replace(
        [Message.user("x", message_id="x"), Message.user("b", message_id="b")]
    )


def _begin(store: Store) -> None:
    store.conversation("new", user_id="u").append(Message.user("n", message_id="n"))


def _erase(store: Store) -> None:
    store.conversation("s", user_id="u").delete()


CHANGES: list[tuple[Callable[[Store], None], list[str]]] = [
    (_append, ["a", "b", "c", "d"]),
    (_put, ["a", "B", "c"]),
    (_delete, ["b"]),
    (_truncate, ["b"]),
    (_replace, ["x", "b"]),
    (_begin, ["a", "b"]),
    (_erase, []),
]


@pytest.mark.parametrize(("change", "after"), CHANGES, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_that_ends_at_any_point(
    server: LocalZeroDB,
    table: str,
    when: Literal["before", "after"],
    change: Callable[[Store], None],
    after: list[str],
) -> None:
    """A writer's k-th request is its last. Another finds the state before or after, whole."""
    for k in itertools.count():
        name = f"{table}.{k}"
        with (
            Store(open_on(server, name, retry_for=0.0)) as dying,
            Store(open_on(server, name)) as other,
        ):
            other.setup()
            chat = other.conversation("s", user_id="u")
            chat.append(Message.user("a", message_id="a"), Message.user("b", message_id="b"))
            server.drop(when, later=k)
            try:
                change(dying)
            except BackendError:
                finished = False
            else:
                finished = True  # it made fewer requests
            server.forgive()
            found = texts(other)
            assert found in (["a", "b"], after)
            assert other.verify() == []
            if change is _begin and found == ["a", "b"]:
                new = other.conversation("new", user_id="u")
                assert new.count() == len(list(new.iter_messages()))
            if change is not _erase:  # life goes on
                chat.append(Message.user("z", message_id="z"))
                assert texts(other) == [*found, "z"]
                chat.delete_message("z")
                assert other.verify() == []
            change(other)
            assert texts(other) == after
            assert other.verify() == []
            chat.compact()
            other.erase_user("u")
            assert server.tables.table(name).rows == {}
        if finished:
            assert k >= 2
            return


def test_drafts_of_the_dead_are_compacted(server: LocalZeroDB, table: str) -> None:
    with (
        Store(open_on(server, table, retry_for=0.0)) as dying,
        Store(open_on(server, table)) as other,
    ):
        other.setup()
        chat = other.conversation("s", user_id="u")
        chat.append(Message.user("a"))
        server.drop("before", verb="update")  # the commit itself
        with pytest.raises(UnavailableError):
            dying.conversation("s", user_id="u").append(Message.user("never"))
        assert chat.compact() == 0  # it might be about to commit
        chat.append(Message.user("b"))
        assert chat.compact() > 0
        assert chat.compact() == 0
        assert texts(other) == ["a", "b"]
        rows = server.tables.table(table).rows.values()
        assert not any("never" in row["body"] for row in rows)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, UnavailableError),
        (400, BackendError),
        (413, InvalidInputError),
        (422, BackendError),
        (429, ThrottledError),
        (500, UnavailableError),
    ],
)
def test_errors_by_table(
    server: LocalZeroDB, table: str, status: int, error: type[Exception]
) -> None:
    with Store(open_on(server, table, retry_for=0.0)) as store:
        store.setup()
        for verb, call in (
            ("query", lambda: store.conversation("s").window(5)),
            ("insert", lambda: store.conversation("s").append(Message.user("a"))),
        ):
            server.fail(status, verb=verb)
            with pytest.raises(error) as raised:
                call()
            assert str(status) in str(raised.value)
            assert server.api_key not in str(raised.value)
            assert raised.value.__cause__ is not None


def test_no_table_yet_is_said(server: LocalZeroDB, table: str) -> None:
    with Store(open_on(server, table)) as store:
        with pytest.raises(UnavailableError, match=r"has setup\(\) created the table"):
            store.conversation("s").append(Message.user("a"))
        store.setup()
        store.setup()
        store.conversation("s").append(Message.user("a"))


def test_a_wrong_key_and_a_wrong_project(server: LocalZeroDB, table: str) -> None:
    for url, key, error in (
        (server.url, "wrong-key", AuthenticationError),
        (f"zerodb+{server.endpoint}/other", server.api_key, UnavailableError),
    ):
        with Store(ZeroDBBackend.from_url(url, api_key=key, table=table)) as store:
            with pytest.raises(error) as raised:
                store.stats()
            assert key not in f"{raised.value!r} {store!r}"


def test_nobody_there(table: str) -> None:
    with LocalZeroDB() as gone:
        url = gone.url
    with Store(ZeroDBBackend.from_url(url, api_key="k", retry_for=0.05)) as store:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            store.stats()


def test_no_answer_in_time(backend: ZeroDBBackend) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with httpx.Client(transport=httpx.MockTransport(slow)) as client:
        store = Store(ZeroDBBackend("p", api_key="k", client=client, retry_for=0.0))
        with pytest.raises(TimeoutError):
            store.stats()
        store.close()
        assert not client.is_closed


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]"])
def test_an_answer_that_is_none(body: bytes) -> None:
    def odd(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body)

    with httpx.Client(transport=httpx.MockTransport(odd)) as client:
        store = Store(ZeroDBBackend("p", api_key="k", client=client, retry_for=0.0))
        with pytest.raises(UnavailableError, match=r"not JSON|not a JSON object"):
            store.stats()
        store.close()


def test_a_ready_asynchronous_client(server: LocalZeroDB, table: str) -> None:
    import asyncio

    async def talk() -> list[str]:
        async with httpx.AsyncClient() as client:
            backend = ZeroDBBackend(
                server.project,
                api_key=server.api_key,
                api_url=server.endpoint,
                table=table,
                async_client=client,
            )
            async with Store(backend) as store:
                await store.asetup()
                chat = store.conversation("s")
                await chat.aappend(Message.user("a"))
                found = [m.text for m in await chat.awindow(5)]
            assert not client.is_closed
            return found

    assert asyncio.run(talk()) == ["a"]


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZERODB_PROJECT_ID", "ZERODB_API_KEY", "ZERODB_API_URL"):
        monkeypatch.delenv(name, raising=False)

    def refused(url: str, says: str, **options: Any) -> None:
        with pytest.raises(InvalidInputError, match=says) as raised:
            ZeroDBBackend.from_url(url, **options)
        assert "s3cret" not in str(raised.value)

    refused("zerodb://p", "needs a key")
    refused("zerodb://", "which ZeroDB project", api_key="s3cret")
    refused("zerodb://p?colour=red", "no option 'colour'")
    refused("zerodb://user:s3cret@p", "holds no user, password")
    refused("zerodb://p/path", "write zerodb://PROJECT", api_key="s3cret")
    refused("zerodb://p", "HTTP header", api_key="s3cret\n")
    refused("zerodb://p?timeout=0", "more than 0", api_key="s3cret")
    refused("zerodb://p?dialect=french", "dialect is 'french'", api_key="s3cret")
    refused("zerodb://p?pool_size=0", "pool_size", api_key="s3cret")
    refused("zerodb://p?table=", "table is empty", api_key="s3cret")
    refused("zerodb://p", "begins with https", api_key="s3cret", api_url="ftp://x")
    monkeypatch.setenv("ZERODB_API_KEY", "s3cret")
    monkeypatch.setenv("ZERODB_PROJECT_ID", "mine")
    cloud = ZeroDBBackend.from_url("zerodb://?table=t&retry_for=1.5")
    assert (cloud.project, cloud.table, cloud.retry_for) == ("mine", "t", 1.5)
    assert cloud.api_url == "https://api.ainative.studio"
    assert "s3cret" not in repr(cloud)
    monkeypatch.setenv("ZERODB_API_URL", "http://127.0.0.1:1/api/v1/")
    assert ZeroDBBackend("P").api_url == "http://127.0.0.1:1"
    assert ZeroDBBackend.from_url("zerodb+https://h:8/P").api_url == "https://h:8"
