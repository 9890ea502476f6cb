"""Two sequences of marks, aligned: which of what a source has now is which of what it had."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from difflib import SequenceMatcher

__all__ = ["align"]

_MAX_ALIGNED = 4_000_000  # pairs of messages that an exact alignment may compare


def align(stored: Sequence[str], incoming: Sequence[str]) -> dict[int, int]:
    """Positions of `incoming` with those of `stored` that they are: the longest common sequence,
    and, before its end, what only moved. What follows its end is new."""
    prefix = 0
    while prefix < min(len(stored), len(incoming)) and stored[prefix] == incoming[prefix]:
        prefix += 1
    pairs = {i: i for i in range(prefix)}
    old, new = stored[prefix:], incoming[prefix:]
    if not old or not new:
        return pairs
    if len(old) * len(new) <= _MAX_ALIGNED:
        blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
        tail_pairs = {b + n: a + n for a, b, size in blocks for n in range(size)}
    else:
        tail_pairs = _in_order(old, new)
    last = max(tail_pairs, default=-1)
    unpaired: dict[str, deque[int]] = defaultdict(deque)
    taken = set(tail_pairs.values())
    for k, mark in enumerate(old):
        if k not in taken:
            unpaired[mark].append(k)
    for j in range(last):
        if j not in tail_pairs and unpaired[new[j]]:
            tail_pairs[j] = unpaired[new[j]].popleft()
    pairs.update((prefix + j, prefix + k) for j, k in tail_pairs.items())
    return pairs


def _in_order(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Each of `new` with the first of `old` that is like it and after the one before; linear."""
    positions: dict[str, deque[int]] = defaultdict(deque)
    for k, mark in enumerate(old):
        positions[mark].append(k)
    pairs: dict[int, int] = {}
    reached = -1
    for j, mark in enumerate(new):
        candidates = positions[mark]
        while candidates and candidates[0] <= reached:
            candidates.popleft()
        if candidates:
            reached = pairs[j] = candidates.popleft()
    return pairs
