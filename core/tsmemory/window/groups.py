"""Groups: what of a conversation is shown together, in the order in which it became complete.

The transcript is read once, forward, and a group is given out only when nothing that comes later
can change it. So the groups of a conversation are a prefix of its groups after the next append,
and a prompt made of them stays a prefix of the next prompt:

1. A message that calls nothing and answers nothing is a group by itself.
2. A message with calls waits. When the last of its results is there, it and they are one group.
3. When another message comes first, the answered calls and their results are shown before it; a
   message without any result is shown without its calls, if it says anything else.
4. A result that comes later still is shown where it arrives, behind its call alone.
5. At the end of the transcript, a message that still waits is not shown.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import msgspec

from tsmemory.model import LeftOut, Message, is_pinned
from tsmemory.window.calls import (
    answered_ids,
    call_ids,
    legacy_name,
    plain_call_ids,
    says_something,
    tidy,
    with_answers,
    with_calls,
)

__all__ = ["Group", "Groups", "group"]


class Group(NamedTuple):
    position: int
    """Of the message in the transcript that made it complete. Never decreases from one group to
    the next."""
    messages: list[Message]
    pinned: bool = False


class Groups(NamedTuple):
    groups: list[Group]
    left_out: list[LeftOut]
    orphans: list[int]
    """Positions of the results whose call is not in the part that was read."""
    users: list[int]
    """Positions of the user messages that a view may begin at."""


class _Caller:
    """A message with calls that waits for results."""

    __slots__ = ("answers", "closed", "index", "message", "open_ids", "said", "slots")

    def __init__(self, index: int, message: Message, ids: list[str]) -> None:
        self.index = index
        self.message = message
        self.slots = ids
        self.open_ids = list(ids)
        self.answers: list[tuple[str, Message]] = []
        """Results that have arrived and are not shown yet, each with the id of its call."""
        self.said = False
        """Whether what it says beside its calls is shown already."""
        self.closed = False


def group(
    messages: Sequence[Message],
    *,
    first: int = 0,
    errors: bool = False,
    hidden: Container[str] = (),
) -> Groups:
    """The groups of `messages`.

    Args:
        first: the position of ``messages[0]``.
        errors: answer a call without a result with an error.
        hidden: ids of messages that are not shown.
    """
    reader = _Reader(errors)
    for index, message in enumerate(messages, first):
        if message.message_id not in hidden:
            reader.read(index, message)
    reader.finish(first + len(messages))
    return Groups(reader.groups, reader.left_out, reader.orphans, reader.users)


class _Reader:
    def __init__(self, errors: bool) -> None:
        self.errors = errors
        self.groups: list[Group] = []
        self.left_out: list[LeftOut] = []
        self.orphans: list[int] = []
        self.users: list[int] = []
        self._callers: dict[str, list[_Caller]] = {}
        self._waiting: list[_Caller] = []

    def read(self, index: int, message: Message) -> None:
        ids = answered_ids(message)
        if ids:
            message = self._answer(index, message, ids)
            if message.role != "user" or answered_ids(message):
                return
        self._close(index)
        calls = call_ids(message)
        if calls:
            caller = _Caller(index, message, calls)
            self._waiting.append(caller)
            for call in calls:
                self._callers.setdefault(call, []).append(caller)
            return
        message = tidy(message)
        if not says_something(message):
            self.left_out.append(LeftOut(message, "an empty message"))
            return
        if message.role == "user":
            self.users.append(index)
        self.groups.append(Group(index, [message], is_pinned(message.role)))

    def _answer(self, index: int, message: Message, ids: list[str]) -> Message:
        """Give a result to its callers; what is left of the message where it answers none."""
        taken: list[tuple[str, _Caller]] = []
        for call in ids:
            callers = self._callers.get(call)
            if callers:
                taken.append((call, callers.pop()))
        if len(taken) < len(ids):
            self.orphans.append(index)
            self.left_out.append(LeftOut(message, "a tool result without its call"))
        if message.role == "user":
            message = with_answers(message, [call for call, _ in taken])
        for i, (call, caller) in enumerate(taken):
            if caller not in self._waiting:
                self._waiting.append(caller)
            caller.open_ids.remove(call)
            # One message may answer several calls: it is shown once, with the last of them.
            caller.answers.append((call, message if i == len(taken) - 1 else _NOTHING))
        for caller in dict.fromkeys(caller for _, caller in taken):
            if not caller.open_ids:
                self._show(caller, index)
        return message if taken or message.role != "user" else tidy(message)

    def _show(self, caller: _Caller, position: int) -> None:
        """Give out a caller with the results that it has."""
        ids = [call for call, _ in caller.answers]
        results = [message for _, message in caller.answers if message is not _NOTHING]
        message = caller.message
        if caller.said or len(ids) < len(caller.slots):
            message = with_calls(message, ids, alone=caller.said)
        self.groups.append(Group(position, [tidy(message), *results]))
        caller.said = True
        caller.answers = []
        self._waiting.remove(caller)

    def _close(self, index: int) -> None:
        """Another message comes: show what there is of those that wait (rule 3)."""
        for caller in list(self._waiting):
            if self.errors and caller.open_ids:
                self._fail(caller)
            if caller.answers:
                self._show(caller, index - 1)
            else:
                self._waiting.remove(caller)
                text_alone = tidy(with_calls(caller.message, []))
                if not caller.said and says_something(text_alone):
                    self.groups.append(Group(index - 1, [text_alone]))
                    caller.said = True
            if not caller.closed and caller.open_ids:
                self._name_unanswered(caller)
            caller.closed = True

    def finish(self, end: int) -> None:
        for caller in list(self._waiting):
            if self.errors:
                self._fail(caller)
            if self.errors and caller.answers:
                self._show(caller, end - 1)
            elif not caller.closed:
                self._name_unanswered(caller)
                self.left_out += [
                    LeftOut(message, "its call waits for other results")
                    for _, message in caller.answers
                    if message is not _NOTHING
                ]

    def _name_unanswered(self, caller: _Caller) -> None:
        self.left_out.append(
            LeftOut(caller.message, f"{len(caller.open_ids)} of its tool calls never got a result")
        )

    def _fail(self, caller: _Caller) -> None:
        """Answer the open calls with an error, those that a text can answer."""
        plain = plain_call_ids(caller.message)
        names = {call.id or "": call.name for call in caller.message.tool_calls}
        for i, call in enumerate(list(caller.open_ids)):
            if call not in plain:
                continue
            caller.open_ids.remove(call)
            legacy = legacy_name(call)
            result = Message(
                "tool" if legacy is None else "function",
                "Error: this call was interrupted and has no result.",
                tool_call_id=call if legacy is None else None,
                name=names.get(call) if legacy is None else legacy,
                message_id=f"{caller.message.message_id}#{i}",
                create_time=caller.message.create_time,
            )
            caller.answers.append((call, result))
            self._callers[call].remove(caller)


_NOTHING = msgspec.structs.replace(Message("tool"), message_id="tsmemory:nothing")
"""In the place of a result that is shown with another call."""
