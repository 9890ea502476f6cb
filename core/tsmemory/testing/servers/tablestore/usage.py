"""What one request touched, and which of its rows a fault makes fail."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class PartialFailure:
    """Makes some rows of a batch fail while the others apply.

    Attributes:
        rows: how many rows, at most.
        code: the error each of them gets.
        chance: chooses the rows.
    """

    rows: int
    code: str
    chance: random.Random

    def choose(self, count: int) -> frozenset[int]:
        """The places, among ``count`` rows, of those that fail."""
        return frozenset(self.chance.sample(range(count), min(self.rows, count)))


@dataclass
class Usage:
    """The accounts of one request.

    Attributes:
        rows_read: rows looked at, whether or not they passed a filter.
        rows_returned: rows in the reply.
        rows_written: rows put, updated or deleted.
        tables: the tables and index tables it named.
        partial: the fault that makes some of its rows fail, if one struck.
    """

    rows_read: int = 0
    rows_returned: int = 0
    rows_written: int = 0
    tables: list[str] = field(default_factory=list)
    partial: PartialFailure | None = None
