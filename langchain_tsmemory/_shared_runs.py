"""The two reads of a run, where one history object serves many runs at once.

A run of `RunnableWithMessageHistory` reads its history twice: as it begins, to put it before the
input, and as it ends, to cut it off the input again by its length. If another run has written in
between, or a window has moved, the lengths differ, and an input is lost or an old message stored
again. So the read at the end of a run must be answered with what the read at its beginning gave.

A history that serves one run (`history_factory`) only has to keep what it read. One that an
application shares between runs cannot tell by itself whose read it answers: langchain-core passes
nothing that says so (its context variable would name the run from Python 3.11 on, and never whether
it begins or ends). So this module looks for the runnable's own method among the callers, and is the
only one that looks at frames: for these reads, and for what a run is asked and how it is configured
(`_stopped_runs`).
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import deque
from collections.abc import Iterable
from types import FrameType
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from tsmemory.engine.locks import releasing

__all__ = ["SharedRuns", "run_config", "run_input"]

_OPEN_RUNS = 1024
"""Runs of one history object whose beginning is remembered: those that failed never end."""
_DEPTH = 6
"""Frames looked through for the caller: a subclass or a wrapper may be in between."""
_ENTERS = frozenset({"_enter_history", "_aenter_history"})
_EXITS = frozenset({"_exit_history", "_aexit_history"})
_CONFIGURES = frozenset({"_merge_configs"})
_RUNNABLE_MODULE = "langchain_core.runnables.history"


class _Run(NamedTuple):
    """The beginning of a run: how many messages it was given, and the last of them."""

    length: int
    last: BaseMessage | None


class SharedRuns:
    """The runs of one history object that have begun and not ended."""

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque(maxlen=_OPEN_RUNS)
        self._lock = threading.RLock()

    def end(self) -> list[BaseMessage] | None:
        """What the run that is ending was given as it began; None where the caller is none.

        The run is known by its input, which begins with what it was given.
        """
        frame = _runnable_frame(_EXITS)
        if frame is None:
            return None
        messages = frame.f_locals.get("input_messages")
        if not isinstance(messages, list):
            return None
        with releasing(self._lock), self._lock:
            run = _which(self._runs, messages)
            if run is None:
                return None
            self._runs.remove(run)
        return messages[: run.length]

    def begin(self, messages: list[BaseMessage]) -> None:
        """Remember what a run is given, if the caller is one that will read again."""
        frame = _runnable_frame(_ENTERS)
        if frame is None:
            return
        runnable = frame.f_locals.get("self")
        if not getattr(runnable, "history_messages_key", None):
            with releasing(self._lock), self._lock:
                self._runs.append(_Run(len(messages), messages[-1] if messages else None))


def _which(runs: Iterable[_Run], messages: list[Any]) -> _Run | None:
    """The run whose input is `messages`: the longest beginning that it has. By identity first, for
    what LangChain does not copy; it distinguishes equal messages at one position."""
    fitting = [run for run in runs if run.length <= len(messages)]
    fitting.sort(key=lambda run: -run.length)
    for run in fitting:
        if run.length and messages[run.length - 1] is run.last:
            return run
    for run in fitting:
        if not run.length or messages[run.length - 1] == run.last:
            return run
    # A copy that is not equal: with one run at a time there is only one to choose from.
    return fitting[0] if fitting else None


def run_input() -> list[BaseMessage] | None:
    """What the run whose history is being read is asked; None where the caller is none, or its
    input is not what LangChain takes."""
    frame = _runnable_frame(_ENTERS)
    if frame is None:
        return None
    runnable, value = frame.f_locals["self"], frame.f_locals["value"]
    try:
        if runnable.input_messages_key:
            value = value[runnable.input_messages_key]
        return list(runnable._get_input_messages(value))
    except (KeyError, TypeError, ValueError):
        return None


def run_config() -> tuple[dict[str, Any] | None, bool]:
    """The configuration that a run is being given, and whether the run is async; None where the
    caller makes none. The run gets this very dict."""
    frame = _runnable_frame(_CONFIGURES)
    if frame is None:
        return None, False
    config = frame.f_locals["config"]
    caller = frame.f_back
    while caller is not None and caller.f_code.co_name == "<listcomp>":  # until Python 3.11
        caller = caller.f_back
    flags = caller.f_code.co_flags if caller is not None else 0
    return config, bool(flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))


def _runnable_frame(methods: frozenset[str]) -> FrameType | None:
    """The method of a `RunnableWithMessageHistory` among the callers, if it is one of these."""
    if _RUNNABLE_MODULE not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        if frame.f_code.co_name in methods and frame.f_globals.get("__name__") == _RUNNABLE_MODULE:
            return frame
        frame = frame.f_back
    return None
