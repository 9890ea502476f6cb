"""Tables: create, list, describe, update, delete, and their limits."""

from __future__ import annotations

from typing import Any

import pytest
from tablestore import (
    CapacityUnit,
    OTSServiceError,
    ReservedThroughput,
    SecondaryIndexMeta,
    SecondaryIndexType,
    TableOptions,
)
from tablestore.metadata import PK_AUTO_INCR

KEY = (("p", "STRING"),)


def refused(code: str, status: int, text: str = "") -> Any:
    """Expects an error of the service."""

    class Expectation:
        def __enter__(self) -> None:
            self.raises = pytest.raises(OTSServiceError)
            self.caught = self.raises.__enter__()

        def __exit__(self, *error: Any) -> bool:
            done = bool(self.raises.__exit__(*error))
            found = self.caught.value
            assert (found.code, found.http_status) == (code, status), found
            assert text in found.message
            assert found.request_id
            return done

    return Expectation()


def test_a_table_is_created_listed_described_and_deleted(client: Any, make_table: Any) -> None:
    defined = [
        ("i", "INTEGER"),
        ("b", "BOOLEAN"),
        ("d", "DOUBLE"),
        ("s", "STRING"),
        ("y", "BINARY"),
    ]
    key = [("p", "STRING"), ("q", "INTEGER"), ("r", "BINARY"), ("s2", "INTEGER", PK_AUTO_INCR)]
    make_table("one", key, defined)
    make_table("two", KEY, time_to_live=86400, max_version=3, max_time_deviation=99)
    assert client.list_table() == ("one", "two")
    one = client.describe_table("one")
    assert one.table_meta.schema_of_primary_key == key
    assert one.table_meta.defined_columns == defined
    options = one.table_options
    assert (options.time_to_live, options.max_version) == (-1, 1)
    assert (options.max_time_deviation, options.allow_update) == (86400, True)
    two = client.describe_table("two").table_options
    assert (two.time_to_live, two.max_version, two.max_time_deviation) == (86400, 3, 99)
    client.delete_table("one")
    assert client.list_table() == ("two",)
    with refused("OTSObjectNotExist", 404, "Requested table does not exist."):
        client.describe_table("one")
    with refused("OTSObjectNotExist", 404):
        client.delete_table("one")


def test_a_name_is_taken_once(client: Any, make_table: Any) -> None:
    make_table(defined=[("i", "INTEGER")], indexes=[SecondaryIndexMeta("x", ["i"], [])])
    with refused("OTSObjectAlreadyExist", 409, "Requested table already exists."):
        make_table()
    with refused("OTSObjectAlreadyExist", 409):
        make_table("x")


def test_update_changes_options_and_throughput(client: Any, make_table: Any) -> None:
    make_table(key=KEY)
    answer = client.update_table("t", TableOptions(100_000, 5, 10, False))
    assert answer.table_options.time_to_live == 100_000
    client.update_table("t", None, ReservedThroughput(CapacityUnit(3, 4)))
    found = client.describe_table("t")
    assert (found.table_options.max_version, found.table_options.allow_update) == (5, False)
    unit = found.reserved_throughput_details.capacity_unit
    assert (unit.read, unit.write) == (3, 4)
    with refused("OTSParameterInvalid", 400):
        client.update_table("t", TableOptions(86_399, 1, 10))
    with refused("OTSObjectNotExist", 404):
        client.update_table("no", TableOptions())


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "a" * 256, "a\n"])
def test_bad_table_names(client: Any, make_table: Any, name: str) -> None:
    with refused("OTSParameterInvalid", 400, "Invalid table name"):
        make_table(name, KEY)
    with refused("OTSParameterInvalid", 400, "Invalid table name"):
        client.get_row(name, [("p", "x")])


def test_names_up_to_255_bytes(client: Any, make_table: Any) -> None:
    make_table("_" + "a" * 254, (("P" * 255, "STRING"),))
    with refused("OTSParameterInvalid", 400, "Invalid column name"):
        make_table("t", (("P" * 256, "STRING"),))


def test_primary_key_schemas(client: Any, make_table: Any) -> None:
    make_table("four", [(f"p{n}", "INTEGER") for n in range(4)])
    for key in ([], [(f"p{n}", "INTEGER") for n in range(5)]):
        with refused("OTSParameterInvalid", 400, "primary key columns"):
            make_table("t", key)
    with refused("OTSParameterInvalid", 400, "Duplicated primary key name: 'p'."):
        make_table("t", [("p", "STRING"), ("p", "INTEGER")])
    with refused("OTSParameterInvalid", 400, "BOOLEAN is an invalid type"):
        make_table("t", [("p", "BOOLEAN")])
    with refused("OTSParameterInvalid", 400, "AUTO_INCREMENT"):
        make_table("t", [("p", "INTEGER", PK_AUTO_INCR)])
    assert client.list_table() == ("four",)


def test_at_most_32_defined_columns(make_table: Any) -> None:
    columns = [(f"c{n}", "STRING") for n in range(33)]
    make_table("t", KEY, columns[:32])
    with refused("OTSParameterInvalid", 400, "defined columns"):
        make_table("u", KEY, columns)
    with refused("OTSParameterInvalid", 400, "Duplicated defined column"):
        make_table("u", KEY, [("p", "STRING")])


def test_at_most_64_tables_and_indexes(client: Any, make_table: Any) -> None:
    make_table("base", KEY, [("i", "INTEGER")], [SecondaryIndexMeta("x", ["i"], [])])
    for number in range(62):
        make_table(f"t{number}", KEY)
    with refused("OTSQuotaExhausted", 403, "64"):
        make_table("last", KEY)
    client.delete_table("base")
    make_table("last", KEY)


def test_secondary_index_schemas(client: Any, make_table: Any) -> None:
    defined = [(f"i{n}", "INTEGER") for n in range(8)] + [("f", "DOUBLE")]
    make_table("t", (("p", "STRING"), ("q", "INTEGER")), defined)

    def create(name: str, key: list[str], columns: Any = (), local: bool = False) -> None:
        kind = SecondaryIndexType.LOCAL_INDEX if local else SecondaryIndexType.GLOBAL_INDEX
        client.create_secondary_index("t", SecondaryIndexMeta(name, key, list(columns), kind), True)

    for number in range(4):
        create(f"x{number}", [f"i{number}"], ["f"])
    create("local", ["p", "i1"], local=True)
    found = client.describe_table("t").secondary_indexes
    assert [(one.index_name, one.primary_key_names, one.index_type) for one in found][-1] == (
        "local", ["p", "i1"], SecondaryIndexType.LOCAL_INDEX,
    )  # fmt: skip
    with refused("OTSParameterInvalid", 400, "upper limit: 5"):
        create("x5", ["i5"])
    client.delete_secondary_index("t", "local")
    for key, columns, local in (
        (["i0", "i1", "i2", "i3", "i4"], [], False),
        (["nowhere"], [], False),
        (["f"], [], False),
        (["i0"], ["nowhere"], False),
        (["i0"], ["i0"], False),
        (["i0", "p"], [], True),
    ):
        with refused("OTSParameterInvalid", 400):
            create("bad", key, columns, local)
    with refused("OTSObjectAlreadyExist", 409):
        create("t", ["i0"])
    with refused("OTSObjectNotExist", 404):
        client.delete_secondary_index("t", "local")
    assert len(client.describe_table("t").secondary_indexes) == 4


def test_indexes_go_with_one_version_and_no_expiring_updates(client: Any, make_table: Any) -> None:
    index = SecondaryIndexMeta("x", ["i"], [])
    defined = [("i", "INTEGER")]
    with refused("OTSParameterInvalid", 400, "max versions"):
        make_table("t", KEY, defined, [index], max_version=2)
    with refused("OTSParameterInvalid", 400, "allow_update"):
        make_table("t", KEY, defined, [index], time_to_live=86400)
    make_table("t", KEY, defined, [index], time_to_live=86400, allow_update=False)
    with refused("OTSParameterInvalid", 400, "allow_update"):
        client.update_table("t", TableOptions(86400, 1, 86400, True))


def test_deleting_a_table_takes_its_secondary_indexes(client: Any, make_table: Any) -> None:
    make_table("t", KEY, [("i", "INTEGER")], [SecondaryIndexMeta("x", ["i"], [])])
    client.delete_table("t")
    with refused("OTSObjectNotExist", 404):
        client.get_row("x", [("i", 1), ("p", "a")])
    make_table("x", KEY)


def test_a_new_table_may_not_be_ready(server: Any, client: Any, make_table: Any) -> None:
    server.set_options(table_ready_delay=0.3)
    make_table(key=KEY)
    with refused("OTSTableNotReady", 404):
        client.get_row("t", [("p", "a")])
    # The SDK's default policy tries again until the table is ready.
    assert server.client().get_row("t", [("p", "a")])[1] is None
