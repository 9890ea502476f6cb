"""Windows: as little of a session is read as its view takes, and made into that view.

1. One read: the newest messages, with those instructions that stand before them, and the total and
   the record where the window asks for them. A backend that takes rows one by one ends it at the
   user message that opens the view (`MessageQuery.until`).
2. `window.cut` makes the view, or says that it takes more: then older messages are read, twice as
   many each time, until it suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Key, MessageQuery, Read
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, MessageList, Session, WindowReport
from tsmemory.usecases.arguments import position, whole
from tsmemory.usecases.search import ConversationSearchSteps
from tsmemory.window import Window, as_window, cut, opens

__all__ = ["Appended", "ConversationWindowSteps", "Hide", "window_query"]

_MARGIN = 8
"""Messages read beyond a window's `last`, to find the user message that opens it without a second
read: enough for 95 of 100 windows of 20 in the tau-bench airline dialogues."""
_FIRST_READ = 64  # messages, where only a token budget says how many are needed
Hide: TypeAlias = Callable[[Sequence[Message]], Container[str]]


class Appended(NamedTuple):
    """What `ConversationSteps.append_and_window` gives."""

    messages: list[Message]
    """As stored, in the order given."""
    session: Session | None
    """The session's record after the append; None where there is no session."""
    window: WindowReport


class ConversationWindowSteps(ConversationSearchSteps):
    """The part of `ConversationSteps` that makes windows."""

    __slots__ = ()

    if TYPE_CHECKING:
        backend: Backend
        key: Key

    def window(
        self,
        last: Window | int | None = None,
        *,
        explain: bool = False,
        hide: Hide | None = None,
    ) -> Steps[WindowReport]:
        """Same as `Conversation.window`, but always the report.

        Args:
            explain: with what is left out.
            hide: from the newest messages, in reading order, the ids of those that are not to be
                shown. It is called again with more of them where they do not suffice.
        """
        policy = as_window(last)
        if policy.last == 0:
            return WindowReport(MessageList(), [], older=False)
        query = window_query(policy, session=policy.summary, whole=explain or hide is not None)
        read = yield from self.backend.read(self.key, query)
        return (yield from self._cut(policy, query, read, explain, hide))

    def _cut(
        self, policy: Window, query: MessageQuery, read: Read, explain: bool, hide: Hide | None
    ) -> Steps[WindowReport]:
        """The view that `policy` makes of what was read, reading on while that is too little."""
        summary = None
        if policy.summary:
            session = whole(read.session)
            summary = session.summary if session else None
        pinned = [whole(row) for row in read.pinned]
        tail = _whole(read.rows)
        complete = query.limit is None or (len(read.rows) < query.limit and not read.more)
        while True:
            view = cut(
                tail,
                pinned,
                policy,
                complete=complete,
                total=read.total,
                summary=summary,
                explain=explain,
                hidden=hide(tail) if hide else (),
            )
            if view is not None:
                return view
            limit = max(len(tail), _FIRST_READ)
            older = MessageQuery(limit=limit, descending=True, after=position(tail[0]))
            rows = (yield from self.backend.read(self.key, older)).rows
            tail = _whole(rows) + tail
            complete = len(rows) < limit


def window_query(policy: Window, *, session: bool, whole: bool) -> MessageQuery:
    """What to read for a window at first.

    Args:
        session: also the session's record.
        whole: all of it, even where a backend could stop at the message that opens the view.
    """
    limit, least = None, 0
    if policy.last is not None:
        least = policy.last + (policy.step or 1) - 1
        limit = least + _MARGIN
    elif policy.max_tokens is not None:
        limit = _FIRST_READ
    early = least > 0 and policy.max_tokens is None and policy.start == "user" and not whole
    return MessageQuery(
        limit=limit,
        descending=True,
        pinned=policy.system != "drop",
        total=policy.step is not None,
        session=session,
        until=opens if early else None,
        least=least,
    )


def _whole(rows: Sequence[Message | CorruptRecordError]) -> list[Message]:
    """Rows from the newest on, in reading order; a broken one is raised."""
    return [row if type(row) is Message else whole(row) for row in reversed(rows)]
