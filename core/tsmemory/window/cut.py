"""The view: which part of a conversation a model is shown, as messages that it accepts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from tsmemory.model import LeftOut, Message, MessageList, WindowReport, is_pinned
from tsmemory.window.calls import says_something
from tsmemory.window.fit import Fit, fit
from tsmemory.window.groups import Group, Groups, group
from tsmemory.window.plain import opens, shown_as_they_are
from tsmemory.window.policy import Window
from tsmemory.window.roles import merged, note, stub, summary_message
from tsmemory.window.tokens import count_tokens, usage_factor

__all__ = ["ORPHAN_REACH", "cut"]

ORPHAN_REACH = 256
"""How many messages before the cut are searched for the call that a result in it answers. Ours: a
true orphan must not cost a read of the whole history at every call."""


class _Part(NamedTuple):
    """The part of a session that was read."""

    messages: Sequence[Message]
    offset: int
    """The position of the first of them in the session."""
    complete: bool
    hidden: Container[str]

    @property
    def total(self) -> int:
        return self.offset + len(self.messages)


def cut(
    tail: Sequence[Message],
    pinned: Sequence[Message],
    window: Window,
    *,
    complete: bool,
    total: int | None = None,
    summary: str | None = None,
    explain: bool = True,
    hidden: Container[str] = (),
) -> WindowReport | None:
    """The view that `window` makes of a conversation, or None where that takes more of it.

    Args:
        tail: its newest messages, in reading order.
        pinned: its system and developer messages from before `tail`, in order.
        complete: `tail` is the whole conversation.
        total: how many messages the conversation has; needed for `Window.step` where `tail` is
            not all of it.
        summary: the session's, where the window asks for it.
        explain: also name what is left out; without it the report's list is not whole.
        hidden: ids of messages that are not part of what is shown (another branch's).
    """
    if window.last == 0:
        return WindowReport(MessageList(), [], older=bool(tail))
    offset = 0 if complete or total is None else max(0, total - len(tail))
    part = _Part(tail, offset, complete, hidden)
    floor = _floor(part, window)
    if floor is None and window.max_tokens is None:
        return None
    start = _start(part, floor, window)
    if start is None and window.max_tokens is None:
        return None
    about = [summary_message(summary)] if summary else []
    if start is not None and window.untouched and not (explain or hidden):
        body = tail[start - offset :]
        if body and shown_as_they_are(body):
            lead = _instructions(part, pinned, start, window)
            return _report(_View([*lead, *about], body), [], None, part, window)
    groups = _groups(part, start, floor, window)
    if groups is None:
        return None
    if window.system == "drop":
        groups = groups._replace(groups=[g for g in groups.groups if not g.pinned])
    fixed = _instructions(part, pinned, offset, window)
    chosen = _choose(groups, start, floor, part, window, [*fixed, *about])
    if chosen is None:
        return None
    lead = _instructions(part, pinned, chosen.start, window)
    view = _assemble(chosen, [*lead, *about], len(lead), window)
    return _report(view, groups.left_out, chosen if explain else None, part, window)


# -- where the view begins -----------------------------------------------------------------------


def _opens(message: Message, hidden: Container[str]) -> bool:
    return message.message_id not in hidden and opens(message)


def _users(part: _Part) -> list[int]:
    """The positions at which a view may begin with the user."""
    return [i for i, m in enumerate(part.messages, part.offset) if _opens(m, part.hidden)]


def _floor(part: _Part, window: Window) -> int | None:
    """The position of the cut that `last` and `step` ask for; None where it was not read."""
    if window.last is None:
        return 0 if part.complete else None
    position = part.total - window.last
    if part.hidden:
        visible = [
            i for i, m in enumerate(part.messages, part.offset) if m.message_id not in part.hidden
        ]
        position = visible[-window.last] if len(visible) >= window.last else -1
    if position < part.offset:
        return 0 if part.complete else None
    if window.step is not None:
        position -= position % window.step
    return position if position >= part.offset else None


def _start(part: _Part, floor: int | None, window: Window) -> int | None:
    """The position at which the view begins: the newest user message at or before the cut; without
    one, the first behind it. None where that was not read."""
    if floor is None or window.start == "any" or window.everything:
        return floor
    messages, offset = part.messages, part.offset
    for i in range(min(floor - offset, len(messages) - 1), -1, -1):
        if _opens(messages[i], part.hidden):
            return offset + i
    if not part.complete:
        return None
    for i in range(floor - offset + 1, len(messages)):
        if _opens(messages[i], part.hidden):
            return offset + i
    return floor


def _groups(part: _Part, start: int | None, floor: int | None, window: Window) -> Groups | None:
    """The groups of what was read, from as far before the cut as results look for their calls."""
    first = part.offset
    if start is not None and floor is not None and window.max_tokens is None:
        first = max(first, min(start, floor - ORPHAN_REACH))
    groups = group(
        part.messages[first - part.offset :],
        first=first,
        errors=window.unanswered == "error",
        hidden=part.hidden,
    )
    if part.complete or floor is None or start is None or part.offset <= floor - ORPHAN_REACH:
        return groups
    if any(position >= start for position in groups.orphans):
        return None
    return groups


def _instructions(
    part: _Part, pinned: Sequence[Message], start: int, window: Window
) -> list[Message]:
    """The instructions from before a position, of which `pinned` are from before `part`."""
    if window.system == "drop":
        return []
    before = [m for m in part.messages[: max(0, start - part.offset)] if is_pinned(m.role)]
    if pinned:
        read = {m.message_id for m in part.messages}
        before = [*(m for m in pinned if m.message_id not in read), *before]
    return [m for m in before if m.message_id not in part.hidden and says_something(m)]


# -- what it shows -------------------------------------------------------------------------------


def _choose(
    groups: Groups,
    start: int | None,
    floor: int | None,
    part: _Part,
    window: Window,
    fixed: list[Message],
) -> Fit | None:
    if window.tool_results is not None:
        boundary = _stub_boundary(part, window, window.tool_results)
        groups = groups._replace(groups=[_with_stubs(g, part, boundary) for g in groups.groups])
    if window.budget is not None:
        count = window.token_counter
        budget = window.budget
        if count is count_tokens:
            budget = int(budget / usage_factor(part.messages, count))
        return fit(
            groups.groups,
            _users(part),
            window,
            budget=budget,
            fixed=sum(map(count, fixed)),
            floor=floor or 0,
            complete=part.complete or (floor is not None and start is not None),
        )
    assert start is not None  # without a budget, `cut` has asked for more
    visible = [g for g in groups.groups if g.position >= start]
    if not any(not g.pinned for g in visible):
        # All that was asked for cannot be shown: show the newest that can.
        bodies = [k for k, g in enumerate(groups.groups) if not g.pinned]
        if bodies:
            visible = groups.groups[bodies[-1] :]
            start = visible[0].position
        elif not part.complete:
            return None
    return Fit(visible, start)


def _stub_boundary(part: _Part, window: Window, whole: int) -> int:
    """The position before which tool results are stubs: it moves when the start does."""
    total = part.total
    if window.step is not None:
        ahead = window.last or 0
        total = 0 if total < ahead else (total - ahead) // window.step * window.step + ahead
    if whole == 0:
        return total
    for i in range(min(len(part.messages), total - part.offset) - 1, -1, -1):
        if part.messages[i].role in ("tool", "function"):
            whole -= 1
            if whole == 0:
                return part.offset + i
    return 0


def _with_stubs(whole: Group, part: _Part, boundary: int) -> Group:
    if whole.position >= boundary and whole.position - len(whole.messages) > boundary:
        return whole
    old = {m.message_id for m in part.messages[: max(0, boundary - part.offset)]}
    messages = [stub(m) if m.message_id in old else m for m in whole.messages]
    return whole._replace(messages=messages)


class _View(NamedTuple):
    lead: list[Message]
    body: Sequence[Message]


def _assemble(chosen: Fit, fixed: list[Message], leading: int, window: Window) -> _View:
    """Put instructions where `Window.system` wants them; those of `fixed` lead, of which the first
    `leading` are instructions and the rest is the summary."""
    lead, about = fixed[:leading], fixed[leading:]
    body: list[Message] = []
    for visible in chosen.groups:
        if not visible.pinned:
            body += visible.messages
        elif window.system == "lead" or (window.system == "keep" and not window.notes) or not body:
            lead += visible.messages
        else:
            body += map(note, visible.messages) if window.notes else visible.messages
    return _View([*lead, *about], body)


def _report(
    view: _View,
    left_out: list[LeftOut],
    chosen: Fit | None,
    part: _Part,
    window: Window,
) -> WindowReport:
    """The report; `chosen` where it names what is left out."""
    lead, messages = view.lead, [*view.lead, *view.body]
    if window.merge_roles:
        lead, messages = merged(view.lead), merged(messages)
    stable = len(lead)
    if window.step is not None or window.everything:
        stable = max(stable, len(messages) - window.merge_roles)
    if chosen is not None:
        left_out = _left_out(left_out, messages, view, chosen, part, window)
    counted = window.max_tokens is not None
    return WindowReport(
        MessageList(messages),
        left_out,
        older=not part.complete,
        tokens=sum(map(window.token_counter, messages)) if counted else None,
        stable=stable,
    )


def _left_out(
    left_out: list[LeftOut],
    messages: list[Message],
    view: _View,
    chosen: Fit,
    part: _Part,
    window: Window,
) -> list[LeftOut]:
    """`left_out`, and what the cut left out, in reading order."""
    visible_ids = {m.message_id for m in (*messages, *view.lead, *view.body)}
    named = visible_ids | {m.message_id for m, _ in left_out}
    whole = list(left_out)
    for position, m in enumerate(part.messages, part.offset):
        if m.message_id in named:
            continue
        if m.message_id in part.hidden:
            reason = "not part of this branch"
        elif window.system == "drop" and is_pinned(m.role):
            reason = "instructions are not asked for"
        elif window.max_tokens is None or position < (chosen.opening or 0):
            reason = "before the window"
        else:
            reason = "before the window" if chosen.opening is None else "over max_tokens"
        whole.append(LeftOut(m, reason))
    order = {m.message_id: i for i, m in enumerate(part.messages)}
    whole.sort(key=lambda out: order[out.message.message_id])
    return whole
