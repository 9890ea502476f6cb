"""What an operation costs: round trips, and what the server touches for it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tsmemory import Message, Store
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.backends.postgres.reader import _MESSAGES
from tsmemory.engine.commit import encode_bodies
from tsmemory.engine.records import Change, Key, MessageQuery, SessionPatch, SessionQuery
from tsmemory.testing.servers.postgres import PgBouncer, PostgresServer

KEY = Key("u", "s")


class CountingProxy:
    """Passes bytes to a server, and counts round trips: how often a client begins to send after
    the server has spoken."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.trips = 0
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                # No TCP_NODELAY: small parts of one pipeline, passed on at once, could be answered
                # one by one, and would count as trips.
                turn = ["server"]
                for name, a, b in (("client", client, server), ("server", server, client)):
                    thread = threading.Thread(target=self._pass, args=(name, a, b, turn))
                    self._threads.append(thread)
                    thread.start()

    def _pass(self, name: str, a: socket.socket, b: socket.socket, turn: list[str]) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                if name == "client" and turn[0] == "server":
                    self.trips += 1
                turn[0] = name
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)

    def counted(self) -> int:
        trips, self.trips = self.trips, 0
        return trips

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture(params=["direct", "pooled"])
def proxy(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[CountingProxy]:
    port = server.port
    if request.param == "pooled":
        bouncer: PgBouncer = request.getfixturevalue("bouncer")
        port = bouncer.port
    proxy = CountingProxy(port)
    yield proxy
    proxy.close()


def test_round_trips(proxy: CountingProxy, prefix: str) -> None:
    # To prepare a statement takes one trip, once for each connection: not counted here.
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?prepare=false"
    with Store(PostgresBackend.from_url(url, prefix=prefix)) as store:
        store.setup()
        store.setup()
        chat = store.conversation("s", user_id="u")
        chat.append(Message.system("Be kind."))
        proxy.counted()
        chat.append(Message.user("one"))
        assert proxy.counted() == 1
        chat.append(*(Message.user(str(i)) for i in range(200)))
        assert proxy.counted() == 1
        session = chat.session()
        assert session is not None
        proxy.counted()
        chat.append(Message.user("at a version"), if_version=session.version)
        assert proxy.counted() == 1
        store.conversation("new", user_id="u").append(Message.user("first"), if_version=0)
        assert proxy.counted() == 1
        window = chat.window(20)
        assert window[0].text == "Be kind."
        assert len(window) == 21
        assert proxy.counted() == 1
        store.list_sessions(user_id="u", limit=20)
        assert proxy.counted() == 1
        chat.get_message("x")
        assert proxy.counted() == 1
        message = Message.user("again", message_id="again")
        chat.append(message)
        proxy.counted()
        chat.append(message)  # it is there: the statement, then the template
        assert proxy.counted() == 3
        chat.update_message("again", content="changed")
        assert proxy.counted() == 3
        chat.delete_message("again")
        assert proxy.counted() == 2

        query = MessageQuery(limit=20, descending=True, pinned=True, total=True, session=True)
        change = Change(append=(Message.user("both"),))
        backend = store.backend
        outcome, read = backend.run(backend.commit_and_read(KEY, change, query))
        assert proxy.counted() == 1
        assert read.rows[0] == outcome.stored[0]
        assert read.session == outcome.session
        assert read.total == 204


def fill(server: PostgresServer, prefix: str, sessions: int, messages: int) -> None:
    """`sessions` sessions of one user, and in one of them that many messages more."""
    with server.connect() as connection:
        connection.execute(
            f"INSERT INTO {prefix}sessions (user_id, session_id, create_time, update_time, "
            "version, message_count, last_time) "
            "SELECT 'u', 'other' || i, i * 1000000, i * 1000000, 1, 0, 0 "
            "FROM generate_series(1, %s) i",
            [sessions],
        )
        connection.execute(
            f"INSERT INTO {prefix}messages "
            'SELECT s.id, i, \'m\' || i, \'u\', i = 1, \'{"role": "user", "content": "hello"}\' '
            f"FROM {prefix}sessions s, generate_series(1, %s) i WHERE s.session_id = 's'",
            [messages],
        )
        connection.execute(f"VACUUM ANALYZE {prefix}sessions, {prefix}messages")


def plans(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "Node Type" in node:
            yield node
        for value in node.values():
            yield from plans(value)
    elif isinstance(node, list):
        for value in node:
            yield from plans(value)


def explain(connection: Any, statement: tuple[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The plan's nodes, and how many buffers the statement touched."""
    cursor = psycopg.ClientCursor(connection)
    with connection.transaction(force_rollback=True):
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement[0]}", statement[1])
        row = cursor.fetchone()
        assert row is not None
        plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    top = plan[0]["Plan"]
    return list(plans(plan)), top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def test_hot_statements_use_indexes_and_stay_flat(server: PostgresServer, prefix: str) -> None:
    touched: dict[str, list[int]] = {}
    for size, tables in ((100, prefix), (20_000, f"{prefix}big_")):
        with PostgresBackend_on(server, tables) as backend:
            backend.run(backend.commit(KEY, Change(session=SessionPatch(title="t"))))
            fill(server, tables, size // 10, size)
            message = Message.user("hello")
            change = Change(append=(message,))
            window = MessageQuery(limit=28, descending=True, pinned=True, total=True)
            listing = SessionQuery(user_id="u", limit=21)
            hot = {
                "append": backend.append_statement(KEY, change, [message], encode_bodies(change)),
                "window": backend.read_statement(KEY, window, None, 28),
                "listing": backend.list_statement(listing, None, 21),
                "page": backend.list_statement(listing, (2_000_000, "u", "other2"), 21),
                "id": (
                    backend.layout.fill(_MESSAGES),
                    {"user_id": "u", "session_id": "s", "ids": ["m7"]},
                ),
            }
            with server.connect() as connection:
                for name, statement in hot.items():
                    nodes, buffers = explain(connection, statement)
                    touched.setdefault(name, []).append(buffers)
                    if size > 100:
                        scans = {n["Node Type"] for n in nodes if "Relation Name" in n}
                        assert scans <= {
                            "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "ModifyTable",
                        }, (name, scans)  # fmt: skip
    for name, (small, large) in touched.items():
        assert large <= small + 40, (name, small, large)


@contextlib.contextmanager
def PostgresBackend_on(server: PostgresServer, prefix: str) -> Iterator[PostgresBackend]:  # noqa: N802  # as the class
    backend = PostgresBackend.from_url(server.url, prefix=prefix)
    backend.run(backend.setup())
    yield backend
    backend.close()


def test_writes_to_a_session_do_not_bloat_its_row(server: PostgresServer, prefix: str) -> None:
    with Store(PostgresBackend.from_url(server.url, prefix=prefix)) as store:
        store.setup()
        chat = store.conversation("s", ttl=3600)
        for i in range(60):
            chat.append(Message.user(str(i)))
        with server.connect() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        # A session's own statistics arrive when its connection closes.
        store.close()
        with server.connect() as connection:
            (updates, hot), (pages,) = (
                connection.execute(sql, [f"{prefix}sessions"]).fetchone() or ()
                for sql in (
                    "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s",
                    "SELECT pg_relation_size(%s::regclass) / 8192",
                )
            )
    assert pages == 1
    assert hot >= updates - 2  # a minute may have passed meanwhile
