"""What a process knows of the sessions that its agents run in, and what of a state is new.

Knowing which ids are stored saves the read that finds them: a model call is one append-and-window,
and one append of the answer. What is not known here is looked for in the store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage

from langchain_tsmemory.mapping import to_neutral
from tsmemory import Message
from tsmemory.engine.locks import releasing

__all__ = ["SessionIds", "Sessions", "aligned", "unstored"]

_MAX_SESSIONS = 1024


class SessionIds:
    """The ids of a session's newest messages."""

    __slots__ = ("followed", "stored")

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.followed: dict[str, str] = {}
        """By the id of a state's last message: of the last message that the model was shown of its
        thread, which is another where a crash has left more in the store than in the state."""


class Sessions:
    """The sessions used last, at most 1,024."""

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, str], SessionIds] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, user_id: str, session_id: str) -> SessionIds:
        """A session's ids; none where it was not used."""
        key = (user_id, session_id)
        with releasing(self._lock), self._lock:
            ids = self._ids.setdefault(key, SessionIds())
            self._ids.move_to_end(key)
            while len(self._ids) > _MAX_SESSIONS:
                self._ids.popitem(last=False)
            return ids


def unstored(names: Sequence[str], stored: set[str]) -> list[int]:
    """The positions of the names that are not stored: behind the first that is, because what stands
    before it was stored by earlier runs."""
    first = next((i for i, name in enumerate(names) if name in stored), 0)
    return [i for i in range(first, len(names)) if names[i] not in stored]


def aligned(
    state: Sequence[BaseMessage], rows: Sequence[Message], *, complete: bool
) -> dict[int, str]:
    """Which stored message each of a state is, by content, where its ids are not known.

    A client that sends the whole conversation each time without ids: its messages, the new input
    apart, are the newest of the session, or (it edited something) begin as the session does.

    Args:
        state: the messages before the new input.
        rows: the newest of the session.
        complete: all of it.
    """
    stored = [_said(m) for m in rows]
    visible = [i for i, (role, text) in enumerate(stored) if role != "tool" and text.strip()]
    sent = [(i, _said(to_neutral(m))) for i, m in enumerate(state)]
    sent = [(i, what) for i, what in sent if what[0] != "tool" and what[1].strip()]
    if not sent or not visible:
        return {}
    newest = visible[-len(sent) :]
    if (len(newest) == len(sent) or not complete) and all(
        stored[k] == what for k, (_, what) in zip(reversed(newest), reversed(sent), strict=False)
    ):
        return {
            i: rows[k].message_id
            for k, (i, _) in zip(reversed(newest), reversed(sent), strict=False)
        }
    copies: dict[int, str] = {}
    if complete:
        for k, (i, what) in zip(visible, sent, strict=False):
            if stored[k] != what:
                break
            copies[i] = rows[k].message_id
    return copies


def _said(message: Message) -> tuple[str, str]:
    return message.role, message.text


def inputs(state: Sequence[BaseMessage]) -> int:
    """The position behind the newest message of the model: where a run's new input begins."""
    for i in range(len(state) - 1, -1, -1):
        if isinstance(state[i], AIMessage):
            return i + 1
    return 0
