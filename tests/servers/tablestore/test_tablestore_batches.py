"""BatchWriteRow and BatchGetRow."""

from __future__ import annotations

from typing import Any

import pytest
from tablestore import (
    BatchGetRowRequest,
    BatchWriteRowRequest,
    Condition,
    DeleteRowItem,
    OTSServiceError,
    PutRowItem,
    ReturnType,
    Row,
    TableInBatchGetRowItem,
    TableInBatchWriteRowItem,
    UpdateRowItem,
)

IGNORE = Condition("IGNORE")


def put(q: int, columns: Any = (("c", 1),), condition: str = "IGNORE", **named: Any) -> Any:
    return PutRowItem(Row([("p", "a"), ("q", q)], list(columns)), Condition(condition), **named)


def write(client: Any, tables: dict[str, Any]) -> Any:
    request = BatchWriteRowRequest()
    for name, items in tables.items():
        request.add(TableInBatchWriteRowItem(name, items))
    return client.batch_write_row(request)


def read(client: Any, tables: dict[str, Any], **named: Any) -> Any:
    request = BatchGetRowRequest()
    for name, keys in tables.items():
        request.add(TableInBatchGetRowItem(name, keys, max_version=1, **named))
    return client.batch_get_row(request)


def keys_of(client: Any, table: str = "t") -> list[int]:
    from tablestore import INF_MAX, INF_MIN

    rows = client.get_range(
        table, "FORWARD", [("p", INF_MIN), ("q", INF_MIN)], [("p", INF_MAX), ("q", INF_MAX)]
    )[2]
    return [row.primary_key[1][1] for row in rows]


def test_rows_succeed_and_fail_each_for_itself(client: Any, make_table: Any) -> None:
    make_table()
    make_table("u")
    client.put_row("t", Row([("p", "a"), ("q", 0)], [("c", 1)]))
    answer = write(
        client,
        {
            "t": [
                put(0, condition="EXPECT_NOT_EXIST"),
                put(1),
                UpdateRowItem(Row([("p", "a"), ("q", 2)], {"put": [("c", 2)]}), IGNORE),
                DeleteRowItem(Row([("p", "a"), ("q", 3)]), Condition("EXPECT_EXIST")),
                PutRowItem(Row([("p", "a"), ("wrong", 4)], [("c", 1)]), IGNORE),
                PutRowItem(Row([("p", "a"), ("q", "text")], [("c", 1)]), IGNORE),
            ],
            "u": [put(1)],
            "missing": [put(1), put(2)],
        },
    )
    assert not answer.is_all_succeed()
    assert [row.error_code for row in answer.get_put_by_table("t")] == [
        "OTSConditionCheckFail", None, "OTSInvalidPK", "OTSInvalidPK",
    ]  # fmt: skip
    assert [row.is_ok for row in answer.get_update_by_table("t")] == [True]
    assert answer.get_delete_by_table("t")[0].error_code == "OTSConditionCheckFail"
    assert {row.error_code for row in answer.get_put_by_table("missing")} == {"OTSObjectNotExist"}
    assert keys_of(client) == [0, 1, 2]
    assert keys_of(client, "u") == [1]


@pytest.mark.parametrize(
    "bad",
    [
        put(9, [("c", "x" * (2**21 + 1))]),
        put(9, [("1bad", 1)]),
        put(9, [("c", 1)] * 2),
        put(9, [(f"c{n}", n) for n in range(1025)]),
        put(9, [("p", 1)]),
        PutRowItem(Row([("p", "x" * 1025), ("q", 9)], [("c", 1)]), IGNORE),
        put(1),
    ],
    ids=["value", "name", "twice", "columns", "key column", "key value", "same row"],
)
def test_a_bad_row_refuses_the_batch(client: Any, make_table: Any, bad: Any) -> None:
    make_table()
    with pytest.raises(OTSServiceError) as caught:
        write(client, {"t": [put(1), bad]})
    assert (caught.value.code, caught.value.http_status) == ("OTSParameterInvalid", 400)
    assert keys_of(client) == []


def test_two_changes_of_a_row_can_be_allowed(server: Any, client: Any, make_table: Any) -> None:
    make_table()
    server.set_options(duplicate_rows_in_batch="apply")
    assert write(client, {"t": [put(1, [("c", 1)]), put(1, [("c", 2)])]}).is_all_succeed()
    row = client.get_row("t", [("p", "a"), ("q", 1)])[1]
    assert row.attribute_columns[0][:2] == ("c", 2)


def test_200_rows_and_4_mb(client: Any, make_table: Any) -> None:
    make_table()
    assert write(client, {"t": [put(n) for n in range(200)]}).is_all_succeed()
    with pytest.raises(OTSServiceError, match=r"Rows count exceeds the upper limit: 200\."):
        write(client, {"t": [put(n) for n in range(201)]})
    big = [("c", "x" * (2**20 - 9))]
    assert write(client, {"t": [put(n, big) for n in range(3)]}).is_all_succeed()
    # Each row is 2^20 + 2 bytes: p, a, q, 8, c and the value.
    with pytest.raises(OTSServiceError, match="limit size: 4194304, data size: 4194320"):
        write(client, {"t": [put(n, [("c", "x" * (2**20 - 8))]) for n in range(4)]})


def test_nothing_to_do_is_refused(client: Any, make_table: Any) -> None:
    make_table()
    with pytest.raises(OTSServiceError, match=r"No row is specified in BatchWriteRow\."):
        write(client, {})
    with pytest.raises(OTSServiceError, match=r"No operation is specified for table: 't'\."):
        write(client, {"t": []})
    with pytest.raises(OTSServiceError, match="No row specified in the request of BatchGetRow"):
        read(client, {})
    assert read(client, {"t": []}).is_all_succeed()


def test_return_type(client: Any, make_table: Any) -> None:
    make_table()
    answer = write(client, {"t": [put(5, return_type=ReturnType.RT_PK), put(6)]})
    found = [row.row.primary_key for row in answer.get_succeed_of_put() if row.row.primary_key]
    assert found == [[("p", "a"), ("q", 5)]]


def test_batch_get(client: Any, make_table: Any) -> None:
    make_table()
    make_table("u")
    write(client, {"t": [put(n, [("c", n), ("d", n)]) for n in range(3)], "u": [put(7)]})

    def key(q: Any) -> Any:
        return [("p", "a"), ("q", q)]

    answer = read(
        client,
        {"t": [key(2), key(9), key(0), key("x")], "u": [key(7)], "missing": [key(1)]},
        columns_to_get=["c"],
    )
    found = answer.get_result_by_table("t")
    assert [one.is_ok for one in found] == [True, True, True, False]
    assert found[0].row.attribute_columns[0][:2] == ("c", 2)
    assert found[1].row is None
    assert found[3].error_code == "OTSInvalidPK"
    assert answer.get_result_by_table("u")[0].row.primary_key == key(7)
    assert answer.get_result_by_table("missing")[0].error_code == "OTSObjectNotExist"
    assert read(client, {"t": [key(n) for n in range(100)]}).is_all_succeed()
    with pytest.raises(OTSServiceError, match=r"Rows count exceeds the upper limit: 100\."):
        read(client, {"t": [key(n) for n in range(101)]})
