"""The operations on tables and secondary indexes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._wire import pb
from .definition import table_message
from .engine import Engine
from .messages import parse
from .schema import Table
from .usage import Usage


def create_table(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """CreateTable, with its secondary indexes."""
    request = parse(pb.CreateTableRequest(), body)
    usage.tables.append(request.table_meta.table_name)
    engine.alter("CreateTable", request)
    return bytes(pb.CreateTableResponse().SerializeToString())


def list_table(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """ListTable: the data tables, in order."""
    parse(pb.ListTableRequest(), body)
    response = pb.ListTableResponse(table_names=sorted(engine.tables))
    return bytes(response.SerializeToString())


def _details(details: Any, table: Table) -> None:
    details.capacity_unit.read, details.capacity_unit.write = table.throughput
    details.last_increase_time = 0


def describe_table(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DescribeTable."""
    request = parse(pb.DescribeTableRequest(), body)
    usage.tables.append(request.table_name)
    table = engine.table(request.table_name)
    like = table_message(table)
    response = pb.DescribeTableResponse()
    response.table_meta.CopyFrom(like.table_meta)
    response.table_options.CopyFrom(like.table_options)
    response.index_metas.extend(like.index_metas)
    response.sse_details.enable = False
    _details(response.reserved_throughput_details, table)
    return bytes(response.SerializeToString())


def update_table(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """UpdateTable: options and reserved throughput."""
    request = parse(pb.UpdateTableRequest(), body)
    usage.tables.append(request.table_name)
    engine.alter("UpdateTable", request)
    table = engine.table(request.table_name)
    response = pb.UpdateTableResponse()
    table.options.fill(response.table_options)
    _details(response.reserved_throughput_details, table)
    return bytes(response.SerializeToString())


def delete_table(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DeleteTable, and its secondary indexes; search indexes must have gone before."""
    request = parse(pb.DeleteTableRequest(), body)
    usage.tables.append(request.table_name)
    engine.alter("DeleteTable", request)
    return bytes(pb.DeleteTableResponse().SerializeToString())


def create_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """CreateIndex: without base data it lists only the rows written from now on."""
    request = parse(pb.CreateIndexRequest(), body)
    usage.tables.append(request.main_table_name)
    engine.alter("CreateIndex", request)
    return bytes(pb.CreateIndexResponse().SerializeToString())


def drop_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DropIndex."""
    request = parse(pb.DropIndexRequest(), body)
    usage.tables.append(request.main_table_name)
    engine.alter("DropIndex", request)
    return bytes(pb.DropIndexResponse().SerializeToString())


OPERATIONS: dict[str, Callable[[Engine, bytes, Usage], bytes]] = {
    "CreateIndex": create_index,
    "CreateTable": create_table,
    "DeleteTable": delete_table,
    "DescribeTable": describe_table,
    "DropIndex": drop_index,
    "ListTable": list_table,
    "UpdateTable": update_table,
}
