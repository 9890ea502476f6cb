"""Parameters of tests in pairs, where the whole product would repeat itself.

A fault that needs three parameters to meet is rare; each pair of values is in some case, and the
cases are far fewer than the product's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["in_pairs"]


def in_pairs(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Cases in which each value of an axis meets each value of every other; always the same."""
    sizes = [range(len(axis)) for axis in axes]
    product = list(itertools.product(*sizes))
    missing = {pair for case in product for pair in _pairs(case)}
    cases = []
    while missing:
        case = max(product, key=lambda candidate: len(_pairs(candidate) & missing))
        missing -= _pairs(case)
        cases.append(tuple(axis[i] for axis, i in zip(axes, case, strict=True)))
    return cases


def _pairs(case: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(case), 2))
