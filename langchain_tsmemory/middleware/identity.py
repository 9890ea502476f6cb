"""Whose conversation a run is, and where in LangGraph it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from langgraph.config import get_config

from langchain_tsmemory._identity import (
    DEFAULT_USER,
    SESSION_NAMES,
    USER_NAMES,
    Identity,
    named,
)
from langchain_tsmemory.middleware.branches import Place, saver_name
from tsmemory import InvalidInputError

__all__ = ["Identity", "Run", "run_of"]

_CHECKPOINTER = "__pregel_checkpointer"  # langgraph._internal._constants.CONFIG_KEY_CHECKPOINTER
_TASK_ID = re.compile(r":[0-9a-f-]{36}")
_TOOLS = "tools:"  # how the namespace of what runs in a tool call of `create_agent` begins


class Run(NamedTuple):
    """Whose conversation, and where."""

    user_id: str
    session_id: str
    place: Place
    nested: bool
    """The session was inherited by an agent that runs inside a tool call of another."""


def run_of(runtime: Any, session_id: Identity | None, user_id: Identity | None) -> Run:
    """The identity of the run that a hook is called in.

    Raises:
        InvalidInputError: nothing names a session, or one names a user that is None.
    """
    config = getattr(runtime, "config", None) or _config()
    configurable = dict(config.get("configurable") or {})
    info = getattr(runtime, "execution_info", None)
    if info is not None:
        # Where the context variable does not reach: asyncio before Python 3.11.
        if info.thread_id is not None:
            configurable.setdefault("thread_id", info.thread_id)
        if info.checkpoint_ns is not None:
            configurable.setdefault("checkpoint_ns", info.checkpoint_ns)
    context = getattr(runtime, "context", None)
    session, inherited = named(session_id, SESSION_NAMES, context, configurable)
    if session is None:
        raise InvalidInputError(
            "no session: give the run one, as config={'configurable': {'session_id': …}} or "
            "in its context, or give TSMemoryMiddleware(session_id=…)"
        )
    user, _ = named(user_id, USER_NAMES, context, configurable)
    # The last part of the namespace is the hook's own node; what stands before is the agent's.
    ns = str(configurable.get("checkpoint_ns") or "").rpartition("|")[0]
    in_tool = any(part.startswith(_TOOLS) for part in ns.split("|"))
    if not in_tool:
        # A node of a graph is the same agent in each run; a tool call is another each time.
        ns = _TASK_ID.sub("", ns)
    where = Place(
        str(configurable.get("thread_id") or ""), ns, saver_name(configurable.get(_CHECKPOINTER))
    )
    return Run(DEFAULT_USER if user is None else user, session, where, inherited and in_tool)


def _config() -> Mapping[str, Any]:
    try:
        return get_config()
    except RuntimeError:  # not in a run, or asyncio before Python 3.11
        return {}
