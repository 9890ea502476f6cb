"""One agent's part of a session: what it adds, and what it is shown. Steps, for sync and async.

A model call (`Transcript.show`) is one request where it is known which messages of the state are
new: they are appended, and the window is read with it. That is known

1. where one of the state's ids is known to be stored (`memory`): those behind it that are not;
2. where the state is a run's input alone;
3. with a checkpointer, whose states this middleware has stored before: the input behind the last
   answer. The read shows whether the message before it is stored; if not (the thread began without
   this middleware), all that is missing is put in its place.

Otherwise (a client sends the whole conversation again) the window is read first.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

import msgspec
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage, ToolMessage

from langchain_tsmemory.mapping import message_id, to_neutral
from langchain_tsmemory.middleware.branches import RECORD, Place, hidden_ids, recorded
from langchain_tsmemory.middleware.memory import SessionIds, aligned, inputs, unstored
from langchain_tsmemory.middleware.request import request_messages
from tsmemory import ConflictError, Conversation, Message, Window, WindowReport
from tsmemory.adapters import append_distinct
from tsmemory.engine.steps import Steps

__all__ = ["Shown", "Transcript"]

_TAIL = 64  # messages read at the end of a run where nothing is known: more than most runs add
_ADOPTED = 500  # messages read to see what of a thread that began without us is stored


class Shown(NamedTuple):
    """A model call's messages."""

    messages: list[AnyMessage]
    stable: int
    """How many of the first will begin the next request too, unless the window's start moves."""
    version: int
    """The session's."""
    known: Container[str]
    """Ids that an answer must not have."""
    last: str | None
    """The store's id of the last message of the state."""


class Transcript:
    """A session as an agent's run uses it."""

    def __init__(
        self,
        chat: Conversation,
        where: Place,
        ids: SessionIds,
        *,
        window: Window,
        transient: Callable[[BaseMessage], bool],
        parent: str | None,
    ) -> None:
        self.chat = chat
        self.place = where
        self.ids = ids
        self.window = window
        self.transient = transient
        self.parent = parent
        self._rows: Sequence[Message] = ()
        """The newest messages of the session, as the last window has read them."""

    def _belongs(self, message: BaseMessage) -> bool:
        return not isinstance(message, RemoveMessage) and not self.transient(message)

    # -- before a model call -------------------------------------------------------------------

    def show(self, state: Sequence[BaseMessage], requested: Sequence[AnyMessage]) -> Steps[Shown]:
        """Store what is new in the state, and give what the model is shown."""
        history = [m for m in [*state, *_repairs(requested)] if self._belongs(m)]
        names = [message_id(m.id) if m.id is not None else "" for m in history]
        first = inputs(history)
        new: list[int] | None = None
        if any(name in self.ids.stored for name in names):
            new = unstored(names, self.ids.stored)
        elif first == 0 or self.place.saver is not None:
            new = list(range(first, len(history)))
        report, version = None, 0
        if new is not None:
            try:
                report, version = yield from self._append_and_window(history, names, new)
            except ConflictError:
                report = None  # stored already, by another, or before it was edited
        if report is None:
            report, version = yield from self._window(history, names)
            names = self._recognised(history, names, first, report)
            new = [i for i in unstored(names, self.ids.stored) if names[i]]
            new = yield from self._without_stored(names, new)
            report, version = yield from self._append_and_window(history, names, new)
        elif first and names[first - 1] not in self.ids.stored:
            report, version = yield from self._adopt(history, names, first, report, version)
        return self._shown(history, names, state, requested, report, version)

    def _append_and_window(
        self, history: Sequence[BaseMessage], names: Sequence[str], new: Sequence[int]
    ) -> Steps[tuple[WindowReport, int]]:
        messages = [self._record(history[i], names, i) for i in new]
        done = yield from self.chat.steps.append_and_window(
            messages, self.window, hide=self._hide(history, names)
        )
        self.ids.stored.update(m.message_id for m in messages)
        session = done.session
        if messages and self.parent is not None and session is not None:
            yield from self._name_parent(session.message_count == len(messages))
        return done.window, session.version if session is not None else 0

    def _window(
        self, history: Sequence[BaseMessage], names: Sequence[str]
    ) -> Steps[tuple[WindowReport, int]]:
        report = yield from self.chat.steps.window(self.window, hide=self._hide(history, names))
        return report, 0

    def _hide(
        self, history: Sequence[BaseMessage], names: Sequence[str]
    ) -> Callable[[Sequence[Message]], set[str]]:
        state = [(name, isinstance(m, AIMessage)) for name, m in zip(names, history, strict=True)]

        def hide(rows: Sequence[Message]) -> set[str]:
            self._rows = rows
            self.ids.stored.update(self._whole(rows))
            return hidden_ids(rows, state, self.place)

        return hide

    def _whole(self, rows: Sequence[Message]) -> set[str]:
        """The ids of `rows`, but for those that the whole of a stopped answer may come under."""
        return {m.message_id for m in rows if not self._is_partial(m)}

    def _is_partial(self, message: Message) -> bool:
        where = message.metadata.get(RECORD)
        if not isinstance(where, dict) or not where.get("partial"):
            return False
        return recorded(message, self.place) is not None

    def _record(
        self, message: BaseMessage, names: Sequence[str], i: int, *, partial: bool = False
    ) -> Message:
        after = names[i - 1] if i else None
        after = self.ids.followed.get(after, after) if after is not None else None
        neutral = to_neutral(message)
        where = self.place.record(after, partial=partial)
        return msgspec.structs.replace(
            neutral,
            message_id=names[i] or neutral.message_id,
            metadata={**neutral.metadata, RECORD: where},
        )

    def _recognised(
        self,
        history: Sequence[BaseMessage],
        names: list[str],
        first: int,
        report: WindowReport,
    ) -> list[str]:
        """`names`, those of a client's copies replaced by the ids of what they are copies of."""
        if self.place.saver is not None or any(n in self.ids.stored for n in names[:first]):
            return names
        copies = aligned(history[:first], self._rows, complete=not report.older)
        return [copies.get(i, name) for i, name in enumerate(names)]

    def _without_stored(self, names: Sequence[str], new: Sequence[int]) -> Steps[list[int]]:
        """Those of `new` that the session does not hold, further back than was read."""
        missing: list[int] = []
        for i in new:
            stored = yield from self.chat.steps.get_message(names[i])
            if stored is None:
                missing.append(i)
            else:
                self.ids.stored.add(names[i])
        return missing

    def _adopt(
        self,
        history: Sequence[BaseMessage],
        names: Sequence[str],
        first: int,
        report: WindowReport,
        version: int,
    ) -> Steps[tuple[WindowReport, int]]:
        """Put what the state holds of before this middleware into its place, before the input."""
        page = yield from self.chat.steps.list_messages(order="desc", limit=_ADOPTED)
        times = {m.message_id: m.create_time or 0 for m in page.items}
        self.ids.stored.update(times)
        missing = [i for i in range(first) if names[i] not in times]
        if page.next_cursor is not None:
            missing = yield from self._without_stored(names, missing)
        if not missing:
            return report, version
        before = min((times[n] for n in names[first:] if n in times), default=None)
        messages = [self._record(history[i], names, i) for i in missing]
        if before is not None:
            messages = [
                msgspec.structs.replace(m, create_time=before - len(messages) + i)
                for i, m in enumerate(messages)
            ]
        yield from self.chat.steps.put_messages(messages)
        self.ids.stored.update(m.message_id for m in messages)
        return (yield from self._append_and_window(history, names, []))

    def _name_parent(self, begins: bool) -> Steps[None]:
        """Make a nested agent's transcript findable from its parent's."""
        if begins:
            about = {"parent_session_id": self.parent, "checkpoint_ns": self.place.ns}
            yield from self.chat.steps.update_session(metadata=about)

    def _shown(
        self,
        history: Sequence[BaseMessage],
        names: Sequence[str],
        state: Sequence[BaseMessage],
        requested: Sequence[AnyMessage],
        report: WindowReport,
        version: int,
    ) -> Shown:
        stored = {m.message_id: m for m in self._rows}
        by_id: dict[str | None, str] = {m.id: n for m, n in zip(history, names, strict=True)}
        for message in state:
            by_id.setdefault(message.id, message_id(message.id) if message.id is not None else "")
        messages, stable = request_messages(report, stored, requested, by_id, self.transient)
        last = names[-1] if names else None
        state_ids = set(names)
        mine = [
            m.message_id
            for m in report.messages
            if m.message_id in stored
            and (
                m.message_id in state_ids or recorded(stored[m.message_id], self.place) is not None
            )
        ]
        self.ids.followed.clear()
        if last is not None and mine:
            self.ids.followed[last] = mine[-1]
        used_ids = self._whole(self._rows) | state_ids
        self.ids.stored.intersection_update(used_ids)
        return Shown(messages, stable, version, used_ids, last)

    # -- after it --------------------------------------------------------------------------------

    def add(
        self, messages: Sequence[BaseMessage], view: Shown, version: int | None = None
    ) -> Steps[None]:
        """Store a model's answer, where nobody has written to the session since `version`."""
        history = [m for m in messages if self._belongs(m)]
        names = [view.last or "", *(message_id(m.id or "") for m in history)]
        new = [self._record(m, names, i) for i, m in enumerate(history, 1)]
        if not view.last:
            new[:1] = [self._record(history[0], names[1:], 0)] if history else []
        yield from self.chat.steps.append(new, if_version=version)
        self.ids.stored.update(m.message_id for m in new)

    def add_partial(self, heard: AIMessage, view: Shown) -> Steps[None]:
        """Store what was said of an answer that was stopped, marked as such."""
        if heard.id is not None and message_id(heard.id) in view.known:
            heard.id = str(uuid.uuid4())
        names = [view.last or "", message_id(heard.id or "")]
        message = self._record(heard, names, 1, partial=True)
        yield from self.chat.steps.append(message)

    def add_answer(self, state: Sequence[BaseMessage]) -> Steps[None]:
        """Store the newest answer of the state, and all behind it."""
        history = [m for m in state if self._belongs(m)]
        at = next(
            (i for i in range(len(history) - 1, -1, -1) if isinstance(history[i], AIMessage)), None
        )
        if at is not None:
            yield from self._append(history, range(at, len(history)))

    def complete(self, state: Sequence[BaseMessage]) -> Steps[None]:
        """Store what of the state is not stored yet, at the end of a run."""
        history = [m for m in state if self._belongs(m)]
        names = [message_id(m.id) if m.id is not None else "" for m in history]
        if not any(name in self.ids.stored for name in names):
            page = yield from self.chat.steps.list_messages(order="desc", limit=_TAIL)
            self.ids.stored.update(m.message_id for m in page.items)
        yield from self._append(history, unstored(names, self.ids.stored))

    def _append(self, history: Sequence[BaseMessage], positions: Sequence[int]) -> Steps[None]:
        names = [message_id(m.id) if m.id is not None else "" for m in history]
        new = [
            self._record(history[i], names, i) for i in positions if names[i] not in self.ids.stored
        ]
        if not new:
            return
        try:
            yield from self.chat.steps.append(new)
        except ConflictError:
            completed: set[str] = set()
            for message in new:
                if (yield from self._completed(message)):
                    completed.add(message.message_id)
            left = [m for m in new if m.message_id not in completed]
            yield from append_distinct(self.chat, left, _says_the_same)
        self.ids.stored.update(m.message_id for m in new)

    def _completed(self, message: Message) -> Steps[bool]:
        """Whether `message` has taken the place of what was stored of it when it was stopped."""
        stored = yield from self.chat.steps.get_message(message.message_id)
        if stored is None or not self._is_partial(stored):
            return False
        yield from self.chat.steps.put_message(message)
        return True


def _says_the_same(stored: Message, message: Message) -> bool:
    """Whether the state's message is the stored one, whatever else was noted in it since."""
    return (stored.role, stored.text, stored.tool_calls) == (
        message.role,
        message.text,
        message.tool_calls,
    )


def _repairs(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The answers that LangChain has given to calls it could not parse, on their way to the state.

    They get their ids here, before it gives them others.
    """
    repairs: list[BaseMessage] = []
    for i, message in enumerate(messages):
        if isinstance(message, ToolMessage) and message.id is None:
            message.id = _result_id(messages[:i], message.tool_call_id)
            if message.id is not None:
                repairs.append(message)
    return repairs


def _result_id(messages: Sequence[BaseMessage], call_id: str | None) -> str | None:
    """An id for the result of a tool call, the same each time."""
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            calls = [c.get("id") for c in (*message.tool_calls, *message.invalid_tool_calls)]
            if message.id and call_id and calls.count(call_id) == 1:
                return f"{message.id}:{call_id}"
    return None
