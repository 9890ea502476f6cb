"""Table definitions: from the protobuf messages that create tables, and back."""

from __future__ import annotations

from typing import Any

from . import limits
from ._wire import pb
from .errors import invalid
from .schema import KeyColumn, Table, TableOptions, check_name


def key_columns(meta: Any) -> tuple[KeyColumn, ...]:
    """The primary key of a protobuf ``TableMeta``.

    Raises:
        ServiceError: OTSParameterInvalid.
    """
    if not 1 <= len(meta.primary_key) <= limits.PRIMARY_KEY_COLUMNS:
        raise invalid(
            "The number of primary key columns must be in range: "
            f"[1, {limits.PRIMARY_KEY_COLUMNS}]."
        )
    columns: list[KeyColumn] = []
    for position, column in enumerate(meta.primary_key):
        check_name(column.name, "column")
        if any(column.name == other.name for other in columns):
            raise invalid(f"Duplicated primary key name: '{column.name}'.")
        if column.type == pb.PK_BOOLEAN:
            raise invalid("BOOLEAN is an invalid type for the primary key.")
        auto = column.HasField("option") and column.option == pb.AUTO_INCREMENT
        if auto and (position == 0 or column.type != pb.INTEGER):
            raise invalid(
                "An AUTO_INCREMENT primary key must be INTEGER and not the partition key."
            )
        if auto and any(other.auto_increment for other in columns):
            raise invalid("A table has at most one AUTO_INCREMENT primary key.")
        columns.append(KeyColumn(column.name, column.type, auto))
    return tuple(columns)


def defined_columns(meta: Any, key_names: set[str]) -> dict[str, int]:
    """The predefined columns of a protobuf ``TableMeta``, name to type.

    Raises:
        ServiceError: OTSParameterInvalid.
    """
    if len(meta.defined_column) > limits.DEFINED_COLUMNS:
        raise invalid(
            f"The number of defined columns exceeds the upper limit: {limits.DEFINED_COLUMNS}."
        )
    defined: dict[str, int] = {}
    for column in meta.defined_column:
        check_name(column.name, "column")
        if column.name in defined or column.name in key_names:
            raise invalid(f"Duplicated defined column name: '{column.name}'.")
        defined[column.name] = column.type
    return defined


def check_indexable(options: TableOptions, secondary: int, search: int) -> None:
    """Refuse indexes on a table whose options they do not go with.

    The pages "Secondary index limits" and "CreateSearchIndex": one version, and no time to live
    unless UpdateRow is forbidden. The error code is not documented.

    Args:
        secondary, search: how many indexes of each kind there are to be.

    Raises:
        ServiceError: OTSParameterInvalid.
    """
    if not (secondary or search):
        return
    kind = "secondary" if secondary else "search"
    if secondary > limits.INDEXES_PER_TABLE:
        raise invalid(
            f"The number of secondary indexes exceeds the upper limit: {limits.INDEXES_PER_TABLE}."
        )
    if options.max_versions != 1:
        raise invalid(f"A table with a {kind} index must have max versions 1.")
    if options.time_to_live != -1 and options.allow_update:
        raise invalid(
            f"A table with a {kind} index and a time to live must not allow update "
            "(allow_update = false)."
        )


def table_message(table: Table) -> Any:
    """The ``CreateTableRequest`` that makes a table like this one, indexes included."""
    request = pb.CreateTableRequest()
    meta = request.table_meta
    meta.table_name = table.name
    for column in table.key_columns:
        schema = meta.primary_key.add(name=column.name, type=column.type)
        if column.auto_increment:
            schema.option = pb.AUTO_INCREMENT
    for name, kind in table.defined.items():
        meta.defined_column.add(name=name, type=kind)
    request.reserved_throughput.capacity_unit.read = table.throughput[0]
    request.reserved_throughput.capacity_unit.write = table.throughput[1]
    table.options.fill(request.table_options)
    for index in table.indexes.values():
        index.meta.fill(request.index_metas.add())
    return request
