"""Secondary indexes: what they list, in which order, and when."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tablestore import (
    INF_MAX,
    INF_MIN,
    Condition,
    Direction,
    OTSServiceError,
    Row,
    SecondaryIndexMeta,
    SecondaryIndexType,
)

from tsmemory.testing.servers.tablestore import ServerOptions
from tsmemory.testing.servers.tablestore._wire import pb
from tsmemory.testing.servers.tablestore.engine import Engine
from tsmemory.testing.servers.tablestore.plainbuffer import OP_DELETE_ALL, CellChange
from tsmemory.testing.servers.tablestore.rows import Row as StoredRow
from tsmemory.testing.servers.tablestore.rows import put_columns, update_columns
from tsmemory.testing.servers.tablestore.schema import (
    IndexMeta,
    IndexTable,
    KeyColumn,
    Table,
    TableOptions,
)

LOCAL, GLOBAL = SecondaryIndexType.LOCAL_INDEX, SecondaryIndexType.GLOBAL_INDEX
KEY = (("user_id", "STRING"), ("session_id", "STRING"))
DEFINED = (("update_time", "INTEGER"), ("title", "STRING"))


def put(client: Any, user: str, session: str, *columns: Any) -> None:
    client.put_row("t", Row([("user_id", user), ("session_id", session)], list(columns)))


def listed(client: Any, index: str, names: Any, backward: bool = False) -> Any:
    bounds = [[(name, INF_MIN) for name in names], [(name, INF_MAX) for name in names]]
    direction = Direction.BACKWARD if backward else Direction.FORWARD
    if backward:
        bounds.reverse()
    rows = client.get_range(index, direction, *bounds, max_version=1)[2]
    return [
        (
            tuple(value for _, value in row.primary_key),
            {name: value for name, value, _ in row.attribute_columns},
        )
        for row in rows
    ]


BY_TIME = ("user_id", "update_time", "session_id")


@pytest.fixture(params=[LOCAL, GLOBAL], ids=["local", "global"])
def by_time(request: Any, make_table: Any) -> Any:
    # session_id is not named, and completes the key.
    meta = SecondaryIndexMeta("x", ["user_id", "update_time"], ["title"], request.param)
    make_table("t", KEY, DEFINED, [meta])
    return request.param


def test_an_index_follows_its_table(client: Any, by_time: Any) -> None:
    put(client, "u", "s1", ("update_time", 5), ("title", "one"), ("other", 1))
    put(client, "u", "s2", ("update_time", 3))
    put(client, "u", "s3", ("title", "no time"))
    put(client, "u", "s4", ("update_time", "a string"))
    first = (("u", 5, "s1"), {"title": "one"})
    assert listed(client, "x", BY_TIME) == [(("u", 3, "s2"), {}), first]
    assert listed(client, "x", BY_TIME, backward=True)[0] == first
    row = client.get_row("x", [("user_id", "u"), ("update_time", 5), ("session_id", "s1")])[1]
    assert row.attribute_columns[0][:2] == ("title", "one")
    # An update moves the entry.
    change = {"put": [("update_time", 1)], "delete_all": ["title"]}
    where = [("user_id", "u"), ("session_id", "s1")]
    client.update_row("t", Row(where, change), Condition("IGNORE"))
    assert listed(client, "x", BY_TIME) == [(("u", 1, "s1"), {}), (("u", 3, "s2"), {})]
    client.update_row("t", Row(where, {"delete_all": ["update_time"]}), Condition("IGNORE"))
    client.delete_row("t", [("user_id", "u"), ("session_id", "s2")])
    assert listed(client, "x", BY_TIME) == []


def test_an_index_cannot_be_written(client: Any, by_time: Any) -> None:
    key = [("user_id", "u"), ("update_time", 1), ("session_id", "s")]
    with pytest.raises(OTSServiceError) as caught:
        client.put_row("x", Row(key, [("title", "a")]))
    assert caught.value.code == "OTSParameterInvalid"


def test_base_data_is_listed_on_request(client: Any, make_table: Any) -> None:
    make_table("t", KEY, DEFINED)
    put(client, "u", "old", ("update_time", 1))
    for name, base in (("with", True), ("without", False)):
        meta = SecondaryIndexMeta(name, list(BY_TIME), [], LOCAL)
        client.create_secondary_index("t", meta, base)
    put(client, "u", "new", ("update_time", 2))
    old, new = (("u", 1, "old"), {}), (("u", 2, "new"), {})
    assert listed(client, "with", BY_TIME) == [old, new]
    assert listed(client, "without", BY_TIME) == [new]
    client.delete_secondary_index("t", "with")
    with pytest.raises(OTSServiceError) as caught:
        listed(client, "with", BY_TIME)
    assert caught.value.code == "OTSObjectNotExist"


def test_global_indexes_lag_and_local_ones_do_not(
    server: Any, client: Any, make_table: Any
) -> None:
    names = [SecondaryIndexMeta("loc", list(BY_TIME), [], LOCAL)]
    names.append(SecondaryIndexMeta("glo", ["update_time"], [], GLOBAL))
    make_table("t", KEY, DEFINED, names)
    by = ("update_time", "user_id", "session_id")
    server.set_options(index_lag=60)
    put(client, "u", "s", ("update_time", 1))
    assert listed(client, "loc", BY_TIME) == [(("u", 1, "s"), {})]
    assert listed(client, "glo", by) == []
    server.settle()
    assert listed(client, "glo", by) == [((1, "u", "s"), {})]
    server.set_options(index_lag=0.1)
    put(client, "u", "s", ("update_time", 2))
    while listed(client, "glo", by) != [((2, "u", "s"), {})]:  # by itself, without settle()
        time.sleep(0.01)
    # Without lag, what still lags is not overtaken.
    server.set_options(index_lag=60)
    put(client, "u", "s", ("update_time", 3))
    server.set_options(index_lag=0)
    put(client, "u", "s", ("update_time", 4))
    assert listed(client, "glo", by) == [((4, "u", "s"), {})]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "update", "clear", "delete"]),
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, 3), st.just("text")),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_an_index_is_what_a_rebuilt_one_would_be(steps: Any) -> None:
    column = KeyColumn("p", pb.INTEGER)
    table = Table("t", (column,), {"n": pb.DCT_INTEGER}, TableOptions(), (0, 0), 0.0)
    meta = IndexMeta("x", ("n",), (), False)
    engine = Engine(ServerOptions())
    table.indexes["x"] = index = IndexTable(meta, table)
    for kind, key, number in steps:
        before = table.rows.get((key,))
        put = [] if number is None else [CellChange("n", number, None, None)]
        columns: Any = put_columns(put, 1, 1)
        if kind == "update":
            columns = update_columns(before and before.columns, put, 1, 1)
        elif kind == "clear":
            gone = [CellChange("n", None, None, OP_DELETE_ALL)]
            columns = update_columns(before and before.columns, gone, 1, 1)
        elif kind == "delete":
            columns = None
        if columns is not None or kind == "delete":
            after = None if columns is None else StoredRow((key,), (("p", key),), columns, 1)
            engine.commit(table, before, after)
    rebuilt = IndexTable(meta, table)
    for row in table.rows.values():
        rebuilt.apply(None, row)
    assert [row.primary_key for row in index.rows.values()] == [
        row.primary_key for row in rebuilt.rows.values()
    ]
