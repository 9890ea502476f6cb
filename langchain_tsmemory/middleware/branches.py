"""Which messages of a transcript belong to what an agent's state holds.

The transcript is a line and keeps everything; the states of a thread are a tree: a run can begin at
an earlier checkpoint, ask again, edit, remove. So each message is stored with where it came from,
under `RECORD` in its metadata, and a reader sees without another read which messages are of a
branch that was left:

    thread      the thread's id
    ns          the checkpoint namespace of the agent in it: "" for the outermost
    after       the id of the message that it followed; None for the first that a run was given
    saver       the checkpointer that has the thread; None where a run begins with nothing
    partial     true: the answer was stopped before its end

With a checkpointer the state is all there is: its thread's messages that are not in it were left
behind (a fork) or removed. Without one, a run is given only what is new, and then:

1. what the state holds, and what led to it, is shown;
2. of two messages that followed the same one, the newer is shown (asked again), and nothing that
   followed the older;
3. what followed a message of the state that goes on otherwise is not shown;
4. what followed the last of the state is not shown where it is a whole answer: the question is
   asked again; it is shown where a crash has left it unfinished.

Messages without a record, or with another thread's, were written by others and are shown.
"""

from __future__ import annotations

import itertools
import uuid
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langgraph.checkpoint.memory import InMemorySaver

from langchain_tsmemory._partial import RECORD
from tsmemory import Message

__all__ = ["RECORD", "Place", "hidden_ids", "recorded", "saver_name"]


class Place(NamedTuple):
    """Where in LangGraph an agent runs."""

    thread: str
    ns: str
    saver: str | None

    def record(self, after: str | None, *, partial: bool = False) -> dict[str, Any]:
        """What is stored with a message that followed `after`."""
        origin: dict[str, Any] = {"thread": self.thread, "ns": self.ns, "after": after}
        if self.saver is not None:
            origin["saver"] = self.saver
        if partial:
            origin["partial"] = True
        return origin


_in_memory: weakref.WeakKeyDictionary[InMemorySaver, str] = weakref.WeakKeyDictionary()


def saver_name(checkpointer: Any) -> str | None:
    """What tells a checkpointer's threads from those of another: one that keeps them in memory has
    lost them when the process ends, and what was said in them is shown all the same."""
    if checkpointer is None or isinstance(checkpointer, bool):
        return None
    if isinstance(checkpointer, InMemorySaver):
        return _in_memory.setdefault(checkpointer, f"memory:{uuid.uuid4().hex}")
    return type(checkpointer).__name__


def recorded(message: Message, where: Place) -> Mapping[str, Any] | None:
    """The record of a message that this agent's thread has; None for one of others."""
    origin = message.metadata.get(RECORD)
    if not isinstance(origin, Mapping):
        return None
    if (origin.get("thread"), origin.get("ns"), origin.get("saver")) != where:
        return None
    return origin


def hidden_ids(
    rows: Sequence[Message], state: Sequence[tuple[str, bool]], where: Place
) -> set[str]:
    """The ids of the messages of `rows` that are not part of what the state holds.

    Args:
        rows: the newest messages of the session, in reading order.
        state: the id of each message of the state, and whether it is the model's.
    """
    records = {m.message_id: origin for m in rows if (origin := recorded(m, where)) is not None}
    if where.saver is not None:
        return _without_state(records, state)
    return _other_branches(rows, records, state)


def _without_state(
    records: Mapping[str, Mapping[str, Any]], state: Sequence[tuple[str, bool]]
) -> set[str]:
    state_ids = {name for name, _ in state}
    answered = {name for (name, _), (_, by_model) in itertools.pairwise(state) if by_model}
    return {
        name
        for name, record in records.items()
        if name not in state_ids
        and not (record.get("partial") and record["after"] in state_ids - answered)
    }


def _other_branches(
    rows: Sequence[Message],
    records: Mapping[str, Mapping[str, Any]],
    state: Sequence[tuple[str, bool]],
) -> set[str]:
    state_ids = {name for name, _ in state}
    path = _ancestors(state_ids, records)
    newest = {
        record["after"]: name for name, record in records.items() if record["after"] is not None
    }
    for name in state_ids | path:
        if name in records:
            newest[records[name]["after"]] = name
    last = state[-1][0] if state else None
    hidden: set[str] = set()
    behind: dict[str, Message] = {}
    by_id = {m.message_id: m for m in rows}
    for name, record in records.items():
        after = record["after"]
        if name in state_ids or name in path or after is None:
            continue
        if after in hidden or newest[after] != name or (after in state_ids and after != last):
            hidden.add(name)
        elif after == last or after in behind:
            behind[name] = by_id[name]
    if behind:
        end = list(behind.values())[-1]
        if end.role == "assistant" and not end.tool_calls:
            hidden |= set(behind)
    return hidden


def _ancestors(names: set[str], records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    ancestors: set[str] = set()
    for name in names:
        at = records[name]["after"] if name in records else None
        while at is not None and at not in ancestors and at not in names:
            ancestors.add(at)
            at = records[at]["after"] if at in records else None
    return ancestors
