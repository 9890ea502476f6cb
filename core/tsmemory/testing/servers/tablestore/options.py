"""What the server leaves to choose where the service is not known, or is slow.

The defaults are the harsher reading, so that a client which passes here is right either way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

#: The options that are one of a few words; the others are numbers of seconds.
CHOICES: dict[str, tuple[str, ...]] = {
    "range_limit_counts": ("read", "passed"),
    "filter_sees": ("returned", "all"),
    "duplicate_rows_in_batch": ("refuse", "apply"),
}


@dataclass
class ServerOptions:
    """Behaviour that can be changed while the server runs.

    Attributes:
        range_limit_counts: whether GetRange's ``limit`` counts the rows ``"read"`` (a page may
            come back short, or empty, with a next key) or the rows that ``"passed"`` the filter.
        filter_sees: whether a filter sees only the columns ``"returned"`` (those named in
            ``columns_to_get``; another counts as missing) or ``"all"`` of the row.
        duplicate_rows_in_batch: whether a BatchWriteRow that changes one row twice is a
            ``"refuse"``d request, or the changes ``"apply"`` in order.
        index_lag: seconds before a write shows in global secondary indexes and search indexes.
        local_index_lag: the same for local secondary indexes. Those of the service do not lag; a
            client that survives it relies on less.
        table_ready_delay: seconds a new table answers row operations with OTSTableNotReady.
        clock_offset: seconds added to the clock that stamps cells and expires them. It moves time
            to live without waiting for it; signatures and response dates keep the real clock.
    """

    range_limit_counts: Literal["read", "passed"] = "read"
    filter_sees: Literal["returned", "all"] = "returned"
    duplicate_rows_in_batch: Literal["refuse", "apply"] = "refuse"
    index_lag: float = 0.0
    local_index_lag: float = 0.0
    table_ready_delay: float = 0.0
    clock_offset: float = 0.0

    def update(self, changes: dict[str, Any]) -> None:
        """Set the named options.

        Raises:
            ValueError: for an unknown option or a value it cannot have; nothing is set then.
        """
        names = {field.name for field in fields(self)}
        for name, value in changes.items():
            if name not in names:
                raise ValueError(f"unknown option {name!r}, known are {sorted(names)}")
            choices = CHOICES.get(name)
            if choices is not None and value not in choices:
                raise ValueError(f"option {name!r} is one of {choices}, not {value!r}")
            if choices is None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"option {name!r} is a number of seconds, not {value!r}")
        for name, value in changes.items():
            setattr(self, name, value)
