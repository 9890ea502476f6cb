"""Conversations that are trees: a message has a parent, and an edit or a new answer is a branch.

A session here is a line, so the branch that was shown last comes in as the session. The others are
sessions of their own, on request, each from the first message to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from tsmemory.model import Message, Problem
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import attempt

__all__ = ["Branch", "branches_of", "read_branch", "read_trees"]

T = TypeVar("T")


class Branch(NamedTuple):
    leaf: str
    """The id of its last node."""
    path: list[str]
    """The ids of its nodes, from the root."""
    active: bool

    def session_of(self, session_id: str) -> str:
        """The id of the session that this branch of the conversation `session_id` comes in as."""
        return session_id if self.active else f"{session_id}#{self.leaf}"

    def metadata_of(self, session_id: str) -> dict[str, Any]:
        """What the metadata of that session say of the tree."""
        return {} if self.active else {"branch_of": session_id}


class Read(NamedTuple):
    """What was read of a branch."""

    messages: list[Message]
    ids: list[str | None]
    problems: list[Problem]


def read_branch(
    branch: Branch,
    user_id: str,
    session_id: str,
    read: Callable[[str], Iterable[tuple[str | None, Message]]],
) -> Read:
    """The messages of a branch.

    Args:
        session_id: of the session that it comes in as.
        read: the messages of a node, each with its id at the source.
    """
    result = Read([], [], [])
    for node_id in branch.path:
        problem = Problem(user_id, session_id, None, f"message {node_id}")
        turn = attempt(lambda: list(read(node_id)), problem)  # noqa: B023  # called at once
        if isinstance(turn, Problem):
            result.problems.append(turn)
            continue
        for message_id, message in turn:
            result.messages.append(message)
            result.ids.append(message_id)
    return result


def branches_of(
    nodes: Mapping[str, T],
    parent_of: Callable[[T], str | None],
    current: str | None,
    *,
    others: bool,
) -> Iterator[Branch]:
    """The active branch of a tree, and then the others.

    Args:
        nodes: by id, in the order of the source.
        current: the node shown last. Where there is none, the last leaf of the source's order.
        others: whether to give the other branches too.
    """
    parents = {name: parent_of(node) for name, node in nodes.items()}
    inner = set(parents.values())
    leaves = [name for name in nodes if name not in inner]
    if current not in nodes:
        # A cycle has no leaf: the last node then.
        current = (leaves if leaves else [None, *nodes])[-1]
    if current is None:
        return
    yield Branch(current, _path(current, parents), True)
    for leaf in leaves if others else ():
        if leaf != current:
            yield Branch(leaf, _path(leaf, parents), False)


def _path(leaf: str, parents: Mapping[str, str | None]) -> list[str]:
    path: list[str] = []
    seen: set[str] = set()
    node: str | None = leaf
    while node is not None and node in parents and node not in seen:
        seen.add(node)
        path.append(node)
        node = parents[node]
    return path[::-1]


def read_trees(
    documents: Iterable[tuple[str, Any]], user_id: str, sessions_of: Callable[[Any], list[Imported]]
) -> Iterator[Imported | Problem]:
    """The sessions of each document of an export; one problem for a document that is odd."""
    for where, raw in documents:
        sessions = attempt(
            lambda raw=raw: sessions_of(raw),  # type: ignore[misc]  # mypy infers no lambda default
            Problem(user_id, None, None, where),
        )
        if isinstance(sessions, Problem):
            yield sessions
        else:
            yield from sessions
