"""GetRange: order, bounds, pages, limits, filters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tablestore import (
    INF_MAX,
    INF_MIN,
    BatchWriteRowRequest,
    ComparatorType,
    Condition,
    Direction,
    OTSServiceError,
    PutRowItem,
    Row,
    SingleColumnCondition,
    TableInBatchWriteRowItem,
)

from tsmemory.testing.servers.tablestore.plainbuffer import Mark
from tsmemory.testing.servers.tablestore.rows import Row as StoredRow
from tsmemory.testing.servers.tablestore.rows import SortedRows


def fill(client: Any, rows: Any, table: str = "t") -> None:
    rows = list(rows)
    for start in range(0, len(rows), 200):
        request = BatchWriteRowRequest()
        items = [
            PutRowItem(Row(list(key), list(columns)), Condition("IGNORE"))
            for key, columns in rows[start : start + 200]
        ]
        request.add(TableInBatchWriteRowItem(table, items))
        assert client.batch_write_row(request).is_all_succeed()


def key(p: Any, q: Any) -> Any:
    return [("p", p), ("q", q)]


def page(client: Any, start: Any, end: Any, backward: bool = False, **named: Any) -> Any:
    direction = Direction.BACKWARD if backward else Direction.FORWARD
    named.setdefault("max_version", 1)
    _, following, rows, _ = client.get_range("t", direction, start, end, **named)
    return [tuple(value for _, value in row.primary_key) for row in rows], following


def everything(client: Any, start: Any, end: Any, backward: bool = False, **named: Any) -> Any:
    """Every page; the keys and how many pages there were."""
    found: list[Any] = []
    pages = 0
    while start is not None:
        keys, start = page(client, start, end, backward, **named)
        found += keys
        pages += 1
    return found, pages


@pytest.fixture
def ten(client: Any, make_table: Any) -> list[tuple[str, int]]:
    make_table()
    keys = [(p, q) for p in ("a", "b") for q in range(5)]
    fill(client, [(key(p, q), [("n", q), ("even", q % 2 == 0)]) for p, q in reversed(keys)])
    return keys


def test_both_ways(client: Any, ten: Any) -> None:
    all_up = (key(INF_MIN, INF_MIN), key(INF_MAX, INF_MAX))
    assert page(client, *all_up) == (ten, None)
    assert page(client, *reversed(all_up), backward=True) == (ten[::-1], None)
    # The start is included, the end is not.
    assert page(client, key("a", 3), key("b", 1))[0] == [("a", 3), ("a", 4), ("b", 0)]
    down = page(client, key("b", 1), key("a", 3), backward=True)[0]
    assert down == [("b", 1), ("b", 0), ("a", 4)]
    assert page(client, key("a", INF_MAX), key("b", INF_MIN))[0] == []


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 5, 7, 10])
def test_pages_cover_the_range_once(client: Any, ten: Any, backward: bool, limit: int) -> None:
    bounds = [key(INF_MIN, INF_MIN), key(INF_MAX, INF_MAX)]
    expected = ten[::-1] if backward else ten
    found, pages = everything(client, *bounds[:: -1 if backward else 1], backward, limit=limit)
    assert found == expected
    assert pages == -(-10 // limit)


def test_an_unordered_range_is_refused(client: Any, ten: Any) -> None:
    for start, end, backward, text in (
        (key("b", 0), key("a", 0), False, "Begin key must less than end key in FORWARD"),
        (key("a", 0), key("a", 0), False, "Begin key must less than end key in FORWARD"),
        (key("a", 0), key("b", 0), True, "Begin key must more than end key in BACKWARD"),
    ):
        with pytest.raises(OTSServiceError, match=text) as caught:
            page(client, start, end, backward)
        assert caught.value.code == "OTSParameterInvalid"
    for limit in (0, -1):
        with pytest.raises(OTSServiceError, match=r"The limit must be greater than 0\."):
            page(client, key("a", 0), key("b", 0), limit=limit)
    with pytest.raises(OTSServiceError) as caught:
        page(client, [("p", "a")], [("p", "b")])
    assert caught.value.code == "OTSInvalidPK"


def test_a_filter_with_a_limit_either_way(server: Any, client: Any, ten: Any) -> None:
    bounds = (key("a", INF_MIN), key("b", INF_MAX))
    odd = SingleColumnCondition("even", False, ComparatorType.EQUAL)
    wanted = [one for one in ten if one[1] % 2]
    # The limit counts rows read: pages come back short, even empty.
    keys, following = page(client, *bounds, limit=1, column_filter=odd)
    assert (keys, following) == ([], key("a", 1))
    assert everything(client, *bounds, limit=2, column_filter=odd) == (wanted, 5)
    server.set_options(range_limit_counts="passed")
    keys, following = page(client, *bounds, limit=1, column_filter=odd)
    assert (keys, following) == ([("a", 1)], key("a", 2))
    assert everything(client, *bounds, limit=2, column_filter=odd) == (wanted, 3)


def test_columns_to_get_leave_out_rows(client: Any, ten: Any) -> None:
    client.update_row("t", Row(key("a", 2), {"put": [("extra", 1)]}), Condition("IGNORE"))
    bounds = (key(INF_MIN, INF_MIN), key(INF_MAX, INF_MAX))
    assert page(client, *bounds, columns_to_get=["extra"]) == ([("a", 2)], None)
    assert page(client, *bounds, columns_to_get=["extra", "p"])[0] == ten


def test_at_most_5000_rows_a_page(client: Any, make_table: Any) -> None:
    make_table()
    fill(client, [(key("a", number), []) for number in range(5001)])
    bounds = (key("a", INF_MIN), key("a", INF_MAX))
    keys, following = page(client, *bounds)
    assert (len(keys), following) == (5000, key("a", 5000))
    assert len(page(client, *bounds, limit=9000)[0]) == 5000
    found, pages = everything(client, *bounds)
    assert (len(found), pages) == (5001, 2)


def test_at_most_4_mb_a_page(client: Any, make_table: Any) -> None:
    make_table()
    for number in range(6):
        client.put_row("t", Row(key("a", number), [("c", "x" * 2**20)]))
    bounds = (key("a", INF_MIN), key("a", INF_MAX))
    keys, following = page(client, *bounds)
    assert (len(keys), following) == (3, key("a", 3))
    assert everything(client, *bounds) == ([("a", number) for number in range(6)], 2)


def test_binary_and_unicode_keys_order_by_bytes(client: Any, make_table: Any) -> None:
    make_table(key=[("p", "STRING"), ("q", "BINARY")])
    texts = ["", "A", "a", "é", "\uffff", "\U00010000", "a\x00", "z"]
    raws = [b"", b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\x00"]
    fill(client, [(key(text, bytearray(raw)), []) for text in texts for raw in raws])
    found = page(client, key(INF_MIN, INF_MIN), key(INF_MAX, INF_MAX))[0]
    encoded = [(text.encode(), bytes(raw)) for text, raw in found]
    assert encoded == sorted(encoded)
    assert len(encoded) == len(texts) * len(raws)


NUMBERS = st.integers(0, 9)
KEYS = st.tuples(NUMBERS, NUMBERS)
BOUNDS = st.tuples(*[st.one_of(NUMBERS, st.sampled_from([Mark.INF_MIN, Mark.INF_MAX]))] * 2)


@given(st.lists(st.tuples(st.booleans(), KEYS)), BOUNDS, BOUNDS, st.booleans())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_sorted_rows_are_a_sorted_dict(steps: Any, start: Any, end: Any, backward: bool) -> None:
    rows = SortedRows()
    model = set()
    for adds, one in steps:
        if adds:
            rows.set(StoredRow(one, (), {}, 0))
            model.add(one)
        else:
            rows.discard(one)
            model.discard(one)
    assert [row.key for row in rows.values()] == sorted(model)
    found = [row.key for row in rows.walk(start, end, backward)]
    if backward:
        assert found == sorted((k for k in model if end < k <= start), reverse=True)
    else:
        assert found == sorted(k for k in model if start <= k < end)
