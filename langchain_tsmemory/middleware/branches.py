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

from tsmemory import Message

__all__ = ["RECORD", "Place", "hidden_ids", "recorded", "saver_name"]

RECORD = "langgraph"


class Place(NamedTuple):
    """Where in LangGraph an agent runs."""

    thread: str
    ns: str
    saver: str | None

    def record(self, after: str | None, *, partial: bool = False) -> dict[str, Any]:
        """What is stored with a message that followed `after`."""
        found: dict[str, Any] = {"thread": self.thread, "ns": self.ns, "after": after}
        if self.saver is not None:
            found["saver"] = self.saver
        if partial:
            found["partial"] = True
        return found


_in_memory: weakref.WeakKeyDictionary[InMemorySaver, str] = weakref.WeakKeyDictionary()


def saver_name(checkpointer: Any) -> str | None:
    """What tells a checkpointer's threads from those of another: one that keeps them in memory has
    lost them when the process ends, and what was said in them is shown all the same."""
    if checkpointer is None or isinstance(checkpointer, bool):
        return None
    if isinstance(checkpointer, InMemorySaver):
        return _in_memory.setdefault(checkpointer, f"memory:{uuid.uuid4().hex}")
    return type(checkpointer).__name__


def recorded(message: Message, place: Place) -> Mapping[str, Any] | None:
    """The record of a message that this agent's thread has; None for one of others."""
    found = message.metadata.get(RECORD)
    if not isinstance(found, Mapping):
        return None
    if (found.get("thread"), found.get("ns"), found.get("saver")) != place:
        return None
    return found


def hidden_ids(
    rows: Sequence[Message], state: Sequence[tuple[str, bool]], place: Place
) -> set[str]:
    """The ids of the messages of `rows` that are not part of what the state holds.

    Args:
        rows: the newest messages of the session, in reading order.
        state: the id of each message of the state, and whether it is the model's.
    """
    records = {m.message_id: found for m in rows if (found := recorded(m, place)) is not None}
    if place.saver is not None:
        return _without_state(records, state)
    return _other_branches(rows, records, state)


def _without_state(
    records: Mapping[str, Mapping[str, Any]], state: Sequence[tuple[str, bool]]
) -> set[str]:
    held = {name for name, _ in state}
    answered = {name for (name, _), (_, answer) in itertools.pairwise(state) if answer}
    return {
        name
        for name, record in records.items()
        if name not in held and not (record.get("partial") and record["after"] in held - answered)
    }


def _other_branches(
    rows: Sequence[Message],
    records: Mapping[str, Mapping[str, Any]],
    state: Sequence[tuple[str, bool]],
) -> set[str]:
    held = {name for name, _ in state}
    path = _ancestors(held, records)
    newest = {
        record["after"]: name for name, record in records.items() if record["after"] is not None
    }
    for name in held | path:
        if name in records:
            newest[records[name]["after"]] = name
    last = state[-1][0] if state else None
    hidden: set[str] = set()
    behind: dict[str, Message] = {}
    by_id = {m.message_id: m for m in rows}
    for name, record in records.items():
        after = record["after"]
        if name in held or name in path or after is None:
            continue
        if after in hidden or newest[after] != name or (after in held and after != last):
            hidden.add(name)
        elif after == last or after in behind:
            behind[name] = by_id[name]
    if behind:
        end = list(behind.values())[-1]
        if end.role == "assistant" and not end.tool_calls:
            hidden |= set(behind)
    return hidden


def _ancestors(names: set[str], records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    for name in names:
        at = records[name]["after"] if name in records else None
        while at is not None and at not in found and at not in names:
            found.add(at)
            at = records[at]["after"] if at in records else None
    return found
