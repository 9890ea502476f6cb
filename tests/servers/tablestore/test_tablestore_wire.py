"""PlainBuffer against the SDK's own classes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tablestore.metadata import INF_MAX, INF_MIN, PK_AUTO_INCR
from tablestore.plainbuffer.plain_buffer_builder import PlainBufferBuilder
from tablestore.plainbuffer.plain_buffer_coded_stream import PlainBufferCodedInputStream
from tablestore.plainbuffer.plain_buffer_crc8 import PlainBufferCrc8
from tablestore.plainbuffer.plain_buffer_stream import PlainBufferInputStream

from tsmemory.testing.servers.tablestore import ServiceError
from tsmemory.testing.servers.tablestore.plainbuffer import (
    OP_DELETE_ALL,
    OP_DELETE_ONE,
    OP_INCREMENT,
    CellChange,
    Mark,
    crc8,
    decode_row,
    decode_variant,
    encode_cell,
    encode_row,
    encode_rows,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.one_of(
    TEXT, INTEGERS, st.booleans(), st.floats(allow_nan=False), st.binary(max_size=40)
)


def to_sdk(value: Any) -> Any:
    return bytearray(value) if isinstance(value, bytes) else value


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_crc8_is_the_sdks(data: bytes) -> None:
    assert crc8(data) == PlainBufferCrc8.crc_bytes(0, data)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 253, 254, 255, 381, 127 * 64 + 5])
def test_crc8_at_the_edges_of_the_fold(size: int) -> None:
    data = bytes((index * 31 + 7) % 256 for index in range(size))
    assert crc8(data) == PlainBufferCrc8.crc_bytes(0, data)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), TEXT, INTEGERS)
@settings(max_examples=100, deadline=None)
def test_reads_what_the_sdk_writes(cells: Any, text: str, number: int) -> None:
    data = PlainBufferBuilder.serialize_for_put_row(
        [("a", text), ("b", number), ("c", bytearray(b"\x00\xff"))],
        [(name, to_sdk(value)) for name, value in cells],
    )
    row = decode_row(bytes(data))
    assert row.key == [("a", text), ("b", number), ("c", b"\x00\xff")]
    assert row.cells == [CellChange(name, value, None, None) for name, value in cells]
    assert not row.deleted


@given(st.lists(st.tuples(NAMES, VALUES, st.integers(0, 2**50)), max_size=6), TEXT)
@settings(max_examples=100, deadline=None)
def test_the_sdk_reads_what_this_writes(cells: Any, text: str) -> None:
    data = encode_rows(
        [encode_row([encode_cell("a", text)], [encode_cell(*cell) for cell in cells])]
    )
    key, columns = PlainBufferCodedInputStream(PlainBufferInputStream(data)).read_row()
    assert key == [("a", text)]
    assert columns == [(name, to_sdk(value), version) for name, value, version in cells]


def test_operations_infinities_and_delete_marks() -> None:
    data = PlainBufferBuilder.serialize_for_update_row(
        [("a", "x")],
        {
            "PUT": [("n", 1)],
            "DELETE": [("d", None, 5)],
            "DELETE_ALL": ["e"],
            "INCREMENT": [("i", 2)],
        },
    )
    assert decode_row(bytes(data)).cells == [
        CellChange("n", 1, None, None),
        CellChange("d", None, 5, OP_DELETE_ONE),
        CellChange("e", None, None, OP_DELETE_ALL),
        CellChange("i", 2, None, OP_INCREMENT),
    ]
    key = PlainBufferBuilder.serialize_primary_key(
        [("a", INF_MIN), ("b", INF_MAX), ("c", PK_AUTO_INCR)]
    )
    assert [value for _, value in decode_row(bytes(key)).key] == list(Mark)
    assert decode_row(bytes(PlainBufferBuilder.serialize_for_delete_row([("a", 1)]))).deleted


@pytest.mark.parametrize("value", ["x", "é", 5, -5, 1.5, True, b"\x00"])
def test_bare_values(value: Any) -> None:
    data = PlainBufferBuilder.serialize_column_value(to_sdk(value))
    assert decode_variant(bytes(data)) == value


def test_a_changed_byte_or_a_short_buffer_is_refused() -> None:
    data = bytes(PlainBufferBuilder.serialize_for_put_row([("a", "xyz")], [("b", "hello")]))
    for place in range(len(data)):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            with pytest.raises(ServiceError) as caught:
                decode_row(broken)
            assert caught.value.code == "OTSParameterInvalid"


def test_marks_order_against_every_value() -> None:
    for value in ("", "\U0010ffff", 0, -(2**63), 2**63 - 1, b"", b"\xff"):
        assert (Mark.INF_MIN,) < (value,) < (Mark.INF_MAX,)
        assert (Mark.INF_MAX,) > (value,) > (Mark.INF_MIN,)
