"""What is Tablestore's own: opening it, its errors, its limits, and what operations cost there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tablestore import INF_MAX, INF_MIN, Row

from tsmemory import (
    AuthenticationError,
    BackendError,
    CorruptRecordError,
    InvalidInputError,
    Message,
    MessageTooLargeError,
    Store,
    ThrottledError,
    TimeoutError,
    UnavailableError,
    Window,
    where,
)
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.contract import now_us
from tsmemory.engine.records import Key
from tsmemory.testing.servers.tablestore import Fault, TablestoreProcess

from ._open import Writer, backend

_SECRETS = ("local-secret", "hunter2")


@pytest.fixture
def store(server: TablestoreProcess) -> Iterator[Store]:
    with Store(backend(server)) as store:
        store.setup()
        yield store


def _users(n: int) -> list[Message]:
    return [Message.user(str(i)) for i in range(n)]


# -- opening ---------------------------------------------------------------------------------


def _url(server: TablestoreProcess, more: str = "") -> str:
    return f"tablestore+{server.endpoint}/?instance={server.instance_name}{more}"


def test_by_url(server: TablestoreProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", server.access_key_secret)
    with Store(TablestoreBackend.from_url(_url(server, "&message_table=m&retry_for=3"))) as store:
        store.setup()
        store.conversation("s").append(*_users(1))
        assert store.backend.retry_for == 3  # type: ignore[attr-defined]
    client = server.client()
    assert sorted(client.list_table()) == ["m", "session"]
    client.connection.pool.clear()


def test_the_instance_is_in_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "hunter2")
    url = "tablestore+https://mine.cn-hangzhou.ots.aliyuncs.com"
    opened = TablestoreBackend.from_url(url, timeout=3.0, layout="agent-memory")
    assert opened.endpoint == "https://mine.cn-hangzhou.ots.aliyuncs.com"
    assert opened.instance_name == "mine"
    assert opened.layout.name == "agent-memory"
    assert TablestoreBackend.from_url(url + "?instance=other").instance_name == "other"


def test_by_environment(server: TablestoreProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="TABLESTORE_ENDPOINT"):
        TablestoreBackend()
    monkeypatch.setenv("TABLESTORE_ENDPOINT", server.endpoint)
    with pytest.raises(InvalidInputError, match="TABLESTORE_INSTANCE_NAME"):
        TablestoreBackend()
    monkeypatch.setenv("TABLESTORE_INSTANCE_NAME", server.instance_name)
    with pytest.raises(InvalidInputError, match="TABLESTORE_ACCESS_KEY_ID"):
        TablestoreBackend()
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", server.access_key_secret)
    monkeypatch.setenv("TABLESTORE_STS_TOKEN", "token")
    with Store(TablestoreBackend()) as store:
        store.setup()
        assert store.list_sessions().items == []


def test_by_credentials_provider(server: TablestoreProcess) -> None:
    from tablestore.credentials import StaticCredentialsProvider

    provider = StaticCredentialsProvider(server.access_key_id, server.access_key_secret)
    opened = TablestoreBackend(
        server.endpoint, instance_name="local", credentials_provider=provider, region="cn-test"
    )
    with Store(opened) as store:
        store.setup()
        assert store.list_sessions().items == []


def test_a_ready_client_stays_open(server: TablestoreProcess) -> None:
    client = server.client()
    with Store(TablestoreBackend(client=client)) as store:
        store.setup()
        store.conversation("s").append(*_users(1))

        async def count() -> int:  # with a synchronous client alone: in a thread
            return await store.conversation("s").acount()

        assert asyncio.run(count()) == 1
    assert sorted(client.list_table()) == ["message", "session"]
    client.connection.pool.clear()

    async def ready() -> None:
        async with server.async_client() as theirs:
            async with Store(TablestoreBackend(async_client=theirs)) as store:
                assert await store.conversation("s").acount() == 1
            assert len(await theirs.list_table()) == 2

    asyncio.run(ready())
    with pytest.raises(InvalidInputError, match="not both"):
        TablestoreBackend("https://x", client=client)


def test_two_event_loops(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")

    async def write(text: str) -> None:
        await chat.aappend(Message.user(text))

    for text in "ab":
        asyncio.run(write(text))
    chat.append(Message.user("c"))
    assert [m.text for m in chat.list_messages()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "mine.ots.aliyuncs.com"},
        {"endpoint": "https://id:hunter2@mine.ots.aliyuncs.com"},
        {"instance_name": None},
        {"access_key_secret": None},
        {"layout": "other"},
        {"session_table": "1st"},
        {"session_table": "message"},
        {"session_metadata": {"a-b": "STRING"}},
        {"session_metadata": {"a": "TEXT"}},
        {"time_to_live": 60},
        {"time_to_live": 86_400, "layout": "agent-memory"},
        {"retry_for": -1},
        {"timeout": 0},
    ],
    ids=repr,
)
def test_options_that_are_none(options: dict[str, Any]) -> None:
    good = {
        "endpoint": "https://x", "instance_name": "i", "access_key_id": "id",
        "access_key_secret": "hunter2",
    }  # fmt: skip
    with pytest.raises(InvalidInputError) as caught:
        TablestoreBackend(**{**good, **options})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["tablestore+https://", "tablestore+https://h/path", "tablestore+https://h/?nope=1"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInputError):
        TablestoreBackend.from_url(url, access_key_id="id", access_key_secret="hunter2")


# -- tables ----------------------------------------------------------------------------------


def test_setup_by_many_at_once(server: TablestoreProcess, writers: dict[str, Writer]) -> None:
    for writer in writers.values():
        writer.start(server, batches=1, size=2, setup=True)
    for writer in writers.values():
        rows, errors = writer.finish()
        assert (len(rows), errors) == (2, [])
    with Store(backend(server)) as store:
        assert store.conversation("shared", user_id="user").count() == 8
        assert store.verify() == []


def test_nothing_else_creates_tables(server: TablestoreProcess) -> None:
    with Store(backend(server)) as store:
        for call in (
            lambda: store.conversation("s").append(*_users(1)),
            lambda: store.conversation("s").window(5),
            lambda: store.list_sessions(user_id="u"),
        ):
            with pytest.raises(UnavailableError, match=r"setup\(\)"):
                call()
    client = server.client()
    assert list(client.list_table()) == []
    client.connection.pool.clear()


def test_setup_waits_for_its_tables(server: TablestoreProcess) -> None:
    server.set_options(table_ready_delay=0.1)
    with Store(backend(server)) as store:
        store.setup()
        store.conversation("s").append(*_users(1))


def test_tables_of_the_other_layout(server: TablestoreProcess, store: Store) -> None:
    with Store(backend(server, layout="agent-memory")) as other:
        with pytest.raises(UnavailableError, match="not of this layout"):
            other.setup()


def test_a_time_to_live_of_the_tables(server: TablestoreProcess) -> None:
    with Store(backend(server, time_to_live=86_400)) as store:
        store.setup()
        chat = store.conversation("s", user_id="u", ttl=50)
        chat.append(Message.system("rules"), *_users(40))
        chat.update_message(chat.list_messages().items[3].message_id, content="new")
        chat.set_ttl(None)
        assert [m.text for m in chat.window(1)] == ["rules", "39"]
        assert chat.delete().messages == 41
    client = server.client()
    for table in ("session", "message"):
        assert client.describe_table(table).table_options.time_to_live == 86_400
    client.connection.pool.clear()


# -- errors ----------------------------------------------------------------------------------


def test_wrong_credentials(server: TablestoreProcess) -> None:
    wrong = TablestoreBackend(
        server.endpoint, instance_name="local", access_key_id="id", access_key_secret="hunter2"
    )
    with Store(wrong) as store:
        with pytest.raises(AuthenticationError) as caught:
            store.setup()
    shown = repr(wrong) + str(caught.value) + repr(caught.value)
    assert not any(secret in shown for secret in _SECRETS)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("throttle"), ThrottledError),
        (Fault("error"), UnavailableError),
        (Fault("error", code="OTSTimeout", status=503), TimeoutError),
        (Fault("drop_before"), UnavailableError),
        (Fault("hang", seconds=5), TimeoutError),
    ],
    ids=lambda v: getattr(v, "kind", getattr(v, "__name__", "")),
)
def test_errors_are_ours(server: TablestoreProcess, fault: Fault, error: type[Exception]) -> None:
    with Store(backend(server, retry_for=0.1, timeout=0.3)) as store:
        store.setup()
        chat = store.conversation("s")
        server.inject(fault)
        with pytest.raises(error) as caught:
            chat.append(*_users(1))
        assert isinstance(caught.value, BackendError)

        async def asynchronously() -> None:
            await chat.aappend(*_users(1))

        with pytest.raises(error):
            asyncio.run(asynchronously())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_damaged_reply_is_repeated(server: TablestoreProcess, store: Store, mode: str) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("a"))
    for operation in ("UpdateRow", "BatchWriteRow", "GetRange", "BatchGetRow"):
        server.inject(Fault("damage", (operation,), nth=1, times=1))
    if mode == "sync":
        chat.append(Message.user("b", message_id="b"))
        assert [m.text for m in chat.window(5)] == ["a", "b"]
        assert chat.get_message("b") is not None
    else:

        async def run() -> None:
            await chat.aappend(Message.user("b", message_id="b"))
            assert [m.text for m in await chat.awindow(5)] == ["a", "b"]
            assert await chat.aget_message("b") is not None

        asyncio.run(run())
    assert [fault["struck"] for fault in server.faults()] == [1, 1, 1, 1]
    assert chat.count() == 2
    assert store.verify() == []


def test_the_server_is_not_there() -> None:
    gone = TablestoreBackend(
        "http://127.0.0.1:9", instance_name="i", access_key_id="a", access_key_secret="hunter2",
        retry_for=0.1,
    )  # fmt: skip
    with Store(gone) as store:
        with pytest.raises(UnavailableError) as caught:
            store.list_sessions()
    assert "hunter2" not in str(caught.value)


# -- lost rows -------------------------------------------------------------------------------


def _remove(server: TablestoreProcess, table: str, key: Any) -> None:
    client = server.client()
    client.delete_row(table, Row(key), None)
    client.connection.pool.clear()


def test_a_lost_head_is_no_empty_session(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s", user_id="u")
    chat.append(*_users(3))
    layout = store.backend.layout  # type: ignore[attr-defined]  # Tablestore's
    _remove(server, "message", layout.head_key(Key("u", "s")))
    for call in (
        chat.session,
        lambda: chat.window(5),
        lambda: chat.list_messages(),
        lambda: chat.append(*_users(1)),
    ):
        with pytest.raises(CorruptRecordError, match="head is missing"):
            call()
    assert [problem.session_id for problem in store.verify()] == ["s"]
    assert chat.delete().messages == 3
    chat.append(*_users(1))
    assert (chat.count(), store.verify()) == (1, [])


def test_a_lost_listing_row_comes_back(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s", user_id="u")
    chat.update_session(title="t", metadata={"k": 1})
    layout = store.backend.layout  # type: ignore[attr-defined]  # Tablestore's
    _remove(server, "session", layout.session_key(Key("u", "s")))
    assert [problem.session_id for problem in store.verify()] == ["s"]
    chat.append(*_users(1))
    assert store.list_sessions(user_id="u").items == [chat.session()]
    assert store.verify() == []


# -- limits ----------------------------------------------------------------------------------


def test_large_messages(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    for text in ("x" * 3_000_000, "字" * 1_200_000, "\n" * 2_000_000):
        message = Message.user(text, metadata={"k": "v" * 100_000})
        chat.append(message)
        assert chat.get_message(message.message_id).text == text  # type: ignore[union-attr]
    blob = Message.user("m", metadata={"big": "y" * 2_097_153, "bytes": b"z" * 1_000_000})
    chat.append(blob)
    assert chat.get_message(blob.message_id).metadata == blob.metadata  # type: ignore[union-attr]
    limit = store.backend.capabilities.max_message_bytes
    assert limit is not None
    with server.counting() as counted:
        for text in ("x" * limit, "\0" * (limit // 5)):
            with pytest.raises(MessageTooLargeError):
                chat.append(Message.user("small"), Message.user(text))
    assert counted.total.requests == 0
    exact = Message.user("x" * (limit - 100))
    chat.append(exact)
    assert chat.count() == 5


def test_a_record_over_the_limit(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    with server.counting() as counted:
        with pytest.raises(InvalidInputError, match="shorten"):
            chat.update_session(summary="x" * 2_000_000)
    assert counted.total.requests == 0
    chat.update_session(summary="x" * 700_000)
    chat.append(*_users(200))
    session = chat.session()
    assert session is not None
    assert session.summary == "x" * 700_000


def test_many_instructions(server: TablestoreProcess, store: Store) -> None:
    for number in (9, 60, 250):
        chat = store.conversation(str(number))
        ids = [f"{i:0255}" for i in range(number)]
        chat.append(*(Message.system(mid[-3:], message_id=mid) for mid in ids), *_users(100))
        assert [m.text for m in chat.window(2)] == [mid[-3:] for mid in ids] + ["98", "99"]
        with server.counting() as counted:
            chat.window(2)
        assert counted.total.requests <= 3


def test_a_batch_over_the_limits(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    large = [Message.user("x" * 900_000) for _ in range(12)]
    many = _users(450)
    chat.append(*large)
    server.inject(Fault("partial", ("BatchWriteRow",), rows=3, times=4))
    chat.append(*many)
    server.clear_faults()
    assert [m.message_id for m in chat.iter_messages()] == [m.message_id for m in large + many]
    session = chat.session()
    assert session is not None
    assert (session.message_count, session.version) == (462, 2)


def test_a_large_batch_is_finished_after_a_failure(server: TablestoreProcess) -> None:
    many = _users(500)
    with Store(backend(server, retry_for=0.1)) as store:
        store.setup()
        chat = store.conversation("s")
        server.inject(Fault("error", ("BatchWriteRow",), nth=3, times=1000))
        with pytest.raises(BackendError):
            chat.append(*many)
        server.clear_faults()
        assert len(chat.window(None)) == 200
        chat.append(*many)
        assert [m.text for m in chat.iter_messages()] == [str(i) for i in range(500)]
        assert chat.count() == 500
        assert store.verify() == []


# -- filters in the service ------------------------------------------------------------------


def test_filters_run_in_the_service(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    chat.append(*(Message.user(str(i), metadata={"n": i, "f": i / 2}) for i in range(300)))
    for condition, count in (
        (where("n") == 7, 1),
        (where("n") >= 290, 10),
        ((where("f") < 1) & (where("n") != 0), 1),
        (where("n").in_([1, 2.0, "3"]), 2),
        (where("none").exists(), 0),
        (~(where("n") < 299), 1),
        (where("content") == "x", 0),
    ):
        with server.counting() as counted:
            assert len(chat.list_messages(where=condition)) == count
        assert counted["GetRange"].rows_returned == count


def test_declared_session_metadata(server: TablestoreProcess) -> None:
    with Store(backend(server, session_metadata={"topic": "STRING"})) as store:
        store.setup()
        for i in range(60):
            chat = store.conversation(f"s{i}", user_id="u")
            chat.update_session(metadata={"topic": "a" if i % 20 == 3 else "b", "n": i})
        with server.counting() as counted:
            found = store.list_sessions(user_id="u", where=where("topic") == "a", limit=5)
        assert [s.session_id for s in found] == ["s43", "s23", "s3"]
        assert found.items[0].metadata == {"topic": "a", "n": 43}
        assert (counted.total.requests, counted["GetRange"].rows_returned) == (1, 3)


def test_user_columns_may_have_our_names(store: Store) -> None:
    names = (
        "content", "role", "tsmemory", "tsmemory_1", "tsmemory_ask", "user_id", "session_id",
        "message_id", "create_time", "update_time", "user_session_id", "meta_使用哪个模型",
        "x" * 300, "1st", "_", "a-b",
    )  # fmt: skip
    metadata = {name: name for name in names}
    chat = store.conversation("s")
    chat.append(Message.user("text", message_id="m", metadata=metadata))
    chat.update_session(metadata=metadata)
    found = chat.get_message("m")
    assert found is not None
    assert (found.content, found.role, found.metadata) == ("text", "user", metadata)
    session = chat.session()
    assert session is not None
    assert session.metadata == metadata
    for name in names:
        assert len(chat.list_messages(where=where(name) == name)) == 1
        assert len(store.list_sessions(user_id="default", where=where(name) == name)) == 1
        assert len(store.list_sessions(where=where(name) == name)) == 1


# -- what it costs ---------------------------------------------------------------------------


def _requests(server: TablestoreProcess, call: Any) -> int:
    with server.counting() as counted:
        call()
    return counted.total.requests


def test_requests(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s", user_id="u", ttl=3600)
    assert _requests(server, lambda: chat.append(*_users(1))) == 3
    for n, requests in ((1, 2), (4, 2), (8, 2), (200, 3)):
        assert _requests(server, lambda n=n: chat.append(*_users(n))) == requests
    assert _requests(server, lambda: chat.window(20)) == 1
    assert _requests(server, lambda: chat.window(Window(last=20, summary=True))) == 1
    system = store.conversation("system", user_id="u")
    system.append(Message.system("rules"), *_users(100))
    assert _requests(server, lambda: system.window(20)) == 2
    mid = chat.window(1)[0].message_id
    assert _requests(server, lambda: chat.get_message(mid)) == 2
    assert _requests(server, lambda: chat.update_message(mid, content="new")) <= 8
    assert _requests(server, lambda: chat.delete_message(mid)) <= 5
    large = store.conversation("large", user_id="u")
    large.append(*_users(1000))
    assert _requests(server, lambda: large.window(20)) == 1
    assert _requests(server, large.delete) <= 11


@pytest.mark.parametrize("size", [100, 2_000])
def test_a_cold_append_costs_the_same_whatever_the_history(
    server: TablestoreProcess, store: Store, size: int
) -> None:
    store.conversation("s", user_id="u").append(*_users(size))
    later = now_us() + 10_000_000  # not within the lag that an index is granted
    with Store(backend(server, clock=lambda: later)) as cold:
        chat = cold.conversation("s", user_id="u")
        for requests in (4, 3):
            with server.counting() as counted:
                chat.append(Message.user("a message of a few words"))
            assert counted.total.requests == requests
            assert counted.total.bytes_in + counted.total.bytes_out <= 4_500
    with server.counting() as counted:
        store.conversation("s", user_id="u").append(Message.user("after others"))
    assert counted.total.requests == 4  # a lost race, then as one who knows the session
    assert store.verify() == []


def test_a_process_that_appends_often_learns_all_ids(
    server: TablestoreProcess, store: Store
) -> None:
    store.conversation("s").append(*_users(40))
    with Store(backend(server)) as cold:
        chat = cold.conversation("s")
        for _ in range(12):
            chat.append(*_users(1))
        assert _requests(server, lambda: chat.append(*_users(1))) == 2


def test_an_append_sends_what_changed(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    metadata = {f"k{i}": "v" * 100 for i in range(100)}
    chat.update_session(summary="x" * 100_000, metadata=metadata)
    with server.counting() as counted:
        chat.append(*_users(1))
    assert (counted.total.requests, counted.total.bytes_in < 2_000) == (2, True)
    (listed,) = store.list_sessions(user_id="default").items
    assert listed == chat.session()
    assert (listed.message_count, listed.summary) == (1, "x" * 100_000)
    chat.update_session(metadata={"k1": 1})
    chat.update_session(metadata={"k1": True})  # equal, but another value
    assert store.list_sessions(user_id="default").items[0].metadata["k1"] is True
    assert store.verify() == []


def test_keys_are_spread(server: TablestoreProcess, store: Store) -> None:
    """Sessions of one user, named by time: neighbours by name are not neighbours in the table."""
    for i in range(20):
        store.conversation(f"2026-11-26T10:00:{i:02}").append(*_users(1))
    client = server.client()
    _, _, rows, _ = client.get_range(
        "message", "FORWARD",
        [(name, INF_MIN) for name in ("user_session_id", "create_time", "message_id")],
        [(name, INF_MAX) for name in ("user_session_id", "create_time", "message_id")],
        max_version=1,
    )  # fmt: skip
    client.connection.pool.clear()
    partitions = list(dict.fromkeys(row.primary_key[0][1] for row in rows))
    assert len(partitions) == 20  # the heads, on which commits wait, are there too
    assert len({partition[:2] for partition in partitions}) >= 16
    assert partitions != sorted(partitions, key=lambda p: p.partition(":")[2])
    assert _requests(server, lambda: store.list_sessions(user_id="default", limit=20)) == 1


def test_erasing_a_user(server: TablestoreProcess, store: Store) -> None:
    for i in range(120):
        store.conversation(f"s{i}", user_id="u").append(*_users(2))
    store.conversation("long", user_id="u").append(*_users(1_500))
    kept = store.conversation("s1", user_id="other")
    kept.append(*_users(2))
    with server.counting() as counted:
        erased = store.erase_user("u")
    assert (erased.sessions, erased.messages) == (121, 1_740)
    assert counted.total.requests <= 121 * 1.2 + 15  # 15: the long one
    assert store.list_sessions(user_id="u").items == []
    assert kept.count() == len(kept.list_messages()) == 2
    assert store.verify() == []


def test_more_metadata_than_columns(server: TablestoreProcess) -> None:
    for layout in ("isolated", "agent-memory"):
        names = {
            name: f"{name}_{layout[0]}"
            for name in ("session_table", "session_index", "message_table", "message_index")
        }
        with Store(backend(server, layout=layout, **names)) as store:
            store.setup()
            chat = store.conversation("s")
            metadata = {f"key_{i}": i for i in range(2_000)}
            chat.update_session(metadata=metadata)
            chat.append(*_users(1))
            chat.update_session(metadata={"key_1999": "new"}, remove_metadata=["key_0"])
            session = chat.session()
            assert session is not None
            del metadata["key_0"]
            assert session.metadata == {**metadata, "key_1999": "new"}
            assert store.list_sessions(user_id="default").items == [session]


def test_requests_of_listings(server: TablestoreProcess, store: Store) -> None:
    for i in range(400):
        chat = store.conversation(f"s{i}", user_id="u")
        chat.update_session(metadata={"topic": "a" if i % 40 == 3 else "b"})
        if i in (9, 399):
            five = lambda **k: store.list_sessions(user_id="u", limit=5, **k)  # noqa: E731
            assert _requests(server, five) == 1
            assert _requests(server, lambda five=five: five(where=where("topic") == "b")) == 1
            assert _requests(server, lambda five=five: five(where=where("topic") == "a")) == 1
