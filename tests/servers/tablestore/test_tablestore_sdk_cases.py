"""The cases of the official SDK's own functional tests, by its modules, written anew.

Each test names the module of the SDK's tests whose cases it covers. What this server does not do is
refused by name, never answered otherwise.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
import tablestore as sdk
from tablestore import (
    BatchWriteRowRequest,
    CapacityUnit,
    ColumnReturnType,
    ColumnsToGet,
    Condition,
    FieldSchema,
    FieldType,
    MatchAllQuery,
    OTSServiceError,
    PutRowItem,
    ReservedThroughput,
    Row,
    RowExistenceExpectation,
    ScanQuery,
    SearchIndexMeta,
    SearchQuery,
    TableInBatchWriteRowItem,
    TableMeta,
    TableOptions,
    TermQuery,
)

from tsmemory.testing.servers.tablestore import TablestoreProcess

_FROM_INDEX = ColumnsToGet(return_type=ColumnReturnType.ALL_FROM_INDEX)


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    client = server.client(retry_policy=sdk.NoRetryPolicy(), logger_name="sdk-cases")
    client.create_table(
        TableMeta("t", [("p", "INTEGER")]), TableOptions(), ReservedThroughput(CapacityUnit(0, 0))
    )
    yield client
    client.connection.pool.clear()


@pytest.fixture
def indexed(client: Any) -> Any:
    fields = [
        FieldSchema("d", FieldType.DOUBLE, index=True, store=True),
        FieldSchema("day", FieldType.DATE, index=True, date_formats=["yyyy-MM-dd"]),
    ]
    client.create_search_index("t", "i", SearchIndexMeta(fields))
    for i in range(100):
        client.put_row("t", Row([("p", i)], [("d", 0.5)]), None)
    return client


def _refused(call: Any, code: str, text: str, status: int = 400) -> None:
    with pytest.raises(OTSServiceError) as caught:
        call()
    error = caught.value
    assert (error.code, error.http_status) == (code, status)
    assert text in error.message


# -- parallel_scan_test ----------------------------------------------------------------------


def _scan(client: Any, session: Any, **options: Any) -> Any:
    options = {"limit": 70, "next_token": None, "current_parallel_id": 0, **options}
    options = {"max_parallel": 1, "alive_time": 30, **options}
    query = ScanQuery(TermQuery("d", 0.5), **options)
    return client.parallel_scan("t", "i", query, session, columns_to_get=_FROM_INDEX)


def test_parallel_scan_ends_with_an_empty_page(indexed: Any) -> None:
    splits = indexed.compute_splits("t", "i")
    assert splits.session_id
    assert splits.splits_size == 1
    counts, token = [], None
    while token != "" and token != b"":
        page = _scan(indexed, splits.session_id, next_token=token)
        counts.append(len(page.rows))
        token = page.next_token
    assert counts == [70, 30, 0]


def test_parallel_scan_checks_its_parameters(indexed: Any) -> None:
    session = indexed.compute_splits("t", "i").session_id
    _refused(lambda: _scan(indexed, session, current_parallel_id=101), "OTSParameterInvalid",
             "[parallel_scan.current_parallel_id] must in [0, max_parallel)")  # fmt: skip
    _refused(lambda: _scan(indexed, session, max_parallel=2), "OTSParameterInvalid",
             "[parallel_scan.max_parallel_id] must in (0 ,1]")  # fmt: skip
    _refused(lambda: _scan(indexed, "other"), "OTSSessionExpired", "expired")
    _refused(lambda: indexed.compute_splits("t", "none"), "OTSMetaNotMatch", "does not exist")
    _refused(lambda: indexed.compute_splits("none", "i"), "OTSParameterInvalid", "does not exist")


# -- row_op_test -----------------------------------------------------------------------------


def test_a_conditional_row_of_a_batch_reads(client: Any) -> None:
    def consumed(condition: Any, key: int) -> tuple[int, int]:
        request = BatchWriteRowRequest()
        item = PutRowItem(Row([("p", key)], [("c", 1)]), condition)
        request.add(TableInBatchWriteRowItem("t", [item]))
        (row,) = client.batch_write_row(request).get_put()[0]
        return row.consumed.read, row.consumed.write

    expect = RowExistenceExpectation
    assert consumed(Condition(expect.IGNORE), 1) == (0, 1)
    assert consumed(Condition(expect.EXPECT_NOT_EXIST), 2) == (1, 1)
    assert consumed(Condition(expect.EXPECT_EXIST), 2) == (1, 1)


# -- search_index_test -----------------------------------------------------------------------


def test_a_date_has_the_digits_of_its_format(indexed: Any) -> None:
    texts = ("2026-11-26", "2026-1-6", "2026-11-26x", "26-11-26", " 2026-11-26")
    for i, text in enumerate(texts):
        indexed.put_row("t", Row([("p", 1000 + i)], [("day", text)]), None)
    query = sdk.RangeQuery("day", range_from="1900-01-01", include_lower=True)
    found = indexed.search("t", "i", SearchQuery(query, limit=10))
    assert [row[0][0][1] for row in found.rows] == [1000]


# -- agg_test, group_by_test, transaction_test, sql_query_test, timeseries_api_test ----------


def test_what_is_not_done_is_refused_by_name(indexed: Any) -> None:
    total = SearchQuery(MatchAllQuery(), aggs=[sdk.Count("d", name="n")])
    _refused(lambda: indexed.search("t", "i", total), "OTSUnsupportOperation", "aggs")
    groups = SearchQuery(MatchAllQuery(), group_bys=[sdk.GroupByField("d", name="g")])
    _refused(lambda: indexed.search("t", "i", groups), "OTSUnsupportOperation", "group_bys")
    for call, name in (
        (lambda: indexed.start_local_transaction("t", [("p", 1)]), "StartLocalTransaction"),
        (lambda: indexed.exe_sql_query("select 1"), "SQLQuery"),
    ):
        _refused(call, "OTSUnsupportOperation", name)


# -- control endpoints (ours) ----------------------------------------------------------------


def test_the_control_endpoints_want_a_key_and_no_web_page() -> None:
    with TablestoreProcess() as server:
        host = server.endpoint.removeprefix("http://")
        key = {"x-control-key": server._control_key}
        for headers, method, status in (
            ({}, "POST", 403),
            ({"x-control-key": "guess"}, "POST", 403),
            ({**key, "Origin": "https://example.com"}, "POST", 403),
            (key, "GET", 403),
            (key, "POST", 200),
        ):
            connection = http.client.HTTPConnection(host)
            connection.request(method, "/_control/ping", json.dumps({}), headers)
            assert connection.getresponse().status == status
            connection.close()
