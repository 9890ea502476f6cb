"""What the service sees: how many requests, and rows that others can read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.backends.zerodb.conftest import open_on
from tsmemory import Message, Store
from tsmemory.backends.zerodb import ZeroDBBackend
from tsmemory.testing.servers.zerodb import LocalZeroDB


def counted(server: LocalZeroDB) -> dict[str, int]:
    found = dict(server.requests)
    server.requests.clear()
    return found


def test_requests_of_an_operation(server: LocalZeroDB, backend: ZeroDBBackend) -> None:
    chat = Store(backend).conversation("s", user_id="u")
    chat.append(Message.user("first"))
    assert counted(server) == {"query": 2, "insert": 1, "update": 1}
    for _ in range(3):  # a session that this process wrote last
        chat.append(Message.user("next"))
        assert counted(server) == {"insert": 1, "update": 1}
    chat.append(*(Message.user(str(i)) for i in range(250)))
    assert counted(server) == {"insert": 3, "update": 1}
    assert len(chat.window(20)) == 20
    assert counted(server) == {"query": 1}
    chat.get_message("x")
    assert counted(server) == {"query": 1}
    assert len(chat.list_messages(limit=400)) == chat.count() == 254
    assert counted(server) == {"query": 2}  # one of each
    cursor = chat.list_messages(limit=50).next_cursor
    assert counted(server) == {"query": 4}
    chat.list_messages(limit=50, cursor=cursor)
    assert counted(server) == {"query": 3}
    chat.append(*(Message.user(str(i)) for i in range(901)))
    assert counted(server) == {"insert": 10, "update": 1}
    again = Message.user("again", message_id="again")
    chat.append(again)
    assert counted(server) == {"insert": 1, "update": 1}
    chat.append(again)
    assert counted(server) == {"query": 1}
    chat.append(Message.system("Be kind."))
    chat.append(*(Message.user(str(i)) for i in range(40)))
    counted(server)
    assert chat.window(5)[0].text == "Be kind."
    assert counted(server) == {"query": 3}
    chat.delete()
    assert counted(server) == {"query": 1, "delete": 2}


def test_requests_of_a_fresh_process(server: LocalZeroDB, backend: ZeroDBBackend) -> None:
    """What it knows of a session after its first append saves it a query from the third on."""
    Store(backend).conversation("s").append(*(Message.user(str(i)) for i in range(30)))
    with Store(open_on(server, backend.table)) as store:
        chat = store.conversation("s")
        server.requests.clear()
        for expected in (
            {"query": 1, "insert": 1, "update": 1},
            {"query": 1, "insert": 1, "update": 1},
            {"insert": 1, "update": 1},
        ):
            chat.append(Message.user("more"))
            assert counted(server) == expected
        # Another process comes between: found out by the update, and nothing is lost.
        Store(backend).conversation("s").append(Message.user("between"))
        server.requests.clear()
        chat.append(Message.user("last"))
        assert counted(server)["query"] >= 1
        assert [m.text for m in chat.list_messages()][-3:] == ["more", "between", "last"]
        assert store.verify() == []


def test_commits_are_settled_in_portions(server: LocalZeroDB, backend: ZeroDBBackend) -> None:
    """The session's row names what is not settled yet; it does not grow without limit."""
    chat = Store(backend).conversation("s")
    for i in range(80):
        chat.append(Message.user(str(i)))
    assert counted(server)["update"] <= 80 + 3
    assert [m.text for m in chat.iter_messages()] == [str(i) for i in range(80)]
    (row,) = server.tables.query(backend.table, {"filter": {"message": ""}})["rows"]
    assert len(row["pending"]["commits"]) <= 32
    assert Store(backend).verify() == []


def test_a_window_costs_the_same_however_long(server: LocalZeroDB, backend: ZeroDBBackend) -> None:
    chat = Store(backend).conversation("s", user_id="u")
    for _ in range(3):
        chat.append(*(Message.user("x" * 10) for _ in range(1_000)))
    counted(server)
    assert len(chat.window(20)) == 20
    assert counted(server) == {"query": 1}


def test_writers_of_many_sessions_at_once(server: LocalZeroDB, table: str) -> None:
    """Eight writers begin the same sessions together; nothing is lost or doubled."""
    names = [f"s{i}" for i in range(6)]
    with Store(open_on(server, table)) as store:
        store.setup()

        def write(writer: int) -> None:
            with Store(open_on(server, table)) as mine:
                for name in names:
                    mine.conversation(name).append(
                        Message.user(f"{writer}", message_id=f"{writer}")
                    )

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in names:
            chat = store.conversation(name)
            assert sorted(m.text for m in chat.iter_messages()) == [str(i) for i in range(8)]
            assert chat.session().version == 8  # type: ignore[union-attr]
        assert store.verify() == []


def test_problems_are_named(server: LocalZeroDB, backend: ZeroDBBackend, table: str) -> None:
    store = Store(backend)
    store.conversation("s", user_id="u").append(Message.user("a"), Message.user("b"))
    store.conversation("t", user_id="u").append(Message.user("c"))
    tables = server.tables
    tables.update(table, {"filter": {"place": "z"}, "update": {"$set": {"count": 7}}})
    whats = {problem.what for problem in store.verify()}
    assert whats == {
        "message_count is 7, but there are 2 messages",
        "message_count is 7, but there are 1 messages",
    }
    tables.update(
        table, {"filter": {"message": {"$ne": ""}}, "update": {"$set": {"state": "kept"}}}
    )
    tables.delete(table, {"filter": {"place": "z"}})
    assert {problem.what for problem in store.verify()} == {"belongs to no session"}
    assert len(store.verify()) == 3


def test_the_vendors_package_reads_our_rows(
    server: LocalZeroDB, backend: ZeroDBBackend, table: str
) -> None:
    ainative = pytest.importorskip("ainative", reason="ainative-python is not installed")
    Store(backend).conversation("s", user_id="u").append(Message.user("hello", message_id="m"))
    # With the slash: without it the package (3.1.1) loses the last part of its base address.
    with ainative.AINativeClient(
        api_key=server.api_key, base_url=f"{server.endpoint}/api/v1/"
    ) as client:
        tables = client.zerodb.tables
        assert tables.count_rows(server.project, table) == 2
        found = tables.query_rows(server.project, table, filter={"message": {"$ne": ""}})
        assert '"hello"' in found["rows"][0]["body"]
        assert tables.get_table(server.project, table)["row_count"] == 2


def test_the_vendors_package_runs_against_the_server(server: LocalZeroDB, table: str) -> None:
    ainative = pytest.importorskip("ainative", reason="ainative-python is not installed")
    with ainative.AINativeClient(
        api_key=server.api_key, base_url=f"{server.endpoint}/api/v1/"
    ) as client:
        tables, project = client.zerodb.tables, server.project
        schema = {"fields": {"name": "string", "age": "number"}, "indexes": ["name"]}
        made = tables.create_table(project, table, schema, description="people")
        assert made["table_name"] == table
        assert tables.table_exists(project, table)
        assert not tables.table_exists(project, f"{table}.none")
        names = [one["table_name"] for one in tables.list_tables(project, limit=1_000)["tables"]]
        assert table in names
        rows = [{"name": name, "age": age} for name, age in (("a", 30), ("b", 20), ("c", 40))]
        inserted = tables.insert_rows(project, table, rows)
        assert inserted["inserted_count"] == 3
        found = tables.query_rows(
            project, table, filter={"age": {"$gte": 25}}, sort={"age": -1}, limit=1, offset=1
        )
        assert [row["name"] for row in found["rows"]] == ["a"]
        assert found["total"] == 2
        only = tables.query_rows(project, table, projection={"name": 1, "_id": 0}, limit=1)
        assert only["rows"] == [{"name": "a"}]
        changed = tables.update_rows(project, table, {"name": "a"}, {"$inc": {"age": 1}})
        assert changed["modified_count"] == 1
        tables.update_rows(project, table, {"name": "d"}, {"$set": {"age": 1}}, upsert=True)
        assert tables.count_rows(project, table) == 4
        assert tables.delete_rows(project, table, {"age": {"$lt": 25}})["deleted_count"] == 2
        with pytest.raises(ainative.APIError):
            tables.create_table(project, table, schema)
        with pytest.raises(ainative.APIError):
            tables.query_rows(project, table, filter={"age": {"$near": 1}})
        server.fail(429)
        with pytest.raises(ainative.exceptions.RateLimitError):
            tables.count_rows(project, table)
        assert tables.delete_table(project, table, confirm=True)["rows_deleted"] == 2
        client.auth_config.api_key = "wrong"
        with pytest.raises(ainative.AuthenticationError):
            tables.count_rows(project, table)


def test_the_server_as_a_program() -> None:
    command = [sys.executable, "-m", "tsmemory.testing.servers.zerodb", "--project", "mine"]
    environment = {**os.environ, "ZERODB_API_KEY": "its-key"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("zerodb+http://127.0.0.1:")
        with Store(ZeroDBBackend.from_url(url, api_key="its-key")) as store:
            store.setup()
            assert store.stats().sessions == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
