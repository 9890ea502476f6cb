"""What a read asks of each row: columns, versions, time range and filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import limits
from .errors import invalid
from .filters import Filter
from .options import ServerOptions
from .rows import Cell, Row
from .schema import View


class ReadSpec:
    """The part that GetRow, BatchGetRow and GetRange have in common.

    Args:
        request: any of their messages; BatchGetRow's is the one of a table.
        now: the clock in milliseconds, for time to live.

    Raises:
        ServiceError: OTSParameterInvalid.
    """

    def __init__(self, request: Any, view: View, options: ServerOptions, now: int) -> None:
        names = list(request.columns_to_get)
        if len(names) > limits.COLUMNS_TO_GET:
            raise invalid(
                f"The number of columns from the request exceeds the limit, "
                f"limit: {limits.COLUMNS_TO_GET}, actual: {len(names)}."
            )
        self._names = frozenset(names)
        self._wants_key = bool(self._names & view.key_names)
        self._start = request.start_column if request.HasField("start_column") else None
        self._end = request.end_column if request.HasField("end_column") else None
        self._filter = Filter(request.filter)
        self._sees_all = options.filter_sees == "all"
        self._cutoff = view.base.cutoff(now)
        self._versions, self._from, self._to = self._version_range(request)
        self._whole = (
            not self._names
            and self._start is None
            and self._end is None
            and self._from is None
            and self._filter.pagination is None
        )

    @staticmethod
    def _version_range(request: Any) -> tuple[int, int | None, int | None]:
        has_range = request.HasField("time_range")
        has_versions = request.HasField("max_versions")
        if not has_range and not has_versions:
            raise invalid("No version condition is specified while querying row.")
        if has_versions and request.max_versions < 1:
            raise invalid(f"Invalid max versions: {request.max_versions}.")
        versions = request.max_versions if has_versions else 2**31
        if not has_range:
            return versions, None, None
        span = request.time_range
        if span.HasField("specific_time"):
            return versions, span.specific_time, span.specific_time + 1
        if not span.HasField("start_time") or not span.HasField("end_time"):
            raise invalid("Both start time and end time of the time range must be specified.")
        if span.start_time >= span.end_time:
            raise invalid("The start time of the time range must be less than the end time.")
        return versions, span.start_time, span.end_time

    def _takes(self, name: str) -> bool:
        return (
            (not self._names or name in self._names)
            and (self._start is None or name >= self._start)
            and (self._end is None or name < self._end)
        )

    def _versions_of(self, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        if self._from is not None and self._to is not None:
            cells = tuple(c for c in cells if self._from <= c.timestamp < self._to)
        return cells[: self._versions] if len(cells) > self._versions else cells

    def cells(self, row: Row) -> list[Cell] | None:
        """The cells of a row to return, in the order of the reply.

        Returns:
            None when the row has expired, does not pass the filter, or has none of the columns.
        """
        live = row.live(self._cutoff)
        if live is None:
            return None
        taken: Mapping[str, tuple[Cell, ...]]
        if self._whole:
            taken = live.columns
            if self._versions == 1:
                if self._filter.passes is not None and not self._filter.passes(taken):
                    return None
                return [versions[0] for versions in taken.values()]
        taken = {
            name: shown_versions
            for name, versions in live.columns.items()
            if self._takes(name) and (shown_versions := self._versions_of(versions))
        }
        if self._filter.passes is not None:
            seen = live.columns if self._sees_all else taken
            if not self._filter.passes(seen):
                return None
        if not taken and self._names and not self._wants_key:
            # "If the row has none of the columns, nothing is returned", unless a key was asked for.
            return None
        if self._filter.pagination is not None:
            offset, count = self._filter.pagination
            taken = dict(list(taken.items())[offset : offset + count])
        return [cell for versions in taken.values() for cell in versions]
