"""The command line, the data file, and a server in its own process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tablestore import (
    INF_MAX,
    INF_MIN,
    Condition,
    FieldSchema,
    FieldType,
    MatchAllQuery,
    OTSClient,
    Row,
    SearchIndexMeta,
    SearchQuery,
    SecondaryIndexMeta,
    SecondaryIndexType,
    TermQuery,
)
from tablestore.metadata import (
    PK_AUTO_INCR,
    CapacityUnit,
    ReservedThroughput,
    ReturnType,
    TableMeta,
    TableOptions,
)

import tsmemory.testing.servers.tablestore as package
from tsmemory.testing.servers.tablestore import LocalTablestore, ServerOptions, TablestoreProcess
from tsmemory.testing.servers.tablestore.journal import Journal

ROOT = Path(package.__file__).parents[4]


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tsmemory.testing.servers.tablestore", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line(number: signal.Signals) -> None:
    as_json = number == signal.SIGTERM
    arguments = ["--port", "0", "--instance", "mine", "--access-key-id", "id"]
    arguments += ["--access-key-secret", "secret", *(["--json"] if as_json else [])]
    process = run(*arguments)
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    endpoint = line
    if as_json:
        assert json.loads(line) == {
            "endpoint": json.loads(line)["endpoint"],
            "instance_name": "mine",
            "access_key_id": "id",
            "access_key_secret": "secret",
        }
        endpoint = json.loads(line)["endpoint"]
    assert OTSClient(endpoint, "id", "secret", "mine").list_table() == ()
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_taken_port_is_reported() -> None:
    with LocalTablestore() as server:
        process = run("--port", server.endpoint.rpartition(":")[2])
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert errors.startswith("cannot start: ")


def test_options_reach_the_process() -> None:
    options = ServerOptions(range_limit_counts="passed", index_lag=1.5)
    with TablestoreProcess(options=options, access_key_secret="other") as server:
        assert server.options() == options
        assert server.client().list_table() == ()
        first = server.pid
        endpoint = server.endpoint
        server.restart()
        assert server.pid != first
        assert server.endpoint == endpoint
    server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        server.counters()


def test_the_process_ends_with_its_parent() -> None:
    code = (
        "import os; from tsmemory.testing.servers.tablestore import TablestoreProcess;"
        "s = TablestoreProcess().start(); print(s.endpoint, flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 9
    # The run's stderr was the server's too, so it has ended when `run` returns.
    port = int(done.stdout.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


def fill(client: Any) -> None:
    index = SecondaryIndexMeta("x", ["p", "n"], [], SecondaryIndexType.LOCAL_INDEX)
    client.create_table(
        TableMeta("t", [("p", "STRING"), ("q", "INTEGER")], [("n", "INTEGER")]),
        TableOptions(-1, 1, 86400),
        ReservedThroughput(CapacityUnit(0, 1)),
        [index],
    )
    client.create_table(
        TableMeta("auto", [("p", "STRING"), ("q", "INTEGER", PK_AUTO_INCR)]),
        TableOptions(86_400, 3),
        ReservedThroughput(CapacityUnit(0, 0)),
    )
    for number in range(20):
        client.put_row("t", Row([("p", "a"), ("q", number)], [("n", -number), ("s", "é")]))
    late = SecondaryIndexMeta("late", ["p", "n"], [], SecondaryIndexType.LOCAL_INDEX)
    client.create_secondary_index("t", late, False)
    client.delete_row("t", [("p", "a"), ("q", 3)])
    where = [("p", "a"), ("q", 4)]
    client.update_row("t", Row(where, {"put": [("z", 1.5)]}), Condition("IGNORE"))
    client.create_search_index("t", "s", SearchIndexMeta([FieldSchema("n", FieldType.LONG)]))


def content(client: Any) -> Any:
    bounds = ([("p", INF_MIN), ("q", INF_MIN)], [("p", INF_MAX), ("q", INF_MAX)])
    rows = client.get_range("t", "FORWARD", *bounds)[2]
    found: list[Any] = [[(row.primary_key, row.attribute_columns) for row in rows]]
    for name in ("x", "late"):
        keys = ["p", "n", "q"]
        start, end = [(key, INF_MIN) for key in keys], [(key, INF_MAX) for key in keys]
        found.append([row.primary_key for row in client.get_range(name, "FORWARD", start, end)[2]])
    answer = client.search("t", "s", SearchQuery(MatchAllQuery(), limit=0, get_total_count=True))
    found.append(answer.total_count)
    found.append(client.describe_table("auto").table_options.time_to_live)
    return found


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    with TablestoreProcess(data=tmp_path / "data") as server:
        fill(server.client())
        row = Row([("p", "a"), ("q", PK_AUTO_INCR)], [("c", 1)])
        first = server.client().put_row("auto", row, None, ReturnType.RT_PK)[1].primary_key[1][1]
        before = content(server.client())
        server.kill()
        server.start()
        client = server.client()
        assert content(client) == before
        assert [len(part) for part in before[:3]] == [19, 19, 1]
        assert before[3] == 19
        second = client.put_row("auto", row, None, ReturnType.RT_PK)[1].primary_key[1][1]
        assert second > first
        assert client.search("t", "s", SearchQuery(TermQuery("n", -5))).rows


def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with LocalTablestore(data=path) as server:
        fill(server.client())
        before = content(server.client())
    whole = path.read_bytes()
    for torn in (whole + b"\x05", whole + b"\x00" * 20, whole + whole[-30:-3]):
        path.write_bytes(torn)
        with LocalTablestore(data=path) as server:
            assert content(server.client()) == before
        assert path.read_bytes() == whole


def test_a_long_journal_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with LocalTablestore(data=path) as server:
        client = server.client()
        fill(client)
        for number in range(1100):
            client.put_row("t", Row([("p", "a"), ("q", 50)], [("c", number)]))
        before = content(client)
    size = path.stat().st_size
    for _ in range(2):
        with LocalTablestore(data=path) as server:
            assert path.stat().st_size < size / 10
            assert content(server.client()) == before
    with LocalTablestore(data=path) as server:
        server.reset()
    with LocalTablestore(data=path) as server:
        assert server.client().list_table() == ()


def test_a_data_file_has_one_server(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with LocalTablestore(data=path), pytest.raises(OSError, match="in use"):
        LocalTablestore(data=path)
    journal = Journal(path)
    with pytest.raises(RuntimeError, match="status 1"):
        TablestoreProcess(data=path).start()
    journal.close()
