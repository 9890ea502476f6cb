"""What the operations share: the types of their arguments, and what becomes of broken rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from tsmemory.engine.records import Position
from tsmemory.errors import CorruptRecordError, InvalidInputError, shown
from tsmemory.filters import Filter
from tsmemory.model import Message

__all__ = ["PAGE", "OnError", "Order", "Where", "descending", "position", "usable", "whole"]

T = TypeVar("T")

Order: TypeAlias = Literal["asc", "desc"]
OnError: TypeAlias = Literal["raise", "skip"]
Where: TypeAlias = Filter | Mapping[str, Any] | None

PAGE = 500
"""Rows per page where everything is read: few round trips, bounded memory."""


def whole(row: T | CorruptRecordError) -> T:
    """The row, unless it is a broken one, which is raised."""
    if isinstance(row, CorruptRecordError):
        raise row
    return row


def position(row: Message | CorruptRecordError) -> Position:
    """Where the row stands, a broken one too."""
    return Position(row.create_time or 0, row.message_id or "")


def usable(rows: Iterable[T | CorruptRecordError], on_error: OnError) -> list[T]:
    """The rows, the broken ones raised or left out."""
    if on_error == "skip":
        return [row for row in rows if not isinstance(row, CorruptRecordError)]
    if on_error != "raise":
        raise InvalidInputError(f'on_error is "raise" or "skip", not {shown(on_error)}')
    return [whole(row) for row in rows]


def descending(order: Order) -> bool:
    """Whether `order` is ``"desc"``."""
    if order not in ("asc", "desc"):
        raise InvalidInputError(f'order is "asc" or "desc", not {shown(order)}')
    return order == "desc"
