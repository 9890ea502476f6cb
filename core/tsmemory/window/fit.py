"""Which groups fit a budget of tokens: the oldest start on the grid from which all of them do."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tsmemory.model import Message
from tsmemory.window.groups import Group
from tsmemory.window.policy import Window
from tsmemory.window.roles import note, shortened

__all__ = ["Fit", "fit"]


class Fit(NamedTuple):
    groups: list[Group]
    """What is shown, instructions included."""
    start: int
    """Instructions before this position lead the view."""
    opening: int | None = None
    """The position of a user message that is shown before `start`."""


def fit(
    groups: Sequence[Group],
    users: Sequence[int],
    window: Window,
    *,
    budget: int,
    fixed: int,
    floor: int,
    complete: bool,
) -> Fit | None:
    """Choose the groups that fit `budget`; None where older ones, not read yet, may fit too.

    Args:
        groups: of what was read, in order.
        users: positions of the user messages that a view may begin at.
        fixed: tokens of what is shown in any case.
        floor: the oldest position that `Window.last` asks for; 0 without.
        complete: all from `floor`, and its user message, was read.
    """
    chooser = _Chooser(groups, users, window, budget, fixed, floor)
    if not complete:
        if chooser.total(0) <= budget:
            return None
        if window.start == "user" and not users:
            return None
    return chooser.whole_turns() or chooser.newest_turn()


class _Chooser:
    def __init__(
        self,
        groups: Sequence[Group],
        users: Sequence[int],
        window: Window,
        budget: int,
        fixed: int,
        floor: int,
    ) -> None:
        self.groups = groups
        self.users = users if window.start == "user" else ()
        self.window = window
        self.budget = budget
        self.fixed = fixed
        self.floor = floor
        self.positions = [g.position for g in groups]
        count = window.token_counter
        self.costs = [sum(map(count, g.messages)) for g in groups]
        # Where an instruction is shown decides its form, and its cost: before the start, behind it.
        leading, following = [0], []
        for candidate, cost in zip(groups, self.costs, strict=True):
            leading.append(leading[-1] + (cost if candidate.pinned else 0))
            as_note = candidate.pinned and window.notes
            following.append(count(note(candidate.messages[0])) if as_note else cost)
        self._leading = leading
        self._following = [0]
        for cost in reversed(following):
            self._following.append(self._following[-1] + cost)
        self._following.reverse()

    def total(self, k: int) -> int:
        """Tokens of the view that begins with the group `k`."""
        return self.fixed + self._leading[k] + self._following[k]

    def _steps(self) -> Iterator[int]:
        """The grid, then finer ones where nothing on it fits."""
        step = self.window.step or 1
        while True:
            yield step
            if step == 1:
                return
            step //= 2

    def _grid(self, step: int, first: int) -> range:
        begin = -(-max(first, self.floor) // step) * step
        return range(begin, (self.positions[-1] if self.positions else -1) + 1, step)

    def _at(self, position: int) -> int:
        """The first group at or behind a position."""
        return bisect_left(self.positions, position)

    def _opening(self, position: int) -> int | None:
        """The user message that opens a view cut at `position`."""
        k = bisect_right(self.users, position)
        if k:
            return self.users[k - 1]
        return self.users[0] if self.users and self.floor == 0 and position == 0 else None

    def whole_turns(self) -> Fit | None:
        """The oldest start that fits: at a user message, where `start` asks for one."""
        if not self.groups or (self.users and self.total(self._at(self.users[-1])) > self.budget):
            return None
        oldest = self.users[0] if self.users else self.positions[0]
        for step in self._steps():
            previous = -1
            grid = self._grid(step, min(oldest, self.floor))
            for position in grid:
                start = self._opening(position) if self.users else position
                if start is None or start == previous:
                    continue
                previous = start
                k = self._at(start)
                if k < len(self.groups) and self.total(k) <= self.budget and self._has_body(k):
                    return Fit(list(self.groups[k:]), start)
        return None

    def _has_body(self, k: int) -> bool:
        return any(not g.pinned for g in self.groups[k:])

    def newest_turn(self) -> Fit:
        """The newest turn is too long: the message that opens it, and the newest of its groups."""
        bodies = [k for k, g in enumerate(self.groups) if not g.pinned]
        if not bodies:
            return Fit(list(self.groups), 0)
        opening = self._at(self.users[-1]) if self.users else None
        extra = 0 if opening is None else self.costs[opening]
        first = bodies[0] if opening is None else opening + 1
        for step in self._steps():
            for position in self._grid(
                step, self.positions[first] if first < len(self.groups) else 0
            ):
                k = max(first, self._at(position))
                if k <= bodies[-1] and self.total(k) + extra <= self.budget:
                    return self._with(opening, list(self.groups[k:]))
        last = bodies[-1]
        if last == opening:
            return self._with(None, list(self.groups[last:]))
        room = self.budget - self.total(last) - extra + self.costs[last]
        visible = list(self.groups[last:])
        visible[0] = self._shortened(visible[0], room)
        return self._with(opening, visible)

    def _with(self, opening: int | None, visible: list[Group]) -> Fit:
        start = visible[0].position
        if opening is None:
            return Fit(visible, start)
        return Fit([self.groups[opening], *visible], start, self.positions[opening])

    def _shortened(self, whole: Group, room: int) -> Group:
        """A group that is too long by itself, its results cut to what is left for each."""
        count = self.window.token_counter
        messages: list[Message] = []
        results = [m for m in whole.messages if m.role in ("tool", "function")]
        room -= sum(count(m) for m in whole.messages if m not in results)
        for message in whole.messages:
            if message in results:
                share = max(0, room // len(results))
                message = shortened(message, share, count)
                room -= count(message)
                results = results[1:]
            messages.append(message)
        return whole._replace(messages=messages)
