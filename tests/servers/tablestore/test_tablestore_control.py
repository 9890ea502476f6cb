"""The test powers: counters, faults, latency, options; in this process and in another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from tablestore import (
    BatchGetRowRequest,
    BatchWriteRowRequest,
    Condition,
    NoRetryPolicy,
    OTSServiceError,
    PutRowItem,
    Row,
    TableInBatchGetRowItem,
    TableInBatchWriteRowItem,
)
from tablestore.metadata import CapacityUnit, ReservedThroughput, TableMeta, TableOptions

from tsmemory.testing.servers.tablestore import (
    Fault,
    LocalTablestore,
    OperationCount,
    TablestoreProcess,
)

KEY = [("p", "a")]


@pytest.fixture(params=["thread", "process"])
def any_server(request: Any, tablestore_server: TablestoreProcess) -> Iterator[Any]:
    if request.param == "process":
        tablestore_server.reset()
        yield tablestore_server
        tablestore_server.reset()
    else:
        with LocalTablestore() as server:
            yield server


@pytest.fixture
def any_client(any_server: Any) -> Iterator[Any]:
    client = any_server.client(retry_policy=NoRetryPolicy())
    client.create_table(
        TableMeta("t", [("p", "STRING")]), TableOptions(), ReservedThroughput(CapacityUnit(0, 0))
    )
    any_server.reset_counters()
    yield client
    client.connection.pool.clear()


def put(client: Any, name: str = "a", condition: str = "IGNORE") -> None:
    client.put_row("t", Row([("p", name)], [("c", 1)]), Condition(condition))


def has(client: Any, name: str = "a") -> bool:
    return client.get_row("t", [("p", name)])[1] is not None


def batch(client: Any, count: int) -> list[bool]:
    request = BatchWriteRowRequest()
    items = [PutRowItem(Row([("p", f"{n:03}")], [("c", 1)]), None) for n in range(count)]
    request.add(TableInBatchWriteRowItem("t", items))
    return [row.is_ok for row in client.batch_write_row(request).get_put_by_table("t")]


def test_counters(any_server: Any, any_client: Any) -> None:
    put(any_client)
    assert has(any_client)
    assert not has(any_client, "b")
    assert batch(any_client, 10) == [True] * 10
    any_client.get_range("t", "FORWARD", KEY, [("p", "zz")], limit=1)
    with pytest.raises(OTSServiceError):
        put(any_client, condition="EXPECT_NOT_EXIST")
    counters = any_server.counters()
    assert set(counters.operations) == {"PutRow", "GetRow", "BatchWriteRow", "GetRange"}
    row = counters["PutRow"]
    assert (row.requests, row.errors, row.rows_written) == (2, 1, 1)
    assert row.bytes_in > 0
    assert row.bytes_out > 0
    assert (counters["GetRow"].requests, counters["GetRow"].rows_returned) == (2, 1)
    assert counters["BatchWriteRow"].rows_written == 10
    assert counters.total.requests == 6
    assert counters["Search"] == OperationCount()
    assert [one["operation"] for one in any_server.requests()] == [
        "PutRow", "GetRow", "GetRow", "BatchWriteRow", "GetRange", "PutRow",
    ]  # fmt: skip
    assert any_server.requests()[-1] == {
        "operation": "PutRow", "tables": ["t"], "code": "OTSConditionCheckFail",
    }  # fmt: skip
    with any_server.counting() as counted:
        put(any_client)
    assert counted.total.requests == counted["PutRow"].requests == 1
    any_server.reset_counters()
    assert any_server.counters().operations == {}


def test_throttling_and_server_errors(any_server: Any, any_client: Any) -> None:
    for fault, status, code in (
        (Fault("throttle", times=1), 503, "OTSServerBusy"),
        (Fault("throttle", code="OTSNotEnoughCapacityUnit", times=1), 503,
         "OTSNotEnoughCapacityUnit"),
        (Fault("error", times=1), 500, "OTSInternalServerError"),
        (Fault("error", code="OTSTimeout", times=1), 503, "OTSTimeout"),
        (Fault("error", status=502, times=1), 502, "OTSInternalServerError"),
    ):  # fmt: skip
        any_server.clear_faults()
        any_server.inject(fault)
        with pytest.raises(OTSServiceError) as caught:
            put(any_client, code)
        assert (caught.value.http_status, caught.value.code) == (status, code)
        assert not has(any_client, code)
        put(any_client, code)
        any_client.delete_row("t", [("p", code)])
    any_server.inject(Fault("error", ["PutRow"], applied=True, times=1))
    with pytest.raises(OTSServiceError):
        put(any_client)
    assert has(any_client)


def test_the_sdk_tries_again_when_throttled(any_server: Any, any_client: Any) -> None:
    any_server.inject(Fault("throttle", ["PutRow"], times=2))
    client = any_server.client()
    client.retry_policy.server_throttling_exception_delay_factor = 0.01
    put(client)
    assert any_server.counters()["PutRow"].requests == 3


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_dropped_replies(any_server: Any, any_client: Any, kind: Any) -> None:
    any_server.inject(Fault(kind, ["PutRow"], nth=2))
    put(any_client, "first")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        put(any_client, "second")
    assert has(any_client, "second") == (kind == "drop_after")
    put(any_client, "third")
    assert any_server.counters()["PutRow"].errors == 1


@pytest.mark.parametrize("applied", [False, True])
def test_a_hanging_request(any_server: Any, any_client: Any, applied: bool) -> None:
    any_server.inject(Fault("hang", ["PutRow"], seconds=30, applied=applied, times=1))
    client = any_server.client(socket_timeout=0.2)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        put(client)
    client.connection.pool.clear()
    assert has(any_client) == applied


def test_a_part_of_a_batch_fails(any_server: Any, any_client: Any) -> None:
    for _ in range(2):
        any_server.clear_faults()
        any_server.inject(Fault("partial", ["BatchWriteRow"], rows=3, seed=5, times=1))
        fine = batch(any_client, 20)
        assert fine.count(False) == 3
        for number, ok in enumerate(fine):
            assert has(any_client, f"{number:03}") == ok
            any_client.delete_row("t", [("p", f"{number:03}")])
    first = fine
    assert batch(any_client, 20) == [True] * 20
    any_server.inject(Fault("partial", ["BatchWriteRow"], rows=3, seed=5, times=1))
    assert batch(any_client, 20) == first
    any_server.inject(Fault("partial", ["BatchGetRow"], rows=99, code="OTSTimeout"))
    request = BatchGetRowRequest()
    request.add(TableInBatchGetRowItem("t", [[("p", "001")], [("p", "002")]], max_version=1))
    failed = any_client.batch_get_row(request).get_failed_rows()
    assert [row.error_code for row in failed] == ["OTSTimeout"] * 2


def test_when_a_fault_strikes(any_server: Any, any_client: Any) -> None:
    def run(count: int = 20) -> str:
        marks = ""
        for _ in range(count):
            try:
                put(any_client)
                marks += "."
            except OTSServiceError:
                marks += "x"
        any_server.clear_faults()
        return marks

    any_server.inject(Fault("throttle", nth=3))
    assert run(6) == "..x..."
    any_server.inject(Fault("throttle", nth=3, times=2))
    assert run(6) == "..xx.."
    any_server.inject(Fault("throttle", times=2))
    assert run(6) == "xx...."
    any_server.inject(Fault("throttle", ["GetRow"]))
    assert run(3) == "..."
    any_server.inject(Fault("throttle", probability=0.5, seed=1))
    once = run()
    assert 3 < once.count("x") < 17
    any_server.inject(Fault("throttle", probability=0.5, seed=1))
    assert run() == once
    identity = any_server.inject(Fault("throttle", ["PutRow"], nth=2))
    run_once = any_server.faults()
    assert [(one["id"], one["kind"], one["struck"]) for one in run_once] == [
        (identity, "throttle", 0)
    ]


def test_bad_faults_and_options(any_server: Any) -> None:
    for bad in (
        {"kind": "nothing"},
        {"kind": "hang", "nth": 0},
        {"kind": "hang", "probability": 2},
    ):
        with pytest.raises(ValueError, match=r"kind is|nth|probability"):
            Fault(**bad)
    with pytest.raises(TypeError, match="sequence"):
        Fault("hang", "PutRow")
    with pytest.raises(ValueError, match="unknown option"):
        any_server.set_options(nothing=1)
    with pytest.raises(ValueError, match="range_limit_counts"):
        any_server.set_options(range_limit_counts="both")
    with pytest.raises(ValueError, match="index_lag"):
        any_server.set_options(index_lag="long")
    assert any_server.set_options(index_lag=2).index_lag == any_server.options().index_lag == 2


def test_latency(any_server: Any, any_client: Any) -> None:
    """A reply that is later than the client's patience: only for what the table names."""
    impatient = any_server.client(socket_timeout=0.1)
    any_server.set_latency({"PutRow": 300, "*": 0})
    assert not has(any_client)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        put(impatient)
    impatient.connection.pool.clear()
    while not any_server.counters()["PutRow"].requests:  # counted once it was carried out
        time.sleep(0.01)
    any_server.set_latency({})
    assert has(any_client)


def test_conditions_are_atomic_under_threads(any_server: Any, any_client: Any) -> None:
    winners: list[int] = []
    client = any_server.client()

    def race(worker: int) -> None:
        for number in range(15):
            try:
                put(client, f"{number}", "EXPECT_NOT_EXIST")
                winners.append(number)
            except OTSServiceError as error:
                assert error.code == "OTSConditionCheckFail"
            client.update_row(
                "t", Row([("p", "sum")], {"increment": [("n", 1)]}), Condition("IGNORE")
            )

    threads = [threading.Thread(target=race, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(winners) == list(range(15))
    assert client.get_row("t", [("p", "sum")])[1].attribute_columns[0][1] == 90
    client.connection.pool.clear()


def test_reset(any_server: Any, any_client: Any) -> None:
    put(any_client)
    any_server.inject(Fault("throttle"))
    any_server.set_options(index_lag=5)
    any_server.reset()
    assert any_client.list_table() == ()
    assert any_server.faults() == []
    assert any_server.options().index_lag == 0
    assert any_server.counters().total.requests == 1
