"""Single rows: put, get, update, delete, conditions, filters, versions, time to live."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tablestore import (
    ComparatorType,
    CompositeColumnCondition,
    Condition,
    LogicalOperator,
    OTSServiceError,
    ReturnType,
    Row,
    SingleColumnCondition,
)
from tablestore.metadata import PK_AUTO_INCR, CastType, RegexRule, SingleColumnRegexCondition

KEY = [("p", "a"), ("q", 1)]


def code_of(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(OTSServiceError) as caught:
        call(*arguments, **named)
    return str(caught.value.code)


def put(client: Any, columns: Any, key: Any = None, condition: str = "IGNORE", **named: Any) -> Any:
    return client.put_row("t", Row(key or KEY, columns), Condition(condition), **named)


def get(client: Any, *arguments: Any, key: Any = None, **named: Any) -> Any:
    named.setdefault("max_version", 1)
    row = client.get_row("t", key or KEY, *arguments, **named)[1]
    return None if row is None else {name: value for name, value, _ in row.attribute_columns}


def update(client: Any, columns: Any, condition: Any = None, key: Any = None) -> Any:
    return client.update_row("t", Row(key or KEY, columns), condition or Condition("IGNORE"))


COLUMNS = {
    "text": "héllo \x00 \U0001f600",
    "empty": "",
    "least": -(2**63),
    "most": 2**63 - 1,
    "half": 0.5,
    "yes": True,
    "no": False,
    "raw": bytearray(b"\x00\xff"),
}


def test_every_type_comes_back(client: Any, make_table: Any) -> None:
    make_table()
    put(client, list(COLUMNS.items()))
    found = get(client)
    assert found == COLUMNS
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in COLUMNS.items()
    }
    assert list(found) == sorted(COLUMNS)


def test_python_bytes_are_a_string_to_the_sdk(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("b", b"plain")])
    assert get(client) == {"b": "plain"}
    assert code_of(put, client, [("b", b"\xff")]) == "OTSParameterInvalid"


def test_put_replaces_the_row(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("a", 1), ("b", 2)])
    put(client, [("b", 3)])
    assert get(client) == {"b": 3}
    put(client, [])
    assert get(client) == {}
    assert get(client, key=[("p", "other"), ("q", 1)]) is None


def test_update_puts_deletes_and_increments(client: Any, make_table: Any) -> None:
    make_table()
    update(client, {"put": [("a", 1), ("b", "x"), ("c", 5)]})
    update(client, {"put": [("d", 1)], "delete_all": ["b"], "increment": [("c", 3), ("n", -2)]})
    assert get(client) == {"a": 1, "c": 8, "d": 1, "n": -2}
    assert code_of(update, client, {"increment": [("n", 1), ("e", "x")]}) == "OTSParameterInvalid"
    assert get(client) == {"a": 1, "c": 8, "d": 1, "n": -2}
    # A row remains after its last column is deleted.
    update(client, {"delete_all": ["a", "c", "d", "n"]})
    assert get(client) == {}
    # Deleting columns makes no row.
    other = [("p", "b"), ("q", 1)]
    update(client, {"delete_all": ["a"]}, key=other)
    assert get(client, key=other) is None
    assert code_of(update, client, {"put": []}) == "OTSParameterInvalid"


def test_delete(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("a", 1)])
    client.delete_row("t", Row(KEY), Condition("EXPECT_EXIST"))
    assert get(client) is None
    client.delete_row("t", KEY, None)
    with pytest.raises(OTSServiceError) as caught:
        client.delete_row("t", Row(KEY), Condition("EXPECT_EXIST"))
    error = caught.value
    assert (error.http_status, error.code) == (403, "OTSConditionCheckFail")
    assert error.message == "Condition check failed."


def test_row_existence(client: Any, make_table: Any) -> None:
    make_table()
    check = "OTSConditionCheckFail"
    assert code_of(put, client, [("a", 1)], condition="EXPECT_EXIST") == check
    assert code_of(update, client, {"put": [("a", 1)]}, Condition("EXPECT_EXIST")) == check
    put(client, [("a", 1)], condition="EXPECT_NOT_EXIST")
    assert code_of(put, client, [("a", 2)], condition="EXPECT_NOT_EXIST") == check
    put(client, [("a", 3)], condition="EXPECT_EXIST")
    assert get(client) == {"a": 3}


def test_column_conditions_on_writes(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("version", 1)])

    def at(version: int, missing: bool = False) -> Condition:
        column = SingleColumnCondition("version", version, ComparatorType.EQUAL, missing)
        return Condition("IGNORE", column)

    update(client, {"put": [("version", 2)]}, at(1))
    check = "OTSConditionCheckFail"
    assert code_of(update, client, {"put": [("version", 3)]}, at(1)) == check
    assert code_of(client.delete_row, "t", Row(KEY), at(1)) == check
    other = [("p", "b"), ("q", 1)]
    assert code_of(update, client, {"put": [("version", 1)]}, at(0), other) == check
    update(client, {"put": [("version", 1)]}, at(0, missing=True), other)
    assert get(client) == {"version": 2}
    assert get(client, key=other) == {"version": 1}


@pytest.mark.parametrize(
    ("comparator", "value", "passes"),
    [
        ("EQUAL", 5, True), ("EQUAL", 6, False), ("EQUAL", 5.0, False), ("EQUAL", "5", False),
        ("NOT_EQUAL", 6, True), ("NOT_EQUAL", 5, False), ("NOT_EQUAL", "5", True),
        ("GREATER_THAN", 4, True), ("GREATER_THAN", 5, False), ("GREATER_EQUAL", 5, True),
        ("LESS_THAN", 6, True), ("LESS_THAN", 5, False), ("LESS_EQUAL", 5, True),
    ],
)  # fmt: skip
def test_filters_compare_values_of_one_type(
    client: Any, make_table: Any, comparator: str, value: Any, passes: bool
) -> None:
    make_table()
    put(client, [("n", 5)])
    condition = SingleColumnCondition("n", value, getattr(ComparatorType, comparator))
    assert (get(client, column_filter=condition) is not None) == passes


def test_filters_on_missing_columns(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("n", 5)])
    for missing in (True, False):
        condition = SingleColumnCondition("x", 1, ComparatorType.EQUAL, pass_if_missing=missing)
        assert (get(client, column_filter=condition) is not None) == missing
    # The SDK offers EXIST for regex conditions only.
    exists = SingleColumnRegexCondition("n", ComparatorType.EXIST)
    assert get(client, column_filter=exists) == {"n": 5}
    absent = SingleColumnRegexCondition("n", ComparatorType.NOT_EXIST)
    assert get(client, column_filter=absent) is None


def test_composite_and_regex_filters(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("n", 5), ("s", "t1=v1,t2=20,")])
    one = SingleColumnCondition("n", 5, ComparatorType.EQUAL)
    two = SingleColumnCondition("s", "other", ComparatorType.EQUAL)

    def both(operator: str, *parts: Any) -> Any:
        condition = CompositeColumnCondition(operator)
        for part in parts:
            condition.add_sub_condition(part)
        return condition

    assert get(client, column_filter=both(LogicalOperator.AND, one, two)) is None
    assert get(client, column_filter=both(LogicalOperator.OR, one, two)) is not None
    negated = both(LogicalOperator.NOT, two)
    assert get(client, column_filter=both(LogicalOperator.AND, one, negated)) is not None
    rule = RegexRule("t2=([0-9]+),", CastType.VT_INTEGER)
    for value, passes in ((20, True), (21, False)):
        regex = SingleColumnRegexCondition("s", ComparatorType.EQUAL, value, rule)
        assert (get(client, column_filter=regex) is not None) == passes


def test_at_most_32_filter_nodes(client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("n", 5)])

    def chain(count: int) -> Any:
        condition = CompositeColumnCondition(LogicalOperator.OR)
        for number in range(count):
            condition.add_sub_condition(SingleColumnCondition("n", number, ComparatorType.EQUAL))
        return condition

    assert get(client, column_filter=chain(31)) == {"n": 5}
    assert code_of(get, client, column_filter=chain(32)) == "OTSParameterInvalid"


def test_columns_to_get(server: Any, client: Any, make_table: Any) -> None:
    make_table()
    put(client, [("a", 1), ("b", 2), ("c", 3), ("d", 4)])
    assert get(client, ["b", "x"]) == {"b": 2}
    assert get(client, []) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert get(client, ["x"]) is None
    assert get(client, ["p", "x"]) == {}
    assert get(client, start_column="b", end_column="d") == {"b": 2, "c": 3}
    condition = SingleColumnCondition("a", 1, ComparatorType.EQUAL, pass_if_missing=False)
    assert get(client, ["b"], column_filter=condition) is None
    assert get(client, ["a", "b"], column_filter=condition) == {"a": 1, "b": 2}
    server.set_options(filter_sees="all")
    assert get(client, ["b"], column_filter=condition) == {"b": 2}
    many = [f"c{n}" for n in range(129)]
    assert code_of(get, client, many) == "OTSParameterInvalid"


def test_return_type_and_auto_increment(client: Any, make_table: Any) -> None:
    make_table(key=[("p", "STRING"), ("n", "INTEGER", PK_AUTO_INCR)])
    numbers = []
    for _ in range(3):
        row = Row([("p", "a"), ("n", PK_AUTO_INCR)], [("c", 1)])
        _, back = client.put_row("t", row, Condition("IGNORE"), ReturnType.RT_PK)
        assert back.primary_key[0] == ("p", "a")
        numbers.append(back.primary_key[1][1])
    assert numbers == sorted(set(numbers))
    assert client.put_row("t", Row([("p", "a"), ("n", numbers[0])], [("c", 2)]))[1] is None


def test_return_after_modify(server: Any, client: Any, make_table: Any) -> None:
    # The Python SDK cannot ask for it; the protocol can.
    import http.client

    from tablestore.auth import RequestContext
    from tablestore.plainbuffer.plain_buffer_builder import PlainBufferBuilder
    from tablestore.protobuf import table_store_pb2 as pb

    from tsmemory.testing.servers.tablestore.plainbuffer import decode_row

    make_table()
    change = PlainBufferBuilder.serialize_for_update_row(KEY, {"INCREMENT": [("n", 4)]})
    request = pb.UpdateRowRequest(table_name="t", row_change=bytes(change))
    request.condition.row_existence = pb.IGNORE
    request.return_content.return_type = pb.RT_AFTER_MODIFY
    request.return_content.return_column_names.append("n")
    body = request.SerializeToString()
    context = RequestContext(client.credentials_provider.get_credentials())
    headers = client.protocol._make_request_headers(body, "/UpdateRow", client._signer, context)
    connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
    connection.request("POST", "/UpdateRow", body, headers)
    response = pb.UpdateRowResponse.FromString(connection.getresponse().read())
    connection.close()
    assert [(cell.name, cell.value) for cell in decode_row(response.row).cells] == [("n", 4)]


def test_versions_and_time_ranges(client: Any, make_table: Any) -> None:
    make_table(max_version=3)
    now = int(time.time() * 1000)
    for step in range(5):
        update(client, {"put": [("c", step, now + step)]})

    def versions(**named: Any) -> Any:
        row = client.get_row("t", KEY, **named)[1]
        return row and [(value, version - now) for _, value, version in row.attribute_columns]

    assert versions(max_version=10) == [(4, 4), (3, 3), (2, 2)]
    assert versions(max_version=2) == [(4, 4), (3, 3)]
    assert versions(max_version=10, time_range=(now + 2, now + 4)) == [(3, 3), (2, 2)]
    assert versions(max_version=10, time_range=now + 3) == [(3, 3)]
    update(client, {"delete": [("c", None, now + 3)]})
    assert versions(max_version=10) == [(4, 4), (2, 2)]
    latest = SingleColumnCondition("c", 2, ComparatorType.EQUAL, latest_version_only=True)
    assert versions(max_version=10, column_filter=latest) is None
    latest.set_latest_version_only(False)
    assert versions(max_version=10, column_filter=latest) == [(4, 4), (2, 2)]
    assert code_of(client.get_row, "t", KEY, max_version=None) == "OTSParameterInvalid"
    old = [("c", 1, now - 2 * 86_400_000)]
    assert code_of(update, client, {"put": old}) == "OTSParameterInvalid"


def test_an_older_version_does_not_replace_a_newer(client: Any, make_table: Any) -> None:
    make_table()
    now = int(time.time() * 1000)
    update(client, {"put": [("c", "new", now)]})
    update(client, {"put": [("c", "old", now - 1)]})
    assert get(client) == {"c": "new"}


def test_time_to_live_hides_cells_and_rows(server: Any, client: Any, make_table: Any) -> None:
    make_table(time_to_live=86_400)
    put(client, [("a", 1)])
    server.set_options(clock_offset=80_000)
    update(client, {"put": [("b", 2)]})
    assert get(client) == {"a": 1, "b": 2}
    server.set_options(clock_offset=90_000)
    assert get(client) == {"b": 2}
    server.set_options(clock_offset=180_000)
    assert get(client) is None
    # What has expired is not there for conditions either.
    put(client, [("c", 3)], condition="EXPECT_NOT_EXIST")
    assert get(client) == {"c": 3}


def test_update_can_be_forbidden(client: Any, make_table: Any) -> None:
    make_table(allow_update=False)
    assert code_of(update, client, {"put": [("a", 1)]}) == "OTSParameterInvalid"
    put(client, [("a", 1)])
    put(client, [("a", 2)])
    assert get(client) == {"a": 2}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ([("p", "a")], "Validate PK size fail. Input: 1, Meta: 2."),
        ([("p", "a"), ("x", 1)], "Validate PK name fail. Input: x, Meta: q."),
        ([("q", 1), ("p", "a")], "Validate PK name fail. Input: q, Meta: p."),
        ([("p", "a"), ("q", "1")], "Validate PK type fail. Input: VT_STRING, Meta: VT_INTEGER."),
    ],
)
def test_wrong_primary_keys(client: Any, make_table: Any, key: Any, message: str) -> None:
    make_table()
    for call in (
        lambda: client.get_row("t", key, max_version=1),
        lambda: put(client, [("a", 1)], key),
        lambda: update(client, {"put": [("a", 1)]}, key=key),
        lambda: client.delete_row("t", Row(key), Condition("IGNORE")),
    ):
        with pytest.raises(OTSServiceError) as caught:
            call()
        assert (caught.value.code, caught.value.message) == ("OTSInvalidPK", message)


def test_a_missing_table(client: Any) -> None:
    for call in (
        lambda: client.get_row("t", KEY, max_version=1),
        lambda: put(client, [("a", 1)]),
        lambda: client.delete_row("t", Row(KEY), None),
    ):
        with pytest.raises(OTSServiceError) as caught:
            call()
        assert (caught.value.code, caught.value.http_status) == ("OTSObjectNotExist", 404)


def test_limits_of_a_row(client: Any, make_table: Any) -> None:
    make_table()
    bad = "OTSParameterInvalid"
    put(client, [("a", 1)], [("p", "x" * 1024), ("q", 1)])
    assert code_of(put, client, [("a", 1)], [("p", "x" * 1025), ("q", 1)]) == bad
    assert code_of(put, client, [("a", 1)], [("p", "é" * 513), ("q", 1)]) == bad
    put(client, [("a", "x" * 2**21)])
    assert len(get(client)["a"]) == 2**21
    assert code_of(put, client, [("a", "x" * (2**21 + 1))]) == bad
    assert code_of(put, client, [("a", bytearray(2**21 + 1))]) == bad
    # 4 MB for the whole row, names and key included.
    assert code_of(put, client, [("a", "x" * 2**21), ("b", "x" * 2**21)]) == bad
    put(client, [("a", "x" * 2**21), ("b", "x" * (2**21 - 20))])
    put(client, [(f"c{n}", n) for n in range(1024)])
    assert code_of(put, client, [(f"c{n}", n) for n in range(1025)]) == bad
    update(client, {"delete_all": [f"c{n}" for n in range(1024)]})
    assert code_of(update, client, {"delete_all": [f"c{n}" for n in range(1025)]}) == bad
    for name in ("1a", "a-b", "a" * 256, ""):
        assert code_of(put, client, [(name, 1)]) == bad
    put(client, [("a" * 255, 1)])
    assert code_of(put, client, [("p", 1)]) == bad
    assert code_of(put, client, [("a", 1), ("a", 2)]) == bad


def test_a_request_body_over_5_mb(client: Any, make_table: Any) -> None:
    make_table()
    columns = [(f"c{n}", "x" * 2**20) for n in range(6)]
    with pytest.raises(OTSServiceError) as caught:
        put(client, columns)
    assert (caught.value.code, caught.value.http_status) == ("OTSRequestBodyTooLarge", 413)
