"""What the page draws over a transcript: which messages a window shows, why the others are not
shown, and, call by call, how much of a prompt the provider's cache has seen before.

A model was called wherever an assistant message stands in the transcript; what it was shown then is
the window of the messages before it. A provider's prompt cache serves the longest common beginning
of two prompts that follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tsmemory.model import Message, is_pinned
from tsmemory.window import Window, cut

__all__ = ["Call", "Drawn", "Row", "draw"]

CALLS = 60
"""Model calls in the chart, the newest: more would not fit the page's width."""


class Row(NamedTuple):
    message: Message
    tokens: int
    shown: bool
    reason: str
    """Why it is not shown; empty where it is."""


class Call(NamedTuple):
    """One call of the model."""

    number: int
    messages: int
    tokens: int
    cached: int
    """Tokens at the beginning of the prompt that the call before had there too."""


class Drawn(NamedTuple):
    rows: list[Row]
    calls: list[Call]

    @property
    def tokens(self) -> int:
        """Tokens of what is shown."""
        return sum(row.tokens for row in self.rows if row.shown)

    @property
    def total(self) -> int:
        """Tokens of the transcript."""
        return sum(row.tokens for row in self.rows)

    @property
    def instructions(self) -> int:
        """Tokens of the instructions that are shown: a window keeps them whatever its budget."""
        return sum(row.tokens for row in self.rows if row.shown and is_pinned(row.message.role))

    @property
    def start(self) -> int:
        """Where the window begins after its instructions: the row's number, from 1; 0: nowhere."""
        numbers = (
            number
            for number, row in enumerate(self.rows, 1)
            if row.shown and not is_pinned(row.message.role)
        )
        return next(numbers, 0)

    @property
    def cached_share(self) -> float:
        """The part of all prompts in the chart that a cache has seen before, 0 to 1."""
        sent = sum(call.tokens for call in self.calls)
        return sum(call.cached for call in self.calls) / sent if sent else 0.0


def draw(messages: Sequence[Message], policy: Window) -> Drawn:
    """The window over a transcript, and the calls that led to it.

    Args:
        messages: a whole conversation, in order.
    """
    count = policy.token_counter
    tokens = {m.message_id: count(m) for m in messages}
    report = cut(messages, [], policy, complete=True, explain=True)
    assert report is not None  # a complete conversation always gives a view
    shown = {m.message_id for m in report.messages}
    reasons = {out.message.message_id: out.reason for out in report.left_out}
    rows = [
        Row(
            m,
            tokens[m.message_id],
            m.message_id in shown,
            "" if m.message_id in shown else reasons.get(m.message_id, "before the window"),
        )
        for m in messages
    ]
    return Drawn(rows, _calls(messages, policy, tokens))


def _calls(messages: Sequence[Message], policy: Window, tokens: dict[str, int]) -> list[Call]:
    places = [i for i, m in enumerate(messages) if m.role == "assistant" and i]
    calls: list[Call] = []
    before: Sequence[Message] = ()
    first = max(0, len(places) - CALLS - 1)
    for number, place in enumerate(places[first:], first + 1):
        report = cut(messages[:place], [], policy, complete=True, explain=False)
        assert report is not None
        view = report.messages
        sizes = [tokens.get(m.message_id) or policy.token_counter(m) for m in view]
        common = 0
        while common < min(len(view), len(before)) and view[common] == before[common]:
            common += 1
        calls.append(Call(number, len(view), sum(sizes), sum(sizes[:common])))
        before = view
    return calls[-CALLS:]
